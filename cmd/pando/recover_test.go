package main

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"pando.dev/pando/actors"
	"pando.dev/pando/partition"
)

// lostPlan is a plan with one lost partition and one that may come back.
func lostPlan() actors.RecoverPlan {
	return actors.RecoverPlan{
		Plan: "g17/n2,n3/4f3a90c1d2e3f405", Dead: []partition.NodeID{"n2", "n3"},
		Groups: []actors.PartitionRescue{{
			Group: 17, Table: "words", Version: 4, Policy: "majority", State: actors.RecoverLost,
			Why:       "it cannot fail over or commit: missing are zone b (n2) and zone c (n3); one of them has to come back",
			Survivors: []actors.Survivor{{Replica: 1, Node: "n1", Zone: "a", Kind: "full", Epoch: "7.2", Last: 812, Commit: 790}},
			Lost: []actors.LostMember{
				{Replica: 2, Node: "n2", Zone: "b", Kind: "full", Why: "its node is gone for good, by the operator's word"},
				{Replica: 3, Node: "n3", Kind: "log", Why: "its node does not have it any more"},
			},
			Node: "n1", Replica: 1, Becomes: "a write is on disk at the only voter", Loss: "acknowledged writes after record 812 that were only on n2 and n3 may be lost",
		}, {
			Group: 18, Table: "words", Version: 1, Policy: "zones:2", State: actors.RecoverWaits, Why: "it cannot commit", Next: "start n4 again",
		}},
	}
}

// TestPrintRecoverPlan: what an operator reads before deciding.
func TestPrintRecoverPlan(t *testing.T) {
	var out bytes.Buffer
	c := &cli{out: &out, output: "table"}
	plan := lostPlan()
	if err := c.show(plan, func(w io.Writer) { printRecoverPlan(w, plan) }); err != nil {
		t.Fatal(err)
	}
	const want = `partition g17 of table words: lost
  why          it cannot fail over or commit: missing are zone b (n2) and zone c (n3); one of them has to come back
  members      version 4, policy majority
  left         n1 (replica 1, full, zone a): its log ends with record 812 of epoch 7.2, committed through 790
  lost         n2 (replica 2, full, zone b): its node is gone for good, by the operator's word
  lost         n3 (replica 3, log): its node does not have it any more
  goes on      n1: a write is on disk at the only voter
  may be lost  acknowledged writes after record 812 that were only on n2 and n3 may be lost

partition g18 of table words: waits
  why      it cannot commit
  members  version 1, policy zones:2
  next     start n4 again

those that are lost go on with: pando recover apply g17/n2,n3/4f3a90c1d2e3f405
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", &out, want)
	}
	out.Reset()
	printRecoverPlan(&out, actors.RecoverPlan{})
	if out.String() != "no partition is lost: nothing is to be recovered\n" {
		t.Error(out.String())
	}
}

// TestNoPlan: a plan that cannot be applied ends with the reason.
func TestNoPlan(t *testing.T) {
	waits, serves := lostPlan(), lostPlan()
	waits.Plan, waits.Groups = "", waits.Groups[1:]
	serves.Plan, serves.Groups = "", []actors.PartitionRescue{{Group: 19, State: actors.RecoverServes, Why: "it has a master, on n1, and who it needs"}}
	for _, c := range []struct {
		name  string
		plan  actors.RecoverPlan
		asked bool
		code  partition.Code
		want  string
	}{
		{"lost", lostPlan(), true, 0, ""},
		{"nothing asked, nothing to do", actors.RecoverPlan{}, false, 0, ""},
		{"asked, nothing to do", actors.RecoverPlan{}, true, partition.CodeRefused, "no partition is lost"},
		{"it may come back", waits, true, partition.CodeRefused, "partition g18: it cannot commit"},
		{"it serves", serves, true, partition.CodeRefused, "partition g19 is not lost: it has a master"},
		{"no control group", actors.RecoverPlan{Control: "the control group has lost its majority"}, false, partition.CodeUnavailable, "lost its majority"},
	} {
		err := noPlan(c.plan, c.asked)
		if partition.CodeOf(err) != c.code || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want code %v and %q", c.name, err, c.code, c.want)
		}
	}
}

// TestPrintRecovered: what became of it, and the exit code that follows.
func TestPrintRecovered(t *testing.T) {
	done := actors.RescueOutcome{Group: 17, Node: "n1", Number: 3, Done: true}
	busy := actors.RescueOutcome{Group: 18, Node: "n4", Number: 1, Code: "outcome_unknown", Why: "it is decreed"}
	refused := actors.RescueOutcome{Group: 19, Node: "n4", Code: "refused", Why: "no"}
	var out bytes.Buffer
	c := &cli{out: &out, output: "table"}
	o := actors.RecoverOutcome{Groups: []actors.RescueOutcome{done, busy}}
	if err := c.show(o, func(w io.Writer) { printRecovered(w, o) }); err != nil {
		t.Fatal(err)
	}
	const want = `PARTITION  NODE  IN-SYNC NUMBER  DONE  WHY
g17        n1    3               yes   -
g18        n4    1               no    it is decreed
`
	if out.String() != want {
		t.Errorf("got\n%s", &out)
	}
	for _, x := range []struct {
		groups []actors.RescueOutcome
		code   int
	}{
		{[]actors.RescueOutcome{done}, 0}, {[]actors.RescueOutcome{done, busy}, exitTimedOut}, {[]actors.RescueOutcome{refused, busy}, exitError},
	} {
		err := notRecovered(actors.RecoverOutcome{Groups: x.groups})
		if got := exitCode(err); err != nil && got != x.code || err == nil && x.code != 0 {
			t.Errorf("%+v: %v", x.groups, err)
		}
	}
}
