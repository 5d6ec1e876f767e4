package exhaust

import (
	"os"
	"testing"
	"time"

	"pando.dev/pando/internal/planted"
)

// TestBugs looks for every planted bug of the machine and the executor in every walk
// and prints the table that is in DESIGN.md. EXHAUST_BUGS=1 turns it on; it takes some
// minutes.
func TestBugs(t *testing.T) {
	if os.Getenv("EXHAUST_BUGS") == "" {
		t.Skip("set EXHAUST_BUGS=1")
	}
	for _, b := range planted.All() {
		if b.Layer() != "replica" && b.Layer() != "executor" {
			continue
		}
		if f := os.Getenv("EXHAUST_BUGS"); f != "1" && f != b.String() {
			continue
		}
		found := false
		for _, x := range Walks() {
			c := x.Config
			c.Planted, c.MaxStates, c.MaxTime = planted.Of(b), 600_000, 20*time.Second
			if c.HealEvery > 50 {
				c.HealEvery = 50
			}
			r, err := Walk(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			if v := r.Violation; v != nil {
				t.Logf("| %s | %s | %d | %d | %s |", b, x.Name, r.States, len(v.Path)-v.Healing, v.What)
				found = true
				break
			}
		}
		if !found {
			t.Logf("| %s | - | | | |", b)
		}
	}
}
