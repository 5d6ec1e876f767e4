package partition

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"
	"testing"

	"pando.dev/pando/internal/mutate"
)

func mergeIntent() *MergeIntent {
	return &MergeIntent{Task: 9, Range: span("b-m"), Version: 5, Source: 18, SourceRange: span("m-t")}
}

func sourceSeal() *SourceSeal {
	return &SourceSeal{Task: 9, Range: span("m-t"), Version: 7, Survivor: 3, Intent: 100}
}

func mergingOf(x Extent) *Merging {
	d := Decision{Task: 9, Intent: 100, Version: x.Version}
	return &Merging{Decision: d, SourceVersion: 8, Top: 5000, Lineage: []GroupID{7}}
}

// merge applies kinds of a merge in a row.
func mergeSteps(x Extent, kinds ...Kind) (Extent, error) {
	for i, k := range kinds {
		y, err := x.Next(k, mergePayload(x, k), Index(100+i))
		if err != nil {
			return x, fmt.Errorf("%s: %w", k, err)
		}
		x = y
	}
	return x, nil
}

func mergePayload(x Extent, k Kind) []byte {
	var b []byte
	switch k {
	case KindMergeIntent:
		b, _ = mergeIntent().AppendBinary(nil)
	case KindSourceSeal:
		b, _ = sourceSeal().AppendBinary(nil)
	case KindMerging:
		b, _ = mergingOf(x).AppendBinary(nil)
	default:
		b, _ = Decision{Task: 9, Intent: 100, Version: x.Version}.AppendBinary(nil)
	}
	return b
}

// Every way through a merge, in both groups.
func TestMergeNext(t *testing.T) {
	for _, c := range []struct {
		kinds          []Kind
		want           string
		serves, not    string
		version, since RangeVersion
		outcome        Outcome
	}{
		{[]Kind{22}, `keys ["b","m"), range version 5; task 9 takes ["m","t") of g18 in; until that is decided g18 serves them`, "b-m", "m-n", 5, 5, Undecided},
		{[]Kind{22, 24}, `keys ["b","t"), range version 9; it has absorbed g7 and g18; task 9 has taken ["m","t") of g18 in; g18 has to learn of it yet`, "b-t", "t-u", 9, 9, Decided},
		{[]Kind{22, 24, 20}, `keys ["b","t"), range version 9; it has absorbed g7 and g18`, "b-t", "t-u", 9, 9, Decided},
		{[]Kind{22, 21}, `keys ["b","m"), range version 5`, "b-m", "m-n", 5, 5, GivenUp},
		{[]Kind{25}, `keys ["m","t"), range version 8; task 9 holds them until g3 has decided whether it takes them`, "", "m-n", 8, 7, Undecided},
		{[]Kind{25, 26}, `keys ["m","t"), range version 9`, "m-t", "b-c", 9, 7, GivenUp},
		{[]Kind{25, 27}, `keys ["m","t"), range version 9; they are g3's since task 9`, "", "m-n", 9, 9, Undecided},
	} {
		x, err := mergeSteps(Extent{}, c.kinds...)
		if err != nil {
			t.Fatal(err)
		}
		if x.Describe() != c.want || x.Version != c.version || x.Since != c.since {
			t.Errorf("%v: %s, versions %d since %d", c.kinds, x.Describe(), x.Version, x.Since)
		}
		if c.serves != "" && !x.Serves(span(c.serves)) || x.Serves(span(c.not)) {
			t.Errorf("%v: serves %s: %v, %s: %v", c.kinds, c.serves, x.Serves(span(c.serves)), c.not, x.Serves(span(c.not)))
		}
		if got := x.Outcome(9, 100, 18, 200); got != c.outcome || got != Decided && x.Outcome(9, 100, 18, 99) != Undecided {
			t.Errorf("%v: the outcome is %s", c.kinds, got)
		}
		var y Extent
		if err := y.UnmarshalBinary(payload(t, &x)); err != nil || y.Describe() != x.Describe() || y.At(1) != x.At(1) {
			t.Errorf("%v: decoded as %s: %v", c.kinds, y.Describe(), err)
		}
	}
}

