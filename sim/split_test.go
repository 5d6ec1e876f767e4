package sim

import (
	"fmt"
	"testing"

	"pando.dev/pando/internal/planted"
)

// TestSplits: groups are divided under load while masters are killed at each step
// (SPL-2), keys are written all along (SPL-1, SPL-4), clients have stale routes and
// keep their sessions (SPL-5), and some splits are called off (SPL-12). What has to
// hold is what the checkers check; here it is that all of it happens.
func TestSplits(t *testing.T) {
	if testing.Short() {
		t.Skip("the swarm is for the long mode")
	}
	shape, _ := ShapeNamed("splits")
	s := Swarm{From: 1, Seeds: 40, Shapes: []Shape{shape}, KeepGoing: true}
	sum := s.Run(t.Context())
	for _, f := range sum.Failures {
		t.Errorf("pando sim --shape splits --seed %d: %s", f.Plan.Seed, f.Result.Violation)
	}
	for _, mark := range []string{
		"sim.split_asked", "sim.split_activated", "sim.split_done", "sim.split_aborted", "sim.child_born", "sim.child_made", "sim.stale_route",
		"sim.split_kept_back", "replica.split-intent", "replica.split-sealed", "replica.split-activated", "replica.split-done", "replica.staged",
	} {
		if sum.Marks[mark] == 0 {
			t.Errorf("%s never happens", mark)
		}
	}
	t.Logf("%d splits done, %d aborted, %d children, %d stale routes", sum.Marks["sim.split_done"], sum.Marks["sim.split_aborted"], sum.Marks["sim.child_born"], sum.Marks["sim.stale_route"])
}

// TestSplitMistakesAreFound: what can be done wrong at a split is found.
func TestSplitMistakesAreFound(t *testing.T) {
	if testing.Short() {
		t.Skip("the swarm is for the long mode")
	}
	shape, _ := ShapeNamed("splits")
	for _, bug := range []planted.Bug{planted.ChildOnReceipt, planted.SessionsNow, planted.UnmaskedHost} {
		t.Run(fmt.Sprint(bug), func(t *testing.T) {
			s := Swarm{From: 1, Seeds: 400, Shapes: []Shape{shape}, Planted: planted.Of(bug)}
			sum := s.Run(t.Context())
			if sum.Violations == 0 {
				t.Fatalf("not found in %d seeds", sum.Seeds)
			}
			t.Logf("%d seeds: %s", sum.Seeds, sum.Failures[0].Result.Violation)
		})
	}
}
