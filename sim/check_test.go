package sim

import (
	"maps"
	"strings"
	"testing"
	"time"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
)

// played is a world in the middle of an ordinary run: nothing is wrong with it.
func played(t *testing.T, change func(*Knobs)) *world {
	t.Helper()
	p := &Plan{Seed: 7, Knobs: Calm()}
	p.Knobs.Sessions = 0.5
	if change != nil {
		change(&p.Knobs)
	}
	w := newWorld(p, nil)
	w.create()
	w.play(5 * time.Second)
	if w.check.groups[0].visible < 50 {
		t.Fatalf("the run came to %d only", w.check.groups[0].visible)
	}
	return w
}

// objection is the checker that objects to what f does.
func objection(f func()) (what string) {
	defer func() {
		switch x := recover().(type) {
		case nil:
		case broken:
			what = x.v.What
		default:
			panic(x)
		}
	}()
	f()
	return ""
}

// lastCommand is the newest record of the group that the first replica to apply it
// took for a command.
func lastCommand(t *testing.T, q *groupCheck) (partition.Record, *command) {
	t.Helper()
	for i := len(q.committed) - 1; i >= 0; i-- {
		if q.committed[i].Kind() != partition.KindCommand {
			continue
		}
		_, _, body, err := replica.ParseCommand(q.committed[i].Payload())
		if c, ok := parseCommand(body); err == nil && ok {
			return q.committed[i], &c
		}
	}
	t.Fatal("no command")
	return nil, nil
}

// breaker breaks one thing by hand and lets the checkers look.
type breaker func(t *testing.T, w *world, c *checker, q *groupCheck, h *host)

// brokenAnswers are wrong answers to clients, by the checker that objects.
func brokenAnswers() map[string]breaker {
	return map[string]breaker{
		"session": func(t *testing.T, w *world, c *checker, q *groupCheck, h *host) {
			o := w.poke(0, verbGet)
			o.level, o.token = levelSession, h.applied+1
			r := &reading{op: o}
			h.show(r)
			c.shown(h, r)
		},
		"read": func(t *testing.T, w *world, c *checker, q *groupCheck, h *host) { // a stale read lies about its index
			o := w.poke(0, verbGet)
			o.level, o.key = levelStale, written(q)
			r := &reading{op: o}
			h.show(r)
			r.index = q.model.registers[o.key].last().at - 1
			c.shown(h, r)
		},
		"linearizable": func(t *testing.T, w *world, c *checker, q *groupCheck, h *host) { // R1, R5: a read under the lease of a state behind
			r := &reading{op: w.poke(0, verbGet), floor: q.visible}
			h.show(r)
			r.index = q.visible - 1
			c.shown(h, r)
		},
		"bank": func(t *testing.T, w *world, c *checker, q *groupCheck, h *host) {
			r := &reading{op: w.poke(0, verbSum)}
			h.show(r)
			r.value.value++
			c.shown(h, r)
		},
		"exactly once": func(t *testing.T, w *world, c *checker, q *groupCheck, h *host) { // X1
			rec, cmd := lastCommand(t, q)
			c.executes(q, h, rec, &replica.Result{Data: c.fate(cmd.id).result.append(nil)})
		},
		"refused": func(t *testing.T, w *world, c *checker, q *groupCheck, h *host) {
			_, cmd := lastCommand(t, q)
			c.refused(c.fate(cmd.id).op)
		},
		"ack": func(t *testing.T, w *world, c *checker, q *groupCheck, h *host) {
			c.acked(h, w.poke(0, verbPut), h.applied, &replica.Result{})
		},
		"command": func(t *testing.T, w *world, c *checker, q *groupCheck, h *host) {
			rec, cmd := lastCommand(t, q)
			c.fate(cmd.id).op = nil
			c.executes(q, h, rec, &replica.Result{})
		},
		"result": func(t *testing.T, w *world, c *checker, q *groupCheck, h *host) {
			rec, cmd := lastCommand(t, q)
			c.fate(cmd.id).at = 0
			c.executes(q, h, rec, &replica.Result{Data: register{value: 1}.append(nil)})
		},
	}
}

