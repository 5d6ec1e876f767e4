package fault

import (
	"slices"
	"testing"
)

// TestVocabulary: every class has a name of its own, a line about it, and a level
// that can inject it, and its name gives it back.
func TestVocabulary(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	for c := range All() {
		if c.String() == "" || c.About() == "" || c.Levels() == 0 || names[c.String()] {
			t.Errorf("class %d is %q: %q, %q", c, c, c.About(), c.Levels())
		}
		names[c.String()] = true
		if back, err := Parse(c.String()); err != nil || back != c {
			t.Errorf("%s is read as %s: %v", c, back, err)
		}
	}
	if len(names) < 45 {
		t.Errorf("%d classes", len(names))
	}
	if _, err := Parse("nothing"); err == nil {
		t.Error("a name that is none is read")
	}
	if Class(0).Valid() || Classes.Valid() || Class(0).String() != "fault-0" {
		t.Error("what is no class is one")
	}
}

func TestTargets(t *testing.T) {
	t.Parallel()
	all := []Target{None, 0, 14}
	for r := Master; r < roles; r++ {
		all = append(all, Aim(r, 0), Aim(r, 63))
	}
	for i, x := range all {
		back, err := ParseTarget(x.String())
		if err != nil || back != x || slices.Index(all, x) != i {
			t.Errorf("%d is %q, read as %d: %v", x, x, back, err)
		}
		_, isNode := x.Node()
		_, _, aims := x.Role()
		if isNode && aims || x != None && !isNode && !aims {
			t.Errorf("%s is a node: %t, aims: %t", x, isNode, aims)
		}
	}
	for _, s := range []string{"", "x", "-1", "+1", "01", "@1", "master@", "master@-1", "master@99999", "king@1"} {
		if x, err := ParseTarget(s); err == nil {
			t.Errorf("%q is read as %s", s, x)
		}
	}
}
