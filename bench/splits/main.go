package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"slices"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "splits:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("say what to measure: pause or large")
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	dir := flags.String("dir", "", "directory on the disk that counts")
	limit := flags.Duration("limit", 10*time.Minute, "give up after this long")
	o, l := pauseOptions{}, largeOptions{}
	mib := flags.Int64("state", 16, "MiB of state at first")
	rate := flags.Int("rate", 500, "operations per second of each writer or client")
	flags.IntVar(&o.splits, "splits", 40, "number of splits")
	flags.BoolVar(&o.trace, "trace", false, "print what happened when in each split")
	flags.IntVar(&l.replicas, "replicas", 3, "large: replicas of the partition")
	flags.BoolVar(&l.newNodes, "new-nodes", false, "large: what leaves goes to other nodes")
	flags.DurationVar(&l.calm, "calm", 20*time.Second, "large: the time without a split")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, *limit)
	defer cancel()
	o.dir, o.state, o.rate = *dir, *mib<<20, *rate
	l.dir, l.state, l.rate = *dir, *mib<<20, *rate
	switch args[0] {
	case "pause":
		return measurePause(ctx, o, os.Stdout)
	case "large":
		return measureLarge(ctx, l, os.Stdout)
	}
	return fmt.Errorf("unknown measurement %q", args[0])
}

// byTime returns the names of phases in the order of their medians.
func byTime(phases map[string]durations) []string {
	return slices.SortedFunc(maps.Keys(phases), func(a, b string) int {
		return cmp.Or(cmp.Compare(phases[a].at(0.5), phases[b].at(0.5)), cmp.Compare(a, b))
	})
}
