package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"pando.dev/pando/actors"
	"pando.dev/pando/actors/httpapi"
	"pando.dev/pando/partition"
)

func (c *cli) partitionCommand() *cobra.Command {
	return group("partition", "List, show and change partitions", c.partitionLs(), c.partitionShow(),
		c.partitionAddReplica(), c.partitionRemoveReplica(), c.partitionReplaceReplica(), c.partitionTransferMaster(), c.partitionSplit(), c.partitionMerge(),
		c.partitionMove(), c.partitionHistory(), c.partitionVerify())
}

func (c *cli) partitionLs() *cobra.Command {
	return &cobra.Command{
		Use: "ls [table]", Short: "List the partitions of a table, or all", Args: cobra.MaximumNArgs(1),
		RunE: c.asking(func(cmd *cobra.Command, args []string, api *httpapi.Client) error {
			ask := func(ctx context.Context) ([]actors.PartitionInfo, error) {
				return api.Partitions(ctx, strings.Join(args, ""))
			}
			return showAnswer(c, cmd, ask, func(w io.Writer, ps []actors.PartitionInfo) {
				row(w, "PARTITION", "TABLE", "RANGE", "MASTER", "EPOCH", "COMMIT", "CAN LOSE", "REPLICAS")
				for _, p := range ps {
					row(w, p.Group, p.Table, rangeText(p.Lo, p.Hi), dash(p.Master), dash(p.Epoch), p.Commit, canLose(p), replicaList(p))
				}
			})
		}),
	}
}

func canLose(p actors.PartitionInfo) string {
	if p.CanLose < 0 {
		return "takes no writes"
	}
	return fmt.Sprint(p.CanLose)
}

// replicaList names a partition's nodes, with the role of those that do not
// just follow, and what those are that do not count like the others.
func replicaList(p actors.PartitionInfo) string {
	var out []string
	for _, r := range p.Replicas {
		s := string(r.Node)
		if r.Role != "peer" && r.Role != "master" {
			s += " (" + r.Role + ")"
		} else if r.Kind != "full" {
			s += " (" + r.Kind + ")"
		} else if !r.Eligible {
			s += " (ineligible)"
		}
		out = append(out, s)
	}
	return strings.Join(out, ", ")
}

func (c *cli) partitionShow() *cobra.Command {
	return &cobra.Command{
		Use: "show <partition>", Short: "Show one partition and each of its replicas", Args: cobra.ExactArgs(1),
		RunE: c.asking(func(cmd *cobra.Command, args []string, api *httpapi.Client) error {
			g, err := partition.ParseGroupID(args[0])
			if err != nil {
				return err
			}
			return showAnswer(c, cmd, func(ctx context.Context) (actors.PartitionInfo, error) { return api.Partition(ctx, g) }, printPartition)
		}),
	}
}

// leftBehind says who lacks what was acknowledged without them.
func leftBehind(ids []partition.ReplicaID) string {
	text := make([]string, len(ids))
	for i, r := range ids {
		text[i] = fmt.Sprint(r)
	}
	return strings.Join(text, ", ") + ": not master before having caught up, nor if removed since"
}

// counted is n of something, in words that fit the number.
func counted(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func printPartition(w io.Writer, p actors.PartitionInfo) {
	row(w, "partition", p.Group)
	row(w, "table", p.Table)
	row(w, "range", rangeText(p.Lo, p.Hi))
	row(w, "policy", fmt.Sprintf("%s (%s)", p.Policy, p.Rule))
	row(w, "master", dash(p.Master))
	row(w, "can lose", canLose(p))
	if p.Missing != "" {
		row(w, "missing", p.Missing)
	}
	if p.Solo != "" {
		row(w, "solo", p.Solo)
	}
	if len(p.LeftBehind) > 0 {
		row(w, "left behind", "replicas "+leftBehind(p.LeftBehind))
	}
	row(w, "epoch", dash(p.Epoch))
	row(w, "commit", p.Commit)
	inFlight := ""
	if p.InFlight {
		inFlight = " (not committed yet: the one before it holds as well)"
	}
	row(w, "versions", fmt.Sprintf("membership %d%s, range %d", p.Version, inFlight, p.RangeVersion))
	if p.Asked != 0 {
		row(w, "asked for", counted(p.Asked, "replica", "replicas")+", until the table's number is altered")
	}
	if p.Extent != "" {
		row(w, "serves", p.Extent)
	}
	if p.Splitting != "" {
		row(w, "split", p.Splitting)
	}
	if p.Tending != "" {
		row(w, "to do", p.Tending)
	}
	fmt.Fprintln(w)
	row(w, "REPLICA", "NODE", "ZONE", "KIND", "ROLE", "APPLIED", "LAST", "ELIGIBLE", "WHY")
	for _, r := range p.Replicas {
		eligible := "yes"
		if !r.Eligible {
			eligible = "no"
		}
		row(w, r.Replica, r.Node, r.Zone, r.Kind, r.Role, r.Applied, r.Last, eligible, dash(r.Why))
	}
}
