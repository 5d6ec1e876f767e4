package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os/user"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pando.dev/pando/actors"
	"pando.dev/pando/actors/httpapi"
	"pando.dev/pando/partition"
)

// splitFlags are those of pando partition split.
type splitFlags struct {
	at       []string
	middle   bool
	into     int
	byLoad   bool
	newNodes bool
	dryRun   bool
	wait     time.Duration
	timeout  time.Duration
	reason   string
}

func (c *cli) partitionSplit() *cobra.Command {
	var f splitFlags
	cmd := &cobra.Command{
		Use: "split <table|partition>", Short: "Divide a partition while it serves", Args: cobra.ExactArgs(1),
		Long: "Divides a partition at the keys that are given, in the middle of its data, or into pieces\n" +
			"about equal. It keeps the first piece; the others become partitions of their own, on the\n" +
			"same nodes without copying anything, or with --new-nodes on others, which get a copy first.\n" +
			"Reads and writes go on; those of the pieces that leave wait for a moment at the end. A split\n" +
			"that does not come about in time leaves everything as it was.",
		Example: "  pando partition split orders --at m\n  pando partition split g1 --middle --dry-run\n  pando partition split g1 --into 4 --new-nodes --wait 5m",
		RunE: c.asking(func(cmd *cobra.Command, args []string, api *httpapi.Client) error {
			r, err := f.request(args[0])
			if err != nil {
				return err
			}
			return c.split(cmd, api, r, f)
		}),
	}
	cmd.Flags().StringArrayVar(&f.at, "at", nil, "key that begins a new partition; may be given several times, in order")
	cmd.Flags().BoolVar(&f.middle, "middle", false, "split in the middle of the data")
	cmd.Flags().IntVar(&f.into, "into", 0, "split into this many pieces, about equal")
	cmd.Flags().BoolVar(&f.byLoad, "by-load", false, "with --middle and --into: pieces equal by what is asked of them, not by their size")
	cmd.Flags().BoolVar(&f.newNodes, "new-nodes", false, "put the new partitions on nodes that do not hold this one")
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "say what would be done, and do nothing")
	cmd.Flags().DurationVar(&f.wait, "wait", changeWait, "how long to wait until it is done; 0 does not wait")
	cmd.Flags().DurationVar(&f.timeout, "timeout", 0, "how long it is tried before it is given up (default 10m)")
	cmd.Flags().StringVar(&f.reason, "reason", "", "why, for the history")
	return cmd
}

// request puts the flags together.
func (f *splitFlags) request(what string) (actors.SplitRequest, error) {
	r := actors.SplitRequest{NewNodes: f.newNodes, Into: f.into, ByLoad: f.byLoad, Timeout: f.timeout, Reason: f.reason, Token: rand.Text()}
	given := 0
	for _, is := range []bool{len(f.at) > 0, f.middle, f.into != 0} {
		if is {
			given++
		}
	}
	if given != 1 {
		return r, &usageError{errors.New("give one of --at, --middle and --into")}
	}
	if f.byLoad && len(f.at) > 0 {
		return r, &usageError{errors.New("--by-load goes with --middle or --into: --at says where to split")}
	}
	if f.middle {
		r.Into = 2
	}
	for _, k := range f.at {
		r.At = append(r.At, []byte(k))
	}
	if g, err := partition.ParseGroupID(what); err == nil {
		r.Group = g
	} else {
		r.Table = what
	}
	if u, err := user.Current(); err == nil {
		r.By = u.Username
	}
	return r, nil
}

func (c *cli) split(cmd *cobra.Command, api *httpapi.Client, r actors.SplitRequest, f splitFlags) error {
	ctx, cancel := c.within(cmd)
	defer cancel()
	if f.dryRun {
		info, err := api.PlanSplit(ctx, r)
		if err != nil {
			return err
		}
		return c.show(info, func(w io.Writer) { printSplit(w, info) })
	}
	info, err := api.Split(ctx, r)
	if err == nil && f.wait > 0 {
		limited, cancel := context.WithTimeout(cmd.Context(), f.wait)
		defer cancel()
		task, line := info.Task, c.newWaitLine()
		info, err = actors.AwaitSplit(limited, func(ctx context.Context) (actors.SplitInfo, error) {
			now, err := api.SplitStatus(ctx, task)
			if err == nil {
				line.show(time.Now(), fmt.Sprintf("t%d, split of %s: %s: %s", task, now.Group, now.Phase, now.Why))
			}
			return now, err
		})
		line.end()
	}
	if err != nil {
		return err
	}
	return c.show(info, func(w io.Writer) { printSplit(w, info) })
}

func printSplit(w io.Writer, i actors.SplitInfo) {
	state := i.State
	if i.Phase != "" && i.State == "open" {
		state += ", " + i.Phase
	}
	if i.Why != "" {
		state += ": " + i.Why
	}
	task := ""
	if i.Task != 0 {
		task = fmt.Sprintf(", task t%d", i.Task)
	}
	row(w, "split", fmt.Sprintf("partition %s of table %s%s: %s", i.Group, i.Table, task, state))
	row(w, "PARTITION", "RANGE", "NODES")
	for _, p := range append([]actors.SplitPiece{i.Keep}, i.Pieces...) {
		name := "(new)"
		if p.Group != 0 {
			name = p.Group.String()
		} else if i.Task == 0 && string(p.Lo) == string(i.Keep.Lo) {
			name = i.Group.String()
		}
		var nodes []string
		for _, n := range p.Nodes {
			nodes = append(nodes, string(n))
		}
		row(w, name, rangeText(p.Lo, p.Hi), strings.Join(nodes, ", "))
	}
}
