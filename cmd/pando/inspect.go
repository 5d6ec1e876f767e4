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

func (c *cli) nodeLs() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "List the nodes with what they hold", Args: cobra.NoArgs,
		RunE: c.asking(func(cmd *cobra.Command, _ []string, api *httpapi.Client) error {
			return showAnswer(c, cmd, api.Nodes, printNodes)
		}),
	}
}

func printNodes(w io.Writer, nodes []actors.NodeInfo) {
	row(w, "NODE", "ZONE", "STATUS", "MODE", "REPLICAS", "MASTERS", "LOG ONLY", "BYTES", "LEAVING")
	for _, n := range nodes {
		leaving := "-"
		if n.Leaving != 0 {
			leaving = fmt.Sprintf("%s, %s", n.Leaving, n.LeavingPhase)
		}
		row(w, n.Node, dash(n.Zone), n.Status, dash(n.Mode), n.Replicas, n.Masters, n.LogOnly, bytesText(uint64(max(n.Bytes, 0))), leaving)
	}
}

func (c *cli) explainCommand() *cobra.Command {
	var below []*cobra.Command
	for what, arg := range map[string]string{"partition": "<partition>", "node": "<node>", "task": "<task>"} {
		below = append(below, &cobra.Command{
			Use: what + " " + arg, Short: "Say why a " + what + " is as it is, and what it waits for", Args: cobra.ExactArgs(1),
			RunE: c.asking(func(cmd *cobra.Command, args []string, api *httpapi.Client) error {
				return showAnswer(c, cmd, func(ctx context.Context) (actors.Explanation, error) { return api.Explain(ctx, what, args[0]) }, printExplanation)
			}),
		})
	}
	return group("explain", "Say why something is where and how it is, and what it waits for", below...)
}

// printExplanation prints sentences below what they are about.
func printExplanation(w io.Writer, e actors.Explanation) {
	titles := map[string]string{
		actors.AboutIs: "what it is", actors.AboutPlace: "why it is there", actors.AboutWaits: "what it waits for", actors.AboutHelp: "what would help",
	}
	fmt.Fprintln(w, e.Subject)
	last := ""
	for _, f := range e.Facts {
		if f.About != last {
			fmt.Fprintf(w, "\n%s\n", titles[f.About])
			last = f.About
		}
		since := ""
		if !f.Since.IsZero() {
			since = fmt.Sprintf(" (since %s)", f.Since.Local().Format(time.DateTime))
		}
		fmt.Fprintf(w, "  %s%s\n", f.Text, since)
	}
}

func (c *cli) partitionHistory() *cobra.Command {
	return &cobra.Command{
		Use: "history <partition>", Short: "Show the epochs, members and splits of a partition, as far as kept", Args: cobra.ExactArgs(1),
		RunE: c.asking(func(cmd *cobra.Command, args []string, api *httpapi.Client) error {
			g, err := partition.ParseGroupID(args[0])
			if err != nil {
				return err
			}
			return showAnswer(c, cmd, func(ctx context.Context) (actors.History, error) { return api.History(ctx, g) }, printHistory)
		}),
	}
}

func printHistory(w io.Writer, h actors.History) {
	line := []string{fmt.Sprintf("partition %s of table %s", h.Group, h.Table)}
	if h.Parent != 0 {
		line = append(line, fmt.Sprintf("split from %s", h.Parent))
	}
	if len(h.Children) > 0 {
		var all []string
		for _, g := range h.Children {
			all = append(all, g.String())
		}
		line = append(line, "split into it and "+strings.Join(all, ", "))
	}
	fmt.Fprintf(w, "%s; by the log of %s, records %d to %d\n", strings.Join(line, ", "), h.Node, h.From, h.To)
	row(w, "RECORD", "EPOCH", "KIND", "WHAT")
	for _, e := range h.Events {
		row(w, e.Index, e.Epoch, e.Kind, e.Text)
	}
	if len(h.Tasks) > 0 {
		row(w, "TASK", "ENDED", "KIND", "WHAT")
	}
	for _, t := range h.Tasks {
		ended := "-"
		if !t.Ended.IsZero() {
			ended = t.Ended.Local().Format(time.DateTime)
		}
		row(w, t.ID, ended, t.Kind, endText(t))
	}
	if h.Lost != "" {
		fmt.Fprintf(w, "not kept: %s\n", h.Lost)
	}
}

// checked is what pando check found.
type checked struct {
	actors.CheckReport
	Digests *actors.VerifyInfo `json:"digests,omitempty"`
}

