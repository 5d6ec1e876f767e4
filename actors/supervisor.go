package actors

import (
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"pando.dev/pando/actors/mailbox"
	"pando.dev/pando/cluster"
	"pando.dev/pando/cluster/control"
	"pando.dev/pando/partition"
)

// reconcileEvery repeats what hints start anyway, for hints may be lost.
const reconcileEvery = 5 * time.Second

// supervisor is the root of the node's actors.
//
//	node
//	 |- membership   who is there: gossip in, links and routes out
//	 |- tender       brings the groups mastered here to what they shall be
//	 `- replicas     one child per replica
//
// The links' actors are supervised by the links, the log has a committer of its
// own, and the control group is run by its library.
type supervisor struct {
	node     *Node
	strategy *mailbox.Backoff
}

func newSupervisor(n *Node) *supervisor {
	return &supervisor{node: n, strategy: mailbox.NewBackoff(mailbox.BackoffConfig{
		OnRestart: func(f mailbox.Failure) {
			n.logger.Error("actor failed", "actor", f.Child.Id, "err", f.Reason, "delay", f.Delay)
		},
		OnGiveUp: func(f mailbox.Failure) {
			n.cfg.Fatal(partition.Errorf(partition.CodeInternal, "actor %s failed too often: %v", f.Child.Id, f.Reason))
		},
	})}
}

// Receive runs on the actor's own mailbox and never blocks.
func (s *supervisor) Receive(ctx actor.Context) {
	switch ctx.Message().(type) {
	case *actor.Started:
		members := &membership{node: s.node}
		s.spawn(ctx, "membership", func() actor.Actor { return members }, nil)
		replicas := newReplicas(s.node)
		pid := s.spawn(ctx, "replicas", func() actor.Actor { return replicas }, replicas.strategy)
		s.node.replicas.Store(pid)
		tender := newTenderActor(s.node)
		s.spawn(ctx, "tender", func() actor.Actor { return tender }, nil)
		s.node.watch(s.node.control.Changed, pid, func(p *atomic.Bool) any { return catalogChanged{p} })
		s.node.up.Store(true)
	case *actor.Stopping:
		s.strategy.Close()
	}
}

func (s *supervisor) spawn(ctx actor.Context, name string, make func() actor.Actor, forChildren actor.SupervisorStrategy) *actor.PID {
	box := mailbox.New[any](mailbox.Config{})
	opts := []actor.PropsOption{actor.WithMailbox(box.Producer())}
	if forChildren != nil {
		opts = append(opts, actor.WithSupervisor(forChildren))
	}
	pid, err := ctx.SpawnNamed(actor.PropsFromProducer(make, opts...), name)
	if err != nil {
		s.node.cfg.Fatal(fmt.Errorf("start actor %s: %w", name, err))
	}
	return pid
}

// watch sends a message to an actor at once, whenever something has changed, and
// now and then besides, until the node stops. Changed returns a channel that is
// closed at the next change. The message carries a flag which the actor clears
// before it looks: until then no other is sent, so a slow actor is not buried.
func (n *Node) watch(changed func() <-chan struct{}, to *actor.PID, msg func(pending *atomic.Bool) any) {
	pending := new(atomic.Bool)
	n.background.Go(func() {
		n.onChange(changed, func() {
			if !pending.Swap(true) {
				n.system.Root.Send(to, msg(pending))
			}
		})
	})
}

// onChange calls look at once, after every change, and every reconcileEvery.
func (n *Node) onChange(changed func() <-chan struct{}, look func()) {
	tick := time.NewTicker(reconcileEvery)
	defer tick.Stop()
	for {
		next := changed()
		look()
		select {
		case <-n.ctx.Done():
			return
		case <-next:
		case <-tick.C:
		}
	}
}

// tellSeat keeps the gossip tags in agreement with the control group.
func (n *Node) tellSeat() {
	tags := map[string]string{}
	n.onChange(n.control.Changed, func() {
		st := n.control.Status()
		want := map[string]string{cluster.TagSeat: "", cluster.TagControlGroup: ""}
		if st.HasSeat {
			want[cluster.TagSeat] = "1"
		}
		if st.Group != 0 {
			want[cluster.TagControlGroup] = strconv.FormatUint(st.Group, 36)
		}
		for _, tag := range []string{cluster.TagControlGroup, cluster.TagSeat} {
			if tags[tag] == want[tag] {
				continue
			}
			if err := n.gossip.SetTag(tag, want[tag]); err != nil {
				n.logger.Debug("gossip tag not set", "tag", tag, "err", err)
				continue
			}
			tags[tag] = want[tag]
		}
	})
}

// membershipChanged tells that somebody came, went or moved. At most one is on its
// way.
type membershipChanged struct{ pending *atomic.Bool }

// membership keeps links and routes in agreement with gossip. It never trusts a
// single event: each time it compares everything with who is there.
type membership struct {
	node  *Node
	watch sync.Once // it survives a restart
}

// Receive runs on the actor's own mailbox and never blocks.
func (m *membership) Receive(ctx actor.Context) {
	switch x := ctx.Message().(type) {
	case *actor.Started:
		m.watch.Do(func() {
			m.node.watch(m.node.gossip.Changed, ctx.Self(), func(p *atomic.Bool) any { return membershipChanged{p} })
		})
	case membershipChanged:
		x.pending.Store(false)
		m.reconcile()
	}
}

func (m *membership) reconcile() {
	members := m.node.gossip.Members()
	var peers []partition.NodeID
	for _, x := range members {
		if x.ID != m.node.ID() && x.Status != cluster.Left {
			peers = append(peers, x.ID)
		}
	}
	m.node.members.Store(&members)
	m.node.links.SetPeers(peers)
	m.node.routing.update(members)
}

// controlPeers is what the control group needs to know of the nodes.
func (n *Node) controlPeers() []control.PeerInfo {
	var out []control.PeerInfo
	for _, m := range n.gossip.Members() {
		if m.Status == cluster.Alive {
			out = append(out, control.PeerInfo{Node: m.ID, Boot: m.Boot, Zone: m.Zone, Expect: m.Expect, Seat: m.Seat})
		}
	}
	return out
}

// Members returns all nodes that this one knows, by id.
func (n *Node) Members() []MemberInfo {
	var out []MemberInfo
	for _, m := range n.gossip.Members() {
		status := string(m.Status)
		if m.Status == cluster.Alive && !n.leases.Reachable(m.ID) {
			status = "unreachable" // gossip learns of a death seconds later
		}
		out = append(out, MemberInfo{
			Node: m.ID, Boot: m.Boot, Zone: m.Zone, Status: status, Link: m.Link, HTTP: m.HTTP,
			Gossip: m.Gossip, Version: m.Version, Seat: m.Seat, Mode: wordOf(m.Mode).mode(), Sick: m.Sick,
		})
	}
	return out
}