// Every other record, in every phase, is refused and changes nothing: so abort and
// merge exclude each other, and no source that has gone comes back.
func TestMergeRefuses(t *testing.T) {
	ways := map[string][]Kind{
		"none": nil, "absorbing": {22}, "merged": {22, 24}, "sealed": {25}, "gone": {25, 27}, "aborted": {22, 21}, "done": {22, 24, 20}, "unsealed": {25, 26},
	}
	allowed := map[string][]Kind{
		"none": {22, 25}, "absorbing": {21, 24}, "merged": {20}, "sealed": {26, 27}, "aborted": {22},
	}
	for name, way := range ways {
		x, err := mergeSteps(Extent{}, way...)
		if err != nil {
			t.Fatal(err)
		}
		for k := KindIntent; k <= KindSourceGone; k++ {
			y, err := x.Next(k, mergePayload(x, k), 200)
			if slices.Contains(allowed[name], k) != (err == nil) {
				t.Errorf("%s of a group that is %s: %v", k, name, err)
			}
			if err != nil && !bytes.Equal(payload(t, &y), payload(t, &x)) {
				t.Errorf("%s of a group that is %s is refused and changes it", k, name)
			}
		}
		if in, err := x.Next(KindIntent, payload(t, intentOf("b-t", 5, childOf(18, "m-t"))), 200); name != "none" && err == nil {
			t.Errorf("a split of a group that is %s: %s", name, in.Describe())
		}
	}
	x, _ := mergeSteps(Extent{}, 22)
	for name, d := range map[string]Decision{
		"another task": {Task: 8, Intent: 100, Version: 5}, "another try": {Task: 9, Intent: 99, Version: 5}, "another version": {Task: 9, Intent: 100, Version: 6},
	} {
		m := &Merging{Decision: d, SourceVersion: 8, Top: 1}
		if _, err := x.Next(KindMerging, payload(t, m), 200); err == nil || err.Code != CodeRefused {
			t.Errorf("a merge of %s: %v", name, err)
		}
		if _, err := x.Next(KindAbort, payload(t, d), 200); err == nil || err.Code != CodeRefused {
			t.Errorf("an abort of %s: %v", name, err)
		}
	}
}

// Indexes go on above both groups', and what was absorbed is remembered, by children
// too, up to a limit.
func TestMergeLift(t *testing.T) {
	x, _ := mergeSteps(Extent{}, 22, 24)
	if x.Lift != 5000-101 || x.At(102) != 5001 {
		t.Errorf("lifted by %d", x.Lift)
	}
	low := Extent{Range: span("b-m"), Version: 5, Since: 5, Lift: 9000}
	if y, err := mergeSteps(low, 22, 24); err != nil || y.Lift != 9000 {
		t.Errorf("lifted by %d: %v", y.Lift, err)
	}
	for range 3 * MaxLineage {
		low.Lineage = lineage(low.Lineage, nil, 5)
	}
	low.Lineage = lineage(low.Lineage, []GroupID{6}, 8)
	if n := len(low.Lineage); n != MaxLineage || !low.Descends(8) || !low.Descends(6) || low.Descends(9) {
		t.Errorf("%d groups are remembered: %v", n, low.Lineage)
	}
	c := childOf(20, "p-t")
	s := x
	s.Split, s.Merge = &Split{At: 300}, nil
	if y := s.OfChild(3, &c); y.At(301) != s.At(301) || !y.Descends(18) {
		t.Errorf("a child begins with %s, lifted by %d", y.Describe(), y.Lift)
	}
}

