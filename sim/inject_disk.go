package sim

import (
	"fmt"
	"time"

	"pando.dev/pando/partition"
	"pando.dev/pando/sim/fault"
	"pando.dev/pando/wal"
	"pando.dev/pando/wal/memfs"
)

// disk is faults of the disk.
func (t *faults) disk(n *node, f *Fault) bool {
	w, d := t.w, n.disk
	switch f.Class {
	case fault.DiskSlow:
		more := min(partition.Time(f.Arg)*time.Millisecond, 5*time.Second)
		d.slow += more
		t.lasts(f, func() { d.slow = max(0, d.slow-more) })
	case fault.DiskStall:
		d.stalled = max(d.stalled, w.eng.now+f.For)
	case fault.DiskFull:
		d.full = true
		t.lasts(f, func() { d.full = false })
	case fault.ReadFail:
		d.deaf = true
		t.lasts(f, func() { d.deaf = false })
	case fault.SyncFail:
		d.failing = true
	case fault.DiskReadOnly:
		if !n.up {
			return false
		}
		n.barred = true
		n.end(false, "the disk is read-only")
		t.lasts(f, func() {
			n.barred = false
			n.startAfter(0)
		})
	case fault.TornWrite:
		if !n.up {
			return false
		}
		n.end(true, "power goes in the middle of a write")
		n.startAfter(f.For)
	default:
		return t.damage(n, f)
	}
	return true
}

// damage is what takes a replica, or all of a node, out of its groups for good. It
// happens only as long as each group could lose it: that is what is promised.
func (t *faults) damage(n *node, f *Fault) bool {
	w, d := t.w, n.disk
	d.harmed = true
	switch f.Class {
	case fault.SwapDisks:
		return t.swap(n, f)
	case fault.LyingSync:
		return t.lyingSync(n, f)
	case fault.Wipe:
		if !w.k.OverBudget && !t.spares(n, -1) {
			return false
		}
		t.wipe(n, f)
		return true
	}
	gi := t.victim(n, f)
	if gi < 0 || !n.up {
		return false
	}
	if d.real != nil && f.Class != fault.FlipState && f.Class != fault.FlipIdentity {
		// It may hit any group of the node. A file that was cut short looks like one
		// whose last write was torn.
		if f.Class == fault.CutFile || !t.spares(n, -1) {
			return false
		}
		d.hit = true
	}
	// What was synced last, and not proved by a later batch, is taken for torn: that
	// is the window that the guarantees name.
	done := d.prove(n)
	if f.Class == fault.FlipLog && f.For == 0 && d.real != nil && d.fatal == nil && n.alive() {
		t.loseAll(n)
		d.real.damage(f)
		w.mark("sim.open_log_damaged")
		if len(d.pending) > 0 {
			d.startSync(n)
		}
		n.written(done)
		return true
	}
	n.end(true, f.Class.String())
	if f.Class != fault.FlipState && f.Class != fault.FlipIdentity {
		t.loseAll(n)
	}
	switch f.Class {
	case fault.FlipState:
		if d.states[gi] == nil {
			gi = -1
		} else {
			d.states[gi].bad = true
		}
	case fault.FlipIdentity:
		// There are two copies, each with a checksum: the other one is taken.
		w.mark("sim.identity_repaired")
	default:
		d.damage(gi, f)
	}
	n.startAfter(f.For)
	return gi >= 0
}

// loseAll tells the checker that a node may lose what it has.
func (t *faults) loseAll(n *node) {
	for gi := range t.w.groups {
		t.w.check.loses(n, gi)
	}
}

// prove makes the log of a node write what waits, and the batch that proves it. It
// returns whom to tell, if the process goes on.
func (d *disk) prove(n *node) (done []token) {
	if n.up && d.real != nil && d.log != nil {
		k, err := d.log.turn(0)
		if err == nil {
			d.syncing, done = false, d.settled(k)
			err = d.log.settle()
		}
		d.fatal = err
	}
	return done
}

