package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pando.dev/pando/internal/planted"
	"pando.dev/pando/partition"
	"pando.dev/pando/sim"
)

// simFlags are the flags of pando sim.
type simFlags struct {
	seed, seeds, from uint64
	hours             float64
	shape, plan       string
	plant             string
	minimize          bool
	out               string
	trace             string
	keepGoing         bool
	workers           int
	marks             bool
	exhaustive        bool
}

// defaultSeeds is what pando sim runs if nothing says how much.
const defaultSeeds = 1000

func (c *cli) simCommand() *cobra.Command {
	var s simFlags
	cmd := &cobra.Command{
		Use: "sim", Short: "Run simulated clusters under faults, and check everything", Args: cobra.NoArgs,
		Long: "Runs whole clusters in virtual time: the product's own replicas, leases and log, on\n" +
			"networks, disks, clocks and lock services that fail in every way that has a name. Each\n" +
			"seed draws its own sizes and faults, and gives the same run each time. What is checked is\n" +
			"that nothing acknowledged is lost or done twice, that no read is stale, that there is one\n" +
			"master an epoch, and that every group answers again after the faults.\n\n" +
			"With --exhaustive nothing is drawn: every state of small configurations of the protocol\n" +
			"is visited, every order of messages, disks and crashes, until there are no more or two\n" +
			"million were seen of one.\n\n" +
			"A violation ends it with the command that shows it again. --minimize shrinks it to a plan\n" +
			"with few faults in a file, which --plan runs. Exit codes: 0 nothing found, 1 a violation\n" +
			"(or a state never reached), 2 usage.",
		Example: "  pando sim --seeds 10000\n" +
			"  pando sim --hours 8 --keep-going\n" +
			"  pando sim --seed 4711 --minimize\n" +
			"  pando sim --plan failing.plan --trace\n" +
			"  pando sim --seeds 500 --plant ack-unsynced\n" +
			"  pando sim --exhaustive",
		RunE: func(cmd *cobra.Command, _ []string) error { return c.sim(cmd, s) },
	}
	f := cmd.Flags()
	f.Uint64Var(&s.seed, "seed", 0, "run this seed only")
	f.Uint64Var(&s.seeds, "seeds", 0, fmt.Sprintf("how many seeds to run (default %d, or no end with --hours)", defaultSeeds))
	f.Uint64Var(&s.from, "from", 1, "the first seed")
	f.Float64Var(&s.hours, "hours", 0, "end after so many hours")
	f.StringVar(&s.shape, "shape", "", "draw all plans in this shape: "+shapeNames()+" (default: a mix)")
	f.StringVar(&s.plan, "plan", "", "run the plan in this file")
	f.StringVar(&s.plant, "plant", "", "plant these known mistakes, to see them found; 'list' lists them")
	f.BoolVar(&s.minimize, "minimize", false, "shrink the first failing plan and write it to a file")
	f.StringVar(&s.out, "out", "", "the file for --minimize (default sim-<seed>.plan here)")
	f.StringVar(&s.trace, "trace", "", "write every event of one seed or plan to this file (without a file: print it)")
	f.Lookup("trace").NoOptDefVal = "-"
	f.BoolVar(&s.keepGoing, "keep-going", false, "count violations instead of ending at the first")
	f.IntVar(&s.workers, "workers", 0, "runs at once (default: as many as processors)")
	f.BoolVar(&s.exhaustive, "exhaustive", false, "visit every state of small configurations instead")
	f.BoolVar(&s.marks, "marks", false, "print how often each point of the code was reached")
	must(cmd.RegisterFlagCompletionFunc("shape", cobra.FixedCompletions(strings.Split(shapeNames(), ", "), cobra.ShellCompDirectiveNoFileComp)))
	return cmd
}

func shapeNames() string {
	var names []string
	for _, s := range sim.DefaultShapes() {
		names = append(names, s.Name)
	}
	return strings.Join(names, ", ")
}

// togetherNever are flags of which a command line has one at most.
func togetherNever(cmd *cobra.Command, names ...string) error {
	set := ""
	for _, name := range names {
		if !cmd.Flags().Changed(name) {
			continue
		}
		if set != "" {
			return &usageError{fmt.Errorf("--%s and --%s do not go together", set, name)}
		}
		set = name
	}
	return nil
}

