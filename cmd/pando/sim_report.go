package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"pando.dev/pando/internal/planted"
	"pando.dev/pando/partition"
	"pando.dev/pando/sim"
	"pando.dev/pando/sim/fault"
)

// simViolation is what a checker objected to.
type simViolation struct {
	Checker   string  `json:"checker"`
	Why       string  `json:"why"`
	AtSeconds float64 `json:"at_seconds"`
	Seed      uint64  `json:"seed"`
	Shape     string  `json:"shape,omitempty"`
	Command   string  `json:"command,omitempty"`
}

// simReport is what pando sim prints.
type simReport struct {
	Seeds            uint64            `json:"seeds"`
	From             uint64            `json:"from"`
	Violations       []simViolation    `json:"violations,omitempty"`
	ViolationCount   uint64            `json:"violation_count"`
	Interrupted      bool              `json:"interrupted,omitempty"`
	Seconds          float64           `json:"seconds"`
	CPUSeconds       float64           `json:"cpu_seconds,omitempty"`
	SimulatedSeconds float64           `json:"simulated_seconds"`
	Events           uint64            `json:"events"`
	Steps            uint64            `json:"steps"`
	TraceHash        string            `json:"trace_hash,omitempty"`
	Counts           map[string]uint64 `json:"counts"`
	Faults           map[string]uint64 `json:"faults"`
	Marks            map[string]uint64 `json:"marks"`
	Missed           []string          `json:"missed,omitempty"`
}

func violationOf(f sim.Failure, command string) simViolation {
	v := f.Result.Violation
	return simViolation{Checker: v.What, Why: v.Why, AtSeconds: v.At.Seconds(), Seed: f.Plan.Seed, Shape: f.Plan.Shape, Command: command}
}

func faultCounts(c *sim.Counts) map[string]uint64 {
	m := map[string]uint64{}
	for x := range fault.All() {
		if n := c.Faults[x]; n > 0 {
			m[x.String()] = n
		}
	}
	return m
}

// oneReport is the report of one plan.
func oneReport(p *sim.Plan, r *sim.Result, took time.Duration) simReport {
	x := simReport{
		Seeds: 1, From: p.Seed, Seconds: took.Seconds(), SimulatedSeconds: r.Simulated.Seconds(), Events: r.Events, Steps: r.Steps,
		TraceHash: fmt.Sprintf("%016x", r.TraceHash), Counts: r.Counts.Named(), Faults: faultCounts(&r.Counts), Marks: r.Marks,
	}
	if r.Violation != nil {
		x.Violations, x.ViolationCount = []simViolation{violationOf(sim.Failure{Plan: p, Result: r}, "")}, 1
	}
	return x
}

func printOne(w io.Writer, p *sim.Plan, r *sim.Result, marks bool) {
	row(w, "seed", p.Seed, p.Shape)
	row(w, "simulated", r.Simulated.Round(time.Millisecond))
	row(w, "events", r.Events)
	row(w, "trace hash", fmt.Sprintf("%016x", r.TraceHash))
	row(w, "counts", countText(r.Counts.Named()))
	row(w, "faults", countText(faultCounts(&r.Counts)))
	if marks {
		printMarks(w, r.Marks)
	}
	if r.Violation == nil {
		row(w, "passed")
	}
}

// countText are counts in a line, by name.
func countText(m map[string]uint64) string {
	names := make([]string, 0, len(m))
	for name, n := range m {
		if n > 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var b strings.Builder
	for i, name := range names {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s %d", name, m[name])
	}
	if b.Len() == 0 {
		return "none"
	}
	return b.String()
}

func printMarks(w io.Writer, m sim.Marks) {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		row(w, "mark", name, m[name])
	}
}

