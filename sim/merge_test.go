package sim

import (
	"fmt"
	"testing"

	"pando.dev/pando/internal/planted"
)

// TestMerges: groups are divided and merged again under load while masters are killed
// at each step, keys are written all along and clients keep their sessions. What has to
// hold is what the checkers check; here it is that all of it happens.
func TestMerges(t *testing.T) {
	if testing.Short() {
		t.Skip("the swarm is for the long mode")
	}
	shape, _ := ShapeNamed("merges")
	s := Swarm{From: 1, Seeds: 60, Shapes: []Shape{shape}, KeepGoing: true}
	sum := s.Run(t.Context())
	for _, f := range sum.Failures {
		t.Errorf("pando sim --shape merges --seed %d: %s", f.Plan.Seed, f.Result.Violation)
	}
	for _, mark := range []string{
		"sim.merge_asked", "sim.merge_activated", "sim.merge_done", "sim.merge_aborted", "sim.source_absorbed", "sim.rows_absorbed", "sim.merge_step_failed",
		"sim.merge-intent", "sim.merged", "sim.source-sealed", "sim.source-unsealed", "sim.source-gone", "sim.stale_route", "replica.outside",
	} {
		if sum.Marks[mark] == 0 {
			t.Errorf("%s never happens", mark)
		}
	}
	t.Logf("%d merges asked for, %d decided, %d done, %d given up, %d seals, %d unseals", sum.Marks["sim.merge_asked"], sum.Marks["sim.source_absorbed"],
		sum.Marks["sim.merge_done"], sum.Marks["sim.merge_aborted"], sum.Marks["sim.source-sealed"], sum.Marks["sim.source-unsealed"])
}

// TestMergeMistakesAreFound: what can be done wrong at a merge is found.
func TestMergeMistakesAreFound(t *testing.T) {
	if testing.Short() {
		t.Skip("the swarm is for the long mode")
	}
	shape, _ := ShapeNamed("merges")
	for _, bug := range []planted.Bug{planted.UnsealByClock, planted.RowsUnsealed, planted.SourceSessions, planted.NoLift, planted.UnseenOutcome} {
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