// mergeSeeds are the payloads of a merge, and the extents that it leads to.
func mergeSeeds(t testing.TB) [][]byte {
	rows := &Absorb{Decision: Decision{9, 100, 5}, Rows: span("a-c"), Pairs: []Pair{{[]byte("a"), []byte("1")}, {[]byte("b"), nil}}}
	seeds := [][]byte{payload(t, mergeIntent()), payload(t, sourceSeal()), payload(t, mergingOf(Extent{Version: 5})), payload(t, rows)}
	for _, way := range [][]Kind{{22}, {22, 24}, {22, 24, 20}, {25}, {25, 27}} {
		x, err := mergeSteps(Extent{}, way...)
		if err != nil {
			t.Fatal(err)
		}
		seeds = append(seeds, payload(t, &x))
	}
	return seeds
}

// The encodings are for ever: these bytes are in logs and in states.
func TestMergeFormats(t *testing.T) {
	for i, want := range []string{
		"010900000000000000050000000000000012000000000000000100620" + "1006d01006d010074",
		"01090000000000000007000000000000000300000000000000640000000000000001006d010074",
		"0109000000000000006400000000000000050000000000000008000000000000008813000000000000010700000000000000",
		"010900000000000000640000000000000005000000000000000100000061010000006301000000610100000031010000006200000000",
	} {
		if got := hex.EncodeToString(mergeSeeds(t)[i]); got != want {
			t.Errorf("%d: %s, not\n%s", i, got, want)
		}
	}
	x, _ := mergeSteps(Extent{}, 22, 24)
	const want = "020900000000000000090000000000000000000000000000000000000000000000000000000000000000010062010074002313000000000000020700000000000000" +
		"12000000000000000209000000000000000500000000000000640000000000000065000000000000001200000000000000" + "01006d010074"
	if got := hex.EncodeToString(payload(t, &x)); got != want {
		t.Errorf("extent: %s, not\n%s", got, want)
	}
}

// checkMerge: what is decoded is canonical and valid, and Next never panics nor leads
// to what cannot be encoded.
func checkMerge(t testing.TB, b []byte) {
	var in MergeIntent
	if in.UnmarshalBinary(b) == nil && !bytes.Equal(payload(t, &in), b) {
		t.Fatalf("%x is not the canonical form of a merge intent", b)
	}
	var s SourceSeal
	if s.UnmarshalBinary(b) == nil && !bytes.Equal(payload(t, &s), b) {
		t.Fatalf("%x is not the canonical form of a seal", b)
	}
	var a Absorb
	if a.UnmarshalBinary(b) == nil && !bytes.Equal(payload(t, &a), b) {
		t.Fatalf("%x is not the canonical form of rows", b)
	}
	var m Merging
	if m.UnmarshalBinary(b) == nil && !bytes.Equal(payload(t, &m), b) {
		t.Fatalf("%x is not the canonical form of a decision", b)
	}
	checkExtent(t, b)
	var x Extent
	if x.UnmarshalBinary(b) != nil || x.Base > maxTop || x.Merge == nil || x.Merge.At > maxTop || x.Version > 1<<62 {
		return
	}
	for k := KindMergeIntent; k <= KindSourceGone; k++ {
		p := payload(t, x.MergeDecision())
		if k == KindMerging {
			p = payload(t, &Merging{Decision: x.MergeDecision(), SourceVersion: x.Version, Top: maxTop})
		}
		y, err := x.Next(k, p, max(x.Base, x.Merge.At)+1)
		if err != nil {
			continue
		}
		if err := new(Extent).UnmarshalBinary(payload(t, &y)); err != nil {
			t.Fatalf("%s of %s leads to %s: %v", k, x.Describe(), y.Describe(), err)
		}
	}
}

func TestSpoiledMerges(t *testing.T) {
	mutate.Run(t, mergeSeeds(t), func(b []byte) { checkMerge(t, b) })
}

func FuzzMerge(f *testing.F) {
	for _, b := range mergeSeeds(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) { checkMerge(t, b) })
}

