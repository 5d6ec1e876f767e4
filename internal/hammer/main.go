package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// Whoever reads the output may go away. The nodes must not outlive this
	// process, so that ends it in order, and not by a signal.
	signal.Ignore(syscall.SIGPIPE)
	ctx, cancel := context.WithCancelCause(ctx)
	os.Exit(execute(ctx, os.Args[1:], &reader{os.Stdout, cancel}))
}

// reader is somebody who reads the output. When they are gone, the work ends.
type reader struct {
	to   io.Writer
	gone context.CancelCauseFunc
}

// Write implements io.Writer.
func (r *reader) Write(b []byte) (int, error) {
	n, err := r.to.Write(b)
	if err != nil {
		r.gone(fmt.Errorf("nobody reads the output: %w", err))
	}
	return n, err
}

// scenario is one way to harm a cluster.
type scenario struct {
	name, about string
	run         func(context.Context, *trial) error
}

func scenarios() []scenario {
	return []scenario{
		{"kill-master", "kill -9 of the master's process under load, again and again", killMaster},
		{"kill-all", "kill -9 of all nodes at once under load", killAll},
		{"stop-master", "SIGSTOP of the master's process for 10 s, then SIGCONT", stopMaster},
		{"cut-off", "the network cut between the master and its peers under load", cutOff},
		{"control-down", "the control group's majority stopped, then killed", controlDown},
		{"late-join", "every order of starts, and a fourth node that joins later", lateJoin},
		{"load-kill", "pando load of real files with the master killed meanwhile", loadKill},
		{"bad-input", "wrong names, keys, directories and ports, and a damaged log", badInput},
		{"disk-full", "a node whose disk fills up, and is freed again", diskFull},
		{"members", "3 to 5 replicas and back under load, with the master killed in each step", members},
		{"zones", "three zones, each stopped and killed under load, and two at once", zones},
		{"dead-voter", "a voter killed for good: until a log replica covers for it, until a copy replaces it", deadVoter},
		{"rolling", "SIGTERM and restart of one node after the other under load", rolling},
		{"maintenance", "a node drained by the operator under load, with kills meanwhile", maintenance},
		{"transfer", "mastership handed over under load, compared with kill -9", transfers},
		{"damage", "a byte flipped in the log and in state files, and a disk rolled back", repairs},
		{"recover", "two of three members gone for good, and the operator's recovery", recovery},
		{"chaos", "every kind of fault, one after the other and all at once, on nodes with networks and disks of their own", chaosTrial},
		{"split", "a partition split under load, with kill -9 of the master in each step", splitUnderLoad},
		{"pairs", "two replicas, both in sync: each is taken away, and comes back", pairs},
	}
}

// options are the flags. Zero counts mean the scenario's own default.
type options struct {
	kills, rounds, clients, slots int
	failovers                     int
	seed                          uint64
	pace, calm, pause, down       time.Duration
	compare                       time.Duration
	median, p99, limit            time.Duration
	binary, parent, nodeFlags     string
	keep, generated, verbose      bool
	short                         bool // all scenarios run
	transfers, fill               int
	during                        time.Duration
	only                          string
	args                          []string // all of the flags, as they were given
}

func (o *options) register(f *flag.FlagSet) {
	f.IntVar(&o.kills, "kills", 100, "kills of kill-master")
	f.IntVar(&o.failovers, "failovers", 0, "failovers without a kill that kill-master lets pass, for machines that are too busy")
	f.IntVar(&o.rounds, "rounds", 0, "rounds of kill-all (default 20), stop-master (3), members (50), cut-off (5), zones, dead-voter, pairs (1), rolling, maintenance (3), damage (6)")
	f.IntVar(&o.transfers, "transfers", 0, "hand-overs of transfer (default 100), which makes a tenth as many kills")
	f.DurationVar(&o.during, "for", 0, "how long chaos does harm (default 10m; 1m when all scenarios run)")
	f.StringVar(&o.only, "only", "", "faults of chaos, a list of classes and groups: kill, power-cut, process, network, disk, damage, operator")
	f.IntVar(&o.fill, "fill", 256, "values of 64 KiB that are there before a copy is needed")
	f.IntVar(&o.clients, "clients", 64, "clients at once")
	f.IntVar(&o.slots, "slots", 0, "keys in use at once (default a quarter of the clients, at least 8)")
	f.Uint64Var(&o.seed, "seed", 1, "seed of everything that is drawn")
	f.DurationVar(&o.pace, "pace", 5*time.Millisecond, "mean rest of a client between two operations")
	f.DurationVar(&o.calm, "calm", 10*time.Second, "undisturbed load before the first kill of kill-master")
	f.DurationVar(&o.pause, "pause", 10*time.Second, "how long stop-master stops the master, and disk-full keeps the disks full")
	f.DurationVar(&o.down, "down", 30*time.Second, "how long control-down keeps the control group down")
	f.DurationVar(&o.compare, "compare", 20*time.Second, "how long is tried to read the table from every replica at the end")
	f.DurationVar(&o.median, "median", 350*time.Millisecond, "largest median of the time from a kill to the next acknowledged write")
	f.DurationVar(&o.p99, "p99", time.Second, "largest 99th percentile of that time")
	f.DurationVar(&o.limit, "limit", 45*time.Minute, "end of the whole trial")
	f.StringVar(&o.binary, "binary", "", "pando binary (default: built from ./cmd/pando)")
	f.StringVar(&o.parent, "dir", "", "where the trial's directory is made (default: the system's for temporary files)")
	f.StringVar(&o.nodeFlags, "node-flags", "", "further flags for every node, separated by blanks")
	f.BoolVar(&o.keep, "keep", false, "keep the trial's directory with data, logs and histories")
	f.BoolVar(&o.generated, "generated", false, "load-kill makes up its input instead of reading the Debian files")
	f.BoolVar(&o.verbose, "v", false, "tell each step")
}

// or returns n, or the default if n is 0.
func or(n, def int) int {
	if n == 0 {
		return def
	}
	return n
}

func usage(out io.Writer, f *flag.FlagSet) {
	fmt.Fprintln(out, "usage: hammer <scenario> [flags]")
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	for _, s := range scenarios() {
		fmt.Fprintf(w, "  %s\t%s\n", s.name, s.about)
	}
	fmt.Fprintf(w, "  all\t%s\n", "all of them, one after the other (without a name, too)")
	w.Flush()
	f.SetOutput(out)
	f.PrintDefaults()
}

// execute runs the scenarios that the command line names and returns the exit
// code: 0 passed, 1 failed, 2 not understood.
func execute(ctx context.Context, args []string, out io.Writer) int {
	name := "all"
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		name, args = args[0], args[1:]
	}
	var o options
	f := flag.NewFlagSet("hammer", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	o.register(f)
	err := f.Parse(args)
	if err == nil && f.NArg() > 0 {
		err = fmt.Errorf("%q is not a flag", f.Arg(0))
	}
	if err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(out, err)
		}
		usage(out, f)
		return 2
	}
	o.short, o.args = name == "all", args
	code, known := 0, false
	for _, s := range scenarios() {
		if name != "all" && name != s.name {
			continue
		}
		known = true
		if err := runScenario(ctx, s, o, out); err != nil {
			code = 1
		}
		if ctx.Err() != nil {
			return 1
		}
	}
	if !known {
		fmt.Fprintf(out, "there is no scenario %q\n", name)
		usage(out, f)
		return 2
	}
	return code
}
