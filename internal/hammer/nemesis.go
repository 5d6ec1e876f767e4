//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"pando.dev/pando/actors"
	"pando.dev/pando/partition"
	"pando.dev/pando/sim/fault"
)

const (
	// backWait bounds how long each partition may take to acknowledge a write
	// after everything was healed, liveWait how long while something goes on that
	// it must stand.
	backWait = 60 * time.Second
	liveWait = 30 * time.Second
	// lookWait bounds a look at who is master; a fault that finds nobody aims at
	// anybody.
	lookWait = 300 * time.Millisecond
	// lookEpisodes is the number of episodes between two looks at the logs.
	lookEpisodes = 8
	// budget is how many of the nodes may be away for the cluster to go on.
	budget = 2
)

// injury is one way to do harm.
type injury struct {
	class  fault.Class
	group  string // of classes, for --only
	weight int    // how often it is drawn, in relation to the others
	// wants says what it needs of the lab.
	network, disk bool
	// takes is how many nodes it takes away at once; beyond the budget only what
	// is answered is judged while it goes on.
	takes int
	// live: alone, it must not keep any partition from taking writes.
	live bool
	// damage: what was acknowledged may be gone from the node, so no other node
	// may be damaged until it has been repaired.
	damage bool
	// alone: it waits for nodes that are not ready while others are harmed.
	alone bool
	// hold is between what it goes on for, at least and at most.
	hold [2]time.Duration
	// do begins it on a node, and returns what ends it.
	do func(ctx context.Context, n *nemesis, p *patient) (heal func(context.Context) error, err error)
}

// wound is an injury under way.
type wound struct {
	injury
	on   *patient
	heal func(context.Context) error
	// stood: the cluster must go on taking writes. It said that it can lose one
	// more node when this began.
	stood bool
}

// front is a table with a load on it, and where its keys begin.
type front struct {
	name     string
	replicas int
	spec     actors.TableSpec
	parts    []string // first letters of its keys, one for each partition
	load     *load
}

// nemesis draws faults and does them. It belongs to the scenario's goroutine.
type nemesis struct {
	t        *trial
	c        *cluster
	l        *lab
	rng      *rand.Rand
	injuries []injury
	fronts   []*front

	injected map[fault.Class]int
	killed   int // processes ended by SIGKILL, each started again
	powerCut int // disks that lost what was not synced, each mounted again
	episodes int
	storms   int
	over     int                   // episodes beyond the budget
	back     times                 // from the end of the last heal until every partition took a write
	during   map[fault.Class]times // from the fault until every partition took a write, while it went on
	told     []string              // what was done, for the artefacts

	// beyond is set by a fault that turns out to be more than must be stood.
	beyond bool
	// owed is what an operator takes back when all is healed: it wants the control
	// group.
	owed []func(context.Context) error

	damages     int // of disks
	replaced    int // replicas that were replaced for it
	damagedNode *patient
	damagedHeld held // before
	ledgers     map[string][]*ledger
}

// note tells and remembers what is done.
func (n *nemesis) note(format string, args ...any) {
	line := fmt.Sprintf("%8.3f ", time.Since(n.t.began).Seconds()) + fmt.Sprintf(format, args...)
	n.told = append(n.told, line)
	n.t.tell(format, args...)
}

// between draws a time.
func (n *nemesis) between(lo, hi time.Duration) time.Duration {
	if hi <= lo {
		return lo
	}
	return lo + time.Duration(n.rng.Int64N(int64(hi-lo)))
}

// one in so many.
func (n *nemesis) one(in int) bool { return n.rng.IntN(in) == 0 }

