package tidy

import (
	"bytes"
	"go/ast"
	"go/format"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const (
	maxFileLines        = 600
	maxFunctionLines    = 70
	maxInterfaceMethods = 6
)

// checkSizes finds files and functions that have grown over their limit, tests
// included, and interfaces that nobody will implement twice.
func checkSizes(t *Tree) []Finding {
	var found []Finding
	for _, f := range t.Files {
		if n := bytes.Count(f.Src, []byte("\n")); n > maxFileLines {
			found = append(found, Finding{File: f.Path, Why: sizeText("the file", n, maxFileLines, "find the noun that hides in it and give it a file")})
		}
		ast.Inspect(f.AST, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				if lines := t.line(n.End()) - t.line(n.Pos()) + 1; lines > maxFunctionLines {
					found = append(found, t.at(f, n.Pos(), "%s", sizeText(n.Name.Name, lines, maxFunctionLines, "keep the control flow and give the steps names")))
				}
				return true
			case *ast.FuncLit:
				if lines := t.line(n.End()) - t.line(n.Pos()) + 1; lines > maxFunctionLines {
					found = append(found, t.at(f, n.Pos(), "%s", sizeText("the function", lines, maxFunctionLines, "keep the control flow and give the steps names")))
				}
			case *ast.InterfaceType:
				if m := methods(n); m > maxInterfaceMethods {
					found = append(found, t.at(f, n.Pos(), "an interface of %d methods, limit %d: its consumer needs less, or it is two", m, maxInterfaceMethods))
				}
			}
			return true
		})
	}
	return found
}

func sizeText(what string, lines, limit int, next string) string {
	return what + " has " + strconv.Itoa(lines) + " lines, limit " + strconv.Itoa(limit) + ": " + next
}

// methods counts the methods that an interface names itself.
func methods(i *ast.InterfaceType) int {
	n := 0
	for _, m := range i.Methods.List {
		n += len(m.Names)
	}
	return n
}

// checkFormat finds files that gofmt would change.
func checkFormat(t *Tree) []Finding {
	var found []Finding
	for _, f := range t.Files {
		if formatted, err := format.Source(f.Src); err != nil || !bytes.Equal(formatted, f.Src) {
			found = append(found, Finding{File: f.Path, Why: "the file is not formatted: run gofmt -w on it"})
		}
	}
	return found
}

var (
	todo     = regexp.MustCompile(`\b(TODO|FIXME)\b`)
	todoFull = regexp.MustCompile(`\bTODO\([^)\s]+\): .*\(#\d+\)`)
)

// checkTodos finds notes to self that nobody would find again.
func checkTodos(t *Tree) []Finding {
	var found []Finding
	for _, f := range t.Files {
		for _, g := range f.AST.Comments {
			text := strings.Join(strings.Fields(g.Text()), " ")
			notes := todo.FindAllStringIndex(text, -1)
			for i, at := range notes {
				end := len(text)
				if i+1 < len(notes) {
					end = notes[i+1][0]
				}
				if !todoFull.MatchString(text[at[0]:end]) {
					found = append(found, t.at(f, g.Pos(), "a note without name and issue is never found again: TODO(name): what (#issue), or nothing"))
				}
			}
		}
	}
	return found
}

// checkSleeps finds tests that wait for the clock, in files without a synctest
// bubble.
func checkSleeps(t *Tree) []Finding {
	var found []Finding
	for _, f := range t.Files {
		if !f.Test || f.imports("testing/synctest") {
			continue
		}
		imports := f.importedAs()
		cases := map[ast.Node]bool{} // receives that a select chooses from
		ast.Inspect(f.AST, func(n ast.Node) bool {
			if c, ok := n.(*ast.CommClause); ok && c.Comm != nil {
				cases[c.Comm] = true
			}
			if n != nil && !cases[n] && sleeps(n, imports) {
				found = append(found, t.at(f, n.Pos(), "a test that sleeps is slow or flaky: use a testing/synctest bubble, or poll with a ticker and a deadline"))
			}
			return true
		})
	}
	return found
}

// sleeps reports whether the node is time.Sleep, or a statement that only
// receives from time.After.
func sleeps(n ast.Node, imports map[string]string) bool {
	want := "Sleep"
	if stmt, ok := n.(*ast.ExprStmt); ok {
		receive, ok := stmt.X.(*ast.UnaryExpr)
		if !ok {
			return false
		}
		call, ok := receive.X.(*ast.CallExpr)
		if !ok {
			return false
		}
		n, want = call.Fun, "After"
	}
	s, ok := n.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	pkg, name := qualified(s, imports)
	return pkg == "time" && name == want
}

// entries are the only things allowed at the top of the repository.
var entries = []string{
	".ci", ".git", ".gitignore", "CHANGELOG.md", "LICENSE", "Makefile", "README.md", "go.mod", "go.sum",
	"actors", "bench", "cluster", "cmd", "docs", "internal", "partition", "sim", "split", "wal",
}

// checkEntries finds top-level entries that have no place there.
func checkEntries(t *Tree) []Finding {
	var found []Finding
	for _, e := range t.Entries {
		if !slices.Contains(entries, e) {
			found = append(found, Finding{File: e, Why: "the top level shows a newcomer the whole house: put it into one of its rooms, or into .gitignore"})
		}
	}
	return found
}

// topLevel lists the entries of the root that .gitignore does not name.
func topLevel(root string) ([]string, error) {
	list, err := os.ReadDir(root)
	if err != nil {
		return nil, err
	}
	ignored, err := os.ReadFile(path.Join(root, ".gitignore"))
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	var names []string
	for _, e := range list {
		if !ignores(string(ignored), e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// ignores reports whether a line of .gitignore names a top-level entry. Only
// plain names and patterns without directories are understood.
func ignores(gitignore, name string) bool {
	for line := range strings.Lines(gitignore) {
		pattern := strings.Trim(strings.TrimSpace(line), "/")
		if ok, err := path.Match(pattern, name); err == nil && ok {
			return true
		}
	}
	return false
}