func (c *cli) sim(cmd *cobra.Command, s simFlags) error {
	never := [][]string{{"seed", "seeds", "plan"}, {"seed", "hours", "plan"}, {"seed", "from", "plan"}, {"plan", "shape"}}
	for _, name := range []string{"seed", "seeds", "from", "hours", "shape", "plan", "minimize", "out", "trace", "keep-going", "workers", "marks"} {
		never = append(never, []string{"exhaustive", name})
	}
	for _, names := range never {
		if err := togetherNever(cmd, names...); err != nil {
			return err
		}
	}
	if s.plant == "list" {
		return c.listPlanted()
	}
	bugs, err := planted.Parse(s.plant)
	if err != nil {
		return invalid("pando sim --plant list names them", "%v", err)
	}
	shapes, err := s.shapes()
	if err != nil {
		return err
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(sim.GCPercent)
	}
	if s.exhaustive {
		return c.simExhaustive(cmd.Context(), bugs)
	}
	one := cmd.Flags().Changed("seed") || s.plan != ""
	switch {
	case s.trace != "" && !one:
		return &usageError{errors.New("--trace wants --seed or --plan: one run, not many")}
	case s.hours < 0 || s.workers < 0:
		return &usageError{errors.New("neither --hours nor --workers may be negative")}
	case !one:
		return c.simSwarm(cmd.Context(), s, shapes, bugs)
	}
	story := &sim.Story{Plan: *sim.Draw(s.seed, sim.Pick(s.seed, shapes))}
	if s.plan != "" {
		if story, err = readStory(s.plan); err != nil {
			return err
		}
	}
	if !bugs.Empty() {
		story.Planted = bugs
	}
	return c.simOne(cmd.Context(), s, story)
}

// shapes are those that plans are drawn in.
func (s *simFlags) shapes() ([]sim.Shape, error) {
	if s.shape == "" {
		return sim.DefaultShapes(), nil
	}
	x, ok := sim.ShapeNamed(s.shape)
	if !ok {
		return nil, invalid("it is one of "+shapeNames(), "no shape is called %q", s.shape)
	}
	return []sim.Shape{x}, nil
}

func readStory(path string) (*sim.Story, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	story, err := sim.ParseStory(text)
	if err != nil {
		return nil, invalid("repair the file, or make another with --minimize", "%s: %v", path, err)
	}
	return story, nil
}

func (c *cli) listPlanted() error {
	type bug struct {
		Name  string `json:"name"`
		Layer string `json:"layer"`
		About string `json:"about"`
	}
	var all []bug
	for _, b := range planted.All() {
		all = append(all, bug{b.String(), b.Layer(), b.About()})
	}
	return c.show(all, func(w io.Writer) {
		for _, b := range all {
			row(w, b.Name, b.Layer, b.About)
		}
	})
}

// simOne runs one plan.
func (c *cli) simOne(ctx context.Context, s simFlags, story *sim.Story) (err error) {
	o := sim.Options{Stop: ctx.Done()}
	if s.trace != "" {
		out, end, err := c.traceTo(s.trace)
		if err != nil {
			return err
		}
		o.Trace = out
		defer func() { err = errors.Join(err, end()) }()
	}
	began := time.Now()
	res := sim.PlayWith(&story.Plan, o)
	if res.Stopped {
		return ctx.Err()
	}
	if err := c.show(oneReport(&story.Plan, res, time.Since(began)), func(w io.Writer) { printOne(w, &story.Plan, res, s.marks) }); err != nil {
		return err
	}
	v := res.Violation
	switch {
	case story.Expect == sim.Pass || story.Expect == "":
		if v != nil {
			return c.simFailed(ctx, s, sim.Failure{Plan: &story.Plan, Result: res})
		}
	case v == nil:
		return invalid("take the plan's expect line out if what it shows was mended", "it passes, and %s expects %s to object", s.plan, story.Expect)
	case v.What != story.Expect:
		return &partition.Error{Code: partition.CodeInternal, Why: fmt.Sprintf("%s objects, and %s expects %s to: %s", v.What, s.plan, story.Expect, v)}
	}
	return nil
}

// traceTo is where a trace goes, and what ends it.
func (c *cli) traceTo(path string) (io.Writer, func() error, error) {
	if path == "-" {
		return c.out, func() error { return nil }, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, nil, err
	}
	return f, f.Close, nil
}
