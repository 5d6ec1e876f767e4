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

func (c *cli) tableCommand() *cobra.Command {
	return group("table", "Create, list, alter and drop tables", c.tableCreate(), c.tableLs(), c.tableAlter(), c.tableDrop())
}

func (c *cli) tableCreate() *cobra.Command {
	var (
		spec      actors.TableSpec
		splits    []string
		nodes     []string
		encoding  string
		wait      time.Duration
		mayExists bool
	)
	cmd := &cobra.Command{
		Use: "create <name>", Short: "Create a table", Args: cobra.ExactArgs(1),
		Long: "Creates a table. Its partitions are placed over the zones by weighted rendezvous\n" +
			"hashing, or on the nodes of --on. Waits until each partition has a master.",
		Example: "  pando table create words --replicas 3 --split g,n,t\n  pando table create local --on n1,n2,n3\n" +
			"  pando table create safe --replicas 5 --policy zones:2",
		RunE: c.asking(func(cmd *cobra.Command, args []string, api *httpapi.Client) error {
			if cmd.Flags().Changed("replicas") && spec.Replicas < 1 {
				return &usageError{fmt.Errorf("--replicas %d is not positive", spec.Replicas)}
			}
			spec.Name = args[0]
			for _, s := range splits {
				key, err := decodeKey(encoding, s)
				if err != nil {
					return err
				}
				spec.SplitPoints = append(spec.SplitPoints, key)
			}
			for _, n := range nodes {
				spec.Nodes = append(spec.Nodes, partition.NodeID(n))
			}
			return c.createTable(cmd, api, spec, wait, mayExists)
		}),
	}
	f := cmd.Flags()
	f.IntVar(&spec.Replicas, "replicas", 0, "replicas of each partition (default 3, or as many as nodes are alive; it stays so; 2 with all-in-sync, K with zones:K if more)")
	policyFlag(cmd, &spec.Policy, "durability policy: majority, zones:K or all-in-sync (default majority)")
	f.StringSliceVar(&splits, "split", nil, "keys at which the table is divided from the start, key,...")
	f.StringSliceVar(&nodes, "on", nil, "nodes that hold every partition, node,...")
	f.StringVar(&spec.Kind, "kind", "", "partition kind (default kv)")
	f.DurationVar(&wait, "wait", 15*time.Second, "how long to wait for the masters; 0 does not wait")
	splitPolicyFlags(cmd, &spec.Splits)
	f.BoolVar(&mayExists, "if-not-exists", false, "do nothing if there is a table of that name")
	encodingFlag(cmd, &encoding)
	return cmd
}

// usualReplicas is how many replicas a table gets that asks for no number, if
// there are nodes for them.
const usualReplicas = 3

func (c *cli) createTable(cmd *cobra.Command, api *httpapi.Client, spec actors.TableSpec, wait time.Duration, mayExist bool) error {
	ctx, cancel := c.within(cmd)
	defer cancel()
	t, err := api.CreateTable(ctx, spec)
	if errors.Is(err, partition.ErrExists) && mayExist {
		t, err = findTable(ctx, api, spec.Name)
	}
	if err != nil {
		return err
	}
	if err := waitForMasters(cmd.Context(), api, spec.Name, wait); err != nil {
		return err
	}
	if spec.Replicas == 0 && spec.Policy == "" && len(spec.Nodes) == 0 && t.Replicas < usualReplicas {
		fmt.Fprintf(c.err, "note: only %d of %d replicas, one per node that is alive now; when there are more: pando table alter %s --replicas %d\n", t.Replicas, usualReplicas, t.Name, usualReplicas)
	}
	return c.show(t, func(w io.Writer) { printTable(w, t) })
}

func printTable(w io.Writer, t actors.TableInfo) {
	fmt.Fprintf(w, "table %s: kind %s, partitions %d, replicas %d, policy %s", t.Name, t.Kind, len(t.Partitions), t.Replicas, t.Policy)
	if t.Splits.Mode != "size" && t.Splits.Mode != "" {
		fmt.Fprintf(w, ", splits %s", splitsText(t.Splits))
	}
	fmt.Fprintln(w)
}

