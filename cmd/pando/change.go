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

// changeWait is how long a change of a partition is waited for: a replica that is
// added gets a copy of everything first.
const changeWait = time.Minute

// changeFlags are what the commands that change a partition share.
type changeFlags struct {
	node    string
	replica uint16
	from    string
	wait    time.Duration
	check   func() error // whether they make sense together; nil: they do
}

// oneOf refuses flags of which not exactly one is given.
func oneOf(a string, hasA bool, b string, hasB bool) error {
	switch {
	case hasA && hasB:
		return &usageError{fmt.Errorf("%s and %s are given, one is enough", a, b)}
	case !hasA && !hasB:
		return &usageError{fmt.Errorf("neither %s nor %s is given", a, b)}
	}
	return nil
}

func (c *cli) partitionAddReplica() *cobra.Command {
	var f changeFlags
	cmd := c.changeCommand(actors.ChangeAdd, "Add a replica to one partition", &f)
	cmd.Long = "Adds one replica more, on the given node: it gets a copy of the state, and counts when\n" +
		"it has caught up. The partition keeps that number until the table's number of replicas\n" +
		"is altered to another one; for all partitions use pando table alter --replicas."
	cmd.Example = "  pando partition add-replica g1 --node n4"
	cmd.Flags().StringVar(&f.node, "node", "", "the node that gets it (required)")
	must(cmd.MarkFlagRequired("node"))
	return cmd
}

func (c *cli) partitionRemoveReplica() *cobra.Command {
	var f changeFlags
	cmd := c.changeCommand(actors.ChangeRemove, "Remove a replica from one partition", &f)
	cmd.Long = "Removes a replica; the partition has one fewer then. The master hands over first, if it\n" +
		"is the one. It keeps that number until the table's is altered to another one, or\n" +
		"pando partition add-replica. What would keep the partition from committing is refused."
	cmd.Example = "  pando partition remove-replica g1 --node n4\n  pando partition remove-replica g1 --replica 2"
	cmd.Flags().StringVar(&f.node, "node", "", "the node whose replica goes")
	cmd.Flags().Uint16Var(&f.replica, "replica", 0, "the replica that goes")
	f.check = func() error { return oneOf("--node", f.node != "", "--replica", f.replica != 0) }
	return cmd
}

func (c *cli) partitionReplaceReplica() *cobra.Command {
	var f changeFlags
	cmd := c.changeCommand(actors.ChangeReplace, "Replace a replica of one partition by another", &f)
	cmd.Long = "Brings a new replica up, and lets the old one go when the new one has caught up, in one\n" +
		"change: the partition is never less safe. Without --node it goes where it fits best."
	cmd.Example = "  pando partition replace-replica g1 --from n2 --node n4\n  pando partition replace-replica g1 --replica 2"
	cmd.Flags().Uint16Var(&f.replica, "replica", 0, "the replica that goes")
	cmd.Flags().StringVar(&f.from, "from", "", "the node whose replica goes")
	cmd.Flags().StringVar(&f.node, "node", "", "the node that gets the new one")
	f.check = func() error { return oneOf("--from", f.from != "", "--replica", f.replica != 0) }
	return cmd
}

func (c *cli) partitionTransferMaster() *cobra.Command {
	var f changeFlags
	cmd := c.changeCommand(actors.ChangeTransfer, "Hand the mastership of one partition to another replica", &f)
	cmd.Long = "The master hands over, with its lease: nobody waits for the lease to run out, and no\n" +
		"request fails. Without --to it chooses whoever is best."
	cmd.Example = "  pando partition transfer-master g1 --to n2"
	cmd.Flags().StringVar(&f.node, "to", "", "the node that becomes the master's")
	return cmd
}

func (c *cli) changeCommand(kind actors.ChangeKind, short string, f *changeFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use: string(kind) + " <partition>", Short: short, Args: cobra.ExactArgs(1),
		RunE: c.asking(func(cmd *cobra.Command, args []string, api *httpapi.Client) error {
			if f.check != nil {
				if err := f.check(); err != nil {
					return err
				}
			}
			g, err := partition.ParseGroupID(args[0])
			if err != nil {
				return err
			}
			return c.change(cmd, api, actors.PartitionChange{
				Kind: kind, Group: g, Node: partition.NodeID(f.node), Replica: partition.ReplicaID(f.replica),
			}, *f)
		}),
	}
	cmd.Flags().DurationVar(&f.wait, "wait", changeWait, "how long to wait until it is done; 0 does not wait")
	return cmd
}

// change begins a change of a partition and waits until it is done.
func (c *cli) change(cmd *cobra.Command, api *httpapi.Client, p actors.PartitionChange, f changeFlags) error {
	ctx, cancel := c.within(cmd)
	defer cancel()
	if f.from != "" {
		shown, err := api.Partition(ctx, p.Group)
		if err != nil {
			return err
		}
		for _, r := range shown.Replicas {
			if r.Node == partition.NodeID(f.from) {
				p.Replica = r.Replica
			}
		}
		if p.Replica == 0 {
			return &partition.Error{
				Code: partition.CodeNotFound, Why: fmt.Sprintf("partition %s has no replica on node %q", p.Group, f.from),
				Next: "see pando partition show " + p.Group.String(),
			}
		}
	}
	var info actors.ChangeInfo
	var err error
	if f.wait <= 0 {
		info, err = api.BeginChange(ctx, p)
		if err == nil && info.Refused != "" {
			p.Cancel = true
			_, cancelled := api.BeginChange(ctx, p)
			err = errors.Join(&partition.Error{Code: partition.CodeRefused, Why: info.Refused, Next: "see pando partition show " + p.Group.String()}, cancelled)
		}
	} else {
		limited, cancel := context.WithTimeout(cmd.Context(), f.wait)
		defer cancel()
		line := c.newWaitLine()
		info, err = actors.AwaitChange(limited, p, func(ctx context.Context, p actors.PartitionChange) (actors.ChangeInfo, error) {
			now, err := api.BeginChange(ctx, p)
			if err == nil && !now.Done {
				line.show(time.Now(), changeText(now))
			}
			return now, err
		})
		line.end()
	}
	if err != nil {
		return err
	}
	return c.show(info, func(w io.Writer) { fmt.Fprintln(w, changeText(info)) })
}

func changeText(i actors.ChangeInfo) string {
	state := "done"
	if !i.Done {
		state = "begun"
		if i.Why != "" {
			state += ": " + i.Why
		}
	}
	what := ""
	if i.Replica != 0 {
		what = fmt.Sprintf(", replica %d", i.Replica)
	}
	if i.Node != "" {
		what += fmt.Sprintf(", node %s", i.Node)
	}
	return fmt.Sprintf("partition %s: %s%s: %s; membership version %d", i.Group, i.Kind, what, state, i.Version)
}
