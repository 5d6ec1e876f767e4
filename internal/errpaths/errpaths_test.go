package main

import (
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"strings"
	"testing"
)

// sample holds one path of each shape; the comment of a line says what is
// wanted of it, and a line without one holds none.
const sample = `package p

import (
	"errors"
	"fmt"
	"os"
)

var errGone = errors.New("gone")

type fault struct{}

func (*fault) Error() string { return "" }

func work() error { return nil }

func one(n int) error {
	if err := work(); err != nil { // handled
		return err
	}
	if err := work(); err == nil {
		return nil
	} else { // handled
		fmt.Println(err)
	}
	if n > 3 {
		return fmt.Errorf("too many") // raised
	}
	var f *fault
	if f != nil && n == 1 { // handled
		n++
	}
	err := work()
	if errors.Is(err, os.ErrNotExist) { // handled
		n++
	}
	switch {
	case errors.As(err, &f): // handled
		n++
	case n == 4:
		return &fault{} // raised
	}
	defer func() {
		if p := recover(); p != nil { // handled
			n++
		}
	}()
	if err := work(); err != nil {
	}
	if p := &n; p != nil {
		n++
	}
	if n == 9 {
		return errGone // raised
	}
	if err != nil { // handled
		return fmt.Errorf("again: %w", err)
	}
	return work()
}
`

// TestPathsAreFound compares what is found with the comments of the sample.
func TestPathsAreFound(t *testing.T) {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, "p.go", sample, 0)
	if err != nil {
		t.Fatal(err)
	}
	found, err := check(fset, importer.ForCompiler(fset, "source", nil), "p", map[string]*ast.File{"p.go": file})
	if err != nil {
		t.Fatal(err)
	}
	got := map[int]string{}
	for _, x := range found {
		got[x.At] = x.Heading.String()
	}
	for i, line := range strings.Split(sample, "\n") {
		_, want, _ := strings.Cut(line, "// ")
		at := i + 1
		if got[at] != want {
			t.Errorf("line %d %q: found %q", at, line, got[at])
		}
		delete(got, at)
	}
	if len(got) != 0 {
		t.Errorf("also found: %v", got)
	}
}

// TestProfileDecides: the first counted block within a path says whether it
// ran, in any of the measured packages.
func TestProfileDecides(t *testing.T) {
	text := "mode: set\nm/p/a.go:3.10,5.3 2 0\nm/p/a.go:3.10,5.3 2 1\nm/p/a.go:7.10,9.3 1 0\nm/p/a.go:8.1,8.9 1 1\n"
	p, err := readProfile(strings.NewReader(text), "m")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		from, to int
		want     outcome
	}{{3, 5, executed}, {7, 9, missed}, {20, 30, unmeasured}} {
		x := path{File: "p/a.go", From: place{c.from, 1}, To: place{c.to, 99}}
		if got := p.of(x); got != c.want {
			t.Errorf("lines %d to %d: %d, want %d", c.from, c.to, got, c.want)
		}
	}
	if _, err := readProfile(strings.NewReader("mode: set\nnonsense\n"), "m"); err == nil {
		t.Error("read nonsense")
	}
}

// TestReportJudges: what was missed counts against the share unless excused,
// and an excuse that nothing needs is an error.
func TestReportJudges(t *testing.T) {
	excuses, err := readAllowances("# why\np/a.go f | err != nil | the disk cannot fail here\n")
	if err != nil {
		t.Fatal(err)
	}
	r := report{src: source{lines: map[string][]string{"p/a.go": {"if err != nil {", "if err := g(); err != nil {", "if x {"}}}, packages: map[string]*[2]tally{}}
	p := profile{"p/a.go": {{from: place{1, 1}, to: place{1, 9}}, {from: place{2, 1}, to: place{2, 9}, ran: true}, {from: place{3, 1}, to: place{3, 9}}}}
	var out strings.Builder
	for line, fun := range []string{"f", "f", "g"} {
		r.count(&out, p, path{File: "p/a.go", Func: fun, From: place{line + 1, 1}, To: place{line + 1, 9}, At: line + 1}, excuses)
	}
	if want := (tally{ran: 1, missed: 1, excused: 1}); r.total[handled] != want {
		t.Errorf("%+v", r.total[handled])
	}
	if !strings.Contains(out.String(), "p/a.go:3: handled") || strings.Count(out.String(), "\n") != 1 {
		t.Errorf("listed: %s", out.String())
	}
	if err := r.finish(&out, excuses, 50); err != nil {
		t.Error(err)
	}
	if err := r.finish(&out, excuses, 51); err == nil {
		t.Error("half was enough")
	}
	if err := r.finish(&out, append(excuses, &allowance{file: "x", text: "y"}), 0); err == nil {
		t.Error("an excuse of nothing was taken")
	}
	for _, bad := range []string{"a.go f | x", "a.go | x | a long enough reason", "a.go f | x | short"} {
		if _, err := readAllowances(bad); err == nil {
			t.Errorf("took %q", bad)
		}
	}
}
