package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// allowance excuses one path: no test can reach it, for the reason given.
type allowance struct {
	file, fun, text string
	reason          string
	used            bool
}

// readAllowances reads lines of "file function | text | reason": the text must
// stand in the line where the path begins.
func readAllowances(text string) ([]*allowance, error) {
	var all []*allowance
	for n, line := range strings.Split(text, "\n") {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		parts := strings.Split(line, " | ")
		where := strings.Fields(parts[0])
		if len(parts) != 3 || len(where) != 2 || strings.TrimSpace(parts[1]) == "" || len(strings.TrimSpace(parts[2])) < 10 {
			return nil, fmt.Errorf("line %d of the allowances is not: file function | text | reason", n+1)
		}
		all = append(all, &allowance{file: where[0], fun: where[1], text: strings.TrimSpace(parts[1]), reason: strings.TrimSpace(parts[2])})
	}
	return all, nil
}

// source gives the lines of files, to show and to compare them.
type source struct {
	root  string
	lines map[string][]string
}

// line returns a line of a file, or nothing.
func (s *source) line(file string, n int) string {
	if _, ok := s.lines[file]; !ok {
		b, err := os.ReadFile(filepath.Join(s.root, file))
		if err != nil {
			b = nil // shown without its text
		}
		s.lines[file] = strings.Split(string(b), "\n")
	}
	if n < 1 || n > len(s.lines[file]) {
		return ""
	}
	return strings.TrimSpace(s.lines[file][n-1])
}

// excuse returns the allowance of a path, if there is one.
func (s *source) excuse(all []*allowance, x path) *allowance {
	for _, a := range all {
		if a.file == x.File && a.fun == x.Func && strings.Contains(s.line(x.File, x.At), a.text) {
			return a
		}
	}
	return nil
}
