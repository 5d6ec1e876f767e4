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

func (c *cli) statusCommand() *cobra.Command {
	var wait time.Duration
	var lose int
	cmd := &cobra.Command{
		Use: "status", Short: "Say how many more failures the cluster can take, and how it is",
		Long: "Says first how many more nodes may fail, whichever they are, while everything goes\n" +
			"on taking writes. Ends with 10 when something takes no writes now, or when fewer\n" +
			"failures can be taken than --can-lose.",
		Example: "  pando status --wait 1m --can-lose 1   # between two nodes of a rolling restart",
		Args:    cobra.NoArgs,
		RunE: c.asking(func(cmd *cobra.Command, _ []string, api *httpapi.Client) error {
			s, err := c.statusWithin(cmd, api, wait, lose)
			if err != nil {
				return err
			}
			if err := c.show(s, func(w io.Writer) { printStatus(w, s) }); err != nil {
				return err
			}
			if !healthy(s) || s.CanLose < lose {
				return unhealthyError{}
			}
			return nil
		}),
	}
	cmd.Flags().DurationVar(&wait, "wait", 0, "wait up to this long for the cluster to be healthy")
	cmd.Flags().IntVar(&lose, "can-lose", 0, "how many more failures it must be able to take to count as healthy")
	return cmd
}

// statusWithin asks once, or again and again until the cluster is healthy or
// the time to wait is over.
func (c *cli) statusWithin(cmd *cobra.Command, api *httpapi.Client, wait time.Duration, lose int) (s actors.ClusterStatus, err error) {
	ask := func() bool {
		ctx, cancel := c.within(cmd)
		defer cancel()
		s, err = api.Status(ctx)
		return err == nil && healthy(s) && s.CanLose >= lose
	}
	if wait <= 0 {
		ask()
		return s, err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), wait)
	defer cancel()
	poll(ctx, ask)
	return s, err
}

// pollEvery is how often a command looks whether what it waits for is there.
const pollEvery = 50 * time.Millisecond

// poll asks until the answer is yes or ctx ends, at least once.
func poll(ctx context.Context, ask func() bool) bool {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		if ask() {
			return true
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
}

// healthy reports whether everything takes writes.
func healthy(s actors.ClusterStatus) bool {
	return s.CanLose >= 0 && s.WithMaster == s.Partitions
}

func printStatus(w io.Writer, s actors.ClusterStatus) {
	fmt.Fprintln(w, firstLine(s))
	row(w, "cluster", s.Cluster)
	row(w, "nodes", fmt.Sprintf("%d of %d alive%s", s.Alive, s.Nodes, drainedText(s.Drained)))
	row(w, "partitions", fmt.Sprintf("%d of %d have a master", s.WithMaster, s.Partitions))
	row(w, "control group", controlText(s.Control))
	for _, x := range s.Anomalies {
		row(w, "limping", x)
	}
	row(w, "answered by", fmt.Sprintf("%s, up %s", s.Self, s.Uptime.Round(time.Second)))
}

// firstLine is the answer to the question an operator asks first.
func firstLine(s actors.ClusterStatus) string {
	why, limit := "", ""
	if s.Why != "" {
		why, limit = ": "+s.Why, ", limited by this: "+s.Why
	}
	switch {
	case !healthy(s):
		return "NOT HEALTHY" + why
	case s.CanLose == 0:
		return "no more failure can be taken" + why
	case s.CanLose == 1:
		return "1 more failure can be taken" + limit
	}
	return fmt.Sprintf("%d more failures can be taken%s", s.CanLose, limit)
}

func controlText(s actors.ControlStatus) string {
	seats := make([]string, len(s.Seats))
	for i, n := range s.Seats {
		seats[i] = string(n)
		if n == s.Leader {
			seats[i] += " (leader)"
		}
	}
	text := s.State
	if len(seats) > 0 {
		text += ": " + strings.Join(seats, ", ")
	}
	return text + fmt.Sprintf("; catalog version %d", s.Catalog)
}

func drainedText(nodes []partition.NodeID) string {
	if len(nodes) == 0 {
		return ""
	}
	names := make([]string, len(nodes))
	for i, n := range nodes {
		names[i] = string(n)
	}
	return "; out of service: " + strings.Join(names, ", ")
}

func modeText(m actors.MemberInfo) string {
	switch {
	case m.Mode != "":
		return m.Mode
	case m.Sick != "":
		return m.Sick
	case m.Status == "alive":
		return "in service"
	}
	return "-"
}

func (c *cli) membersCommand() *cobra.Command {
	return &cobra.Command{
		Use: "members", Short: "List the nodes as the answering one sees them", Args: cobra.NoArgs,
		RunE: c.asking(func(cmd *cobra.Command, _ []string, api *httpapi.Client) error {
			return showAnswer(c, cmd, api.Members, func(w io.Writer, ms []actors.MemberInfo) {
				row(w, "NODE", "ZONE", "STATUS", "SEAT", "MODE", "LINK", "GOSSIP", "HTTP", "VERSION")
				for _, m := range ms {
					seat := "-"
					if m.Seat {
						seat = "yes"
					}
					row(w, m.Node, m.Zone, m.Status, seat, modeText(m), dash(m.Link), dash(m.Gossip), dash(m.HTTP), dash(m.Version))
				}
			})
		}),
	}
}