func policyFlag(cmd *cobra.Command, into *string, help string) {
	cmd.Flags().StringVar(into, "policy", "", help)
	must(cmd.RegisterFlagCompletionFunc("policy", cobra.FixedCompletions([]string{"majority", "zones:2", "all-in-sync"}, cobra.ShellCompDirectiveNoFileComp)))
}

func (c *cli) tableAlter() *cobra.Command {
	var change actors.TableChange
	var wait time.Duration
	cmd := &cobra.Command{
		Use: "alter <name>", Short: "Change a table's replicas, durability policy or splits", Args: cobra.ExactArgs(1),
		Long: "Changes what a table shall be, and refuses what the nodes that are alive could never\n" +
			"be brought to. The masters of its partitions bring them there step by step; reads and\n" +
			"writes go on meanwhile. --wait waits until every partition is as asked for.",
		Example: "  pando table alter words --replicas 5\n  pando table alter words --policy zones:2 --wait 2m\n" +
			"  pando table alter words --auto-split auto --split-load 2000",
		RunE: c.asking(func(cmd *cobra.Command, args []string, api *httpapi.Client) error {
			if !cmd.Flags().Changed("replicas") && change.Policy == "" && change.Splits == (actors.SplitPolicy{}) {
				return &usageError{errors.New("nothing is to be altered: give --replicas, --policy, or when it splits")}
			}
			if cmd.Flags().Changed("replicas") && change.Replicas < 1 {
				return &usageError{fmt.Errorf("--replicas %d is not positive", change.Replicas)}
			}
			return c.alterTable(cmd, api, args[0], change, wait)
		}),
	}
	f := cmd.Flags()
	f.IntVar(&change.Replicas, "replicas", 0, "replicas of each partition (default as it is)")
	policyFlag(cmd, &change.Policy, "durability policy: majority, zones:K or all-in-sync (default as it is)")
	splitPolicyFlags(cmd, &change.Splits)
	f.StringVar(&change.Token, "token", "", "makes it safe to repeat the command: one with the same token is carried out once")
	f.DurationVar(&wait, "wait", 0, "how long to wait until the partitions are so; 0 does not wait")
	return cmd
}

func (c *cli) alterTable(cmd *cobra.Command, api *httpapi.Client, name string, change actors.TableChange, wait time.Duration) error {
	ctx, cancel := c.within(cmd)
	defer cancel()
	t, err := api.AlterTable(ctx, name, change)
	if err != nil {
		return err
	}
	if err := waitForShape(cmd.Context(), api, t, wait); err != nil {
		return err
	}
	return c.show(t, func(w io.Writer) {
		printTable(w, t)
		if wait <= 0 && (change.Replicas != 0 || change.Policy != "") {
			fmt.Fprintf(w, "its masters bring the partitions there; see how far they are with: pando partition ls %s\n", t.Name)
		}
	})
}

// waitForShape waits until every partition of the table is what the table shall
// be.
func waitForShape(ctx context.Context, api *httpapi.Client, t actors.TableInfo, wait time.Duration) error {
	if wait <= 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	missing := "its partitions are not known yet"
	done := poll(ctx, func() bool {
		ps, err := api.Partitions(ctx, t.Name)
		if err != nil {
			if ctx.Err() == nil {
				missing = err.Error()
			}
			return false
		}
		for _, p := range ps {
			if missing = unlike(p, t); missing != "" {
				return false
			}
		}
		return len(ps) > 0
	})
	if !done {
		return &partition.Error{
			Code: partition.CodeUnknown, Why: fmt.Sprintf("table %q is altered, but after %v %s", t.Name, wait, missing),
			Next: "it goes on by itself; look with pando partition ls " + t.Name,
		}
	}
	return nil
}

