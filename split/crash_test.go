package split

import (
	"strings"
	"testing"
	"time"

	"pando.dev/pando/partition"
)

// successor is the next master of the desk's group: it has the log up to the given
// index and nothing that the one before had in memory.
func (d *desk) successor(self partition.ReplicaID, upTo partition.Index, before partition.Extent) {
	if upTo < d.last {
		d.s.Extent, d.last = before, upTo
		for i := range d.s.Peers {
			d.s.Peers[i].Match = min(d.s.Peers[i].Match, upTo)
		}
	}
	d.s.Now += time.Second
	d.s.Self, d.s.Since, d.s.Proposed, d.s.NotBefore, d.s.Aborted, d.s.Telling = self, d.s.Now, 0, 0, "", false
	d.s.Held, d.s.HeldSince = d.s.Extent.Split != nil && d.s.Extent.Split.Phase == partition.Sealed, d.s.Now
	for i := range d.s.Peers {
		d.s.Peers[i].Heard = d.s.Now
	}
}

// path takes steps until there is nothing to do, and returns their names.
func (d *desk) path() string {
	d.t.Helper()
	var got []string
	for range 30 {
		step := d.do()
		if step.Kind == Nothing {
			break
		}
		if step.Kind == Wait {
			d.made()
			d.s.Now = max(d.s.Now, step.Again)
		}
		got = append(got, name(step))
	}
	return strings.Join(got, " ")
}

func (d *desk) wantPath(want string) {
	d.t.Helper()
	if got := d.path(); got != want {
		d.t.Errorf("steps\n%s, not\n%s", got, want)
	}
}

// SPL-2, S4: the rows of the protocol's crash table, by the step at which somebody dies,
// as far as the group's master decides what follows. What a child does by itself is
// an ordinary group's; which states there are at all is explored by TestModel.
func TestCrashTable(t *testing.T) {
	for _, rows := range []map[string]func(d *desk){crashesIntended(), crashesSealed(), crashesActivated()} {
		for name, crash := range rows {
			t.Run(name, func(t *testing.T) { crash(newDesk(t)) })
		}
	}
}

// What is left to do from where a split has got.
const (
	rest  = " activate release tell wait done tell"
	whole = "hold seal" + rest
)

// crashesIntended are the rows of a split that has sealed nothing.
func crashesIntended() map[string]func(d *desk) {
	return map[string]func(d *desk){
		// The task is in the control group, the intent in the log, or it is not.
		"0-1 K or P, without intent": func(d *desk) { d.successor(2, 100, d.s.Extent); d.wantPath("intent " + whole) },
		"0-1 K or P, with intent":    func(d *desk) { d.to("hold"); d.successor(2, d.last, d.s.Extent); d.wantPath(whole) },
		"0-1 P, the intent is snipped": func(d *desk) {
			before := d.s.Extent
			d.to("hold")
			d.successor(2, 100, before)
			d.wantPath("intent " + whole)
		},
		"0-1 P, the task is gone meanwhile": func(d *desk) {
			d.to("hold")
			d.successor(2, d.last, d.s.Extent)
			d.s.Task, d.s.Gone = nil, true
			d.wantPath("abort")
		},
		// Preparations are in memory, and asked for again.
		"2-3 P": func(d *desk) {
			d.to("hold")
			d.successor(2, d.last, d.s.Extent)
			for i := range d.s.Peers {
				d.s.Peers[i].Prepared = false
			}
			d.wantPath("prepare " + whole)
		},
		"2-3 C, one of three": func(d *desk) { d.to("hold"); d.s.Peers[2].Up = false; d.wantPath(whole) },
		"2-3 C, too many": func(d *desk) {
			d.to("hold")
			d.s.Peers[1].Up, d.s.Peers[2].Up = false, false
			d.s.Task.Deadline = d.s.Now + 10*ms
			d.wantPath("wait abort tell")
		},
		// Nothing is in the log: what was held is lost with its clients' connections.
		"4-5 P": func(d *desk) { d.to("seal"); d.successor(2, d.last, d.s.Extent); d.wantPath(whole) },
		"6 P before S is durable, snipped": func(d *desk) {
			d.to("seal")
			before, at := d.s.Extent, d.last
			d.do()
			d.successor(2, at, before)
			d.wantPath(whole)
		},
		"6 P before S is durable, kept": func(d *desk) {
			d.to("seal")
			d.do()
			d.successor(2, d.last, d.s.Extent)
			d.wantPath(strings.TrimSpace(rest))
		},
	}
}

