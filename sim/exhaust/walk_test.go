package exhaust

import (
	"reflect"
	"strings"
	"testing"

	"pando.dev/pando/internal/planted"
)

// TestWalk visits a first share of the states of the first configuration.
func TestWalk(t *testing.T) {
	c := Config{Crashes: 1, HealEvery: 500, MaxStates: 1_000_000}
	if testing.Short() {
		c.MaxStates = 50_000
	}
	r, err := Walk(t.Context(), c)
	if err != nil || r.Violation != nil {
		t.Fatalf("%v\n%v", err, r.Violation)
	}
	t.Logf("%+v", r)
	if r.States < uint64(c.MaxStates) || r.Healed == 0 {
		t.Errorf("only %d states, %d healed", r.States, r.Healed)
	}
}

// TestWalkTwice: a walk is the same each time.
func TestWalkTwice(t *testing.T) {
	var was Report
	for i := range 2 {
		r, err := Walk(t.Context(), Config{Crashes: 1, Downs: 1, Alarms: 1, HealEvery: 100, MaxStates: 20_000})
		if err != nil {
			t.Fatal(err)
		}
		r.Elapsed = 0
		if i > 0 && !reflect.DeepEqual(was, r) {
			t.Errorf("the second walk differs:\n%+v\n%+v", was, r)
		}
		was = r
	}
}

// TestWalkFinds: planted bugs are found, in few states and by a short path.
func TestWalkFinds(t *testing.T) {
	cut := Config{Downs: 2, Reads: 1, Records: 1, QuickHints: true, QuickLock: true, QuickDisk: true, HealEvery: 50}
	for _, x := range []struct {
		bug    planted.Bug
		config Config
		states int
		length int // of the path, at most
		what   string
	}{
		{planted.AckUnsynced, Config{}, 5_000, 5, "durability"},
		{planted.CountSent, Config{}, 100, 0, "durability"},
		{planted.ResumeMastership, Config{Crashes: 1}, 5_000, 2, "one master per epoch"},
		{planted.AlwaysFailover, cut, 50_000, 12, ""},
		{planted.SnipOnStale, cut, 50_000, 12, ""},
	} {
		t.Run(x.bug.String(), func(t *testing.T) {
			c := x.config
			c.Planted, c.MaxStates = planted.Of(x.bug), x.states
			r, err := Walk(t.Context(), c)
			if err != nil || r.Violation == nil {
				t.Fatalf("not found in %d states: %v", r.States, err)
			}
			v := r.Violation
			if n := len(v.Path) - v.Healing; n > x.length || !strings.HasPrefix(v.What, x.what) {
				t.Errorf("found after %d actions: %s: %s", n, v.What, v.Why)
			}
			t.Logf("%d states, %d actions: %s: %s", r.States, len(v.Path)-v.Healing, v.What, v.Why)
		})
	}
}