func (c *cli) checkCommand() *cobra.Command {
	var digests bool
	var wait time.Duration
	cmd := &cobra.Command{
		Use: "check", Short: "Look for what is not as it should be", Args: cobra.NoArgs,
		Long: "Looks for keys of a table that no partition has, or two; for partitions without a master, or\n" +
			"with fewer replicas than they shall have; for replicas that the catalog has and a node has\n" +
			"not, and the other way round; for nodes that do not answer; and for tasks that stand still.\n" +
			"What may only be on its way is looked at twice, so with findings it takes some seconds.\n" +
			"With --digests all replicas are compared as well, see pando partition verify.\n" +
			"Ends with 10 if anything was found.",
		RunE: c.asking(func(cmd *cobra.Command, _ []string, api *httpapi.Client) error {
			ctx, cancel := c.within(cmd)
			defer cancel()
			r, err := api.Check(ctx)
			if err != nil {
				return err
			}
			out := checked{CheckReport: r}
			if digests {
				info, err := c.verify(cmd.Context(), api, actors.VerifyRequest{All: true}, wait)
				if err != nil {
					return err
				}
				out.Digests = &info
				out.Findings = append(out.Findings, digestFindings(info)...)
			}
			if err := c.show(out, func(w io.Writer) { printCheck(w, out) }); err != nil || len(out.Findings) == 0 {
				return err
			}
			return unhealthyError{}
		}),
	}
	cmd.Flags().BoolVar(&digests, "digests", false, "compare the replicas of all partitions, and check their files")
	cmd.Flags().DurationVar(&wait, "wait", verifyWait, "with --digests: how long that may take")
	return cmd
}

// digestFindings are what a verification has found.
func digestFindings(i actors.VerifyInfo) (found []actors.Finding) {
	for _, p := range i.Partitions {
		kind := actors.FindDigest
		switch p.Verdict {
		case actors.VerdictSame:
			continue
		case actors.VerdictIncomplete:
			kind = actors.FindNotCompared
		}
		found = append(found, actors.Finding{
			Kind: kind, Table: p.Table, Group: p.Group, Text: fmt.Sprintf("partition %s: %s", p.Group, p.Why), Next: "see pando partition verify " + p.Group.String(),
		})
	}
	return found
}

func printCheck(w io.Writer, r checked) {
	fmt.Fprintf(w, "looked at %s, %s, %s and %s, catalog version %d\n", counted(r.Tables, "table", "tables"), counted(r.Partitions, "partition", "partitions"),
		counted(r.Replicas, "replica", "replicas"), counted(r.Tasks, "open task", "open tasks"), r.Catalog)
	if r.Digests != nil {
		fmt.Fprintf(w, "compared the replicas of %s: %d rows\n", counted(r.Digests.Ended, "partition", "partitions"), r.Digests.Rows)
	}
	if len(r.Findings) == 0 {
		fmt.Fprintln(w, "everything is as it should be")
		return
	}
	row(w, "FINDING", "WHAT", "NEXT")
	for _, f := range r.Findings {
		row(w, f.Kind, f.Text, dash(f.Next))
	}
	if r.Left > 0 {
		fmt.Fprintf(w, "and %d more\n", r.Left)
	}
}

func (c *cli) partitionMove() *cobra.Command {
	var r actors.MoveRequest
	var from, to string
	var wait time.Duration
	cmd := &cobra.Command{
		Use: "move <partition>", Short: "Bring a replica from one node to another", Args: cobra.ExactArgs(1),
		Long: "Begins a plan of one step: the other node gets a copy while the partition serves, and the\n" +
			"old replica goes when that has caught up, in one change, so it is never less safe. What\n" +
			"cannot be, or would break the table's policy, is refused with 11.",
		Example: "  pando partition move g7 --from n2 --to n4 --dry-run\n  pando partition move g7 --from n2 --to n4 --wait 10m",
		RunE: c.asking(func(cmd *cobra.Command, args []string, api *httpapi.Client) error {
			var err error
			if r.Group, err = partition.ParseGroupID(args[0]); err != nil {
				return err
			}
			r.From, r.To, r.By = partition.NodeID(from), partition.NodeID(to), byCommand
			ctx, cancel := c.within(cmd)
			defer cancel()
			p, err := api.Move(ctx, r)
			if err != nil {
				return err
			}
			if r.DryRun || wait <= 0 {
				return c.show(p, func(w io.Writer) { printPlan(w, p) })
			}
			return c.showEnd(cmd.Context(), api, p.Task.ID, wait)
		}),
	}
	f := cmd.Flags()
	f.StringVar(&from, "from", "", "the node whose replica goes (required)")
	f.StringVar(&to, "to", "", "the node that gets it (required)")
	must(cmd.MarkFlagRequired("from"))
	must(cmd.MarkFlagRequired("to"))
	f.BoolVar(&r.DryRun, "dry-run", false, "only say what would be done, or why not")
	f.StringVar(&r.Reason, "reason", "", "why, for those who look later")
	f.DurationVar(&wait, "wait", 0, "how long to wait until it is done")
	return cmd
}
