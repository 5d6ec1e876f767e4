package sim

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pando.dev/pando/internal/planted"
)

// TestStories runs every plan in testdata and requires that it ends as it says: a
// seed that once failed stays as a story that passes, and one with a planted bug as
// a story that fails, and passes without the bug.
func TestStories(t *testing.T) {
	t.Parallel()
	paths, err := filepath.Glob("testdata/*.plan")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".plan"), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			s, err := ParseStory(text)
			if err != nil {
				t.Fatal(err)
			}
			if s.Expect == "" || !strings.HasPrefix(string(text), "#") {
				t.Fatal("a story says at its beginning what it is about, and in a line how it ends")
			}
			expects(t, &s.Plan, s.Expect)
			if !s.Planted.Empty() {
				s.Planted = planted.Set{}
				expects(t, &s.Plan, Pass)
			}
		})
	}
}

// expects requires that a plan ends in a way.
func expects(t *testing.T, p *Plan, how string) {
	t.Helper()
	got := Pass
	r := Play(p)
	if r.Violation != nil {
		got = r.Violation.What
	}
	if got != how {
		t.Errorf("with %q planted it ends with %s, not %s: %v", p.Planted, got, how, r.Violation)
	}
}
