package sim

import (
	"time"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
	"pando.dev/pando/sim/fault"
)

// faults brings about the faults of the plan and ends them again.
type faults struct {
	w      *world
	active []activeFault
	// backups are copies of disks as they were some time before a fault that puts
	// them back, by fault and place.
	backups map[int][]*backup
}

// activeFault is a fault that lasts.
type activeFault struct {
	f    Fault
	undo func() // nil: it has ended
}

// schedule lets the faults of the plan come.
func (t *faults) schedule() {
	start := t.w.eng.now
	for i := range t.w.plan.Faults {
		f := &t.w.plan.Faults[i]
		if !f.Class.Valid() || f.At > t.w.k.Length {
			continue
		}
		t.w.eng.at(start+f.At, evFault, -1).a = uint64(i)
		if f.Class == fault.RollBack {
			x := t.w.eng.at(start+f.At-min(f.At, partition.Time(f.Arg)*time.Millisecond), evFaultEnd, -1)
			x.a, x.b = uint64(i), 1
		}
	}
}

// begin begins a fault of the plan.
func (t *faults) begin(i int) {
	if !t.w.quiet {
		f := t.w.plan.Faults[i]
		if f.Class == fault.RollBack {
			t.rollBack(i, &f)
			return
		}
		t.inject(&f)
	}
}

// end ends a fault that lasts, or copies disks for one to come.
func (t *faults) end(i int, copies uint64) {
	if copies != 0 {
		t.backup(i)
		return
	}
	if u := t.active[i].undo; u != nil {
		t.active[i].undo = nil
		u()
	}
}

// lasts lets undo follow when the fault has lasted.
func (t *faults) lasts(f *Fault, undo func()) {
	t.active = append(t.active, activeFault{*f, undo})
	t.w.eng.after(max(f.For, 1), evFaultEnd, -1).a = uint64(len(t.active) - 1)
}

// endAll ends every fault that is under way.
func (t *faults) endAll() {
	for i := range t.active {
		t.end(i, 0)
	}
}

// inject brings about a fault. In any state it does something sensible, if only
// nothing.
func (t *faults) inject(f *Fault) {
	n := t.resolve(f.Node, f)
	if f.Class.On() != fault.OnWorld && n == nil {
		return
	}
	if t.w.tracing() {
		t.w.tracef("FAULT %s node %v other %v arg %d for %s", f.Class, n, f.Other, f.Arg, f.For)
	}
	did := false
	switch c := f.Class; {
	case c < fault.CutOneWay:
		did = t.process(n, f)
	case c < fault.DiskSlow:
		did = t.network(n, f)
	case c < fault.ClockStep:
		did = t.disk(n, f)
	case c < fault.LockForgets:
		did = t.clock(n, f)
	case c < fault.Transfer:
		did = t.service(n, f)
	default:
		did = t.operator(n, f)
	}
	if did {
		t.w.count.Faults[f.Class]++
	}
}

// resolve finds the node that a target stands for now, or nil.
func (t *faults) resolve(x fault.Target, f *Fault) *node {
	if ord, ok := x.Node(); ok {
		if ord < len(t.w.nodes) {
			return t.w.nodes[ord]
		}
		return nil
	}
	role, gi, ok := x.Role()
	if !ok {
		return nil
	}
	gi %= len(t.w.groups)
	master := t.w.master(gi)
	var able, any []*node
	for _, n := range t.w.nodes {
		h := n.hosts[gi]
		if h == nil || !n.up {
			continue
		}
		any = append(any, n)
		if h != master {
			able = append(able, n)
		}
	}
	switch role {
	case fault.Master:
		if master != nil {
			return master.n
		}
	case fault.Holder:
		for _, n := range any {
			if h := n.hosts[gi]; h.serving && h != master {
				return n
			}
		}
		if master != nil {
			return master.n
		}
	case fault.Supporter:
		if master != nil {
			able = t.supporters(master, able)
		}
	case fault.Anyone:
		able = any
	}
	if len(able) == 0 {
		able = any
	}
	if len(able) == 0 {
		return nil
	}
	return able[pick(t.w.rnd.two(onPlace, f.ID(), uint64(x)), len(able))]
}

