package main

import (
	"strings"
	"testing"
	"time"

	"pando.dev/pando/actors"
)

func TestPrintAnomalies(t *testing.T) {
	since := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	over := since.Add(5 * time.Minute)
	var b strings.Builder
	printAnomalies(&b, []actors.AnomalyInfo{
		{Kind: "slow-disk", Subject: "n3", Confirmed: true, Since: since, Evidence: "31ms", Advice: "look", Actions: []actors.AnomalyAction{{Err: "busy"}, {To: "n2"}}},
		{Kind: "slow-disk", Subject: "n4", Since: since, Evidence: "32ms", Actions: []actors.AnomalyAction{{To: "n2"}, {Err: "busy"}}},
		{Kind: "slow-link", Subject: "n1-n2", Since: since, Until: &over, Evidence: "40ms"},
	})
	want := []string{
		"KIND|SUBJECT|STATE|SINCE|EVIDENCE|DONE|NEXT",
		"slow-disk|n3|confirmed|2026-01-02 03:04:05|31ms|1 handed over|look",
		"slow-disk|n4|suspected|2026-01-02 03:04:05|32ms|1 handed over; last: busy|-",
		"slow-link|n1-n2|over at 03:09:05|2026-01-02 03:04:05|40ms|-|-",
	}
	if got := strings.ReplaceAll(strings.TrimSpace(b.String()), "\t", "|"); got != strings.Join(want, "\n") {
		t.Errorf("%s", got)
	}
}
