package bulk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"pando.dev/pando/actors/httpapi"
	"pando.dev/pando/partition"
)

// table is a key-value table in memory that can fail at a chosen write.
type table struct {
	mu     sync.Mutex
	pairs  map[string]string
	puts   int
	failAt int // which put fails; 0: none
}

var errPlanted = errors.New("planted")

func (t *table) put(_ context.Context, key, value []byte) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.puts++
	if t.puts == t.failAt {
		return errPlanted
	}
	if t.pairs == nil {
		t.pairs = map[string]string{}
	}
	t.pairs[string(key)] = string(value)
	return nil
}

func (t *table) scan(_ context.Context, r partition.KeyRange, limit int) ([]httpapi.KV, bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var keys []string
	for k := range t.pairs {
		if r.Contains([]byte(k)) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	var out []httpapi.KV
	for _, k := range keys[:min(limit, len(keys))] {
		out = append(out, httpapi.KV{Key: []byte(k), Value: []byte(t.pairs[k])})
	}
	return out, len(keys) > limit, nil
}

func source(t testing.TB, input string, m Mark) *Reader {
	t.Helper()
	f, err := Format{Delimiter: ';'}.Resolve("")
	if err != nil {
		t.Fatal(err)
	}
	r, err := Resume(strings.NewReader(input), f, m)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func inputOf(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%06d;value of %d\n", i, i)
	}
	return b.String()
}

// TestLoadAndExport: what was loaded comes out again, byte for byte.
func TestLoadAndExport(t *testing.T) {
	input := inputOf(5000)
	tb := &table{}
	mark, err := Load(t.Context(), LoadConfig{Source: source(t, input, Mark{}), Put: tb.put})
	if err != nil || mark.Loaded != 5000 || mark.Offset != int64(len(input)) || mark.Line != 5001 {
		t.Fatalf("%+v %v", mark, err)
	}
	var raw, lines bytes.Buffer
	done, err := Export(t.Context(), ExportConfig{Scan: tb.scan, To: &raw, Raw: true, Page: 7})
	if err != nil || done.Pairs != 5000 || raw.String() != input || done.Bytes != int64(len(input)) {
		t.Fatalf("%+v %v, equal %v", done, err, raw.String() == input)
	}
	tb.pairs["\xff\x00"] = "\x00\n\xff"
	if _, err := Export(t.Context(), ExportConfig{Scan: tb.scan, To: &lines}); err != nil {
		t.Fatal(err)
	}
	again := &table{}
	r, err := NewReader(&lines, Format{Name: Exported})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Load(t.Context(), LoadConfig{Source: r, Put: again.put}); err != nil {
		t.Fatal(err)
	}
	if len(again.pairs) != 5001 || again.pairs["\xff\x00"] != "\x00\n\xff" || again.pairs["000007"] != tb.pairs["000007"] {
		t.Fatalf("%d pairs after the export was loaded", len(again.pairs))
	}
}

// TestExportLeavesNothingOut: also not the keys that follow another one at once,
// wherever a page ends.
func TestExportLeavesNothingOut(t *testing.T) {
	tb := &table{pairs: map[string]string{"a": "1", "a\x00": "2", "a\x00\x00": "3", "a\x01": "4", "b": "5"}}
	for page := 1; page <= 6; page++ {
		var out bytes.Buffer
		done, err := Export(t.Context(), ExportConfig{Scan: tb.scan, To: &out, Raw: true, Page: page})
		if err != nil || out.String() != "1\n2\n3\n4\n5\n" || done.Pairs != 5 {
			t.Errorf("pages of %d: %q %+v %v", page, out.String(), done, err)
		}
	}
}

// TestLoadOrder: of several records with one key the last in the input wins,
// however many writes are under way.
func TestLoadOrder(t *testing.T) {
	var b strings.Builder
	for i := range 20000 {
		fmt.Fprintf(&b, "k%d;%d\n", i%100, i)
	}
	tb := &table{}
	if _, err := Load(t.Context(), LoadConfig{Source: source(t, b.String(), Mark{}), Put: tb.put}); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		if got, want := tb.pairs[fmt.Sprintf("k%d", i)], fmt.Sprintf("k%d;%d", i, 19900+i); got != want {
			t.Fatalf("k%d is %q, want %q", i, got, want)
		}
	}
}