// damage damages the synced log.
func (d *disk) damage(gi int, f *Fault) {
	if d.real != nil {
		clear(d.sure) // what is lost is found out when the log is opened
		d.real.damage(f)
		return
	}
	m := &d.platter[gi]
	d.w.mark("sim.log_damaged")
	m.damage = &wal.Damage{From: m.first, To: m.last(), Why: f.Class.String()}
}

// victim is a group of which the node may lose its replica; -1: none.
func (t *faults) victim(n *node, f *Fault) int {
	count := len(t.w.groups)
	for i := range count {
		gi := int((f.Arg + uint64(i)) % uint64(count))
		if n.hosts != nil && n.hosts[gi] != nil && (t.w.k.OverBudget || t.spares(n, gi)) {
			return gi
		}
	}
	return -1
}

// spares reports whether a group, or each of them, can lose its replica on the
// node without losing anything that was promised: with what is damaged already
// taken off, the others can still elect a master and commit.
func (t *faults) spares(n *node, only int) bool {
	for gi := range t.w.groups {
		if only >= 0 && gi != only || n.disk.platter[gi].replica == 0 {
			continue
		}
		if !t.w.survives(gi, n) {
			return false
		}
	}
	return true
}

// survives reports whether a group would without a node's replica.
func (w *world) survives(gi int, without *node) bool {
	newest := w.newestConfigs(gi)
	whole := func(r partition.ReplicaID) bool {
		m, _ := newest.Member(r)
		who, ok := w.whoIs[m.Node]
		if !ok || w.owner[who] < 0 {
			return false
		}
		n := w.nodes[w.owner[who]]
		return n != without && n.intact(gi, r)
	}
	full := false
	for _, m := range newest {
		for _, x := range m.Members {
			full = full || x.Kind == partition.Full && x.Eligible && whole(x.Replica)
		}
	}
	return full && newest.Durable(whole) && newest.CanFailover(whole)
}

// newestConfigs are the configurations in force as the newest log has them.
func (w *world) newestConfigs(gi int) (newest partition.Configurations) {
	var version partition.MembershipVersion
	for _, n := range w.nodes {
		m := &n.disk.platter[gi]
		k := len(m.configs)
		switch {
		case k == 0 || m.configs[k-1].Membership.Version < version:
		case m.configs[k-1].Membership.Version > version:
			version, newest = m.configs[k-1].Membership.Version, m.active(m.commit)
		default: // perhaps another one, that another master made: any of them may win
			newest = append(newest, m.active(m.commit)...)
		}
	}
	return newest
}

// intact reports whether the node's replica can take part again.
func (n *node) intact(gi int, r partition.ReplicaID) bool {
	m, s := &n.disk.platter[gi], n.disk.states[gi]
	h := (*host)(nil)
	if n.up && n.hosts != nil {
		h = n.hosts[gi]
	}
	return m.replica == r && m.damage == nil && n.disk.truth == nil && !n.disk.hit && n.disk.suspects[gi] != r && !n.disk.rolled &&
		(s == nil || !s.bad) && (h == nil || !h.broken)
}

// wipe lets a node come back with an empty disk: as another node, since nothing of
// what it was is left.
func (t *faults) wipe(n *node, f *Fault) {
	w := t.w
	n.end(true, "wiped")
	t.loseAll(n)
	w.owner[n.who] = -1
	n.disk = newDisk(w, 1000+len(w.ids))
	n.takeIdentity(w.newIdentity(n.ord, partition.NodeID(fmt.Sprintf("n%d.%d", n.ord+1, len(w.ids)))))
	n.hosts = make([]*host, len(w.groups))
	w.mark("sim.wiped")
	n.startAfter(f.For)
}