// unlike says how a partition is not yet what its table shall be.
func unlike(p actors.PartitionInfo, t actors.TableInfo) string {
	full, others := 0, 0
	for _, r := range p.Replicas {
		if r.Kind == "full" && r.Eligible {
			full++
		} else {
			others++
		}
	}
	switch {
	case p.Master == "":
		return fmt.Sprintf("partition %s has no master", p.Group)
	case p.InFlight:
		return fmt.Sprintf("a change of partition %s is under way (membership version %d)", p.Group, p.Version)
	case p.Policy != t.Policy:
		return fmt.Sprintf("partition %s has policy %s", p.Group, p.Policy)
	case full != t.Replicas && p.Asked == full && others == 0:
		return fmt.Sprintf("partition %s keeps %s, as an operator asked for; pando partition add-replica and remove-replica change it, or another number for the table", p.Group, counted(full, "replica", "replicas"))
	case full != t.Replicas || others > 0:
		return fmt.Sprintf("partition %s has %s and %d that do not count fully", p.Group, counted(full, "full replica", "full replicas"), others)
	}
	return ""
}

func findTable(ctx context.Context, api *httpapi.Client, name string) (actors.TableInfo, error) {
	ts, err := api.Tables(ctx)
	if err != nil {
		return actors.TableInfo{}, err
	}
	for _, t := range ts {
		if t.Name == name {
			return t, nil
		}
	}
	return actors.TableInfo{}, partition.Errorf(partition.CodeNoSuchTable, "there is no table %q", name)
}

// waitForMasters waits until every partition of the table takes writes.
func waitForMasters(ctx context.Context, api *httpapi.Client, table string, wait time.Duration) error {
	if wait <= 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	missing := "its partitions are not known yet"
	done := poll(ctx, func() bool {
		ps, err := api.Partitions(ctx, table)
		if err != nil {
			if ctx.Err() == nil {
				missing = err.Error()
			}
			return false
		}
		for _, p := range ps {
			if p.Master == "" {
				missing = fmt.Sprintf("partition %s has no master", p.Group)
				return false
			}
		}
		return len(ps) > 0
	})
	if !done {
		return &partition.Error{
			Code: partition.CodeUnknown, Why: fmt.Sprintf("table %q is in the catalog, but after %v %s", table, wait, missing),
			Next: "it goes on by itself; look with pando partition ls " + table,
		}
	}
	return nil
}

func (c *cli) tableLs() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "List the tables", Args: cobra.NoArgs,
		RunE: c.asking(func(cmd *cobra.Command, _ []string, api *httpapi.Client) error {
			return showAnswer(c, cmd, api.Tables, func(w io.Writer, ts []actors.TableInfo) {
				row(w, "TABLE", "KIND", "PARTITIONS", "REPLICAS", "POLICY", "SPLITS")
				for _, t := range ts {
					row(w, t.Name, t.Kind, len(t.Partitions), t.Replicas, t.Policy, splitsText(t.Splits))
				}
			})
		}),
	}
}

func (c *cli) tableDrop() *cobra.Command {
	var confirm string
	cmd := &cobra.Command{
		Use: "drop <name>", Short: "Drop a table and everything in it", Args: cobra.ExactArgs(1),
		RunE: c.asking(func(cmd *cobra.Command, args []string, api *httpapi.Client) error {
			name := args[0]
			if confirm != name {
				return &partition.Error{
					Code: partition.CodeRefused, Why: fmt.Sprintf("everything in table %q would be gone", name),
					Next: fmt.Sprintf("if that is meant: pando table drop %s --confirm %s", name, name),
				}
			}
			return showAnswer(c, cmd, func(ctx context.Context) (map[string]string, error) {
				return map[string]string{"dropped": name}, api.DropTable(ctx, name)
			}, func(w io.Writer, _ map[string]string) { fmt.Fprintf(w, "table %s is dropped\n", name) })
		}),
	}
	cmd.Flags().StringVar(&confirm, "confirm", "", "the table's name again")
	return cmd
}
