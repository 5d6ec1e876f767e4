package main

import (
	"strings"
	"testing"
	"time"

	"pando.dev/pando/actors"
	"pando.dev/pando/partition"
)

// TestHotCommand: what is asked for most is shown with the key that stands out and
// the last decision, as are policies of splits.
func TestHotCommand(t *testing.T) {
	rates := actors.Rates{Units: 300, Reads: 200, Writes: 100, WriteBytes: 2048}
	hot := actors.HotInfo{
		Rates: rates, Nodes: []actors.NodeLoad{{Node: "n1", Rates: rates, Masters: 2}}, Silent: []partition.NodeID{"n2"},
		Partitions: []actors.PartitionLoad{
			{
				Group: 7, Table: "t", Node: "n1", Rates: actors.Rates{Units: 270}, Share: 0.9, Limit: 100, Heat: "engaged", HotKey: []byte("k1"), HotKeyShare: 0.8,
				Decision: "hot-key", Reason: "one key is the load", Decided: time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local),
			},
			{Group: 8, Table: "t", Node: "n1", Rates: actors.Rates{Units: 3}, Share: 0.01},
		},
	}
	table := actors.TableInfo{Name: "t", Kind: "kv", Replicas: 3, Policy: "majority", Splits: actors.SplitPolicy{Mode: "auto", Load: 2000, Size: 1 << 30}}
	for _, c := range []struct {
		args   string
		answer any
		has    []string
	}{
		{"hot", hot, []string{"n2", "does not answer", "k1 80%", "90%", "3.0", "g7: hot-key (2026-01-02 03:04:05): one key is the load"}},
		{"hot -o json", hot, []string{`"decision": "hot-key"`}},
		{"hot --table t", actors.HotInfo{}, []string{"nothing is asked of any partition"}},
		{"table ls", []actors.TableInfo{table, {Splits: actors.SplitPolicy{Mode: "size", Size: 1 << 20}}, {Splits: actors.SplitPolicy{Mode: "off"}}, {Splits: actors.SplitPolicy{Mode: "elastic", Load: 7}}}, []string{"or 7 units/s, merges what is cold", "beyond 1 GiB or 2000 units/s", "beyond 1 MiB\n", "off"}},
		{"table alter t --auto-split auto --split-load 2000", table, []string{"policy majority, splits beyond 1 GiB or 2000 units/s"}},
	} {
		out, code := answerRun(t, c.answer, strings.Fields(c.args)...)
		if code != 0 {
			t.Errorf("%s: exit code %d: %s", c.args, code, out)
		}
		for _, has := range c.has {
			if !strings.Contains(out, has) {
				t.Errorf("%s: no %q in\n%s", c.args, has, out)
			}
		}
	}
}
