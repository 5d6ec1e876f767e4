package planted

import (
	"regexp"
	"testing"
)

// TestNames: every bug has a name of its own that reads back, a layer and a
// sentence, and the set has room for all of them.
func TestNames(t *testing.T) {
	if int(end) > 64*len(Set{}.bits) {
		t.Fatalf("%d bugs do not fit", end)
	}
	if len(known) != int(end) {
		t.Fatalf("%d bugs, %d described", end-1, len(known)-1)
	}
	name := regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`)
	seen := map[string]bool{}
	for _, b := range All() {
		if !name.MatchString(b.String()) || b.About() == "" || b.Layer() == "" || seen[b.String()] {
			t.Errorf("bug %d: %q of %q, %q", uint8(b), b, b.Layer(), b.About())
		}
		seen[b.String()] = true
		s, err := Parse(b.String())
		if err != nil || s != Of(b) || !s.Has(b) || len(s.Bugs()) != 1 || s.Bugs()[0] != b {
			t.Errorf("%q reads back as %q, %v", b, s, err)
		}
	}
	if all := Of(All()...); len(all.Bugs()) != len(All()) {
		t.Errorf("%d of %d bugs in the set of all", len(all.Bugs()), len(All()))
	}
}

func TestParse(t *testing.T) {
	if s, err := Parse(""); err != nil || !s.Empty() {
		t.Errorf("nothing is %q, %v", s, err)
	}
	if s, err := Parse("no-snip, wal-less"); err == nil {
		t.Errorf("an unknown name is %q", s)
	}
	s, err := Parse(Of(SnipLost, NoSnip).String())
	if err != nil || s != Of(NoSnip, SnipLost) {
		t.Errorf("%q, %v", s, err)
	}
	if Bug(0).String() == "" || end.About() != "" || end.Layer() != "" {
		t.Error("what is no bug has no name, or a meaning")
	}
}
