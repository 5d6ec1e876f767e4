package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"pando.dev/pando/internal/planted"
	"pando.dev/pando/partition"
	"pando.dev/pando/sim"
)

// simSwarm runs many seeds.
func (c *cli) simSwarm(ctx context.Context, s simFlags, shapes []sim.Shape, bugs planted.Set) error {
	swarm := sim.Swarm{From: s.from, Seeds: s.seeds, Shapes: shapes, Planted: bugs, Workers: s.workers, KeepGoing: s.keepGoing}
	if s.hours > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(s.hours*float64(time.Hour)))
		defer cancel()
	} else if s.seeds == 0 {
		swarm.Seeds = defaultSeeds
	}
	began := time.Now()
	if isTerminal(c.err) {
		swarm.Progress = func(sum *sim.Summary) {
			fmt.Fprintf(c.err, "\r%s\x1b[K", progressText(sum, swarm.Seeds, time.Since(began)))
		}
	}
	sum := swarm.Run(ctx)
	if swarm.Progress != nil {
		fmt.Fprint(c.err, "\r\x1b[K")
	}
	missed := sum.Missed(goalsOf(s, bugs))
	if err := c.show(s.swarmReport(sum, missed), func(w io.Writer) { s.printSwarm(w, sum, missed) }); err != nil {
		return err
	}
	switch {
	case sum.Violations > 0:
		return c.simFailed(context.WithoutCancel(ctx), s, sum.Failures[0])
	case sum.Stopped && s.hours == 0:
		return context.Canceled
	case len(missed) > 0:
		return &partition.Error{
			Code: partition.CodeInternal,
			Why:  fmt.Sprintf("%d seeds never reached %s", sum.Seeds, goalText(missed)),
			Next: "a state that is not reached is not tested: see which faults and sizes lead to it",
		}
	}
	return nil
}

// goalsOf are the marks that a swarm has to reach: those of the default mix, and
// only of the product as it is.
func goalsOf(s simFlags, bugs planted.Set) []sim.Goal {
	if s.shape != "" || !bugs.Empty() {
		return nil
	}
	return sim.Goals()
}

func goalText(goals []sim.Goal) string {
	var names []string
	for _, g := range goals {
		names = append(names, g.Mark)
	}
	return strings.Join(names, ", ")
}

func progressText(sum *sim.Summary, of uint64, took time.Duration) string {
	text := fmt.Sprintf("%d seeds", sum.Seeds)
	if of > 0 {
		text = fmt.Sprintf("%d of %d seeds", sum.Seeds, of)
	}
	text += fmt.Sprintf(", %s simulated in %s, %d violations", timeText(sum.Simulated), took.Round(time.Second), sum.Violations)
	if since := time.Since(sum.OldestSince); !sum.OldestSince.IsZero() && since > 10*time.Second {
		text += fmt.Sprintf(", seed %d takes long", sum.Oldest)
	}
	return text
}

// timeText is a simulated time in the unit that suits it.
func timeText(t partition.Time) string {
	switch h := t.Hours(); {
	case h >= 24*365:
		return fmt.Sprintf("%.1f years", h/24/365)
	case h >= 48:
		return fmt.Sprintf("%.1f days", h/24)
	case h >= 1:
		return fmt.Sprintf("%.1f hours", h)
	}
	return t.Round(time.Second).String()
}

func (s *simFlags) swarmReport(sum *sim.Summary, missed []sim.Goal) simReport {
	x := simReport{
		Seeds: sum.Seeds, From: sum.From, ViolationCount: sum.Violations, Interrupted: sum.Stopped && s.hours == 0,
		Seconds: sum.Took.Seconds(), CPUSeconds: sum.CPU.Seconds(), SimulatedSeconds: sum.Simulated.Seconds(),
		Events: sum.Events, Steps: sum.Steps, Counts: sum.Counts.Named(), Faults: faultCounts(&sum.Counts), Marks: sum.Marks,
	}
	for _, f := range sum.Failures {
		x.Violations = append(x.Violations, violationOf(f, s.command(f.Plan)))
	}
	for _, g := range missed {
		x.Missed = append(x.Missed, g.Mark)
	}
	return x
}

func (s *simFlags) printSwarm(w io.Writer, sum *sim.Summary, missed []sim.Goal) {
	seeds := fmt.Sprintf("%d, from %d", sum.Seeds, sum.From)
	if sum.Stopped && s.hours == 0 {
		seeds += "; interrupted"
	}
	row(w, "seeds", seeds)
	row(w, "shapes", countText(sum.Shapes))
	row(w, "simulated", fmt.Sprintf("%s in %.1f s", timeText(sum.Simulated), sum.Took.Seconds()))
	if cpu := sum.CPU.Seconds(); cpu > 0 {
		row(w, "speed", fmt.Sprintf("%.0f simulated seconds and %.2f M events per second of a processor", sum.Simulated.Seconds()/cpu, float64(sum.Events)/cpu/1e6))
	}
	row(w, "counts", countText(sum.Counts.Named()))
	row(w, "faults", fmt.Sprintf("%d: %s", sum.Counts.Injected(), countText(faultCounts(&sum.Counts))))
	reached := 0
	for _, n := range sum.Marks {
		if n > 0 {
			reached++
		}
	}
	row(w, "marks", fmt.Sprintf("%d reached", reached))
	if s.marks {
		printMarks(w, sum.Marks)
	}
	if len(missed) > 0 {
		row(w, "never reached", goalText(missed))
	}
	row(w, "violations", sum.Violations)
	byChecker := map[string]uint64{}
	for _, f := range sum.Failures {
		byChecker[f.Result.Violation.What]++
	}
	if len(sum.Failures) > 1 {
		row(w, "by checker", countText(byChecker))
		for _, f := range sum.Failures[:min(len(sum.Failures), 20)] {
			row(w, "seed", f.Plan.Seed, f.Plan.Shape, f.Result.Violation.What)
		}
	}
}