// brokenLogs are logs and disks that lost something, by the checker that objects.
func brokenLogs() map[string]breaker {
	return map[string]breaker{
		"durable": func(t *testing.T, w *world, c *checker, q *groupCheck, h *host) { // L1, D8
			for _, n := range w.nodes[1:] {
				n.disk.platter[0] = image{}
			}
			c.durable(h, q, q.visible)
		},
		"snip": func(t *testing.T, w *world, c *checker, q *groupCheck, h *host) { // L2
			c.persists(h, &replica.Persist{Snip: true, After: h.n.disk.seen[0].commit - 1})
		},
		"log matching": func(t *testing.T, w *world, c *checker, q *groupCheck, h *host) {
			i := len(q.committed) - 1
			q.records[i][0].sum++
			c.persists(h, &replica.Persist{Records: q.committed[i-1 : i]})
		},
		"resurrection": func(t *testing.T, w *world, c *checker, q *groupCheck, h *host) { // L3
			m := &h.n.disk.platter[0]
			c.left[h.n.disk] = nil
			h.n.disk.seen[0] = m.clone()
			m.snip(m.last() - 1)
			c.returned(h.n, 0)
		},
		"everywhere": func(t *testing.T, w *world, c *checker, q *groupCheck, h *host) {
			q.newest().At(h.replica).Kind = partition.LogReplica
			c.letsGo(h, h.n.disk.seen[0].last()+2)
		},
		"log": func(t *testing.T, w *world, c *checker, q *groupCheck, h *host) { // D5
			d := h.n.disk
			d.sure[0] = d.platter[0].last()
			d.seen[0] = d.platter[0].clone()
			d.seen[0].snip(d.sure[0] - 1)
			c.started(h.n)
		},
	}
}

// brokenMasters are masters and leases that must not be, by the checker that objects.
func brokenMasters() map[string]breaker {
	return map[string]breaker{
		"epoch": func(t *testing.T, w *world, c *checker, q *groupCheck, h *host) { // M3, M4
			v := *h.view
			h.incarnation++
			c.published(h, &v)
		},
		"serving": func(t *testing.T, w *world, c *checker, q *groupCheck, h *host) { // R5
			h.applied--
			c.serves(h, h.view)
		},
		"promise": func(t *testing.T, w *world, c *checker, q *groupCheck, h *host) { // M4
			v := *h.view
			v.Epoch++
			c.serves(h, &v)
		},
		"lease": func(t *testing.T, w *world, c *checker, q *groupCheck, h *host) { // R1, M1: two leases at once
			o := w.nodes[(h.n.ord+1)%3].hosts[0]
			v := *h.view
			v.Epoch += 1 << 32
			o.view, o.serving = &v, true
			c.excludes(o, q, "commits")
		},
		"succession": func(t *testing.T, w *world, c *checker, q *groupCheck, h *host) {
			o := w.nodes[(h.n.ord+1)%3].hosts[0]
			v := *h.view
			v.Epoch += 1 << 32
			o.view = &v
			next := *q.newest()
			next.Members = []partition.Member{{Replica: next.Next, Kind: partition.Full, Eligible: true}}
			c.succeeds(o, q, &next)
		},
		"permit": func(t *testing.T, w *world, c *checker, q *groupCheck, h *host) {
			next := *q.newest()
			next.Alone = 7
			rec := partition.NewRecord(partition.Header{Group: q.g.id, Index: h.n.disk.platter[0].last() + 9, Kind: partition.KindMember}, nil)
			q.configs = append(q.configs, configAt{ConfigurationAt: replica.ConfigurationAt{Index: rec.Index(), Membership: &next}, rec: rec})
			c.permitReturned(h, &replica.ReleasePermit{Number: 7})
		},
		"removed": func(t *testing.T, w *world, c *checker, q *groupCheck, h *host) { // M8
			seen := &h.n.disk.seen[0]
			next := *q.newest()
			next.Next += 3
			seen.configs[len(seen.configs)-1].Membership = &next
			c.persists(h, &replica.Persist{Promise: partition.NewEpoch(1<<20, next.Next-1)})
		},
		"quorum": func(t *testing.T, w *world, c *checker, q *groupCheck, h *host) { // M9
			next := *q.newest()
			next.Policy = partition.Policy{Rule: partition.AllInSync}
			q.configs = append(q.configs, configAt{ConfigurationAt: replica.ConfigurationAt{Index: 2, Membership: &next}})
			w.nodes[2].disk.platter[0] = image{}
			c.quorum(h, q, q.committed[len(q.committed)-1], &h.n.disk.seen[0])
		},
	}
}