// others are the nodes but this one, in a drawn order.
func (n *nemesis) others(p *patient) []*patient {
	var all []*patient
	for _, q := range n.l.nodes {
		if q != p {
			all = append(all, q)
		}
	}
	n.rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

// idle are the nodes that nothing is done to.
func (n *nemesis) idle() []*patient {
	var idle []*patient
	for _, p := range n.l.nodes {
		if !p.busy {
			idle = append(idle, p)
		}
	}
	return idle
}

// target draws a node that nothing is done to; mostly one that matters: the
// master of some partition, or the leader of the control group.
func (n *nemesis) target(ctx context.Context) *patient {
	idle := n.idle()
	if len(idle) == 0 {
		return nil
	}
	anybody := idle[n.rng.IntN(len(idle))]
	draw := n.rng.IntN(10)
	if draw < 3 {
		return anybody
	}
	id := n.important(ctx, draw < 5)
	for _, p := range idle {
		if p.id == id {
			return p
		}
	}
	return anybody
}

// important names the leader of the control group, or the master of a drawn
// partition.
func (n *nemesis) important(ctx context.Context, leader bool) partition.NodeID {
	ctx, cancel := context.WithTimeout(ctx, lookWait)
	defer cancel()
	if leader {
		s, err := n.c.status(ctx)
		if err != nil {
			return ""
		}
		return s.Control.Leader
	}
	ps, err := n.c.partitions(ctx, "")
	if err != nil {
		return ""
	}
	return ps[n.rng.IntN(len(ps))].Master
}

// draw draws an injury that is within what may be taken away.
func (n *nemesis) draw(room int, alone bool) (injury, bool) {
	fits := func(i injury) bool {
		return i.takes <= room && (alone || !i.damage && !i.alone)
	}
	total := 0
	for _, i := range n.injuries {
		if fits(i) {
			total += i.weight
		}
	}
	if total == 0 {
		return injury{}, false
	}
	at := n.rng.IntN(total)
	for _, i := range n.injuries {
		if !fits(i) {
			continue
		}
		if at -= i.weight; at < 0 {
			return i, true
		}
	}
	return injury{}, false
}

// episode does one thing, or several at once, heals them, and wants everything to
// go on.
func (n *nemesis) episode(ctx context.Context) error {
	n.episodes++
	room, many := budget, 1
	switch draw := n.rng.IntN(20); {
	case draw < 5:
		many = 2 + n.rng.IntN(3)
		n.storms++
	case draw < 9:
		room, many = labNodes, 1+n.rng.IntN(4)
		n.over++
	}
	var wounds []*wound
	err := func() error {
		for range many {
			w, err := n.hurt(ctx, room, many == 1)
			if err != nil {
				return err
			}
			if w == nil {
				break
			}
			wounds = append(wounds, w)
			room -= w.takes
			if w.damage {
				break
			}
			if err := pause(ctx, n.between(0, 200*time.Millisecond)); err != nil {
				return err
			}
		}
		return n.hold(ctx, wounds)
	}()
	n.rng.Shuffle(len(wounds), func(i, j int) { wounds[i], wounds[j] = wounds[j], wounds[i] })
	for _, w := range wounds {
		if e := w.heal(ctx); e != nil {
			err = errors.Join(err, fmt.Errorf("heal %s on %s: %w", w.class, w.on.name, e))
		}
	}
	if err != nil {
		return err
	}
	return n.settle(ctx, wounds)
}

// hurt begins one injury; nil if none fits.
func (n *nemesis) hurt(ctx context.Context, room int, alone bool) (*wound, error) {
	p := n.target(ctx)
	i, ok := n.draw(room, alone)
	if p == nil || !ok {
		return nil, nil
	}
	if i.damage {
		if err := n.whole(ctx); err != nil {
			return nil, fmt.Errorf("before %s: %w", i.class, err)
		}
	}
	stood := i.live && alone && n.canLose(ctx)
	p.busy = true
	n.note("%s at %s", i.class, p.name)
	n.beyond = false
	heal, err := i.do(ctx, n, p)
	if err != nil {
		return nil, fmt.Errorf("%s at %s: %w", i.class, p.name, err)
	}
	n.injected[i.class]++
	return &wound{i, p, heal, stood && !n.beyond}, nil
}

// canLose reports whether the cluster says that it can lose one more node. A node
// that was away for long does not count at once when it is back.
func (n *nemesis) canLose(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, lookWait)
	defer cancel()
	s, err := n.c.status(ctx)
	return err == nil && s.CanLose >= 1
}

