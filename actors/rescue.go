package actors

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"pando.dev/pando/cluster"
	"pando.dev/pando/cluster/control"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
)

const (
	// rescueAgain is the pause before a survivor's node is told once more what to
	// do; decreeWait bounds one question to the control group.
	rescueAgain = 200 * time.Millisecond
	decreeWait  = 5 * time.Second
	// maxRefusals is how often a survivor must refuse a decree for that to be the
	// answer.
	maxRefusals = 5
	// letLeadAgain is the pause between two looks whether other survivors may be
	// master, and letLeadWait bounds how long that is pursued.
	letLeadAgain = time.Second
	letLeadWait  = time.Hour
)

// RecoverOutcome is what became of a plan.
type RecoverOutcome struct {
	Plan   string          `json:"plan"`
	Groups []RescueOutcome `json:"partitions"`
}

// RescueOutcome is what became of one partition of a plan.
type RescueOutcome struct {
	Group partition.GroupID `json:"group"`
	Node  partition.NodeID  `json:"node"` // who goes on
	// Number is the in-sync number that the control group decreed; 0: none.
	Number uint64 `json:"in_sync_number"`
	// Done: the configuration of those that are left is committed.
	Done bool   `json:"done"`
	Loss string `json:"loss"` // as the plan said
	Code string `json:"code,omitempty"`
	Why  string `json:"why,omitempty"`
	Next string `json:"next,omitempty"`
}

// decree tells a node that its replica of a group goes on with the members of
// the configuration, which names the control group's number.
type decree struct {
	Group      partition.GroupID   `json:"group"`
	Replica    partition.ReplicaID `json:"replica"`
	Membership []byte              `json:"membership"`
}

// surveys describes this node's replicas of the given groups for a recovery.
func (n *Node) surveys(groups []partition.GroupID) []survey {
	out := make([]survey, 0, len(groups))
	for _, g := range groups {
		c := n.cells.get(g)
		if c == nil {
			continue
		}
		s := survey{Group: g, Role: "opening", Opening: true}
		if st, v := c.status.Load(), c.view.Load(); st != nil && v != nil {
			s = survey{
				Group: g, Replica: v.Self, Role: st.Role, Serving: st.Serving, Last: st.Last, Commit: st.Commit,
				Removed: st.Removed, Configs: encodeConfigurations(v.Configurations),
			}
		}
		if b := c.broken.Load(); b != nil {
			s.Broken, s.Opening = b.Why[:min(len(b.Why), maxWhyBytes)], false
		}
		if s.Replica == 0 {
			if r := c.route.Load(); r != nil {
				m, _ := r.Membership.OnNode(n.ID())
				s.Replica = m.Replica
			}
		}
		out = append(out, s)
	}
	return out
}

// serveSurvey answers another node's question for surveys.
func (n *Node) serveSurvey(body []byte) ([]byte, error) {
	var groups []partition.GroupID
	if err := json.Unmarshal(body, &groups); err != nil || len(groups) > MaxRecover {
		return nil, partition.Errorf(partition.CodeInvalid, "a question for surveys that cannot be read, or of over %d groups", MaxRecover)
	}
	return json.Marshal(n.surveys(groups))
}

