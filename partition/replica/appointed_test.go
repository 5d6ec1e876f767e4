package replica

import (
	"strings"
	"testing"

	"pando.dev/pando/partition"
)

func appointed(first partition.ReplicaID) func(*Config, *Restored) {
	return func(_ *Config, r *Restored) {
		r.Promised, r.Commit, r.Appointed = partition.NewEpoch(1, first), 1, &Appointed{Lock: 5}
	}
}

// TestAppointed: whom all have promised leads at once, with the lock that it was
// given; the others ask it, and wait for it longer than for somebody else.
func TestAppointed(t *testing.T) {
	l := newLone(t, appointed(1))
	l.ok(Tick{})
	if st := l.r.Status(); st.Role != leveling.String() || st.Epoch != partition.NewEpoch(1, 1) || l.r.attempt.lock != 5 {
		t.Errorf("the first master is %+v", st)
	}
	l = newLone(t, appointed(2))
	l.wantSent(describe(&Probe{Epoch: partition.NewEpoch(1, 2), End: partition.Position{Index: 1}}))
	if l.r.phase != following || l.r.deadline < 2*l.r.cfg.AnswerWait {
		t.Errorf("another one: %s until %s", l.r.phase, l.r.deadline)
	}
	l = newLone(t, appointed(2), func(c *Config, _ *Restored) { c.Neighbours.(*lone).down["n2"] = true })
	if l.wantSent(""); l.r.deadline > l.r.cfg.AnswerWait {
		t.Errorf("one whose first master is gone waits until %s", l.r.deadline)
	}
}

// TestAppointedRefused: what was there before, or has a log that others may not
// have, does not begin with a master.
func TestAppointedRefused(t *testing.T) {
	for name, change := range map[string]func(*Restored){
		"restarted":     func(r *Restored) { r.Restarted = true },
		"no promise":    func(r *Restored) { r.Promised = 0 },
		"not committed": func(r *Restored) { r.Commit = 0 },
	} {
		l := &lone{t: t}
		cfg, res := loneConfig(l), loneRestored(members(3))
		appointed(1)(&cfg, &res)
		change(&res)
		if _, err := New(cfg, res); partition.CodeOf(err) != partition.CodeCorrupt || !strings.Contains(err.Error(), "appointed") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
