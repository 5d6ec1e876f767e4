package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

// trial is one execution of a scenario: its directory, its processes and what
// was found. Numbers and violations may be added from any goroutine.
type trial struct {
	opts  options
	out   io.Writer
	dir   string
	bin   string
	rng   *rand.Rand // of the scenario's own goroutine
	began time.Time

	mu         sync.Mutex
	rows       [][2]string
	violations []string
	processes  []*process
	commands   int
	ports      map[int]bool // handed out
}

// runScenario makes a trial of a scenario and reports it. The error says that
// it did not pass.
func runScenario(ctx context.Context, s scenario, o options, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, o.limit)
	defer cancel()
	fmt.Fprintf(out, "== %s: %s (seed %d)\n", s.name, s.about, o.seed)
	t, err := newTrial(ctx, o, out)
	if err != nil {
		fmt.Fprintf(out, "FAIL %s: %v\n", s.name, err)
		return err
	}
	defer func() {
		if r := recover(); r != nil {
			t.killAll() // nothing may outlive this process
			panic(r)
		}
	}()
	err = s.run(ctx, t)
	return t.finish(s.name, err)
}

// killAll ends what still runs, and returns all that was started.
func (t *trial) killAll() []*process {
	t.mu.Lock()
	processes := t.processes
	t.mu.Unlock()
	for _, p := range processes {
		p.kill()
	}
	return processes
}

// newTrial makes the directory and the binary.
func newTrial(ctx context.Context, o options, out io.Writer) (*trial, error) {
	dir, err := os.MkdirTemp(o.parent, "pando-hammer-")
	if err != nil {
		return nil, fmt.Errorf("make a directory: %w", err)
	}
	t := &trial{opts: o, out: out, dir: dir, bin: o.binary, began: time.Now(), ports: map[int]bool{}}
	t.rng = rand.New(rand.NewPCG(o.seed, 0))
	if t.bin == "" {
		t.bin = filepath.Join(dir, "pando")
		if err := build(ctx, t.bin); err != nil {
			return nil, errors.Join(err, os.RemoveAll(dir))
		}
	}
	return t, nil
}

// build compiles the command of the module that the current directory is in.
func build(ctx context.Context, to string) error {
	msg, err := exec.CommandContext(ctx, "go", "build", "-o", to, "pando.dev/pando/cmd/pando").CombinedOutput()
	if err != nil {
		return fmt.Errorf("build pando: %w\n%s", err, msg)
	}
	return nil
}

// row adds a line to the table of numbers.
func (t *trial) row(name, format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rows = append(t.rows, [2]string{name, fmt.Sprintf(format, args...)})
}

// violate records a broken promise.
func (t *trial) violate(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.violations = append(t.violations, fmt.Sprintf(format, args...))
}

// rowCounts adds a row that says how often what was seen.
func (t *trial) rowCounts(name string, counts map[string]int) {
	for _, what := range slices.Sorted(maps.Keys(counts)) {
		t.row(name, "%s: %d times", what, counts[what])
	}
}

// rounds is how many rounds are made: as many as the flag says, or the
// scenario's own number, or the short one when all scenarios run.
func (t *trial) rounds(usual, short int) int {
	if t.opts.short {
		usual = short
	}
	return or(t.opts.rounds, usual)
}

// tell says what is being done.
func (t *trial) tell(format string, args ...any) {
	if t.opts.verbose {
		fmt.Fprintf(t.out, "%8.3fs %s\n", time.Since(t.began).Seconds(), fmt.Sprintf(format, args...))
	}
}

// finish ends what still runs, looks through all that was printed, removes the
// directory and reports.
func (t *trial) finish(name string, err error) error {
	processes := t.killAll()
	if err != nil {
		t.violate("the trial could not go on: %v", err)
	}
	for _, p := range processes {
		for _, line := range panicsIn(p.log) {
			t.violate("%s printed %q", p.name, line)
		}
	}
	t.row("time", "%s", time.Since(t.began).Round(100*time.Millisecond))
	if t.opts.keep {
		t.row("kept", "%s", t.dir)
	} else if err := os.RemoveAll(t.dir); err != nil {
		t.violate("remove the directory: %v", err)
	}
	return t.report(name)
}

func (t *trial) report(name string) error {
	w := tabwriter.NewWriter(t.out, 0, 8, 2, ' ', 0)
	for _, r := range t.rows {
		fmt.Fprintf(w, "  %s\t%s\n", r[0], r[1])
	}
	w.Flush()
	if len(t.violations) == 0 {
		fmt.Fprintf(t.out, "PASS %s\n", name)
		return nil
	}
	for i, v := range t.violations {
		if i == maxTold {
			fmt.Fprintf(t.out, "  and %d more\n", len(t.violations)-i)
			break
		}
		fmt.Fprintf(t.out, "  VIOLATION %s\n", v)
	}
	fmt.Fprintf(t.out, "FAIL %s: %d violations\n", name, len(t.violations))
	return fmt.Errorf("%s: %d violations, the first: %s", name, len(t.violations), t.violations[0])
}

// maxTold bounds the violations that are printed.
const maxTold = 20

// panicsIn returns the lines of a log that no user should ever see.
func panicsIn(log string) []string {
	f, err := os.Open(log)
	if err != nil {
		return nil // it was never started
	}
	defer f.Close()
	var found []string
	lines := bufio.NewReader(f)
	for {
		line, err := lines.ReadString('\n')
		if bad := strings.Contains(line, "panic") || strings.Contains(line, "goroutine "); bad && len(found) < 3 {
			found = append(found, strings.TrimSpace(line[:min(len(line), 300)]))
		}
		if err != nil {
			return found
		}
	}
}

// keepHistory writes what a violation rests on into the trial's directory.
func (t *trial) keepHistory(l *load, violated func(io.Writer) error) error {
	for name, dump := range map[string]func(io.Writer) error{"violated.ndjson": violated, "history.ndjson": l.history.Dump} {
		f, err := os.Create(filepath.Join(t.dir, name))
		if err != nil {
			return fmt.Errorf("keep the history: %w", err)
		}
		if err := errors.Join(dump(f), f.Close()); err != nil {
			return fmt.Errorf("keep the history: %w", err)
		}
	}
	return nil
}
