package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pando.dev/pando/actors"
	"pando.dev/pando/actors/httpapi"
	"pando.dev/pando/partition"
)

// verifyWait is how long a verification may take: it reads everything.
const verifyWait = time.Hour

func (c *cli) partitionVerify() *cobra.Command {
	var all bool
	var wait time.Duration
	cmd := &cobra.Command{
		Use: "verify [table|table/key|partition]", Short: "Compare the replicas of partitions, and check their files", Args: cobra.MaximumNArgs(1),
		Long: "Every replica sums up its state as it is right after one record, the same for all, and then\n" +
			"reads its files again for their checksums. Who differs from most is named. A replica whose\n" +
			"files are damaged is replaced by its partition. Reads and writes go on meanwhile; the rate\n" +
			"is bounded like that of copies. Ends with 10 if something is wrong, or was not compared.",
		Example: "  pando partition verify orders\n  pando partition verify orders/4711\n  pando partition verify g7\n  pando partition verify --all",
		RunE: c.asking(func(cmd *cobra.Command, args []string, api *httpapi.Client) error {
			r, err := verifyRequest(args, all)
			if err != nil {
				return err
			}
			info, err := c.verify(cmd.Context(), api, r, wait)
			if err != nil {
				return err
			}
			if err := c.show(info, func(w io.Writer) { printVerify(w, info) }); err != nil || info.Well() {
				return err
			}
			return unhealthyError{}
		}),
	}
	cmd.Flags().BoolVar(&all, "all", false, "all partitions of all tables")
	cmd.Flags().DurationVar(&wait, "wait", verifyWait, "how long it may take; then it is ended")
	return cmd
}

// verifyRequest is what the arguments name.
func verifyRequest(args []string, all bool) (actors.VerifyRequest, error) {
	r := actors.VerifyRequest{All: all}
	switch {
	case all == (len(args) == 1):
		return r, &usageError{errors.New("name a table, a key of one as table/key, or a partition, or give --all")}
	case all:
		return r, nil
	}
	if g, err := partition.ParseGroupID(args[0]); err == nil {
		r.Groups = []partition.GroupID{g}
		return r, nil
	}
	table, key, one := strings.Cut(args[0], "/")
	r.Table = table
	if one {
		r.Key = []byte(key)
	}
	return r, nil
}

// verify waits for the end of a verification and tells how far it is.
func (c *cli) verify(ctx context.Context, api *httpapi.Client, r actors.VerifyRequest, wait time.Duration) (actors.VerifyInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	line := c.newWaitLine()
	defer line.end()
	return actors.AwaitVerify(ctx, r, api.BeginVerify, func(i actors.VerifyInfo) {
		line.show(time.Now(), fmt.Sprintf("%d of %d partitions verified, %s of rows read", i.Ended, i.Of, bytesText(uint64(i.Bytes))))
	})
}

func printVerify(w io.Writer, i actors.VerifyInfo) {
	row(w, "PARTITION", "TABLE", "RECORD", "VERDICT", "WHY")
	for _, p := range i.Partitions {
		row(w, p.Group, p.Table, p.Index, p.Verdict, dash(p.Why))
	}
	if len(i.Partitions) == 1 || !i.Well() {
		fmt.Fprintln(w)
		row(w, "PARTITION", "REPLICA", "NODE", "VERDICT", "DIGEST", "ROWS", "FILES", "WHY")
		for _, p := range i.Partitions {
			for _, r := range p.Replicas {
				if len(i.Partitions) == 1 || p.Verdict != actors.VerdictSame {
					row(w, p.Group, r.Replica, r.Node, r.Verdict, dash(cutDigest(r.Digest)), r.Rows, r.Files, dash(r.Why))
				}
			}
		}
	}
	fmt.Fprintf(w, "%s verified, %d rows and %s read\n", counted(i.Ended, "partition", "partitions"), i.Rows, bytesText(uint64(i.Bytes)))
}

// cutDigest is as much of a digest as tells two apart.
func cutDigest(s string) string { return s[:min(len(s), 12)] }
