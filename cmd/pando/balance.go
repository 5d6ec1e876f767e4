package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pando.dev/pando/actors"
	"pando.dev/pando/actors/httpapi"
	"pando.dev/pando/partition"
)

// byCommand is who begins what is begun by the command line.
const byCommand = "operator"

func (c *cli) rebalanceCommand() *cobra.Command {
	var dry, apply bool
	var wait time.Duration
	cmd := &cobra.Command{
		Use: "rebalance", Short: "Plan what brings the cluster into balance", Args: cobra.NoArgs,
		Long: "Looks at where replicas and masterships are and says what should move, with the bytes\n" +
			"and the reason of each step. Nothing happens before pando plan apply, or with --apply.\n" +
			"A new node receives its share and nothing else moves; who has too much gives some.",
		Example: "  pando rebalance\n  pando plan apply t7\n  pando rebalance --apply",
		RunE: c.asking(func(cmd *cobra.Command, _ []string, api *httpapi.Client) error {
			ctx, cancel := c.within(cmd)
			defer cancel()
			p, err := api.Rebalance(ctx, actors.BalanceOptions{DryRun: dry, By: byCommand})
			if err != nil {
				return err
			}
			if !apply || dry || len(p.Steps) == 0 {
				return c.show(p, func(w io.Writer) { printPlan(w, p) })
			}
			return c.startPlan(cmd, api, p.Task.ID, wait)
		}),
	}
	f := cmd.Flags()
	f.BoolVar(&dry, "dry-run", false, "keep nothing")
	f.BoolVar(&apply, "apply", false, "carry the plan out at once")
	f.DurationVar(&wait, "wait", 0, "with --apply: how long to wait until it is done")
	return cmd
}

func (c *cli) planCommand() *cobra.Command {
	return group("plan", "Show, carry out and end plans", c.planShow(), c.planApply(),
		c.abortCommand("cancel <plan>", "End a plan", "What is running is undone or ends by itself, nothing more begins."))
}

func (c *cli) planShow() *cobra.Command {
	return &cobra.Command{
		Use: "show <plan>", Short: "Show a plan and how far it is", Args: cobra.ExactArgs(1),
		RunE: c.asking(func(cmd *cobra.Command, args []string, api *httpapi.Client) error {
			id, err := actors.ParseTaskID(args[0])
			if err != nil {
				return err
			}
			return showAnswer(c, cmd, func(ctx context.Context) (p actors.PlanInfo, err error) {
				tasks, err := api.Tasks(ctx)
				if err != nil {
					return p, err
				}
				p.Task, err = taskIn(tasks, id)
				p.Steps = actors.StepsOf(tasks, id)
				return p, err
			}, printPlan)
		}),
	}
}

func (c *cli) planApply() *cobra.Command {
	var wait time.Duration
	cmd := &cobra.Command{
		Use: "apply <plan>", Short: "Carry a plan out", Args: cobra.ExactArgs(1),
		Long: "Begins the plan. Steps of partitions that have changed meanwhile fail, the others are done.\n" +
			"It goes on by itself whoever fails; pando plan show says how far it is.",
		RunE: c.asking(func(cmd *cobra.Command, args []string, api *httpapi.Client) error {
			id, err := actors.ParseTaskID(args[0])
			if err != nil {
				return err
			}
			return c.startPlan(cmd, api, id, wait)
		}),
	}
	cmd.Flags().DurationVar(&wait, "wait", 0, "how long to wait until it is done")
	return cmd
}

// startPlan begins a plan, and waits for its end if that is wanted.
func (c *cli) startPlan(cmd *cobra.Command, api *httpapi.Client, id actors.TaskID, wait time.Duration) error {
	ctx, cancel := c.within(cmd)
	defer cancel()
	t, err := api.StartPlan(ctx, id)
	if err == nil && wait > 0 {
		t, err = c.awaitTask(cmd.Context(), api, id, wait)
	}
	if err != nil {
		return err
	}
	return c.show(t, func(w io.Writer) { fmt.Fprintln(w, endText(t)) })
}

