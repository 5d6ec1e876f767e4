package main

import (
	"fmt"
	"strings"
	"testing"
)

// checkSplit: a partition is divided by the command line, on the same nodes and on
// new ones, and what makes no sense is refused. There is a table "single" on one
// node.
func (p *processes) checkSplit(t *testing.T) {
	for i := range 40 {
		p.pando("kv", "put", "ops", fmt.Sprintf("k%02d", i), "value")
	}
	out := p.pando("partition", "split", "ops", "--middle", "--dry-run")
	if !strings.Contains(out, "planned") || !strings.Contains(out, "(new)") {
		t.Errorf("plan: %s", out)
	}
	if out := p.pando("partition", "split", "ops", "--into", "3", "--reason", "a test"); !strings.Contains(out, ": done") {
		t.Errorf("split: %s", out)
	}
	if out := p.pando("partition", "ls", "ops"); strings.Count(out, "\n") != 4 {
		t.Errorf("three partitions: %s", out)
	}
	if out := p.pando("kv", "scan", "ops"); strings.Count(out, "value") != 40 {
		t.Errorf("scan: %s", out)
	}
	p.pando("kv", "put", "single", "a", "left")
	p.pando("kv", "put", "single", "z", "right")
	if out := p.pando("partition", "split", "single", "--at", "m", "--new-nodes"); !strings.Contains(out, ": done") {
		t.Errorf("split on new nodes: %s", out)
	}
	for key, want := range map[string]string{"a": "left", "z": "right"} {
		if out := p.pando("kv", "get", "single", key); !strings.Contains(out, want) {
			t.Errorf("get %s: %s", key, out)
		}
	}
	for args, want := range map[string]string{
		"partition split single --at m":          "invalid",
		"partition split nope --middle":          "no_such_table",
		"partition split single --middle --at m": "usage",
		"partition split ops --at k05 --into 3":  "usage",
		"partition split ops --middle":           "invalid", // it has three partitions by now
		"partition split g999 --middle":          "not_found",
	} {
		if _, err := p.try(strings.Fields(args)...); err == nil || !strings.Contains(err.Error(), "error: "+want) {
			t.Errorf("%s: %v", args, err)
		}
	}
}
