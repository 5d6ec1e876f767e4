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

// taskWait is how long the end of a task is waited for.
const taskWait = 10 * time.Minute

func (c *cli) taskCommand() *cobra.Command {
	return group("task", "Show and end structural changes: splits, moves, plans", c.taskLs(), c.taskTree(), c.taskWait(), c.taskAbort())
}

func (c *cli) taskLs() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use: "ls [task]", Short: "List what is under way, and what it waits for", Args: cobra.MaximumNArgs(1),
		Example: "  pando task ls\n  pando task ls --all\n  pando task ls t7",
		RunE: c.asking(func(cmd *cobra.Command, args []string, api *httpapi.Client) error {
			return showAnswer(c, cmd, func(ctx context.Context) ([]actors.TaskInfo, error) {
				tasks, err := api.Tasks(ctx)
				if err != nil || all && len(args) == 0 {
					return tasks, err
				}
				return chosen(tasks, args)
			}, printTasks)
		}),
	}
	cmd.Flags().BoolVar(&all, "all", false, "also those that ended not long ago")
	return cmd
}

// chosen are the tasks that are open, or the one that was named.
func chosen(tasks []actors.TaskInfo, args []string) ([]actors.TaskInfo, error) {
	some := []actors.TaskInfo{}
	if len(args) == 0 {
		for _, t := range tasks {
			if t.Open() {
				some = append(some, t)
			}
		}
		return some, nil
	}
	id, err := actors.ParseTaskID(args[0])
	if err != nil {
		return nil, err
	}
	t, err := taskIn(tasks, id)
	return append(some, t), err
}

func taskIn(tasks []actors.TaskInfo, id actors.TaskID) (actors.TaskInfo, error) {
	for _, t := range tasks {
		if t.ID == id {
			return t, nil
		}
	}
	return actors.TaskInfo{}, &partition.Error{
		Code: partition.CodeNotFound, Why: fmt.Sprintf("no task %s is known: it never was, or it ended long ago", id), Next: "list them with: pando task ls --all",
	}
}

func printTasks(w io.Writer, tasks []actors.TaskInfo) {
	row(w, "TASK", "KIND", "WHAT", "STATE", "DONE", "WHY")
	for _, t := range tasks {
		row(w, t.ID, t.Kind, whatText(t), stateText(t), dash(doneText(t)), dash(whyText(t)))
	}
}

// whatText says of what a task is.
func whatText(t actors.TaskInfo) string {
	var words []string
	if t.Group != 0 {
		words = append(words, t.Group.String())
	}
	switch {
	case t.From != "" && t.To != "":
		words = append(words, fmt.Sprintf("%s -> %s", t.From, t.To))
	case t.From != "":
		words = append(words, "node "+string(t.From))
	}
	for _, g := range t.Children {
		words = append(words, "+"+g.String())
	}
	if len(words) == 0 {
		return t.Reason
	}
	return strings.Join(words, " ")
}

func stateText(t actors.TaskInfo) string {
	switch {
	case t.Open() && t.Cancel != "":
		return "being aborted"
	case t.Open() && t.Phase != "":
		return t.Phase
	}
	return t.State
}

func doneText(t actors.TaskInfo) string {
	switch {
	case t.OfUnits == 0:
		return ""
	case t.Kind == "move":
		return bytesText(t.Units) + " of " + bytesText(t.OfUnits)
	}
	return fmt.Sprintf("%d/%d", t.Units, t.OfUnits)
}

func whyText(t actors.TaskInfo) string {
	switch {
	case t.Why != "":
		return t.Why
	case t.Cancel != "":
		return t.Cancel
	}
	return t.Reason
}

func (c *cli) taskTree() *cobra.Command {
	return &cobra.Command{
		Use: "tree [task]", Short: "Show tasks with the steps below them", Args: cobra.MaximumNArgs(1),
		RunE: c.asking(func(cmd *cobra.Command, args []string, api *httpapi.Client) error {
			return showAnswer(c, cmd, func(ctx context.Context) ([]actors.TaskInfo, error) {
				tasks, err := api.Tasks(ctx)
				if err != nil || len(args) == 0 {
					return tasks, err
				}
				one, err := chosen(tasks, args)
				if err != nil {
					return nil, err
				}
				one[0].Parent = 0
				return append(one, actors.StepsOf(tasks, one[0].ID)...), nil
			}, printTree)
		}),
	}
}

