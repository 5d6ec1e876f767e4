package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"pando.dev/pando/actors"
	"pando.dev/pando/actors/httpapi"
)

func (c *cli) hotCommand() *cobra.Command {
	var o actors.HotOptions
	cmd := &cobra.Command{
		Use: "hot", Short: "Show the partitions that are asked for most", Args: cobra.NoArgs,
		Long: "Shows what is asked of the nodes and of their hottest partitions, as averages of the last\n" +
			"seconds, the key that stands out, and what was decided last about dividing a partition,\n" +
			"with the reason. LOAD is in units per second: a request, and each 4 KiB that it brings or\n" +
			"takes, are one. Keys are looked at where the load is above the limit of the table.",
		Example: "  pando hot\n  pando hot --table words --limit 5\n  pando table alter words --auto-split auto --split-load 2000",
		RunE: c.asking(func(cmd *cobra.Command, _ []string, api *httpapi.Client) error {
			return showAnswer(c, cmd, func(ctx context.Context) (actors.HotInfo, error) { return api.Hot(ctx, o) }, printHot)
		}),
	}
	cmd.Flags().StringVar(&o.Table, "table", "", "only the partitions of this table")
	cmd.Flags().IntVar(&o.Limit, "limit", 20, "at most so many partitions")
	return cmd
}

func printHot(w io.Writer, h actors.HotInfo) {
	row(w, "NODE", "LOAD", "SHARE", "READS/S", "WRITES/S", "IN/S", "OUT/S", "BUSY PARTITIONS")
	for _, n := range h.Nodes {
		row(w, n.Node, perSecond(n.Units), percent(n.Units, h.Units), perSecond(n.Reads), perSecond(n.Writes),
			bytesText(uint64(n.WriteBytes)), bytesText(uint64(n.ReadBytes)), n.Masters)
	}
	for _, n := range h.Silent {
		row(w, n, "does not answer")
	}
	fmt.Fprintln(w)
	if len(h.Partitions) == 0 {
		fmt.Fprintln(w, "nothing is asked of any partition")
		return
	}
	row(w, "PARTITION", "TABLE", "NODE", "LOAD", "SHARE", "LIMIT", "READS/S", "WRITES/S", "SIZE", "HOT KEY")
	for _, p := range h.Partitions {
		limit, key := "-", "-"
		if p.Limit > 0 {
			limit = perSecond(p.Limit)
		}
		if len(p.HotKey) > 0 {
			key = fmt.Sprintf("%s %s", printable(p.HotKey[:min(len(p.HotKey), 64)]), percent(p.HotKeyShare, 1))
		}
		row(w, p.Group, p.Table, p.Node, perSecond(p.Units), percent(p.Share, 1), limit, perSecond(p.Reads), perSecond(p.Writes), bytesText(uint64(max(p.Bytes, 0))), key)
	}
	for _, p := range h.Partitions {
		if p.Decision != "" {
			fmt.Fprintf(w, "%s: %s (%s): %s\n", p.Group, p.Decision, p.Decided.Local().Format(time.DateTime), p.Reason)
		}
	}
}

func perSecond(x float64) string {
	if x < 9.95 {
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.0f", x)
}

func percent(part, of float64) string {
	if of <= 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f%%", 100*part/of)
}

// splitPolicyFlags are those by which a table is divided without being asked.
func splitPolicyFlags(cmd *cobra.Command, p *actors.SplitPolicy) {
	f := cmd.Flags()
	f.StringVar(&p.Mode, "auto-split", "", "what divides its partitions by itself: off, size, auto (size and load) or elastic (and cold neighbours are merged)")
	f.Uint64Var(&p.Load, "split-load", 0, "with auto: what a partition may carry, in units per second (a request, and each 4 KiB of it, are one)")
	f.Int64Var(&p.Size, "split-size", 0, "what a partition may have on disk, in bytes")
	f.DurationVar(&p.Rest, "split-rest", 0, "least time between two splits for load of the same keys")
	f.IntVar(&p.Partitions, "split-max", 0, "how many partitions the table is divided into at most")
	must(cmd.RegisterFlagCompletionFunc("auto-split", cobra.FixedCompletions([]string{"off", "size", "auto", "elastic"}, cobra.ShellCompDirectiveNoFileComp)))
}

// splitsText is a table's policy of splits in words.
func splitsText(p actors.SplitPolicy) string {
	size := fmt.Sprintf("beyond %s", bytesText(uint64(max(p.Size, 0))))
	switch p.Mode {
	case "auto":
		return fmt.Sprintf("%s or %d units/s", size, p.Load)
	case "elastic":
		return fmt.Sprintf("%s or %d units/s, merges what is cold", size, p.Load)
	case "size":
		return size
	}
	return p.Mode
}
