package sim

import (
	"fmt"
	"testing"
	"time"
)

// TestGray (G1 to G4): one replica of three that is not dead, only bad, does not
// slow the group down: clients that wait for each answer before the next write get
// nearly as many as with three good ones. That the fault bites shows with all three.
func TestGray(t *testing.T) {
	t.Parallel()
	acked := func(ops int, acts ...string) (n uint64) {
		for seed := range uint64(2) {
			text := fmt.Sprintf("seed %d\nread-share 0\nops %d\nclients 12\nkeys 64\nlength 3s\n", seed, ops)
			for _, a := range acts {
				text += "at 800ms " + a + "\n"
			}
			p, err := ParsePlan([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			r := p.Run(Options{})
			if r.Violation != nil {
				t.Errorf("seed %d: %v\n%s", seed, r.Violation, text)
			}
			n += r.Counts.Acked
		}
		return n
	}
	// A sixteenth of the requests goes to any node first. Those that meet the busy
	// process wait for it, and it must not be so much that its queue only grows.
	for _, c := range []struct {
		id               string
		ops              int
		fault, whom, how string
	}{
		{"G1 a disk ten times slower", 20000, "disk-slow", "%s", "arg 10"},
		{"G2 a link that loses a few of a hundred", 20000, "loss", "%s -", "arg 100"},
		{"G3 a process that is busy with itself", 500, "starve", "%s", "arg 1500"},
		{"G4 a slow way to one peer", 20000, "delay", "%s -", "arg 50000"},
	} {
		t.Run(c.id, func(t *testing.T) {
			hurt := func(node string) string {
				return fmt.Sprintf("%s %s for %s %s", c.fault, fmt.Sprintf(c.whom, node), 8*time.Second, c.how)
			}
			healthy := acked(c.ops)
			one := acked(c.ops, hurt("peer@0"))
			all := acked(c.ops, hurt("0"), hurt("1"), hurt("2"))
			t.Logf("writes acknowledged: %d, with one bad replica %d, with three %d", healthy, one, all)
			if 3*one < 2*healthy { // 1.5 times the latency
				t.Errorf("one bad replica: %d writes of %d", one, healthy)
			}
			if 3*all > 2*healthy {
				t.Errorf("three bad replicas: %d writes of %d: the fault does nothing", all, healthy)
			}
		})
	}
}
