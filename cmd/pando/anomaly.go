package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"pando.dev/pando/actors"
	"pando.dev/pando/actors/httpapi"
)

func (c *cli) anomaliesCommand() *cobra.Command {
	return &cobra.Command{
		Use: "anomalies", Short: "List nodes, links and partitions that limp, and what was done about it",
		Long: "Lists what limps among the nodes around the answering one, then what did lately, with\n" +
			"what was measured, what it was compared with, and what was done. A claim that only\n" +
			"one node makes is suspected: nothing is done about it.",
		Args: cobra.NoArgs,
		RunE: c.asking(func(cmd *cobra.Command, _ []string, api *httpapi.Client) error {
			return showAnswer(c, cmd, api.Anomalies, printAnomalies)
		}),
	}
}

func printAnomalies(w io.Writer, all []actors.AnomalyInfo) {
	row(w, "KIND", "SUBJECT", "STATE", "SINCE", "EVIDENCE", "DONE", "NEXT")
	for _, x := range all {
		row(w, x.Kind, x.Subject, anomalyState(x), x.Since.Format(time.DateTime), x.Evidence, actionText(x.Actions), dash(x.Advice))
	}
}

func anomalyState(x actors.AnomalyInfo) string {
	switch {
	case x.Until != nil:
		return "over at " + x.Until.Format(time.TimeOnly)
	case x.Confirmed:
		return "confirmed"
	}
	return "suspected"
}

// actionText says how many masterships went, and what was in the way last.
func actionText(all []actors.AnomalyAction) string {
	moved, why := 0, ""
	for _, x := range all {
		if x.Err == "" {
			moved++
		}
		why = x.Err
	}
	switch {
	case len(all) == 0:
		return "-"
	case why != "":
		return fmt.Sprintf("%d handed over; last: %s", moved, why)
	}
	return fmt.Sprintf("%d handed over", moved)
}