// hold lets the wounds be for a while. One that must be stood is held until it
// was seen that it is.
func (n *nemesis) hold(ctx context.Context, wounds []*wound) error {
	var longest time.Duration
	for _, w := range wounds {
		longest = max(longest, n.between(w.hold[0], w.hold[1]))
	}
	if len(wounds) == 1 && wounds[0].stood {
		w := wounds[0]
		took, err := n.acknowledged(ctx, liveWait)
		if err != nil {
			n.t.violate("during %s at %s: %v\n%s", w.class, w.on.name, err, n.picture(ctx))
			return ctx.Err()
		}
		n.during[w.class] = append(n.during[w.class], took)
		longest -= took
	}
	if longest <= 0 {
		return nil
	}
	return pause(ctx, longest)
}

// settle wants every node back and every partition to take writes.
func (n *nemesis) settle(ctx context.Context, wounds []*wound) error {
	var names []string
	for _, w := range wounds {
		names = append(names, w.class.String()+" at "+w.on.name)
	}
	what := strings.Join(names, ", ")
	if err := n.revive(ctx, what); err != nil {
		return fmt.Errorf("after %s: %w\n%s", what, err, n.picture(ctx))
	}
	took, err := n.acknowledged(ctx, backWait)
	if err != nil {
		return fmt.Errorf("after %s: %w\n%s", what, err, n.picture(ctx))
	}
	n.back = append(n.back, took)
	for _, takeBack := range n.owed {
		if err := takeBack(ctx); err != nil {
			return fmt.Errorf("after %s: %w\n%s", what, err, n.picture(ctx))
		}
	}
	n.owed = nil
	for _, w := range wounds {
		if w.damage {
			if err := n.whole(ctx); err != nil {
				return fmt.Errorf("after %s: %w\n%s", what, err, n.picture(ctx))
			}
			if err := n.countReplaced(ctx); err != nil {
				return err
			}
		}
	}
	for _, p := range n.l.nodes {
		p.busy, p.excused = false, false
	}
	if n.episodes%lookEpisodes != 0 {
		return nil
	}
	return n.lookAtLogs(ctx)
}

// countReplaced counts the replicas that a damaged node has got anew.
func (n *nemesis) countReplaced(ctx context.Context) error {
	if n.damagedNode == nil {
		return nil
	}
	now, err := n.heldBy(ctx, n.damagedNode)
	if err != nil {
		return err
	}
	replaced := 0
	for g, r := range n.damagedHeld { // a sum
		if now[g] != r {
			replaced++
		}
	}
	n.note("%d of %d replicas on %s were replaced", replaced, len(n.damagedHeld), n.damagedNode.name)
	n.replaced += replaced
	n.damagedNode = nil
	return nil
}

// revive starts what has ended and waits until every node is ready. A process that
// ended without a reason broke a promise; one that had a reason is started until
// it stays, as whoever looks after it would.
func (n *nemesis) revive(ctx context.Context, what string) error {
	for _, p := range n.l.nodes {
		var ended *endedError
		for tries := 0; ; tries++ {
			if p.proc.ended() {
				if !p.excused {
					n.t.violate("%s ended by itself after %s: %s", p.name, what, p.proc.printed())
				}
				n.note("%s had ended and is started again", p.name)
				if err := p.start(); err != nil {
					return err
				}
			}
			err := n.c.awaitReady(ctx, p.node)
			if err == nil {
				break
			}
			if tries == 3 || !errors.As(err, &ended) {
				return err
			}
		}
	}
	return nil
}

