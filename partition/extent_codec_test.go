package partition

import (
	"bytes"
	"encoding/hex"
	"testing"

	"pando.dev/pando/internal/mutate"
)

// The encodings are for ever: these bytes are in logs and in states.
func TestExtentFormats(t *testing.T) {
	in := intentOf("b-t", 5, childOf(18, "m-t"))
	in.Children[0].Membership = as("majority", "a")
	in.Children[0].First = 1
	x := steps(t, Extent{}, in, 16, 17)
	x.Parent, x.Base = 3, 9
	for name, c := range map[string]struct {
		b    []byte
		want string
	}{
		"intent":   {payload(t, in), "010700000000000000050000000000000001006201007401120000000000000001000" + "1006d0100741800010100010100000000000000020001000101000201" + "6e3161"},
		"decision": {payload(t, x.Decision()), "01070000000000000064000000000000000600000000000000"},
		"extent": {payload(t, &x), "010600000000000000050000000000000003000000000000000900000000000000000000000000000000010062010074020700000000000000" +
			"05000000000000006400000000000000650000000000000001" + "1200000000000000010001006d01007418000101000101000000000000000200010001010002016e3161"},
	} {
		if got := hex.EncodeToString(c.b); got != c.want {
			t.Errorf("%s\n%s, not\n%s", name, got, c.want)
		}
	}
}

// codecSeeds are an intent, a decision, and extents in every phase.
func codecSeeds(t testing.TB) [][]byte {
	in := intentOf("b-t", 5, childOf(18, "m-p"), childOf(19, "p-t"))
	var x Extent
	seeds := [][]byte{payload(t, in), payload(t, Decision{Task: 7, Intent: 100, Version: 5})}
	for i, k := range []Kind{16, 17, 19, 20} {
		b := payload(t, in)
		if k != KindIntent {
			b = payload(t, x.Decision())
		}
		x, _ = x.Next(k, b, Index(100+i))
		seeds = append(seeds, payload(t, &x))
	}
	child := Extent{Range: span("m-t"), Version: 7, Since: 7, Parent: 3, Base: 102}
	return append(seeds, payload(t, &child))
}

// checkExtent: what is decoded is canonical and valid, and Next never panics nor
// leads to what cannot be encoded.
func checkExtent(t testing.TB, b []byte) {
	var in Intent
	if in.UnmarshalBinary(b) == nil && !bytes.Equal(payload(t, &in), b) {
		t.Fatalf("%x is not the canonical form of an intent", b)
	}
	var d Decision
	if d.UnmarshalBinary(b) == nil && !bytes.Equal(payload(t, d), b) {
		t.Fatalf("%x is not the canonical form of a decision", b)
	}
	var x Extent
	if x.UnmarshalBinary(b) != nil {
		x = Extent{}
	} else if !bytes.Equal(payload(t, &x), b) {
		t.Fatalf("%x is not the canonical form of an extent", b)
	}
	for k := KindIntent; k <= KindAbort; k++ {
		p := b
		if k != KindIntent && x.Split != nil {
			p = payload(t, x.Decision())
		}
		at := x.Base
		if x.Split != nil {
			at = x.Split.At
		}
		y, err := x.Next(k, p, at+1)
		if err != nil || at+1 == 0 || y.Version < x.Version { // at the end of the numbers
			continue
		}
		var z Extent
		if err := z.UnmarshalBinary(payload(t, &y)); err != nil {
			t.Fatalf("%s of %s leads to %s: %v", k, x.Describe(), y.Describe(), err)
		}
	}
}

func TestSpoiledExtents(t *testing.T) {
	mutate.Run(t, codecSeeds(t), func(b []byte) { checkExtent(t, b) })
}

func FuzzExtent(f *testing.F) {
	for _, b := range codecSeeds(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) { checkExtent(t, b) })
}

// What is cut short, too long, of a newer format, or led to by no record.
func TestExtentCodecRefuses(t *testing.T) {
	seeds := codecSeeds(t)
	for i, b := range seeds {
		decode := func(b []byte) error {
			switch i {
			case 0:
				return new(Intent).UnmarshalBinary(b)
			case 1:
				return new(Decision).UnmarshalBinary(b)
			}
			return new(Extent).UnmarshalBinary(b)
		}
		if err := decode(b); err != nil {
			t.Fatalf("%d: %v", i, err)
		}
		for n := range len(b) {
			if decode(b[:n]) == nil {
				t.Errorf("%d: %d of %d bytes are taken for all", i, n, len(b))
			}
		}
		if CodeOf(decode(append(bytes.Clone(b), 0))) != CodeCorrupt {
			t.Errorf("%d: a byte too many", i)
		}
		newer := bytes.Clone(b)
		if newer[0] = 3; CodeOf(decode(newer)) != CodeNewerFormat {
			t.Errorf("%d: a newer format", i)
		}
		if newer[0] = 0; CodeOf(decode(newer)) != CodeCorrupt {
			t.Errorf("%d: no format", i)
		}
	}
	good := steps(t, Extent{}, intentOf("b-t", 5, childOf(18, "m-t")), 16, 17, 19)
	for name, f := range map[string]func(x *Extent){
		"no version":         func(x *Extent) { x.Version, x.Since = 0, 0 },
		"since later":        func(x *Extent) { x.Since = x.Version + 1 },
		"parent, no base":    func(x *Extent) { x.Parent = 3 },
		"base, no parent":    func(x *Extent) { x.Base = 3 },
		"no keys":            func(x *Extent) { x.Range = span("m-m"); x.Split = nil },
		"phase 4":            func(x *Extent) { x.Split.Phase = 4 },
		"no intent":          func(x *Extent) { x.Split.Intent = 0 },
		"before the intent":  func(x *Extent) { x.Split.At = x.Split.Intent - 1 },
		"before the base":    func(x *Extent) { x.Parent, x.Base = 3, x.Split.At },
		"not what has left":  func(x *Extent) { x.Range = span("b-l") },
		"still with it":      func(x *Extent) { x.Range = span("b-t") },
		"done with none":     func(x *Extent) { x.Done = true },
		"begun at 0":         func(x *Extent) { x.Split.Version = 0 },
		"begun later":        func(x *Extent) { x.Split.Version = x.Version + 2 },
		"an odd step":        func(x *Extent) { x.Split.Version-- },
		"no step":            func(x *Extent) { x.Split.Version = x.Version },
		"sealed without":     func(x *Extent) { x.Split.Phase = Sealed },
		"children elsewhere": func(x *Extent) { x.Split.Children = []Child{childOf(18, "x-y")} },
	} {
		x := good
		s := *x.Split
		x.Split = &s
		f(&x)
		if err := new(Extent).UnmarshalBinary(payload(t, &x)); err == nil {
			t.Errorf("%s is taken for an extent: %s", name, x.Describe())
		}
	}
}
