package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pando.dev/pando/actors"
	"pando.dev/pando/actors/httpapi"
	"pando.dev/pando/partition"
)

func (c *cli) recoverCommand() *cobra.Command {
	return group("recover", "Bring back partitions that lost too many members for good", c.recoverPlan(), c.recoverApply())
}

func (c *cli) recoverPlan() *cobra.Command {
	var dead []string
	cmd := &cobra.Command{
		Use: "plan [partition]...", Short: "Say which partitions are lost, who is left, and what may be lost",
		Long: "Asks every node that is left about the partitions named, or about all that take no\n" +
			"writes. Says for each who is left and how new, who is lost, and which acknowledged\n" +
			"writes may be lost if those that are left go on by themselves. Changes nothing.\n\n" +
			"A partition that could still get its quorum by itself is in no plan. Nodes that do not\n" +
			"answer must be confirmed with --dead: they will not be let in again with what they have.",
		Example: "  pando recover plan\n  pando recover plan g17 --dead n2,n3",
		Args:    cobra.ArbitraryArgs,
		RunE: c.asking(func(cmd *cobra.Command, args []string, api *httpapi.Client) error {
			var ask actors.RecoverAsk
			for _, s := range args {
				g, err := partition.ParseGroupID(s)
				if err != nil {
					return err
				}
				ask.Groups = append(ask.Groups, g)
			}
			for _, d := range dead {
				ask.Dead = append(ask.Dead, partition.NodeID(d))
			}
			ctx, cancel := c.within(cmd)
			defer cancel()
			plan, err := api.RecoverPlan(ctx, ask)
			if err != nil {
				return err
			}
			if err := c.show(plan, func(w io.Writer) { printRecoverPlan(w, plan) }); err != nil {
				return err
			}
			return noPlan(plan, len(args) > 0 || len(dead) > 0)
		}),
	}
	cmd.Flags().StringSliceVar(&dead, "dead", nil, "nodes that are gone for good, node,...")
	return cmd
}

const nothingLost = "no partition is lost: nothing is to be recovered"

// noPlan is why there is nothing to apply, if something was asked for.
func noPlan(plan actors.RecoverPlan, asked bool) error {
	switch {
	case plan.Control != "":
		return &partition.Error{
			Code: partition.CodeUnavailable, Why: plan.Control,
			Next: "start its nodes again; if they are gone for good, see \"When the control group is lost\" in docs/operate.md",
		}
	case plan.Plan != "" || !asked:
		return nil
	case len(plan.Groups) == 0:
		return &partition.Error{Code: partition.CodeRefused, Why: nothingLost, Next: "see pando status for what takes no writes now"}
	}
	for _, p := range plan.Groups {
		if p.State != actors.RecoverServes {
			return &partition.Error{Code: partition.CodeRefused, Why: fmt.Sprintf("partition %s: %s", p.Group, p.Why), Next: p.Next}
		}
	}
	p := plan.Groups[0]
	return &partition.Error{Code: partition.CodeRefused, Why: fmt.Sprintf("partition %s is not lost: %s", p.Group, p.Why), Next: p.Next}
}

func printRecoverPlan(w io.Writer, plan actors.RecoverPlan) {
	if len(plan.Groups) == 0 && plan.Control == "" {
		fmt.Fprintln(w, nothingLost)
		return
	}
	for _, p := range plan.Groups {
		printRescue(w, p)
		fmt.Fprintln(w)
	}
	if plan.Control != "" {
		fmt.Fprintln(w, plan.Control)
	}
	if plan.Plan != "" {
		fmt.Fprintf(w, "those that are lost go on with: pando recover apply %s\n", plan.Plan)
	}
}

// printRescue prints what a plan says of one partition.
func printRescue(w io.Writer, p actors.PartitionRescue) {
	fmt.Fprintf(w, "partition %s of table %s: %s\n", p.Group, p.Table, p.State)
	row(w, "  why", p.Why)
	row(w, "  members", fmt.Sprintf("version %d, policy %s", p.Version, p.Policy))
	for _, s := range p.Survivors {
		row(w, "  left", fmt.Sprintf("%s (replica %d, %s%s): its log ends with record %d of epoch %s, committed through %d", s.Node, s.Replica, s.Kind, inZone(s.Zone), s.Last, s.Epoch, s.Commit))
	}
	for _, l := range p.Lost {
		row(w, "  lost", fmt.Sprintf("%s (replica %d, %s%s): %s", l.Node, l.Replica, l.Kind, inZone(l.Zone), l.Why))
	}
	if p.State == actors.RecoverLost {
		row(w, "  goes on", fmt.Sprintf("%s: %s", p.Node, p.Becomes))
		row(w, "  may be lost", p.Loss)
	}
	if p.Next != "" {
		row(w, "  next", p.Next)
	}
}

func inZone(zone string) string {
	if zone == "" {
		return ""
	}
	return ", zone " + zone
}

func (c *cli) recoverApply() *cobra.Command {
	var reason string
	var wait time.Duration
	cmd := &cobra.Command{
		Use: "apply <plan>", Short: "Let those that are left go on, as a plan says",
		Long: "Carries out what pando recover plan printed, if every partition in it is still in the\n" +
			"very state that was planned for, and refuses otherwise. What the plan said may be lost\n" +
			"is lost then. Members that were left out and come back are refused and removed; the\n" +
			"partitions get new ones by themselves where there are nodes for them.",
		Example: "  pando recover apply g17/n2,n3/4f3a90c1d2e3f405 --reason 'fire in site b'",
		Args:    cobra.ExactArgs(1),
		RunE: c.asking(func(cmd *cobra.Command, args []string, api *httpapi.Client) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), wait)
			defer cancel()
			out, err := api.RecoverApply(ctx, args[0], reason)
			if err != nil {
				return err
			}
			if err := c.show(out, func(w io.Writer) { printRecovered(w, out) }); err != nil {
				return err
			}
			return notRecovered(out)
		}),
	}
	f := cmd.Flags()
	f.StringVar(&reason, "reason", "", "why, kept with the decree")
	f.DurationVar(&wait, "wait", 30*time.Second, "how long to wait until they go on")
	return cmd
}

func printRecovered(w io.Writer, out actors.RecoverOutcome) {
	row(w, "PARTITION", "NODE", "IN-SYNC NUMBER", "DONE", "WHY")
	for _, p := range out.Groups {
		done := "yes"
		if !p.Done {
			done = "no"
		}
		row(w, p.Group, p.Node, dash(p.Number), done, dash(p.Why))
	}
}

// notRecovered is the error of the partitions that were not brought back, the
// first of which says why.
func notRecovered(out actors.RecoverOutcome) error {
	var failed []string
	var first actors.RescueOutcome
	for _, p := range out.Groups {
		if !p.Done {
			if failed = append(failed, p.Group.String()); len(failed) == 1 {
				first = p
			}
		}
	}
	if len(failed) == 0 {
		return nil
	}
	code := partition.CodeUnavailable
	if first.Code == partition.CodeUnknown.String() {
		code = partition.CodeUnknown
	}
	return &partition.Error{
		Code: code, Why: fmt.Sprintf("%d of %d partitions do not go on yet (%s): %s", len(failed), len(out.Groups), strings.Join(failed, ", "), first.Why),
		Next: "plan again: what was decreed and not done shows up there",
	}
}
