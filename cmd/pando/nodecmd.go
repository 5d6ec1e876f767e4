package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"pando.dev/pando/actors"
	"pando.dev/pando/actors/httpapi"
	"pando.dev/pando/partition"
)

// drainWait is how long a drain, or its end, is waited for.
const drainWait = time.Minute

func (c *cli) nodeDrain() *cobra.Command {
	var o actors.DrainOptions
	var wait time.Duration
	var status bool
	cmd := &cobra.Command{
		Use: "drain <node>", Short: "Take a node out of service, until undrain", Args: cobra.ExactArgs(1),
		Long: "Hands the masterships of the node to others, and then has its replicas count for\n" +
			"nothing, so that it can be stopped, or lost, without anybody waiting for it. It goes\n" +
			"on receiving what is written, and stays drained over restarts. A drain with which a\n" +
			"partition could not commit any more is refused. Of three replicas with two on drained\n" +
			"nodes one counts, and a write is on its disk only: drain one node at a time. May be\n" +
			"given to any node.",
		Example: "  pando node drain n2 --reason 'new disk'\n  pando node drain n2 --status",
		RunE: c.asking(func(cmd *cobra.Command, args []string, api *httpapi.Client) error {
			o.Node = partition.NodeID(args[0])
			if status {
				return showAnswer(c, cmd, func(ctx context.Context) (actors.DrainInfo, error) { return api.DrainStatus(ctx, o.Node) }, printDrain)
			}
			return c.drain(cmd, api, o.Node, wait, func(ctx context.Context) (actors.DrainInfo, error) { return api.BeginDrain(ctx, o) })
		}),
	}
	f := cmd.Flags()
	f.StringVar(&o.Reason, "reason", "", "why, for those who look later")
	f.BoolVar(&o.Force, "force", false, "even if partitions can then not commit; it is logged")
	f.BoolVar(&status, "status", false, "only say how far it is")
	f.DurationVar(&wait, "wait", drainWait, "how long to wait until it is done; 0 does not wait")
	return cmd
}

func (c *cli) nodeUndrain() *cobra.Command {
	var wait time.Duration
	cmd := &cobra.Command{
		Use: "undrain <node>", Short: "Take a drained node back into service", Args: cobra.ExactArgs(1),
		Long: "Has the replicas of the node count again, each when it has caught up.",
		RunE: c.asking(func(cmd *cobra.Command, args []string, api *httpapi.Client) error {
			node := partition.NodeID(args[0])
			return c.drain(cmd, api, node, wait, func(ctx context.Context) (actors.DrainInfo, error) { return api.BeginUndrain(ctx, node) })
		}),
	}
	cmd.Flags().DurationVar(&wait, "wait", drainWait, "how long to wait until it is done; 0 does not wait")
	return cmd
}

// drain begins a drain, or its end, and waits until it is done.
func (c *cli) drain(cmd *cobra.Command, api *httpapi.Client, node partition.NodeID, wait time.Duration, begin func(context.Context) (actors.DrainInfo, error)) error {
	ctx, cancel := c.within(cmd)
	defer cancel()
	info, err := begin(ctx)
	if err != nil {
		return err
	}
	show := func() error { return c.show(info, func(w io.Writer) { printDrain(w, info) }) }
	if wait <= 0 {
		return show()
	}
	mode := info.Mode
	ctx, cancel = context.WithTimeout(cmd.Context(), wait)
	defer cancel()
	var last error
	done := poll(ctx, func() bool {
		now, err := api.DrainStatus(ctx, node)
		if err == nil {
			info = now
		} else if ctx.Err() == nil {
			last = err
		}
		return err == nil && (info.Done || info.Mode != mode)
	})
	switch {
	case done && info.Mode != mode:
		return &partition.Error{Code: partition.CodeRefused, Why: fmt.Sprintf("meanwhile somebody else changed whether node %s is in service", node)}
	case !done && last != nil:
		return actors.DrainUnfinished(info, fmt.Errorf("after %v, last: %w", wait, last))
	case !done:
		return actors.DrainUnfinished(info, fmt.Errorf("after %v", wait))
	}
	return show()
}

func printDrain(w io.Writer, info actors.DrainInfo) {
	state := "in service"
	if info.Mode != "" {
		state = info.Mode
	}
	if info.Reason != "" {
		state += " (" + info.Reason + ")"
	}
	if !info.Done {
		state += ", not done yet"
	}
	if len(info.Left) > 0 {
		state += ", but " + counted(len(info.Left), "partition does not agree", "partitions do not agree")
	}
	fmt.Fprintf(w, "node %s is %s; it holds %s\n", info.Node, state, counted(info.Replicas, "replica", "replicas"))
	if len(info.Left) == 0 {
		return
	}
	row(w, "PARTITION", "UNDER WAY", "WHY NOT YET")
	for _, l := range info.Left {
		row(w, l.Group, yesNo(l.Working), dash(l.Why))
	}
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// prepareStop takes the node out of service before it stops, at most for the
// time given, and says what is left.
func (m *member) prepareStop(ctx context.Context, wait time.Duration, cfg memberConfig) {
	if wait <= 0 {
		return
	}
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), wait, fmt.Errorf("after %v, the limit", wait))
	defer cancel()
	info, err := m.node.PrepareStop(ctx)
	switch {
	case err != nil && !errors.Is(err, partition.ErrClosed):
		cfg.logger.Warn("stopping before the node is drained", "err", err)
	case err == nil && info.Mode != "" && !info.Done:
		for _, l := range info.Left {
			cfg.logger.Warn("stopping although a partition is left as it is", "group", l.Group, "why", l.Why)
		}
	}
}
