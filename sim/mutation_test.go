package sim

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"pando.dev/pando/internal/planted"
)

var (
	mutants      = flag.String("sim.mutants", "", "planted bugs to look for: all, a layer, or names with commas between; default: a few quick ones")
	mutantShape  = flag.String("sim.mutant-shape", "", "look in the seeds of this shape only; default: the mix, or the shape that homes names")
	mutantSeeds  = flag.Uint64("sim.mutant-seeds", 5000, "a planted bug must be found within so many seeds of the default swarm")
	mutantCPU    = flag.Duration("sim.mutant-cpu", time.Minute, "and within so much processor time")
	mutantsTable = flag.String("sim.mutants-table", "", "append a line per planted bug to this file, for README.md")
)

// quickMutants are found within a second each, one of every kind of checker.
func quickMutants() []planted.Bug {
	return []planted.Bug{
		planted.NoSnip, planted.AckUnsynced, planted.AlwaysFailover, planted.ExecuteTwice,
		planted.FailUnknown, planted.RevocationLost, planted.DoneUnsynced,
	}
}

// homes are the shapes of the default swarm in which mistakes are looked for that
// need what only this shape makes frequent. All others are looked for in the mix.
func homes() map[string]string {
	return map[string]string{
		"failover-not-joint": "membership", "full-unready": "membership", "everywhere-any": "membership",
		"promise-removed": "membership", "lease-not-joint": "membership",
		"release-waiting": "successions", "configure-early": "successions", "configure-in-wait": "successions",
		"joint-alone": "pairs", "answer-to-another": "pairs", "pass-unknowing": "decrees",
		"grant-of-another-boot": "leavers", "ack-of-another-boot": "grants", "stale-support": "late-answers", "read-unchecked": "damage", "install-keeps-any": "membership", "back-unknowing": "decrees",
		"child-on-receipt": "splits", "seal-unheld": "splits", "sessions-now": "splits",
		"unmasked-host": "splits", "done-early": "splits", "child-id-again": "splits",
		"unseal-by-clock": "merges", "rows-unsealed": "merges", "source-sessions": "merges", "no-lift": "merges", "unseen-outcome": "merges",
	}
}

// TestMutants plants each known mistake, alone, and requires that the default
// swarm finds it: the seeds from 1 on, in order, each in the shape that it draws or,
// for those in homes, in that one, at most 5,000 seeds and a minute of processor
// time. Nothing about a run tells the simulator which bug is planted. The seed that
// finds it must pass without it.
func TestMutants(t *testing.T) {
	for _, b := range wantedMutants(t) {
		t.Run(b.String(), func(t *testing.T) {
			t.Parallel()
			lookFor(t, b)
		})
	}
}

func wantedMutants(t *testing.T) []planted.Bug {
	if *mutants == "" {
		return quickMutants()
	}
	var wanted []planted.Bug
	for _, b := range planted.All() {
		if *mutants == "all" || slices.Contains(strings.Split(*mutants, ","), b.Layer()) || slices.Contains(strings.Split(*mutants, ","), b.String()) {
			wanted = append(wanted, b)
		}
	}
	if len(wanted) == 0 {
		t.Fatalf("no planted bug is %q", *mutants)
	}
	return wanted
}

func lookFor(t *testing.T, b planted.Bug) {
	cpu := threadTimer()
	defer cpu.stop()
	home := cmp.Or(*mutantShape, homes()[b.String()])
	shapes := DefaultShapes()
	if s, ok := ShapeNamed(home); ok {
		shapes = []Shape{s}
		home = " alone"
	} else if home != "" {
		t.Fatalf("no shape is called %q", home)
	}
	seed := uint64(1)
	for ; seed <= *mutantSeeds && cpu.used() < *mutantCPU; seed++ {
		p := Draw(seed, Pick(seed, shapes))
		p.Planted = planted.Of(b)
		v := Play(p).Violation
		if v == nil {
			continue
		}
		took := cpu.used()
		p.Planted = planted.Set{}
		if own := Play(p).Violation; own != nil {
			t.Logf("seed %d fails without it and does not count: %s", seed, own)
			continue
		}
		t.Logf("caught by seed %d (%s) after %s: %s", seed, p.Shape, took.Round(time.Millisecond), v)
		tell(t, b, fmt.Sprintf("%s | %s%s | %d | %.1f", v.What, p.Shape, home, seed, took.Seconds()))
		return
	}
	tell(t, b, fmt.Sprintf("**not found** | | > %d | %.1f", seed-1, cpu.used().Seconds()))
	t.Errorf("not found in %d seeds and %s: %s", seed-1, cpu.used().Round(time.Millisecond), b.About())
}

// tell adds a line to the table of README.md.
func tell(t *testing.T, b planted.Bug, line string) {
	if *mutantsTable == "" {
		return
	}
	f, err := os.OpenFile(*mutantsTable, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := fmt.Fprintf(f, "| %s | %s | %s | %s |\n", b.Layer(), b, b.About(), line); err != nil {
		t.Fatal(err)
	}
}
