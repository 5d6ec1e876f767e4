package exhaust

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"pando.dev/pando/internal/planted"
)

// TestWalk visits a million states of three replicas, two commands and a crash, with
// nothing made quick.
func TestWalk(t *testing.T) {
	c := Config{Crashes: 1, HealEvery: 500, MaxStates: 1_000_000}
	if testing.Short() {
		c.MaxStates = 50_000
	}
	r, err := Walk(t.Context(), c)
	if err != nil || r.Violation != nil {
		t.Fatalf("%v\n%v", err, r.Violation)
	}
	t.Log(r)
	if r.States < uint64(c.MaxStates) || r.Healed == 0 {
		t.Errorf("only %d states, %d healed", r.States, r.Healed)
	}
}

// TestWalks goes the first part of every walk, or with EXHAUST=1 all of those that
// come to an end and 20 million states of the others.
func TestWalks(t *testing.T) {
	limit := 20_000
	switch {
	case os.Getenv("EXHAUST") != "":
		limit = 20_000_000
	case testing.Short():
		limit = 2_000
	}
	for _, x := range Walks() {
		t.Run(x.Name, func(t *testing.T) {
			c := x.Config
			c.MaxStates = limit
			r, err := Walk(t.Context(), c)
			if err != nil || r.Violation != nil {
				t.Fatalf("%v\n%v", err, r.Violation)
			}
			if !r.Complete && r.States < uint64(limit) {
				t.Errorf("it ended early: %s", r)
			}
			t.Log(r)
		})
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

// TestWalkFinds: planted bugs are found, in few states and by a short path. The walks
// that find them are of the same kind as those that find nothing in the product.
func TestWalkFinds(t *testing.T) {
	for _, x := range []struct {
		bug    planted.Bug
		walk   string
		states int
		length int // of the path, at most, without what needs no fault
		what   string
	}{
		{planted.AckUnsynced, "crash", 1_000, 4, "durability"},
		{planted.ResumeMastership, "crash", 1_000, 2, "one master per epoch"},
		{planted.AlwaysFailover, "deserted", 50_000, 12, ""},
		{planted.NewerByIndex, "overtaken", 1_000, 12, "committed records stay"},
		{planted.AnyEpochCommit, "figure-8", 150_000, 16, "committed records stay"},
		{planted.NoPromiseSync, "forgotten", 250_000, 14, ""},
		{planted.SharedPromise, "cold", 50_000, 12, "one master per epoch"},
		{planted.NoSnip, "crash", 50_000, 12, ""},
		{planted.NotJoint, "change-twice", 5_000, 6, "durability"},
		{planted.ExecuteTwice, "retry", 50_000, 12, "executed once"},
		{planted.ReplyUnapplied, "slow-apply", 5_000, 6, "applied"},
		{planted.StaleAppend, "deserted", 50_000, 12, ""},
	} {
		t.Run(x.bug.String(), func(t *testing.T) {
			c := named(t, x.walk)
			c.Planted, c.MaxStates = planted.Of(x.bug), x.states
			if testing.Short() && x.states > 50_000 {
				t.Skip("a longer walk")
			}
			r, err := Walk(t.Context(), c)
			if err != nil || r.Violation == nil {
				t.Fatalf("not found in %d states: %v", r.States, err)
			}
			v := r.Violation
			n := len(v.Path) - v.Healing
			if n > x.length || !strings.HasPrefix(v.What, x.what) {
				t.Errorf("found after %d actions: %s: %s", n, v.What, v.Why)
			}
			t.Logf("%d states, %d actions: %s: %s", r.States, n, v.What, v.Why)
			if got, err := Replay(c, v); err != nil || got == nil || got.Why != v.Why {
				t.Errorf("it is not found again: %v\n%v", err, got)
			}
		})
	}
}

func named(t *testing.T, name string) Config {
	for _, x := range Walks() {
		if x.Name == name {
			x.Config.HealEvery = min(x.Config.HealEvery, 50)
			return x.Config
		}
	}
	t.Fatalf("no walk %s", name)
	return Config{}
}

// TestConfig: what makes no sense is refused.
func TestConfig(t *testing.T) {
	for _, c := range []Config{
		{Replicas: 6}, {Records: 9}, {Reads: 5}, {Crashes: -1}, {Grants: 1}, {Start: Parted, Replicas: 2}, {Start: 9},
		{Start: Cold, Retries: 1},
	} {
		if r, err := Walk(t.Context(), c); err == nil {
			t.Errorf("%+v is walked: %s", c, r)
		}
	}
}