// acknowledged waits until every partition with a load has acknowledged a write
// that was begun from now on.
func (n *nemesis) acknowledged(ctx context.Context, within time.Duration) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	began := time.Now()
	for _, f := range n.fronts {
		l := f.load
		for i, part := range l.parts {
			log := part
			if len(l.parts) == 1 {
				log = l.acks
			}
			select {
			case <-log.next(log.now() - time.Since(began)):
			case <-ctx.Done():
				return 0, fmt.Errorf("no write to the keys %q of table %s was acknowledged within %s", l.prefixes[i], f.name, within)
			}
		}
	}
	return time.Since(began), nil
}

// whole waits until every table has what it shall have.
func (n *nemesis) whole(ctx context.Context) error {
	for _, f := range n.fronts {
		if err := n.c.awaitWhole(ctx, f.name, f.replicas); err != nil {
			return err
		}
	}
	return nil
}

// lookAtLogs brings the ledgers of all groups up to date: each group's log must
// lead back to what it was at the look before.
func (n *nemesis) lookAtLogs(ctx context.Context) error {
	for _, f := range n.fronts {
		if n.ledgers[f.name] == nil {
			ps, err := n.c.partitions(ctx, f.name)
			if err != nil {
				return err
			}
			for _, p := range ps {
				n.ledgers[f.name] = append(n.ledgers[f.name], newLedger(p.Group))
			}
		}
		if err := n.c.look(ctx, f.name, n.ledgers[f.name]...); err != nil {
			return err
		}
	}
	return nil
}

// picture is what each node says of the cluster, for who looks for a cause.
func (n *nemesis) picture(ctx context.Context) string {
	var b strings.Builder
	said := map[string]string{} // by whom first
	for _, p := range n.l.nodes {
		if !p.running() {
			fmt.Fprintf(&b, "%s does not run: %s\n", p.name, p.proc.printed())
			continue
		}
		view := n.view(ctx, p)
		if same := said[view]; same != "" {
			fmt.Fprintf(&b, "%s says the same as %s\n", p.name, same)
			continue
		}
		said[view] = p.name
		fmt.Fprintf(&b, "%s: %s", p.name, view)
	}
	return b.String()
}

// view is what one node says of the cluster.
func (n *nemesis) view(ctx context.Context, p *patient) string {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askWait)
	defer cancel()
	s, err := p.api().Status(ctx)
	if err != nil {
		return err.Error() + "\n"
	}
	view := fmt.Sprintf("control leader %s of %v, %s; %d of %d partitions have a master\n", s.Control.Leader, s.Control.Seats, s.Control.State, s.WithMaster, s.Partitions)
	ps, err := p.api().Partitions(ctx, "")
	if err != nil {
		return view + err.Error() + "\n"
	}
	for _, q := range ps {
		view += fmt.Sprintf("  %s %s, master %q, to do %q\n", q.Table, sketch(q), q.Master, q.Tending)
	}
	return view
}

// report adds what was done to the table of numbers.
func (n *nemesis) report() {
	n.t.row("episodes", "%d, %d of them with several faults at once, %d beyond the budget of %d nodes", n.episodes, n.storms, n.over, budget)
	total := 0
	for _, count := range n.injected { // a sum
		total += count
	}
	n.t.row("faults", "%d of %d classes; %d kill -9 and starts, %d power cuts", total, len(n.injected), n.killed, n.powerCut)
	var list []string
	for c := range fault.All() {
		if n.injected[c] > 0 {
			list = append(list, fmt.Sprintf("%s %d", c, n.injected[c]))
		}
	}
	for line := range slices.Chunk(list, 8) {
		n.t.row("", "%s", strings.Join(line, ", "))
	}
	if n.damages > 0 {
		n.t.row("damage", "%d times, for which %d replicas were replaced by themselves", n.damages, n.replaced)
	}
	n.t.row("back", "%s (from the last heal until every partition had acknowledged a write)", n.back)
	for _, c := range slices.Sorted(maps.Keys(n.during)) {
		n.t.row("during "+c.String(), "%s (until every partition had acknowledged a write, while it went on)", n.during[c])
	}
	if n.l.hub != nil {
		n.t.row("packets", "%+v", n.l.hub.Counts())
	}
}
