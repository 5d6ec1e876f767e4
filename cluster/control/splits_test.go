package control

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"pando.dev/pando/partition"
)

// A split policy changes field by field, once per token, and nothing else of the
// table; it survives snapshots and pages (SPL-6).
func TestSplitPolicy(t *testing.T) {
	s := newState()
	create(t, s, "t", 1, nil, "a")
	create(t, s, "u", 1, nil, "a")
	for _, x := range []struct {
		what, token, name string
		p                 splitsItem
		code              partition.Code
		version           uint64
		want              SplitPolicy
	}{
		{"the mode", "1", "t", splitsItem{Mode: SplitsAuto}, 0, 3, SplitPolicy{Mode: SplitsAuto}},
		{"the load", "2", "t", splitsItem{Load: 9}, 0, 4, SplitPolicy{Mode: SplitsAuto, Load: 9}},
		{"again", "2", "t", splitsItem{Load: 9}, 0, 4, SplitPolicy{Mode: SplitsAuto, Load: 9}},
		{"its token for another", "2", "t", splitsItem{Load: 8}, partition.CodeInvalid, 4, SplitPolicy{Mode: SplitsAuto, Load: 9}},
		{"what is so", "3", "t", splitsItem{Load: 9}, 0, 4, SplitPolicy{Mode: SplitsAuto, Load: 9}},
		{"the rest", "4", "t", splitsItem{Size: 1 << 20, RestMs: 2000, Partitions: 7}, 0, 5, SplitPolicy{SplitsAuto, 9, 1 << 20, 2 * time.Second, 7}},
		{"too small a size", "5", "t", splitsItem{Size: 1}, partition.CodeInvalid, 5, SplitPolicy{SplitsAuto, 9, 1 << 20, 2 * time.Second, 7}},
		{"too short a rest", "6", "t", splitsItem{RestMs: 1}, partition.CodeInvalid, 5, SplitPolicy{SplitsAuto, 9, 1 << 20, 2 * time.Second, 7}},
		{"no mode", "7", "t", splitsItem{Mode: 9}, partition.CodeInvalid, 5, SplitPolicy{SplitsAuto, 9, 1 << 20, 2 * time.Second, 7}},
		{"no table", "8", "v", splitsItem{Mode: SplitsOff}, partition.CodeNoSuchTable, 5, SplitPolicy{SplitsAuto, 9, 1 << 20, 2 * time.Second, 7}},
	} {
		r := applied(t, s, kindSplits, &splitsBody{Token: x.token, Name: x.name, Policy: x.p})
		tab, _ := s.catalog.Table("t")
		if partition.CodeOf(asNil(r.err)) != x.code || tab.Splits != x.want || s.catalog.Version != x.version || tab.Changed != x.version {
			t.Errorf("%s: %v, %+v at %d of %d", x.what, r.err, tab.Splits, tab.Changed, s.catalog.Version)
		}
	}
	applied(t, s, kindAlter, &alterBody{Token: "a", Name: "t", Replicas: 3})
	want, _ := s.catalog.Table("t")
	restored, err := readState(bytes.NewReader(bytesOf(t, s)))
	if err != nil {
		t.Fatal(err)
	}
	copied, err := DecodeCatalog(EncodeCatalog(s.catalog))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []*Catalog{restored.catalog, copied} {
		tab, _ := c.Table("t")
		other, _ := c.Table("u")
		if *tab != *want || tab.Replicas != 3 || other.Splits != (SplitPolicy{}) {
			t.Errorf("%+v and %+v, expected %+v", tab, other, want)
		}
	}
}

// Policies on a page that belong to nothing on it are damage.
func TestSplitPolicyPages(t *testing.T) {
	table := tableItem{ID: 1, Name: "t", Kind: "kv", Replicas: 1, Rule: partition.Majority}
	for what, items := range map[string][]splitsItem{
		"of no table": {{Table: 2, Mode: SplitsOff}}, "empty": {{Table: 1}},
		"there twice": {{Table: 1, Mode: SplitsOff}, {Table: 1, Mode: SplitsOff}}, "of no mode": {{Table: 1, Mode: 9}},
	} {
		page := splitsPage{Tasks: taskPage{Page: pageBody{Version: 1, Whole: true, Tables: []tableItem{table}}}, Splits: items}
		if _, err := DecodeCatalog([][]byte{command(t, kindSplitsPage, &page)}); err == nil {
			t.Errorf("a policy %s: accepted", what)
		}
	}
	good := splitsPage{Tasks: taskPage{Page: pageBody{Version: 1, Whole: true, Tables: []tableItem{table}}}, Splits: []splitsItem{{Table: 1, Mode: SplitsOff}}}
	if _, err := DecodeCatalog([][]byte{command(t, kindSplitsPage, &good)}); err != nil {
		t.Error(err)
	}
}

func TestSplitPolicyWords(t *testing.T) {
	for _, m := range []SplitMode{SplitsOff, SplitsBySize, SplitsAuto, SplitsElastic} {
		if got, err := ParseSplitMode(m.String()); err != nil || got != m {
			t.Errorf("%s is read as %s, %v", m, got, err)
		}
	}
	if _, err := ParseSplitMode("some"); !errors.Is(err, partition.ErrInvalid) {
		t.Error(err)
	}
	if p := (SplitPolicy{}).WithDefaults(); p.Mode != SplitsBySize || p.Load == 0 || p.Size == 0 || p.Rest == 0 || p.Partitions == 0 || p.validate() != nil {
		t.Errorf("the defaults are %+v", p)
	}
	if p := (SplitPolicy{Mode: SplitsOff, Load: 3}).WithDefaults(); p.Mode != SplitsOff || p.Load != 3 || p.Size != DefaultSplitSize {
		t.Errorf("%+v", p)
	}
}

// Over the API.
func TestSetSplits(t *testing.T) {
	n := newTestNet(t)
	for _, id := range []partition.NodeID{"a", "b", "c"} {
		n.start(id, 1)
	}
	n.leader()
	x := n.nodes["b"]
	ctx := deadline(t, 20*time.Second)
	if _, err := x.CreateTable(ctx, TableSpec{Name: "t", Kind: "kv", Replicas: 2}); err != nil {
		t.Fatal(err)
	}
	tab, err := x.SetSplits(ctx, "t", SplitPolicy{Mode: SplitsAuto, Load: 77}, "")
	if err != nil || tab.Splits != (SplitPolicy{Mode: SplitsAuto, Load: 77}) || tab.Changed != 2 {
		t.Fatalf("%+v, %v", tab, err)
	}
	if _, err := x.SetSplits(ctx, "u", SplitPolicy{Mode: SplitsAuto}, ""); !errors.Is(err, partition.ErrNoSuchTable) {
		t.Error(err)
	}
	if _, err := x.SetSplits(ctx, "t", SplitPolicy{Size: 1}, ""); !errors.Is(err, partition.ErrInvalid) {
		t.Error(err)
	}
}
