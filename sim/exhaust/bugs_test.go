package exhaust

import (
	"fmt"
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
	deep := map[planted.Bug]string{ // where to look longer
		planted.AnyEpochCommit: "figure-8", planted.NoPromiseSync: "forgotten", planted.ReadUnconfirmed: "deserted",
		planted.NoLeaseWait: "leases", planted.GrantOutlives: "leases", planted.NewerByIndex: "overtaken",
		planted.NotJoint: "change-twice", planted.CountGathered: "figure-8",
	}
	for _, b := range planted.All() {
		if b.Layer() != "replica" && b.Layer() != "executor" {
			continue
		}
		if f := os.Getenv("EXHAUST_BUGS"); f != "1" && f != b.String() {
			continue
		}
		line := fmt.Sprintf("| %s | - | | | |", b)
		for _, x := range Walks() {
			c := x.Config
			c.Planted, c.MaxStates, c.MaxTime, c.HealEvery = planted.Of(b), 100_000, 10*time.Second, 50
			if deep[b] == x.Name {
				c.MaxStates, c.MaxTime = 2_000_000, 0
			} else if deep[b] != "" {
				continue
			}
			r, err := Walk(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			if v := r.Violation; v != nil {
				line = fmt.Sprintf("| %s | %s | %d | %d | %s |", b, x.Name, r.States, len(v.Path)-v.Healing, v.What)
				break
			}
		}
		t.Log(line)
	}
}
