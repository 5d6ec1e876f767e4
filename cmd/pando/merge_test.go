package main

import (
	"strings"
	"testing"
)

// checkMerge: the partitions that checkSplit has made are merged by the command line,
// one after the other, and what makes no sense is refused.
func (p *processes) checkMerge(t *testing.T) {
	first := ""
	for _, line := range strings.Split(p.pando("partition", "ls", "ops"), "\n") {
		if f := strings.Fields(line); len(f) > 0 && strings.HasPrefix(f[0], "g") && first == "" {
			first = f[0]
		}
	}
	if out := p.pando("partition", "merge", first, "--dry-run"); !strings.Contains(out, "planned") {
		t.Errorf("plan: %s", out)
	}
	for n := 3; n > 1; n-- {
		if out := p.pando("partition", "merge", first, "--reason", "a test"); !strings.Contains(out, ": done") {
			t.Errorf("merge: %s", out)
		}
		if out := p.pando("partition", "ls", "ops"); strings.Count(out, "\n") != n {
			t.Errorf("%d partitions: %s", n-1, out)
		}
	}
	if out := p.pando("kv", "scan", "ops"); strings.Count(out, "value") != 40 {
		t.Errorf("scan: %s", out)
	}
	for args, want := range map[string]string{
		"partition merge " + first: "invalid", // there is none behind it any more
		"partition merge ops":      "usage",
		"partition merge g999":     "not_found",
	} {
		if _, err := p.try(strings.Fields(args)...); err == nil || !strings.Contains(err.Error(), "error: "+want) {
			t.Errorf("%s: %v", args, err)
		}
	}
}
