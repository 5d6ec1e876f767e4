package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// tally counts the paths of one heading.
type tally struct{ ran, missed, excused int }

func (t tally) share() float64 {
	if t.ran+t.missed == 0 {
		return 100
	}
	return 100 * float64(t.ran) / float64(t.ran+t.missed)
}

func (t tally) String() string {
	return fmt.Sprintf("%5d of %5d  %5.1f %%", t.ran, t.ran+t.missed, t.share())
}

// report gathers what is printed.
type report struct {
	src      source
	only     string
	packages map[string]*[2]tally
	total    [2]tally
}

// count takes one path, and prints it if no test ran it.
func (r *report) count(w io.Writer, p profile, x path, excuses []*allowance) {
	t, ok := r.packages[x.Package]
	if !ok {
		t = new([2]tally)
		r.packages[x.Package] = t
	}
	add := func(change func(*tally)) {
		change(&t[x.Heading])
		change(&r.total[x.Heading])
	}
	excuse := r.src.excuse(excuses, x)
	switch p.of(x) {
	case unmeasured: // a file of another platform
	case executed:
		add(func(t *tally) { t.ran++ })
	case missed:
		if excuse != nil {
			excuse.used = true
			add(func(t *tally) { t.excused++ })
			return
		}
		add(func(t *tally) { t.missed++ })
		if strings.HasPrefix(x.File, r.only) {
			fmt.Fprintf(w, "%s:%d: %s: %s in %s\n", x.File, x.At, x.Heading, r.src.line(x.File, x.At), x.Func)
		}
	}
}

// finish prints the table and judges.
func (r *report) finish(w io.Writer, excuses []*allowance, least float64) error {
	names := []string{}
	for name := range r.packages {
		names = append(names, name)
	}
	slices.Sort(names)
	fmt.Fprintf(w, "\n%-42s %-24s %-24s %s\n", "package", "errors handled", "errors raised", "excused")
	for _, name := range names {
		t := r.packages[name]
		fmt.Fprintf(w, "%-42s %s  %s  %d\n", name, t[handled], t[raised], t[handled].excused+t[raised].excused)
	}
	fmt.Fprintf(w, "%-42s %s  %s  %d\n", "all", r.total[handled], r.total[raised], r.total[handled].excused+r.total[raised].excused)
	for _, a := range excuses {
		if !a.used {
			return fmt.Errorf("the allowance of %q in %s fits no path that the tests left out: remove it", a.text, a.file)
		}
	}
	if r.total[handled].share() < least {
		return fmt.Errorf("%.1f %% of the errors handled were executed, at least %.1f %% wanted", r.total[handled].share(), least)
	}
	return nil
}