func printTree(w io.Writer, tasks []actors.TaskInfo) {
	row(w, "TASK", "KIND", "WHAT", "STATE", "DONE", "WHY")
	for _, t := range tasks {
		if t.Parent != 0 {
			continue
		}
		row(w, t.ID, t.Kind, whatText(t), stateText(t), dash(doneText(t)), dash(whyText(t)))
		for _, s := range actors.StepsOf(tasks, t.ID) {
			row(w, "  "+s.ID.String(), s.Kind, whatText(s), stateText(s), "", dash(whyText(s)))
		}
	}
}

func (c *cli) taskWait() *cobra.Command {
	var wait time.Duration
	cmd := &cobra.Command{
		Use: "wait <task>", Short: "Wait until a task has ended", Args: cobra.ExactArgs(1),
		Long: "Ends with 0 when the task is done, 11 when it failed or was aborted, 12 when it takes longer.",
		RunE: c.asking(func(cmd *cobra.Command, args []string, api *httpapi.Client) error {
			id, err := actors.ParseTaskID(args[0])
			if err != nil {
				return err
			}
			return c.showEnd(cmd.Context(), api, id, wait)
		}),
	}
	cmd.Flags().DurationVar(&wait, "wait", taskWait, "how long to wait")
	return cmd
}

// showEnd waits for the end of a task, and shows it.
func (c *cli) showEnd(ctx context.Context, api *httpapi.Client, id actors.TaskID, wait time.Duration) error {
	t, err := c.awaitTask(ctx, api, id, wait)
	if err != nil {
		return err
	}
	return c.show(t, func(w io.Writer) { fmt.Fprintln(w, endText(t)) })
}

// awaitTask waits until a task is settled, and tells how far it is. One that came to
// nothing is an error.
func (c *cli) awaitTask(ctx context.Context, api *httpapi.Client, id actors.TaskID, wait time.Duration) (actors.TaskInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	var t actors.TaskInfo
	var last error
	meter := &taskMeter{line: c.newWaitLine()}
	defer meter.line.end()
	done := poll(ctx, func() bool {
		tasks, err := api.Tasks(ctx)
		if err == nil {
			t, err = taskIn(tasks, id)
		}
		if err == nil && !t.Settled() {
			meter.show(time.Now(), t, tasks)
		}
		if ctx.Err() == nil {
			last = err
		}
		return err == nil && t.Settled() || errors.Is(err, partition.ErrNotFound)
	})
	switch {
	case last != nil && (done || t.ID == 0):
		return t, last
	case !done:
		return t, &partition.Error{
			Code: partition.CodeUnknown, Why: fmt.Sprintf("%s after %v: %s", t.ID, wait, endText(t)),
			Next: fmt.Sprintf("it goes on by itself; wait longer with pando task wait %s, or end it with pando task abort %s", t.ID, t.ID),
		}
	case !t.Open() && !t.Succeeded():
		return t, &partition.Error{Code: partition.CodeRefused, Why: endText(t), Next: "see pando task tree " + t.ID.String()}
	}
	return t, nil
}

func endText(t actors.TaskInfo) string {
	s := fmt.Sprintf("%s, %s of %s: %s", t.ID, t.Kind, whatText(t), stateText(t))
	if d := doneText(t); d != "" {
		s += ", " + d + " done"
	}
	if why := whyText(t); why != "" {
		s += ": " + why
	}
	return s
}

func (c *cli) taskAbort() *cobra.Command {
	return c.abortCommand("abort <task>", "Have a task given up", "What was begun is undone; what can no longer be undone is refused. The steps of a plan end with it.")
}

func (c *cli) abortCommand(use, short, long string) *cobra.Command {
	var why string
	cmd := &cobra.Command{
		Use: use, Short: short, Long: long, Args: cobra.ExactArgs(1),
		RunE: c.asking(func(cmd *cobra.Command, args []string, api *httpapi.Client) error {
			id, err := actors.ParseTaskID(args[0])
			if err != nil {
				return err
			}
			return showAnswer(c, cmd, func(ctx context.Context) (actors.TaskInfo, error) { return api.AbortTask(ctx, id, why) },
				func(w io.Writer, t actors.TaskInfo) { fmt.Fprintln(w, endText(t)) })
		}),
	}
	cmd.Flags().StringVar(&why, "reason", "", "why, for those who look later")
	return cmd
}