func (t *faults) supporters(m *host, of []*node) (list []*node) {
	for _, n := range of {
		for _, s := range m.view.Supporters {
			if h := n.hosts[m.gi]; h != nil && h.replica == s.Replica {
				list = append(list, n)
			}
		}
	}
	return list
}

// bits are the nodes whose bit is set; at least one and not all, if there are
// several.
func (t *faults) bits(arg uint64) (in []bool) {
	n := len(t.w.nodes)
	in = make([]bool, n)
	count := 0
	for i := range n {
		if arg>>i&1 != 0 {
			in[i] = true
			count++
		}
	}
	if count == 0 || count == n {
		i := pick(mix(arg), n)
		in[i] = !in[i]
	}
	return in
}

// process is faults of the process.
func (t *faults) process(n *node, f *Fault) bool {
	w := t.w
	switch f.Class {
	case fault.Kill, fault.KillFast, fault.PowerCut:
		return t.crash(n, f.Class == fault.PowerCut, f)
	case fault.KillMany, fault.PowerCutMany:
		for i, in := range t.bits(f.Arg) {
			if in {
				t.crash(w.nodes[i], f.Class == fault.PowerCutMany, f)
			}
		}
	case fault.Pause, fault.Freeze:
		if !n.alive() {
			return false
		}
		n.pause()
		if f.Class == fault.Freeze {
			n.frozen = true
			w.net.processEnded(n, false)
		}
		w.eng.after(f.For, evResume, n.ord).a = uint64(n.life)
	case fault.Starve:
		step := min(partition.Time(f.Arg)*time.Microsecond, 20*time.Millisecond)
		n.step += step
		t.lasts(f, func() { n.step = max(0, n.step-step) })
	case fault.Restart:
		t.restart(n, f)
	case fault.Rolling:
		for i := range w.nodes {
			t.later(partition.Time(i)*max(f.For, 200*time.Millisecond), Fault{Class: fault.Restart, Node: fault.Target(i), Other: fault.None, For: 20 * time.Millisecond})
		}
	case fault.Blink:
		t.network(n, &Fault{Class: fault.Isolate, For: f.For, Node: f.Node, Other: fault.None})
		for _, o := range w.nodes {
			if o != n {
				t.crash(o, false, &Fault{Class: fault.KillFast, At: f.At, Arg: uint64(o.ord)})
			}
		}
	}
	return true
}

// crash ends a process and starts the next after a while.
func (t *faults) crash(n *node, power bool, f *Fault) bool {
	if !n.up {
		return false
	}
	n.end(power, f.Class.String())
	d := f.For
	if f.Class == fault.KillFast {
		d = between(t.w.rnd.of(onRestart, f.ID(), uint64(n.ord)), 0, 20*time.Millisecond)
	}
	n.startAfter(d)
	return true
}

// later lets another fault follow.
func (t *faults) later(d partition.Time, f Fault) {
	t.active = append(t.active, activeFault{f, func() {
		if !t.w.quiet {
			t.inject(&f)
		}
	}})
	t.w.eng.after(d, evFaultEnd, -1).a = uint64(len(t.active) - 1)
}

// restart is an orderly stop: masters resign, and what was written is durable.
func (t *faults) restart(n *node, f *Fault) {
	if !n.alive() {
		return
	}
	for _, h := range n.hosts {
		if h != nil {
			h.take(replica.Resign{Why: "the node stops"})
		}
	}
	life, wait := n.life, f.For
	t.active = append(t.active, activeFault{*f, func() {
		if n.life == life && n.alive() {
			n.end(false, "stopped in order")
			n.startAfter(wait)
		}
	}})
	t.w.eng.after(60*time.Millisecond, evFaultEnd, -1).a = uint64(len(t.active) - 1)
}

