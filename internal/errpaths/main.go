package main

import (
	_ "embed"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

//go:embed allowed.txt
var allowed string

func main() {
	file := flag.String("profile", "cover.out", "the coverage `file` of all tests")
	least := flag.Float64("least", 0, "fail below this `share` in percent of handled errors")
	skip := flag.String("skip", "internal/hammer,internal/chaos,internal/history,internal/tidy,internal/errpaths,internal/planted,internal/mutate,wal/memfs,bench,sim", "`directories` that are no product")
	only := flag.String("only", "", "list the paths below this `directory` only")
	flag.Parse()
	if err := run(os.Stdout, *file, *least, strings.Split(*skip, ","), *only); err != nil {
		fmt.Fprintln(os.Stderr, "errpaths:", err)
		os.Exit(1)
	}
}

func run(w io.Writer, file string, least float64, skip []string, only string) error {
	all, err := list(".", []string{"./..."})
	if err != nil {
		return err
	}
	i := slices.IndexFunc(all, func(p listed) bool { return p.Module != nil && p.Module.Main })
	if i < 0 {
		return fmt.Errorf("no package of this module")
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	p, err := readProfile(f, all[i].Module.Path)
	if err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	paths, err := pathsOf(all, skip)
	if err != nil {
		return err
	}
	excuses, err := readAllowances(allowed)
	if err != nil {
		return err
	}
	r := report{src: source{root: all[i].Module.Dir, lines: map[string][]string{}}, only: only, packages: map[string]*[2]tally{}}
	for _, x := range paths {
		r.count(w, p, x, excuses)
	}
	return r.finish(w, excuses, least)
}