// swap lets two nodes come back with each other's disk.
func (t *faults) swap(n *node, f *Fault) bool {
	o := t.resolve(f.Other, f)
	if o == nil || o == n || !n.up || !o.up {
		return false
	}
	n.end(true, "its disk is swapped")
	o.end(true, "its disk is swapped")
	n.disk, o.disk = o.disk, n.disk
	a, b := n.who, o.who
	n.takeIdentity(b)
	o.takeIdentity(a)
	n.startAfter(f.For)
	o.startAfter(f.For)
	return true
}

// lyingSync lets syncs do nothing until the power goes. What was promised on their
// word is gone then, which nothing can notice: so it is for a replica that its
// groups can lose, and it is out of them for good.
func (t *faults) lyingSync(n *node, f *Fault) bool {
	if !n.up || !t.spares(n, -1) || n.disk.real != nil {
		return false
	}
	d := n.disk
	if d.truth != nil {
		return false
	}
	d.truth = make([]image, len(d.platter))
	for gi := range d.platter {
		d.truth[gi] = d.platter[gi].clone()
	}
	t.lasts(f, func() {
		truth := d.truth
		if truth == nil || n.disk != d || !n.up {
			return // the process ended, and the system wrote what it had
		}
		lost := false
		for gi := range truth {
			lost = lost || truth[gi].promise != d.platter[gi].promise || truth[gi].last() != d.platter[gi].last()
		}
		n.end(true, "power goes after syncs that did nothing")
		if lost {
			t.w.mark("sim.lying_sync_lost")
			d.suspectAll()
			for gi := range truth {
				t.w.check.loses(n, gi)
				d.platter[gi] = truth[gi]
				d.sure[gi] = truth[gi].last()
			}
		}
		n.startAfter(10 * time.Millisecond)
	})
	return true
}

// suspectAll lets every replica on the disk stay silent.
func (d *disk) suspectAll() {
	for gi := range d.platter {
		d.suspects[gi] = d.platter[gi].replica
	}
}

// backup is a disk as it was.
type backup struct {
	boot    uint64
	who     int
	platter []image
	states  []*state
	files   *memfs.FS // of the real log
}

// backup copies every disk, for a fault that puts one of them back.
func (t *faults) backup(i int) {
	if t.backups == nil {
		t.backups = map[int][]*backup{}
	}
	all := make([]*backup, len(t.w.nodes))
	for ord, n := range t.w.nodes {
		d := n.disk
		b := &backup{boot: d.boot, who: n.who, platter: make([]image, len(d.platter)), states: make([]*state, len(d.states))}
		for gi := range d.platter {
			b.platter[gi] = d.platter[gi].clone()
			if s := d.states[gi]; s != nil {
				b.states[gi] = s.flushedClone()
			}
		}
		if d.real != nil {
			b.files = d.real.fs.Crash(0, 0)
		}
		all[ord] = b
	}
	t.backups[i] = all
}

// rollBack lets a node come back with its disk as it was. The control group knows
// it by its boot number; a copy of the same boot is not told from the disk.
func (t *faults) rollBack(i int, f *Fault) {
	n := t.resolve(f.Node, f)
	if n == nil || !n.up || t.backups[i] == nil {
		return
	}
	b := t.backups[i][n.ord]
	d := n.disk
	if b.who != n.who || b.boot == 0 || b.boot >= d.boot || !t.spares(n, -1) {
		t.w.mark("sim.roll_back_skipped")
		return
	}
	n.end(true, "its disk is put back")
	t.loseAll(n)
	for gi := range d.platter {
		if d.platter[gi].replica != b.platter[gi].replica {
			continue
		}
		d.platter[gi], d.states[gi] = b.platter[gi], b.states[gi]
		d.sure[gi] = b.platter[gi].last()
	}
	if d.real != nil {
		d.real.fs = b.files
	}
	d.boot, d.rolled = b.boot, true
	t.backups[i] = nil
	t.w.count.Faults[f.Class]++
	n.startAfter(f.For)
}