// brokenStates are states, groups and hosts that went astray, by the checker that objects.
func brokenStates() map[string]breaker {
	return map[string]breaker{
		"ranges": func(t *testing.T, w *world, c *checker, q *groupCheck, h *host) {
			rec, cmd := lastCommand(t, q)
			f := c.fate(cmd.id)
			m := newModel(w.k)
			f.at, q.model = 0, m
			must, _ := m.execute(rec.Index(), cmd)
			q.model = newModel(w.k)
			q.divided.gets(noKeys(), 1)
			c.executes(q, h, rec, &replica.Result{Data: must.append(nil)})
		},
		"state": func(t *testing.T, w *world, c *checker, q *groupCheck, h *host) {
			h.state.hash ^= 2
			c.applied(h, q.committed[h.applied-1], &replica.Result{})
		},
		"apply": func(t *testing.T, w *world, c *checker, q *groupCheck, h *host) {
			h.fenced = ^partition.Epoch(0)
			c.applied(h, q.committed[h.applied-1], &replica.Result{})
		},
		"configuration": func(t *testing.T, w *world, c *checker, q *groupCheck, h *host) {
			c.configures(h, q, q.g.record)
		},
		"bounds": func(t *testing.T, w *world, c *checker, q *groupCheck, h *host) {
			h.unwritten = make([]*replica.Persist, 3*w.k.MaxPending+maxCalls+maxUnwritten+1)
			c.stepped(h)
		},
		"livelock": func(t *testing.T, w *world, c *checker, q *groupCheck, h *host) {
			for range mostAtOnce + 1 {
				w.eng.after(0, evNone, -1)
			}
			w.play(0)
		},
	}
}

// TestCheckersObject: each checker objects to what it is there for, and to nothing
// in an honest run. What is broken here by hand is broken by planted bugs in the
// test of those.
func TestCheckersObject(t *testing.T) {
	cases := map[string]breaker{}
	for _, some := range []map[string]breaker{brokenAnswers(), brokenLogs(), brokenMasters(), brokenStates()} {
		maps.Copy(cases, some)
	}
	for what, breaks := range cases {
		t.Run(strings.ReplaceAll(what, " ", "-"), func(t *testing.T) {
			w := played(t, func(k *Knobs) { k.RealLog = what == "resurrection" })
			h := w.master(0)
			if got := objection(func() { w.play(time.Second) }); got != "" {
				t.Fatalf("%s objects to an honest run", got)
			}
			if got := objection(func() { breaks(t, w, w.check, &w.check.groups[0], h) }); got != what {
				t.Errorf("%q objects", got)
			}
		})
	}
}

// written is a register that was written a few times.
func written(q *groupCheck) uint16 {
	best := 0
	for i, v := range q.model.registers {
		if len(v) > len(q.model.registers[best]) {
			best = i
		}
	}
	return uint16(best)
}

// TestCatalog: ranges that leave a key out, or have it twice, are refused.
func TestCatalog(t *testing.T) {
	for n := range 5 {
		if err := newCatalog(n + 1).check(); err != nil {
			t.Error(err)
		}
	}
	for name, breaks := range map[string]func(r []partition.KeyRange){
		"a gap":       func(r []partition.KeyRange) { r[1].Lo = []byte{0, 1, 5} },
		"an overlap":  func(r []partition.KeyRange) { r[0].Hi = []byte{0, 1, 5} },
		"no end":      func(r []partition.KeyRange) { r[1].Hi = nil },
		"an end":      func(r []partition.KeyRange) { r[2].Hi = []byte{7} },
		"a beginning": func(r []partition.KeyRange) { r[0].Lo = []byte{0} },
		"empty":       func(r []partition.KeyRange) { r[1].Hi = r[1].Lo },
	} {
		c := newCatalog(3)
		breaks(c.ranges)
		if c.check() == nil {
			t.Errorf("%s is not found", name)
		}
	}
}
