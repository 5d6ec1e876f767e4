package main

import (
	"strings"
	"testing"
	"time"

	"pando.dev/pando/actors"
)

// TestInspectCommands: what the commands print that look at the cluster, and what
// they end with.
func TestInspectCommands(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local)
	plan := actors.PlanInfo{Task: actors.TaskInfo{Kind: "plan", Bytes: 2048}, Steps: []actors.TaskInfo{{Kind: "move", Group: 7, From: "n2", To: "n4", Bytes: 2048, Reason: "move: by an operator"}}}
	for _, c := range []struct {
		args   string
		answer any
		code   int
		has    []string
	}{
		{
			"node ls", []actors.NodeInfo{{MemberInfo: actors.MemberInfo{Node: "n1", Zone: "a", Status: "alive", Mode: "drained"}, Replicas: 4, Masters: 2, Bytes: 1 << 20, Leaving: 5, LeavingPhase: "moving"}},
			0, []string{"n1", "drained", "1 MiB", "t5, moving"},
		},
		{
			"explain partition g7", actors.Explanation{Subject: "partition g7", Facts: []actors.Fact{
				{About: actors.AboutIs, Text: "It is."}, {About: actors.AboutWaits, Text: "t4 is sealed.", Since: at}, {About: actors.AboutHelp, Text: "wait"},
			}},
			0, []string{"partition g7\n", "what it is\n  It is.\n", "what it waits for\n  t4 is sealed. (since 2026-01-02 03:04:05)", "what would help\n  wait"},
		},
		{"explain node n1 -o json", actors.Explanation{Subject: "node n1"}, 0, []string{`"subject": "node n1"`}},
		{"explain zone a", nil, exitUsage, []string{"explain"}},
		{
			"partition history g7", actors.History{
				Group: 7, Table: "t", Parent: 3, Children: nil, Node: "n1", From: 1, To: 9, Lost: "nothing much",
				Events: []actors.HistoryEvent{{Index: 2, Epoch: "1.1", Kind: "noop", Text: "n1 becomes master"}},
				Tasks:  []actors.TaskInfo{{ID: 4, Kind: "split", State: "done", Group: 7, Ended: at}},
			},
			0, []string{"partition g7 of table t, split from g3; by the log of n1, records 1 to 9", "n1 becomes master", "2026-01-02 03:04:05", "not kept: nothing much"},
		},
		{"partition history x", nil, exitError, []string{"x"}},
		{"check", actors.CheckReport{Tables: 1, Partitions: 4, Replicas: 12, Catalog: 7}, 0, []string{"1 table, 4 partitions, 12 replicas and 0 open tasks, catalog version 7", "everything is as it should be"}},
		{
			"check", actors.CheckReport{Left: 3, Findings: []actors.Finding{{Kind: actors.FindHole, Text: "keys are of no partition", Next: "look"}}},
			exitUnhealthy, []string{"hole", "of no partition", "look", "and 3 more"},
		},
		{"partition move g7 --from n2 --to n4 --dry-run", plan, 0, []string{"dry run: 1 step, 2 KiB to copy", "n2", "by an operator"}},
		{"partition move g7 --from n2", nil, exitUsage, []string{"to"}},
	} {
		out, code := answerRun(t, c.answer, strings.Fields(c.args)...)
		if code != c.code {
			t.Errorf("%s: exit code %d, want %d: %s", c.args, code, c.code, out)
		}
		for _, has := range c.has {
			if !strings.Contains(out, has) {
				t.Errorf("%s: no %q in\n%s", c.args, has, out)
			}
		}
	}
	found := digestFindings(actors.VerifyInfo{Partitions: []actors.VerifiedPartition{
		{Group: 1, Verdict: actors.VerdictSame}, {Group: 2, Verdict: actors.VerdictDamaged, Why: "n2 is damaged"}, {Group: 3, Verdict: actors.VerdictIncomplete},
	}})
	if len(found) != 2 || found[0].Kind != actors.FindDigest || !strings.Contains(found[0].Text, "n2 is damaged") || found[1].Kind != actors.FindNotCompared {
		t.Errorf("%+v", found)
	}
}

// TestTaskMeter: what is done of a plan and of its bytes, how fast they come, and
// how long the rest takes.
func TestTaskMeter(t *testing.T) {
	var out strings.Builder
	m := &taskMeter{line: &waitLine{w: &out, redraw: true}}
	at := time.Unix(0, 0).Add(time.Hour)
	step := func(id actors.TaskID, state string, units uint64) actors.TaskInfo {
		return actors.TaskInfo{ID: id, Parent: 1, Kind: "move", State: state, Phase: "copying", Group: 7, From: "n1", To: "n4", Bytes: 4 << 20, Units: units, OfUnits: 4 << 20}
	}
	plan := actors.TaskInfo{ID: 1, Kind: "plan", State: "open", OfUnits: 3}
	for i, units := range []uint64{0, 1 << 20, 3 << 20} {
		all := []actors.TaskInfo{plan, step(2, "open", units), step(3, "planned", 0), {ID: 4, Parent: 1, Kind: "transfer", State: "open"}}
		m.show(at.Add(time.Duration(i)*time.Second), plan, all)
	}
	plan.Units = 1
	m.show(at.Add(3*time.Second), plan, []actors.TaskInfo{plan, step(2, "done", 0), step(3, "open", 0)})
	want := []string{
		"t1, plan: open, 0 of 3 steps, 0 B of 8 MiB: g7 n1 -> n4 copying",
		"t1, plan: open, 0 of 3 steps, 1 MiB of 8 MiB, 1 MiB/s, 7s left: g7 n1 -> n4 ...",
		"t1, plan: open, 0 of 3 steps, 3 MiB of 8 MiB, 1.5 MiB/s, 3s left: g7 n1 -> n...",
		"t1, plan: open, 1 of 3 steps, 4 MiB of 8 MiB, 1.333 MiB/s, 3s left: g7 n1 ->...",
	}
	if got := "\r" + strings.Join(want, "\x1b[K\r") + "\x1b[K"; out.String() != got {
		t.Errorf("%q\n%q", out.String(), got)
	}
	if s := doneText(step(2, "open", 1<<20)); s != "1 MiB of 4 MiB" {
		t.Errorf("%q", s)
	}
}