func printPlan(w io.Writer, p actors.PlanInfo) {
	if len(p.Steps) == 0 && len(p.Impossible) == 0 {
		fmt.Fprintln(w, "nothing is to be moved")
		return
	}
	name := "dry run"
	if p.Task.ID != 0 {
		name = fmt.Sprintf("%s %s is %s", p.Task.Kind, p.Task.ID, stateText(p.Task))
	}
	fmt.Fprintf(w, "%s: %s, %s to copy\n", name, counted(len(p.Steps), "step", "steps"), bytesText(p.Task.Bytes))
	if len(p.Before) > 0 {
		fmt.Fprintf(w, "the fullest node over the mean: %s; then: %s\n", sharesText(p.Before), sharesText(p.After))
	}
	for _, why := range p.Impossible {
		fmt.Fprintf(w, "not possible: %s\n", why)
	}
	row(w, "STEP", "KIND", "PARTITION", "FROM", "TO", "BYTES", "STATE", "WHY")
	for i, s := range p.Steps {
		id, state := fmt.Sprint(i+1), "planned"
		if s.ID != 0 {
			id, state = s.ID.String(), stateText(s)
		}
		row(w, id, s.Kind, s.Group, s.From, s.To, bytesText(s.Bytes), state, dash(whyText(s)))
	}
	if p.Left > 0 {
		fmt.Fprintf(w, "%s more when these are done: plan again then\n", counted(p.Left, "step", "steps"))
	}
}

func sharesText(b map[string]float64) string {
	var all []string
	for _, k := range slices.Sorted(maps.Keys(b)) {
		all = append(all, fmt.Sprintf("%s %.2f", k, b[k]))
	}
	return strings.Join(all, ", ")
}

// bytesText writes an amount in the largest unit in which it is at least one.
func bytesText(n uint64) string {
	unit, x := "B", float64(n)
	for _, u := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if x < 1024 {
			break
		}
		unit, x = u, x/1024
	}
	return fmt.Sprintf("%.4g %s", x, unit)
}

func (c *cli) nodeDecommission() *cobra.Command {
	var dry bool
	var wait time.Duration
	cmd := &cobra.Command{
		Use: "decommission <node>", Short: "Empty a node for good", Args: cobra.ExactArgs(1),
		Long: "Moves the replicas and masterships of the node to the others and lets nothing new come;\n" +
			"every partition keeps its number of replicas all the while. What the other nodes cannot\n" +
			"take is refused at once. When the node is empty it can be stopped; recommission takes it back.",
		Example: "  pando node decommission n4 --dry-run\n  pando node decommission n4 --wait 1h",
		RunE: c.asking(func(cmd *cobra.Command, args []string, api *httpapi.Client) error {
			ctx, cancel := c.within(cmd)
			defer cancel()
			p, err := api.Decommission(ctx, actors.BalanceOptions{Node: partition.NodeID(args[0]), DryRun: dry, By: byCommand})
			if err != nil {
				return err
			}
			if dry || wait <= 0 {
				return c.show(p, func(w io.Writer) { printPlan(w, p) })
			}
			return c.showEnd(cmd.Context(), api, p.Task.ID, wait)
		}),
	}
	cmd.Flags().BoolVar(&dry, "dry-run", false, "only say what would move")
	cmd.Flags().DurationVar(&wait, "wait", 0, "how long to wait until the node is empty")
	return cmd
}

func (c *cli) nodeRecommission() *cobra.Command {
	return &cobra.Command{
		Use: "recommission <node>", Short: "Take a node back that was emptied, or is being", Args: cobra.ExactArgs(1),
		Long: "Lets replicas come to the node again. What has left it stays where it is until pando rebalance.",
		RunE: c.asking(func(cmd *cobra.Command, args []string, api *httpapi.Client) error {
			return showAnswer(c, cmd, func(ctx context.Context) (actors.TaskInfo, error) {
				return api.Recommission(ctx, partition.NodeID(args[0]))
			},
				func(w io.Writer, _ actors.TaskInfo) { fmt.Fprintf(w, "node %s may take replicas again\n", args[0]) })
		}),
	}
}
