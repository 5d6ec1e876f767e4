package main

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// counted is one block of a coverage profile.
type counted struct {
	from, to place
	ran      bool
}

// profile holds the blocks of each file, by its name below the module's root.
type profile map[string][]counted

// readProfile reads what go test -coverprofile wrote. A block stands in it once
// for each package whose tests were measured.
func readProfile(r io.Reader, module string) (profile, error) {
	type key struct {
		file     string
		from, to place
	}
	at := map[key]int{}
	p := profile{}
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		if strings.HasPrefix(line, "mode:") {
			continue
		}
		name, rest, ok := strings.Cut(line, ".go:")
		var k key
		var statements, count int
		if ok {
			_, err := fmt.Sscanf(rest, "%d.%d,%d.%d %d %d", &k.from.Line, &k.from.Column, &k.to.Line, &k.to.Column, &statements, &count)
			ok = err == nil
		}
		if !ok {
			return nil, fmt.Errorf("line %d is none of a coverage profile: %q", n, line)
		}
		k.file = strings.TrimPrefix(name+".go", module+"/")
		i, seen := at[k]
		if !seen {
			i = len(p[k.file])
			at[k] = i
			p[k.file] = append(p[k.file], counted{from: k.from, to: k.to})
		}
		p[k.file][i].ran = p[k.file][i].ran || count > 0
	}
	return p, lines.Err()
}

// outcome says whether a path was executed.
type outcome uint8

const (
	unmeasured outcome = iota // the profile has no count for it
	executed
	missed
)

// of looks up the first counted block within a path.
func (p profile) of(x path) outcome {
	var first *counted
	for i := range p[x.File] {
		b := &p[x.File][i]
		if compare(b.from, x.From) < 0 || compare(b.from, x.To) >= 0 {
			continue
		}
		if first == nil || compare(b.from, first.from) < 0 {
			first = b
		}
	}
	switch {
	case first == nil:
		return unmeasured
	case first.ran:
		return executed
	}
	return missed
}