// surveyAll asks every node that may be there about the groups, all at once.
func (n *Node) surveyAll(ctx context.Context, nodes []partition.NodeID, groups []partition.GroupID) map[partition.NodeID]map[partition.GroupID]*survey {
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	var mu sync.Mutex
	all := make(map[partition.NodeID]map[partition.GroupID]*survey)
	var wg sync.WaitGroup
	for _, node := range nodes {
		wg.Go(func() {
			got, err := n.askSurvey(ctx, node, groups)
			if err != nil {
				n.logger.Debug("no survey", "node", node, "err", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			all[node] = got
		})
	}
	wg.Wait()
	return all
}

func (n *Node) askSurvey(ctx context.Context, node partition.NodeID, groups []partition.GroupID) (map[partition.GroupID]*survey, error) {
	list := n.surveys(groups)
	if node != n.ID() {
		var err error
		if list, err = askNode[[]survey](ctx, n, node, callSurvey, groups); err != nil {
			return nil, err
		}
	}
	all := make(map[partition.GroupID]*survey, len(list))
	for i := range list {
		s := &list[i]
		r := report{Configs: s.Configs}
		s.active = r.configurations()
		all[s.Group] = s
	}
	return all, nil
}

// RecoverPlan says which partitions have lost their failover quorum, what would
// bring them back, and what may be lost by that. It changes nothing.
func (n *Node) RecoverPlan(ctx context.Context, ask RecoverAsk) (RecoverPlan, error) {
	plan := RecoverPlan{Dead: slices.Clone(ask.Dead), Groups: []PartitionRescue{}}
	slices.Sort(plan.Dead)
	plan.Dead = slices.Compact(plan.Dead)
	cat := n.lastCatalog()
	groups, err := n.needy(ctx, cat, ask.Groups)
	if err != nil {
		return plan, err
	}
	if len(groups) > MaxRecover {
		groups = groups[:MaxRecover]
	}
	ids := make([]partition.GroupID, len(groups))
	for i, g := range groups {
		ids[i] = g.ID
	}
	surveys := n.surveyAll(ctx, n.everyNode(groups), ids)
	if err := n.checkDead(plan.Dead, groups, surveys); err != nil {
		return plan, err
	}
	permits, err := n.permitsOf(ctx, ids)
	if cat.Version == 0 && err == nil {
		_, err = n.catalog() // that no partition is known does not say that there is none
	}
	if err != nil {
		plan.Control = n.controlLost(err)
	}
	for i, g := range groups {
		f := &groupFacts{group: g, dead: plan.Dead, surveys: map[partition.NodeID]*survey{}, answered: map[partition.NodeID]bool{}}
		if t, ok := cat.TableOf(g); ok {
			f.table = t.Name
		}
		if err == nil {
			f.permit = permits[i]
		}
		for node, all := range surveys {
			f.answered[node] = true
			if s := all[g.ID]; s != nil {
				f.surveys[node] = s
			}
		}
		p := planGroup(f)
		if len(ask.Groups) > 0 || p.State != RecoverServes {
			plan.Groups = append(plan.Groups, p)
		}
	}
	if plan.Control == "" {
		plan.Plan = planID(plan.Groups, plan.Dead)
	}
	return plan, nil
}

// lastCatalog is the newest catalog that this node has, from before its start if
// the control group has not answered since.
func (n *Node) lastCatalog() *control.Catalog {
	if cat := n.control.Catalog(); cat.Version > 0 || n.recalled == nil {
		return cat
	}
	return n.recalled
}

// needy returns the groups that were named, or those that take no writes now.
func (n *Node) needy(ctx context.Context, cat *control.Catalog, named []partition.GroupID) ([]*control.Group, error) {
	var groups []*control.Group
	if len(named) > MaxRecover {
		return nil, partition.Errorf(partition.CodeTooLarge, "a plan for %d partitions, limit %d", len(named), MaxRecover)
	}
	for _, id := range named {
		g, ok := cat.Group(id)
		if !ok {
			return nil, &partition.Error{
				Code: partition.CodeNotFound, Why: fmt.Sprintf("there is no partition %s", id), Next: "list them with: pando partition ls",
			}
		}
		if !slices.Contains(groups, g) {
			groups = append(groups, g)
		}
	}
	if len(named) > 0 {
		return groups, nil
	}
	for i, p := range n.describe(ctx, cat, cat.AllGroups()) {
		if p.Master == "" || p.CanLose < 0 {
			groups = append(groups, cat.AllGroups()[i])
		}
	}
	return groups, nil
}

// everyNode lists the nodes that gossip knows and those that the groups name.
func (n *Node) everyNode(groups []*control.Group) []partition.NodeID {
	all := []partition.NodeID{n.ID()}
	for _, m := range n.gossip.Members() {
		all = append(all, m.ID)
	}
	for _, g := range groups {
		for _, m := range g.Membership.Members {
			all = append(all, m.Node)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// checkDead refuses an operator's word that cannot be true.
func (n *Node) checkDead(dead []partition.NodeID, groups []*control.Group, surveys map[partition.NodeID]map[partition.GroupID]*survey) error {
	known := n.everyNode(groups)
	for _, all := range surveys {
		for _, s := range all {
			for _, m := range everyMember(s.active) {
				known = append(known, m.Node)
			}
		}
	}
	for _, d := range dead {
		alive := slices.ContainsFunc(n.gossip.Members(), func(m cluster.Node) bool { return m.ID == d && m.Status == cluster.Alive })
		switch {
		case surveys[d] != nil:
			return &partition.Error{
				Code: partition.CodeRefused, Why: fmt.Sprintf("node %s is not dead: it answers", d),
				Next: "leave it out; if it shall go for good, stop it first",
			}
		case alive:
			return &partition.Error{
				Code: partition.CodeRefused, Why: fmt.Sprintf("node %s is not known to be dead: gossip still hears it", d),
				Next: "stop it, or wait until pando members shows that it failed",
			}
		case !slices.Contains(known, d):
			return &partition.Error{
				Code: partition.CodeInvalid, Why: fmt.Sprintf("node %q is not known here", d), Next: "see: pando members",
			}
		}
	}
	return nil
}

func (n *Node) permitsOf(ctx context.Context, groups []partition.GroupID) ([]control.Permit, error) {
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	return n.control.Permits(ctx, groups)
}

// controlLost says why the control group does not decide.
func (n *Node) controlLost(err error) string {
	st := n.control.Status()
	var silent []partition.NodeID
	for _, seat := range st.Seats {
		if seat != n.ID() && !n.leases.Reachable(seat) {
			silent = append(silent, seat)
		}
	}
	if len(st.Seats) == 0 || 2*(len(st.Seats)-len(silent)) > len(st.Seats) {
		return fmt.Sprintf("the control group did not answer: %v", err)
	}
	seats := make([]string, len(st.Seats))
	for i, s := range st.Seats {
		seats[i] = string(s)
	}
	return fmt.Sprintf("the control group has lost its majority: of its seats %s, %s not answer; nothing can be recovered before one of them is back",
		strings.Join(seats, ", "), doesNot(silent))
}

func doesNot(nodes []partition.NodeID) string {
	if len(nodes) == 1 {
		return string(nodes[0]) + " does"
	}
	return join(nodes, "and") + " do"
}

// RecoverApply carries a plan out, if everything is still as it was planned. The
// reason is kept with the decree. It is safe to repeat: what was decreed and not
// carried out shows up in the next plan.
func (n *Node) RecoverApply(ctx context.Context, id, reason string) (RecoverOutcome, error) {
	out := RecoverOutcome{Plan: id, Groups: []RescueOutcome{}}
	ask, err := parsePlan(id)
	if err != nil {
		return out, err
	}
	if len(reason) > control.MaxWhyBytes {
		return out, partition.Errorf(partition.CodeTooLarge, "a reason of %d bytes, limit %d", len(reason), control.MaxWhyBytes)
	}
	now, err := n.RecoverPlan(ctx, ask)
	if err != nil {
		return out, err
	}
	if now.Control != "" {
		return out, &partition.Error{Code: partition.CodeUnavailable, Why: now.Control, Next: "bring the control group back first"}
	}
	if now.Plan != id {
		return out, changedSince(&now, ask)
	}
	out.Groups = make([]RescueOutcome, len(now.Groups))
	inParallel(len(now.Groups), func(i int) { out.Groups[i] = n.carryOut(ctx, &now.Groups[i], reason) })
	return out, nil
}

// changedSince says what is not as it was planned.
func changedSince(now *RecoverPlan, ask RecoverAsk) error {
	e := &partition.Error{Code: partition.CodeRefused, Next: "nothing was done; plan again, and look at what it says now"}
	for _, p := range now.Groups {
		if p.State != RecoverLost {
			e.Why = fmt.Sprintf("partition %s is not lost any more: %s", p.Group, p.Why)
			return e
		}
	}
	e.Why = fmt.Sprintf("the state of %d partitions is not the one of the plan any more: members, logs or the in-sync number have changed", len(ask.Groups))
	return e
}

// carryOut asks the control group for its decree and tells the survivor's node.
func (n *Node) carryOut(ctx context.Context, p *PartitionRescue, reason string) RescueOutcome {
	out := RescueOutcome{Group: p.Group, Node: p.Node, Loss: p.Loss}
	fail := func(err error) RescueOutcome {
		e := asError(err)
		out.Code, out.Why, out.Next = e.Code.String(), err.Error(), e.Next
		return out
	}
	if err := ctx.Err(); err != nil {
		return fail(partition.Errorf(partition.CodeTimeout, "no time left for %s; nothing was done about it", p.Group))
	}
	one, cancel := context.WithTimeout(ctx, decreeWait)
	permit, err := n.control.Decree(one, control.DecreeRequest{
		Group: p.Group, From: p.Number, Replica: p.Replica, Node: p.Node, Next: p.next.Next, Why: reason,
	})
	cancel()
	if err != nil {
		return fail(fmt.Errorf("ask the control group for its decree: %w", err))
	}
	out.Number = permit.Number
	n.logger.Warn("recovery decreed", "group", p.Group, "node", p.Node, "replica", p.Replica, "number", permit.Number, "loss", p.Loss, "reason", reason)
	if err := n.tellSurvivor(ctx, p, permit.Number); err != nil {
		return fail(fmt.Errorf("%s goes on with %s: %w", p.Node, p.Group, err))
	}
	out.Done = true
	return out
}

// tellSurvivor has the survivor's node carry the decree out, and asks again until
// it is or ctx ends.
func (n *Node) tellSurvivor(ctx context.Context, p *PartitionRescue, number uint64) error {
	m := partition.Configurations{p.last}.GoAlone(p.next, number)
	raw, _ := m.AppendBinary(nil) // never fails
	d := decree{Group: p.Group, Replica: p.Replica, Membership: raw}
	for refusals := 0; ; {
		err := n.sendDecree(ctx, p.Node, &d)
		// A refusal may be of a replica that is master by this very decree and is not
		// known to be yet.
		if err != nil && !passes(err) {
			refusals++
		}
		if err == nil || refusals >= maxRefusals {
			return err
		}
		select {
		case <-ctx.Done():
			return &partition.Error{
				Code: partition.CodeUnknown, Why: fmt.Sprintf("it is decreed (in-sync number %d), but not known to be done: %v", number, err),
				Next: "it goes on by itself for a while; look with pando partition show, and plan again if it stays so",
			}
		case <-time.After(rescueAgain):
		}
	}
}

func (n *Node) sendDecree(ctx context.Context, to partition.NodeID, d *decree) error {
	ctx, cancel := context.WithTimeout(ctx, serveWait)
	defer cancel()
	if to == n.ID() {
		return n.carryDecree(ctx, d)
	}
	_, err := n.tell(ctx, to, callDecree, d)
	return err
}

// serveDecree has this node's replica go on as a decree says, and answers when it
// has. The same decree may come again: what was done is only confirmed. Nobody but
// the control group gives out the number, so a decree that it did not make is
// refused.
func (n *Node) serveDecree(ctx context.Context, body []byte) error {
	var d decree
	if err := json.Unmarshal(body, &d); err != nil {
		return partition.Errorf(partition.CodeInvalid, "a decree that cannot be read")
	}
	return n.carryDecree(ctx, &d)
}

func (n *Node) carryDecree(ctx context.Context, d *decree) error {
	m := new(partition.Membership)
	if m.UnmarshalBinary(d.Membership) != nil || m.Alone == 0 {
		return partition.Errorf(partition.CodeInvalid, "a decree that cannot be read")
	}
	c := n.cells.get(d.Group)
	if c == nil {
		return partition.Errorf(partition.CodeNotFound, "node %s has no replica of %s", n.ID(), d.Group)
	}
	if done, err := c.decreed(d, m); done || err != nil {
		return err
	}
	permits, err := n.permitsOf(ctx, []partition.GroupID{d.Group})
	if err != nil {
		return err
	}
	if p := permits[0]; !p.Decreed || p.Number != m.Alone || p.Replica != d.Replica || p.Node != n.ID() {
		return partition.Errorf(partition.CodeRefused, "the control group has decreed otherwise about %s: %s", d.Group, p.String())
	}
	answer := make(chan error, 1)
	r := &recoverGroup{membership: m, done: func(_ partition.Index, err error) { answer <- err }}
	if !c.box.TryPostMessage(r, len(d.Membership)) {
		return partition.Errorf(partition.CodeBusy, "the mailbox of %s is full", d.Group)
	}
	select {
	case err := <-answer:
		if err == nil {
			n.background.Go(func() { n.letLead(c, m.Alone) })
		}
		if errors.Is(err, partition.ErrBusy) {
			err = partition.Errorf(partition.CodeUnavailable, "%s is at it", d.Group)
		}
		return err
	case <-ctx.Done():
		return partition.Errorf(partition.CodeUnknown, "%s is not done with it yet", d.Group)
	}
}

// decreed reports whether the decree is carried out already.
func (c *cell) decreed(d *decree, m *partition.Membership) (bool, error) {
	v, st := c.view.Load(), c.status.Load()
	if v == nil || st == nil {
		return false, partition.Errorf(partition.CodeUnavailable, "the replica of %s is being opened", d.Group)
	}
	if v.Self != d.Replica {
		return false, partition.Errorf(partition.CodeRefused, "the replica of %s here is %d, not %d", d.Group, v.Self, d.Replica)
	}
	byDecree := v.Configurations.Last().Permit == m.Alone
	if st.Serving || !byDecree && st.Role != "leveling" && st.Role != "recovering" {
		return byDecree, nil
	}
	return false, partition.Errorf(partition.CodeUnavailable, "the replica of %s goes on and does not serve yet: %s", d.Group, st.Why)
}

// letLead lets the other survivors of a recovery be master as well, as soon as
// each has the configuration in force alone on its disk: before that it would go by
// the one before, and with lost members that came back it could lead past what was
// committed since. It ends with the mastership, or after a while.
func (n *Node) letLead(c *cell, number uint64) {
	until := n.now() + letLeadWait
	told := map[partition.ReplicaID]bool{}
	for n.now() < until {
		v, st := c.view.Load(), c.status.Load()
		if v == nil || st == nil || !v.Serving || v.Configurations.Last().Permit != number {
			return
		}
		able, left := mayLead(v.Configurations, st, told)
		if len(able) > 0 {
			ctx, cancel := context.WithTimeout(n.ctx, decreeWait)
			_, err := n.control.Extend(ctx, c.group, number, v.Self, able)
			cancel()
			if err != nil && !passes(err) {
				n.logger.Warn("others may not be master after a recovery", "group", c.group, "replicas", able, "err", err)
				return
			}
			for _, r := range able {
				told[r] = err == nil
			}
		} else if left == 0 {
			return
		}
		select {
		case <-n.ctx.Done():
			return
		case <-time.After(letLeadAgain):
		}
	}
}

// mayLead lists the full members, but for those that are told already, that have
// on disk what the master knows to be committed, the configuration in force with
// it; left is how many are still behind.
func mayLead(active partition.Configurations, st *replica.Status, told map[partition.ReplicaID]bool) (able []partition.ReplicaID, left int) {
	if len(active) != 1 {
		return nil, 1
	}
	for _, p := range st.Peers {
		m, ok := active.Last().Member(p.Replica)
		switch {
		case !ok || m.Kind != partition.Full || told[p.Replica]:
		case p.Match >= st.Commit && st.Commit > 0:
			able = append(able, p.Replica)
		default:
			left++
		}
	}
	return able, left
}
