package mem

import (
	"testing"

	"pando.dev/pando/partition"
)

// TestSpoils: what is kept longer than the contract allows does not stay what
// it was, so a kind that keeps it fails its tests; what is in the space does.
func TestSpoils(t *testing.T) {
	var s Space
	for _, k := range []string{"a", "b", "c"} {
		if err := s.Set([]byte(k), []byte("value of "+k)); err != nil {
			t.Fatal(err)
		}
	}
	kept, ok, err := s.Get([]byte("a"))
	if string(kept) != "value of a" || !ok || err != nil {
		t.Fatalf("%q %v %v", kept, ok, err)
	}
	if v, ok, _ := s.Get([]byte("x")); ok || v != nil {
		t.Fatalf("an absent key has %q", v)
	}
	if string(kept) == "value of a" {
		t.Error("a value is valid after the next call")
	}
	var pairs []partition.Pair
	for p := range s.ScanBack(partition.KeyRange{Lo: []byte("b")}) {
		if err := s.Set(p.Key, []byte("new")); err != nil {
			t.Fatal(err)
		}
		if k := string(p.Key); k != "b" && k != "c" || string(p.Value) != "value of "+k {
			t.Fatalf("%q=%q: a write changed the pair under a scan", p.Key, p.Value)
		}
		pairs = append(pairs, p)
	}
	if len(pairs) != 2 || string(pairs[0].Key) == "c" || string(pairs[1].Value) == "value of b" {
		t.Errorf("pairs are valid after their step: %q", pairs)
	}
	c := s.Clone()
	if err := c.DeleteRange(partition.KeyRange{Hi: []byte("b")}); err != nil {
		t.Fatal(err)
	}
	if v, ok, _ := s.Get([]byte("a")); string(v) != "value of a" || !ok || s.Len() != 3 || c.Len() != 2 {
		t.Errorf("a clone is not on its own: %q %v, %d and %d keys", v, ok, s.Len(), c.Len())
	}
}
