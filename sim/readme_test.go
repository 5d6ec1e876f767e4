package sim

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"pando.dev/pando/sim/fault"
)

var rewriteReadme = flag.Bool("sim.readme", false, "write the generated tables of README.md")

// generated is a part of README.md between two marks that the code knows.
func generated(name, text string) string {
	return fmt.Sprintf("<!-- %s: go test ./sim -run TestReadme -sim.readme -->\n\n%s\n<!-- end of %s -->\n", name, text, name)
}

func vocabulary() string {
	var b strings.Builder
	b.WriteString("| Class | What happens | arg | Injected into |\n|---|---|---|---|\n")
	for c := range fault.All() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", c, c.About(), c.Arg(), c.Levels())
	}
	return b.String()
}

func shapeTable() string {
	var b strings.Builder
	b.WriteString("| Shape | Of 100 seeds | What it is |\n|---|---|---|\n")
	for _, s := range DefaultShapes() {
		fmt.Fprintf(&b, "| `%s` | %d | %s |\n", s.Name, s.Weight, s.About)
	}
	return b.String()
}

// TestReadme: the tables of README.md that the code knows are what the code knows.
func TestReadme(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(raw)
	for name, table := range map[string]string{"vocabulary": vocabulary(), "shapes": shapeTable()} {
		want := generated(name, table)
		begin, end := strings.Index(text, "<!-- "+name+":"), strings.Index(text, "<!-- end of "+name+" -->\n")
		switch {
		case begin < 0 || end < begin:
			t.Fatalf("README.md has no place for %s", name)
		case *rewriteReadme:
			text = text[:begin] + want + text[end+len("<!-- end of "+name+" -->\n"):]
		case !strings.Contains(text, want):
			t.Errorf("the table %s is old: go test ./sim -run TestReadme -sim.readme", name)
		}
	}
	if *rewriteReadme {
		if err := os.WriteFile("README.md", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	weights := 0
	for _, s := range DefaultShapes() {
		weights += s.Weight
	}
	if weights != 100 {
		t.Errorf("the weights of the shapes make %d", weights)
	}
}

// TestScenarios: every test, story, shape and class of faults that README.md names
// as the home of a scenario is there, and every scenario has one or says why not.
func TestScenarios(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile("`([a-z/]+)\\.((?:Test|Fuzz)[A-Za-z0-9_]+)`")
	quoted := regexp.MustCompile("`([a-z0-9-]+)`")
	rows := regexp.MustCompile(`(?m)^\| ([A-Z][0-9]+) \| ([^|]+) \| ([^|]+) \|$`).FindAllStringSubmatch(string(raw), -1)
	if len(rows) < 75 {
		t.Errorf("%d scenarios", len(rows))
	}
	seen := map[string]bool{}
	for _, row := range rows {
		id, where := row[1], row[3]
		if seen[id] {
			t.Errorf("%s is there twice", id)
		}
		seen[id] = true
		tests := names.FindAllStringSubmatch(where, -1)
		for _, m := range tests {
			if !declares(t, filepath.Join("..", m[1]), m[2]) {
				t.Errorf("%s: %s has no %s", id, m[1], m[2])
			}
		}
		words := quoted.FindAllStringSubmatch(where, -1)
		for _, m := range words {
			_, isShape := ShapeNamed(m[1])
			_, err := fault.Parse(m[1])
			_, noFile := os.Stat(filepath.Join("testdata", m[1]+".plan"))
			if !isShape && err != nil && noFile != nil {
				t.Errorf("%s: %s is neither a shape, nor a class of faults, nor a story", id, m[1])
			}
		}
		if len(tests) == 0 && len(words) == 0 && !strings.HasPrefix(where, "not yet: ") {
			t.Errorf("%s has no home and does not say why", id)
		}
	}
}

// declares reports whether a directory declares a test.
func declares(t *testing.T, dir, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		src, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(src), "\nfunc "+name+"(") {
			return true
		}
	}
	return false
}

// TestElsewhere: a point that no simulated run comes by is one, and the test that
// does is there.
func TestElsewhere(t *testing.T) {
	t.Parallel()
	all := len(pointNames())
	if n := len(Goals()); n+len(elsewhere) != all {
		t.Errorf("%d goals and %d points elsewhere, of %d", n, len(elsewhere), all)
	}
	for point, test := range elsewhere {
		dir, name, _ := strings.Cut(test, ".")
		if !declares(t, filepath.Join("..", dir), name) {
			t.Errorf("%s: %s has no %s", point, dir, name)
		}
	}
}
