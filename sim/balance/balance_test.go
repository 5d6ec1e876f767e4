package balance

import (
	"testing"
	"time"
)

func run(t testing.TB, c Config) *Result {
	t.Helper()
	r, err := Run(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range r.Violations {
		t.Error(v)
	}
	t.Logf("%s", r)
	return r
}

// PG14: all masters of 200 groups on one of three nodes.
func TestSkewedMasters(t *testing.T) {
	r := run(t, Config{Nodes: 3, Zones: 3, Groups: 200, OneMaster: true, Load: Load{Noise: 0.05}})
	at, ok := r.Reached(1.15)
	t.Logf("at most 1.15 from %v on (goal 60 s)", at)
	if !ok || at > 60*time.Second {
		t.Errorf("at most 1.15 from %v on, %v", at, ok)
	}
}

func TestJoin(t *testing.T) {
	run(t, Config{Nodes: 3, Zones: 1, Groups: 200, Load: Load{Noise: 0.2}, Events: []Event{{At: time.Minute, Kind: Join, Count: 1}, {At: 15 * time.Minute, Kind: Leave, Node: 3}}})
}