// crashesSealed are those of one that waits for its decision.
func crashesSealed() map[string]func(d *desk) {
	return map[string]func(d *desk){
		"6-7 P after S is durable, confirmed": func(d *desk) {
			d.to("activate")
			d.successor(3, d.last, d.s.Extent)
			d.wantPath(strings.TrimSpace(rest))
		},
		"6-7 P after S is durable, not confirmed": func(d *desk) {
			d.to("activate")
			d.successor(3, d.last, d.s.Extent)
			unmatch(&d.s, 1, 2)
			if step := d.do(); step.Kind != Wait || step.Again != d.s.Now+50*ms {
				d.t.Errorf("%+v", step)
			}
			d.s.Now += 50 * ms
			d.wantPath("unseal release " + whole)
		},
		"7 child quorum": func(d *desk) {
			d.to("activate")
			unmatch(&d.s, 2, 3)
			d.s.Now = d.s.HeldSince + 50*ms
			d.s.Peers[1].Up, d.s.Peers[2].Up = false, false
			if d.do(); d.s.Extent.Split.Phase != partition.Intended {
				d.t.Errorf("after the hold: %s", d.s.Extent.Describe())
			}
			if d.do(); d.s.Held || !d.s.Extent.Serves(keys("b", "t")) {
				d.t.Error("what was held is not served again")
			}
		},
		"8 P, A is snipped": func(d *desk) {
			d.to("activate")
			before, at := d.s.Extent, d.last
			d.do()
			d.successor(2, at, before)
			d.wantPath(strings.TrimSpace(rest))
		},
		"9-10 K is gone while the ranges are sealed": func(d *desk) {
			d.to("activate")
			d.s.Task = nil
			if step := d.do(); step.Record != partition.KindActivate {
				d.t.Errorf("%+v", step)
			}
		},
	}
}

// crashesActivated are those of one that is decided.
func crashesActivated() map[string]func(d *desk) {
	return map[string]func(d *desk){
		"8-9 P, A is durable": func(d *desk) {
			d.to("release")
			d.successor(2, d.last, d.s.Extent)
			d.wantPath("tell wait done tell")
		},
		// The child elects another; the parent only waits for it to be made.
		"9 first master": func(d *desk) {
			d.to("wait")
			made(&d.s, 18, 2, 3)
			if step := Next(d.s); step.Kind != Wait || step.Why != "g18 is not made yet on n1" {
				d.t.Errorf("%+v", step)
			}
			m := group("n1", "n2", "n3")
			m.Remove(1)
			d.s.Children = []Seen{{Group: 18, Membership: m}}
			d.wantPath("done tell")
		},
		"9-10 all of K": func(d *desk) {
			d.to("tell")
			task := d.s.Task
			d.s.Task = nil
			if step := Next(d.s); step.Kind != Wait {
				d.t.Errorf("without a control group: %+v", step)
			}
			d.s.Task = task
			d.wantPath("tell wait done tell")
		},
		"11 any, Done is in the log": func(d *desk) {
			d.to("wait")
			d.made()
			d.to("done")
			d.do()
			d.successor(3, d.last, d.s.Extent)
			d.wantPath("tell")
			if last := d.told[len(d.told)-1]; !last.Done || !last.Ended {
				d.t.Errorf("told %+v", last)
			}
		},
		"11 any, Done is snipped": func(d *desk) {
			d.to("wait")
			d.made()
			d.to("done")
			before, at := d.s.Extent, d.last
			d.do()
			d.successor(3, at, before)
			d.wantPath("done tell")
		},
		"any, parent majority lost after A": func(d *desk) {
			d.to("release")
			d.s.Serving = false
			d.wantPath("release")
			if c, _ := d.s.Extent.Leaves([]byte("n")); c.Group != 18 {
				d.t.Error("nobody is told where the range has gone")
			}
		},
		"any, old P partitioned": func(d *desk) {
			d.to("seal")
			d.s.Serving = false // its lease has lapsed and it was told of another
			d.wantPath("release")
		},
	}
}