// clock is faults of the clock. The monotonic clock is the only one that anything
// depends on, and that it keeps within the drift of the plan is what leases rely
// on: so a jump is a sleep of the machine, during which it goes on.
func (t *faults) clock(n *node, f *Fault) bool {
	w := t.w
	switch f.Class {
	case fault.ClockJump:
		if !n.alive() {
			return false
		}
		n.pause()
		w.eng.after(min(partition.Time(f.Arg)*time.Millisecond, 5*time.Second), evResume, n.ord).a = uint64(n.life)
	case fault.ClockDrift:
		most := int64(w.k.Drift * 1e6)
		was := n.clock.ppm
		n.clock.rate(w.eng.now, max(-most, min(most, int64(f.Arg))))
		t.lasts(f, func() { n.clock.rate(w.eng.now, was) })
	case fault.ClockStep, fault.ClockStrobe:
		w.mark("sim.wall_clock_stepped") // nothing asks it
	}
	return true
}

// service is faults of the lock service, the control group, and gossip.
func (t *faults) service(n *node, f *Fault) bool {
	c := t.w.control
	add := func(x *int) {
		*x++
		t.lasts(f, func() { *x-- })
	}
	switch f.Class {
	case fault.LockForgets:
		add(&c.forgets)
	case fault.LockDoubles:
		add(&c.doubles)
	case fault.LockRefuses:
		add(&c.refuses)
	case fault.LockSlow:
		d := min(partition.Time(f.Arg)*time.Millisecond, 3*time.Second)
		c.slow += d
		t.lasts(f, func() { c.slow -= d })
	case fault.ControlDown:
		add(&c.down)
	case fault.GossipLies:
		o := t.resolve(f.Other, f)
		if o == nil || o == n || !n.alive() {
			return false
		}
		n.lie(o.who, f.Arg&1)
	case fault.GossipStorm:
		for _, n := range t.w.nodes {
			for _, who := range n.peers {
				if n.alive() {
					n.lie(who, 1)
				}
			}
		}
	}
	return true
}

// lie tells a node that another is down, or up, which the next look sets right.
func (n *node) lie(who int, down uint64) {
	if who >= len(n.told) {
		return
	}
	if down != 0 {
		n.told[who] = 0
	} else if owner := n.w.owner[who]; owner >= 0 && n.told[who] == 0 {
		n.told[who] = n.w.nodes[owner].boot
	}
	n.tell(who, down == 0)
}

func (n *node) endStarve() { n.step = 0 }

// operator is what an operator does.
func (t *faults) operator(n *node, f *Fault) bool {
	switch f.Class {
	case fault.Transfer:
		return t.transfer(n, f)
	case fault.Resign:
		for _, h := range n.hosts {
			if h != nil && n.alive() {
				h.take(replica.Resign{Why: "an operator wants it"})
			}
		}
	case fault.TruncateLog:
		for _, h := range n.hosts {
			if h != nil && h.rep != nil && n.alive() && !h.logOnly {
				h.flush()
				h.turn()
			}
		}
	default:
		return t.w.operate(n, f)
	}
	return true
}

// transfer lets the masters on a node hand over.
func (t *faults) transfer(n *node, f *Fault) bool {
	o, did := t.resolve(f.Other, f), false
	for gi, h := range n.hosts {
		if h == nil || h.rep == nil || !h.serving || !n.alive() || h.busy() {
			continue
		}
		to := partition.ReplicaID(0)
		if o != nil && o != n && o.up && o.hosts[gi] != nil {
			to = o.hosts[gi].replica
		}
		h.take(replica.Transfer{ID: h.remember(call{act: &act{transfer: true, to: to, epoch: h.view.Epoch}}), To: to})
		did = true
	}
	return did
}