// TestLoadResumes: wherever a load fails, everything before its mark is stored,
// and a second load from the mark completes it.
func TestLoadResumes(t *testing.T) {
	input := inputOf(300)
	lines := strings.SplitAfter(input, "\n")
	for failAt := 1; failAt <= 300; failAt += 13 {
		tb := &table{failAt: failAt}
		mark, err := Load(t.Context(), LoadConfig{Source: source(t, input, Mark{}), Put: tb.put, Workers: 8})
		if !errors.Is(err, errPlanted) {
			t.Fatalf("fail at %d: %v", failAt, err)
		}
		if mark.Offset != int64(len(strings.Join(lines[:mark.Line-1], ""))) && mark.Loaded > 0 {
			t.Fatalf("fail at %d: offset %d is not before line %d", failAt, mark.Offset, mark.Line)
		}
		for i := range mark.Loaded {
			if tb.pairs[fmt.Sprintf("%06d", i)] == "" {
				t.Fatalf("fail at %d: %d is before the mark and not stored", failAt, i)
			}
		}
		rest, err := Load(t.Context(), LoadConfig{Source: source(t, input, mark), From: mark, Put: tb.put, Workers: 8})
		if err != nil || rest.Loaded != 300 || len(tb.pairs) != 300 || rest.Line != 301 {
			t.Fatalf("fail at %d: then %+v %v, %d pairs", failAt, rest, err, len(tb.pairs))
		}
	}
}

// TestLoadBadRecords: a bad record ends the load with its line, or is counted.
func TestLoadBadRecords(t *testing.T) {
	input := "a;1\n;nothing\nb;2\n"
	tb := &table{}
	mark, err := Load(t.Context(), LoadConfig{Source: source(t, input, Mark{}), Put: tb.put})
	if partition.CodeOf(err) != partition.CodeInvalid || !strings.Contains(err.Error(), "line 2") || mark.Offset != 4 {
		t.Fatalf("%+v %v", mark, err)
	}
	mark, err = Load(t.Context(), LoadConfig{Source: source(t, input, Mark{}), Put: tb.put, SkipBad: true})
	if err != nil || mark.Bad != 1 || mark.Loaded != 2 || mark.Offset != int64(len(input)) {
		t.Fatalf("%+v %v", mark, err)
	}
}

// TestLoadStops: when the caller ends it, a load ends with that reason.
func TestLoadStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	put := func(ctx context.Context, _, _ []byte) error {
		cancel()
		<-ctx.Done()
		return ctx.Err()
	}
	mark, err := Load(ctx, LoadConfig{Source: source(t, inputOf(5000), Mark{}), Put: put})
	if !errors.Is(err, context.Canceled) || mark.Loaded != 0 {
		t.Fatalf("%+v %v", mark, err)
	}
}

// TestMarksOnlyGrow: OnMark sees every position once, in order.
func TestMarksOnlyGrow(t *testing.T) {
	var last Mark
	tb := &table{}
	_, err := Load(t.Context(), LoadConfig{
		Source: source(t, inputOf(2000), Mark{}), Put: tb.put,
		OnMark: func(m Mark) {
			if m.Offset <= last.Offset || m.Line <= last.Line || m.Loaded <= last.Loaded {
				t.Errorf("mark %+v after %+v", m, last)
			}
			last = m
		},
	})
	if err != nil || last.Loaded != 2000 {
		t.Fatalf("%+v %v", last, err)
	}
}

// TestProgressFile: it survives writing and reading, and a load that is another
// one is refused.
func TestProgressFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p")
	if _, ok, err := ReadProgress(path); ok || err != nil {
		t.Fatalf("none there: %v %v", ok, err)
	}
	p := Progress{Cluster: "c", Table: "t", Group: 3, Input: "in", Size: 100, Format: Format{Name: CSV, Key: "0"}, Mark: Mark{Offset: 50, Line: 6}}
	if err := p.Write(path); err != nil {
		t.Fatal(err)
	}
	got, ok, err := ReadProgress(path)
	if err != nil || !ok || got.Mark != p.Mark {
		t.Fatalf("%+v %v %v", got, ok, err)
	}
	if err := got.Continues(p); err != nil {
		t.Fatal(err)
	}
	for i, change := range []func(*Progress){
		func(p *Progress) { p.Cluster = "d" }, func(p *Progress) { p.Table = "u" }, func(p *Progress) { p.Group = 4 },
		func(p *Progress) { p.Input = "other" }, func(p *Progress) { p.Size = 99 }, func(p *Progress) { p.Format.Key = "1" },
	} {
		now := p
		change(&now)
		if err := got.Continues(now); partition.CodeOf(err) != partition.CodeRefused {
			t.Errorf("change %d: %v", i, err)
		}
	}
	got.Mark.Offset = 101
	if err := got.Continues(p); partition.CodeOf(err) != partition.CodeRefused {
		t.Errorf("an offset outside of the input: %v", err)
	}
}

// TestDamagedProgressFile: damage and a newer format have their own errors.
func TestDamagedProgressFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p")
	for content, want := range map[string]partition.Code{"{": partition.CodeCorrupt, `{"format":2}`: partition.CodeNewerFormat} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := ReadProgress(path); partition.CodeOf(err) != want {
			t.Errorf("%s: %v", content, err)
		}
	}
}