// What is cut short, of a newer format, or led to by no record.
func TestMergeCodecRefuses(t *testing.T) {
	for i, b := range mergeSeeds(t) {
		decode := func(b []byte) error {
			switch i {
			case 0:
				return new(MergeIntent).UnmarshalBinary(b)
			case 1:
				return new(SourceSeal).UnmarshalBinary(b)
			case 2:
				return new(Merging).UnmarshalBinary(b)
			case 3:
				return new(Absorb).UnmarshalBinary(b)
			}
			return new(Extent).UnmarshalBinary(b)
		}
		for n := range len(b) {
			if decode(b[:n]) == nil && i != 3 {
				t.Errorf("%d: %d of %d bytes are taken for all", i, n, len(b))
			}
		}
		newer := bytes.Clone(b)
		if newer[0] = 3; CodeOf(decode(newer)) != CodeNewerFormat {
			t.Errorf("%d: a newer format", i)
		}
	}
	for name, in := range map[string]*MergeIntent{
		"no task":       {Range: span("a-b"), Version: 5, Source: 18, SourceRange: span("b-c")},
		"no source":     {Task: 9, Range: span("a-b"), Version: 5, SourceRange: span("b-c")},
		"a gap":         {Task: 9, Range: span("a-b"), Version: 5, Source: 18, SourceRange: span("c-d")},
		"the left one":  {Task: 9, Range: span("b-c"), Version: 5, Source: 18, SourceRange: span("a-b")},
		"no end":        {Task: 9, Range: span("b-"), Version: 5, Source: 18, SourceRange: span("-b")},
		"long bounds":   {Task: 9, Range: span("a-b"), Version: 5, Source: 18, SourceRange: KeyRange{Lo: []byte("b"), Hi: bytes.Repeat([]byte("c"), MaxBoundBytes+1)}},
		"nothing there": {Task: 9, Range: span("a-b"), Version: 5, Source: 18, SourceRange: span("b-b")},
	} {
		if _, err := in.AppendBinary(nil); CodeOf(err) != CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Extents that no record leads to.
func TestMergedExtentRefuses(t *testing.T) {
	good, _ := mergeSteps(Extent{}, 22, 24)
	for name, f := range map[string]func(x *Extent){
		"lifted far": func(x *Extent) { x.Lift = maxTop + 1 },
		"splits, too": func(x *Extent) {
			x.Split = &Split{Phase: Intended, Task: 7, Version: 9, Intent: 5, At: 5, Children: []Child{childOf(19, "c-d")}}
		},
		"phase 5":           func(x *Extent) { x.Merge.Phase = 5 },
		"no other":          func(x *Extent) { x.Merge.Other = 0 },
		"before the intent": func(x *Extent) { x.Merge.At = x.Merge.Intent },
		"not absorbed":      func(x *Extent) { x.Lineage = nil },
		"other keys":        func(x *Extent) { x.Merge.Range = span("m-s") },
		"all keys":          func(x *Extent) { x.Merge.Range = span("b-t") },
		"sealed, not lost":  func(x *Extent) { x.Merge.Phase = SourceSealed },
		"takes requests": func(x *Extent) {
			x.Merge.Phase, x.Merge.Range, x.Since = Absorbed, x.Range, 1
			x.Merge.Version = x.Version - 2
		},
		"not next to it": func(x *Extent) { x.Merge.Phase, x.Merge.Version, x.Merge.At = Absorbing, x.Version, x.Merge.Intent },
		"group 0":        func(x *Extent) { x.Lineage = []GroupID{18, 0} },
	} {
		x := good
		m := *x.Merge
		x.Merge, x.Lineage = &m, slices.Clone(x.Lineage)
		f(&x)
		if err := new(Extent).UnmarshalBinary(payload(t, &x)); err == nil {
			t.Errorf("%s is taken for an extent: %s", name, x.Describe())
		}
	}
	none := append(payload(t, &Extent{Range: span("a-b"), Version: 1, Since: 1}), make([]byte, 10)...)
	if none[0] = 2; CodeOf(new(Extent).UnmarshalBinary(none)) != CodeCorrupt {
		t.Error("format 2 of what format 1 says")
	}
	if p := MergePhase(7); p.String() != "phase(7)" || Merged.String() != "merged" {
		t.Errorf("%s %s", p, Merged)
	}
}