// simFailed says what a checker objected to, what came before it, and how to see
// it again; and shrinks it if that was asked for.
func (c *cli) simFailed(ctx context.Context, s simFlags, f sim.Failure) error {
	v := f.Result.Violation
	if c.output != "json" {
		c.printLast(f.Plan)
	}
	next := "see it again with " + s.command(f.Plan)
	switch {
	case s.minimize:
		path, m, err := c.shrink(ctx, s, f.Plan)
		if err != nil {
			return err
		}
		next = fmt.Sprintf("%s --plan %s runs what is left of it: %d faults, %s", program()+" sim", path, len(m.Plan.Faults)+len(m.Plan.Points), m.Plan.Knobs.Length)
	case s.plan == "":
		next += "; --minimize shrinks it"
	}
	return &partition.Error{
		Code: partition.CodeInternal, Next: next,
		Why: fmt.Sprintf("seed %d (%s): %s objects at %s: %s", f.Plan.Seed, f.Plan.Shape, v.What, v.At, v.Why),
	}
}

// command is the command line that runs a plan again.
func (s *simFlags) command(p *sim.Plan) string {
	line := program() + " sim"
	if s.plan != "" {
		return line + " --plan " + s.plan + plantFlag(p.Planted)
	}
	line += fmt.Sprintf(" --seed %d", p.Seed)
	if s.shape != "" {
		line += " --shape " + s.shape
	}
	return line + plantFlag(p.Planted)
}

func plantFlag(bugs planted.Set) string {
	if bugs.Empty() {
		return ""
	}
	return " --plant " + bugs.String()
}

// lastEvents is how many events before a violation are printed.
const lastEvents = 40

// printLast runs a plan again and prints the end of its trace.
func (c *cli) printLast(p *sim.Plan) {
	t := lastLines{limit: lastEvents}
	sim.PlayWith(p, sim.Options{Trace: &t})
	fmt.Fprintf(c.out, "the last events:\n")
	for _, line := range t.lines {
		fmt.Fprintf(c.out, "  %s\n", line)
	}
}

// lastLines keeps the last lines written to it.
type lastLines struct {
	limit int
	lines []string
	rest  []byte // of a line that has not ended
}

// Write implements io.Writer.
func (t *lastLines) Write(b []byte) (int, error) {
	n := len(b)
	for {
		line, more, ended := bytes.Cut(b, []byte("\n"))
		t.rest = append(t.rest, line...)
		if !ended {
			return n, nil
		}
		if len(t.lines) == t.limit {
			t.lines = append(t.lines[:0], t.lines[1:]...)
		}
		t.lines = append(t.lines, string(t.rest))
		t.rest, b = t.rest[:0], more
	}
}

// shrink makes the plan smaller and writes it to a file.
func (c *cli) shrink(ctx context.Context, s simFlags, p *sim.Plan) (string, *sim.Minimized, error) {
	m := sim.Minimizer{Workers: s.workers}
	if isTerminal(c.err) {
		m.Progress = func(p *sim.Plan, _ *sim.Result) {
			fmt.Fprintf(c.err, "\rshrinking: %d faults, %s, %d nodes   ", len(p.Faults)+len(p.Points), p.Knobs.Length, p.Knobs.Nodes)
		}
		defer fmt.Fprintln(c.err)
	}
	got, err := m.Minimize(ctx, p)
	if err != nil {
		return "", nil, fmt.Errorf("shrink seed %d: %w", p.Seed, err)
	}
	path := s.out
	if path == "" {
		path = fmt.Sprintf("sim-%d.plan", p.Seed)
	}
	v := got.Result.Violation
	var b bytes.Buffer
	fmt.Fprintf(&b, "# %s objects at %s: %s\n", v.What, v.At, strings.Join(strings.Fields(v.Why), " "))
	fmt.Fprintf(&b, "# shrunk from seed %d of shape %s\nexpect %s\n%s", p.Seed, p.Shape, v.What, got.Plan)
	if err := os.WriteFile(path, b.Bytes(), 0o666); err != nil {
		return "", nil, err
	}
	if c.output != "json" {
		fmt.Fprintf(c.out, "shrunk in %d runs and %.1f s to %d faults, written to %s\n", got.Runs, got.Took.Seconds(), len(got.Plan.Faults)+len(got.Plan.Points), path)
	}
	return path, got, nil
}
