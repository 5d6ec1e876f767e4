package main

import (
	"context"
	"crypto/rand"
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

// mergeFlags are those of pando partition merge.
type mergeFlags struct {
	dryRun  bool
	wait    time.Duration
	timeout time.Duration
	reason  string
}

func (c *cli) partitionMerge() *cobra.Command {
	var f mergeFlags
	cmd := &cobra.Command{
		Use: "merge <partition> [<next partition>]", Short: "Have a partition absorb the one behind it while both serve", Args: cobra.RangeArgs(1, 2),
		Long: "The partition that is named keeps its id and gets the keys of the one behind it, which is\n" +
			"gone then. They need not be on the same nodes. All that the other one has goes through the\n" +
			"log of the first, so it has to be small. Reads and writes go on; those of the one that is\n" +
			"absorbed wait for a moment at the end. A merge that does not come about in time leaves\n" +
			"everything as it was.",
		Example: "  pando partition merge g7 --dry-run\n  pando partition merge g7 g9 --wait 1m",
		RunE: c.asking(func(cmd *cobra.Command, args []string, api *httpapi.Client) error {
			r, err := f.request(args)
			if err != nil {
				return err
			}
			return c.merge(cmd, api, r, f)
		}),
	}
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "say what would be done, and do nothing")
	cmd.Flags().DurationVar(&f.wait, "wait", changeWait, "how long to wait until it is done; 0 does not wait")
	cmd.Flags().DurationVar(&f.timeout, "timeout", 0, "how long it is tried before it is given up (default 10m)")
	cmd.Flags().StringVar(&f.reason, "reason", "", "why, for the history")
	return cmd
}

// request puts the arguments and flags together.
func (f *mergeFlags) request(args []string) (actors.MergeRequest, error) {
	r := actors.MergeRequest{Timeout: f.timeout, Reason: f.reason, Token: rand.Text()}
	for i, to := range []*partition.GroupID{&r.Group, &r.Source}[:len(args)] {
		g, err := partition.ParseGroupID(args[i])
		if err != nil {
			return r, &usageError{err}
		}
		*to = g
	}
	if u, err := user.Current(); err == nil {
		r.By = u.Username
	}
	return r, nil
}

func (c *cli) merge(cmd *cobra.Command, api *httpapi.Client, r actors.MergeRequest, f mergeFlags) error {
	ctx, cancel := c.within(cmd)
	defer cancel()
	if f.dryRun {
		info, err := api.PlanMerge(ctx, r)
		if err != nil {
			return err
		}
		return c.show(info, func(w io.Writer) { printMerge(w, info) })
	}
	info, err := api.Merge(ctx, r)
	if err == nil && f.wait > 0 {
		limited, cancel := context.WithTimeout(cmd.Context(), f.wait)
		defer cancel()
		task := info.Task
		info, err = actors.AwaitMerge(limited, func(ctx context.Context) (actors.MergeInfo, error) { return api.MergeStatus(ctx, task) })
	}
	if err != nil {
		return err
	}
	return c.show(info, func(w io.Writer) { printMerge(w, info) })
}

func printMerge(w io.Writer, i actors.MergeInfo) {
	state := i.State
	if i.Why != "" {
		state += ": " + i.Why
	}
	task := ""
	if i.Task != 0 {
		task = fmt.Sprintf(", task t%d", i.Task)
	}
	row(w, "merge", fmt.Sprintf("partition %s of table %s absorbs %s%s: %s", i.Group, i.Table, i.Source.Group, task, state))
	row(w, "PARTITION", "RANGE", "NODES")
	for _, p := range []actors.SplitPiece{i.Keep, i.Source} {
		var nodes []string
		for _, n := range p.Nodes {
			nodes = append(nodes, string(n))
		}
		row(w, p.Group.String(), rangeText(p.Lo, p.Hi), strings.Join(nodes, ", "))
	}
}
