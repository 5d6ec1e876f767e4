package tidy

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Module is the path of the main module.
const Module = "pando.dev/pando"

// Tree is every Go file of the repository, parsed.
type Tree struct {
	Fset    *token.FileSet
	Files   []*File // ordered by path
	Entries []string
	types   *typesOf
}

// File is one Go file.
type File struct {
	Path string // relative to the root, with slashes
	Dir  string // of Path; "." for the root
	Test bool
	// Foreign: the file belongs to a module of its own below the root. Its
	// imports are its own business; its shape is not.
	Foreign bool
	Src     []byte
	AST     *ast.File
}

// Finding is one violation of one rule.
type Finding struct {
	File string
	Line int // 0: the file or directory as a whole
	Why  string
}

// String returns "file:line: why".
func (f Finding) String() string {
	if f.Line == 0 {
		return f.File + ": " + f.Why
	}
	return f.File + ":" + strconv.Itoa(f.Line) + ": " + f.Why
}

// Load reads the tree under root. Directories that the go command leaves out
// (testdata, hidden ones) are left out here too.
func Load(root string) (*Tree, error) {
	entries, err := topLevel(root)
	if err != nil {
		return nil, err
	}
	sources, err := readSources(root)
	if err != nil {
		return nil, err
	}
	t, err := Parse(sources)
	if err != nil {
		return nil, err
	}
	t.Entries = entries
	return t, nil
}

// readSources returns the Go and go.mod files under root by relative path.
func readSources(root string) (map[string]string, error) {
	sources := map[string]string{}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if p != root && (strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") || name == "testdata" || name == "bin") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") && name != "go.mod" {
			return nil
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		sources[filepath.ToSlash(rel)] = string(b)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the tree under %s: %w", root, err)
	}
	return sources, nil
}

// Parse makes a tree of sources by relative path. A go.mod file below the root
// makes its directory foreign.
func Parse(sources map[string]string) (*Tree, error) {
	t := &Tree{Fset: token.NewFileSet()}
	var foreign, paths []string
	for p := range sources {
		if path.Base(p) == "go.mod" {
			if path.Dir(p) != "." {
				foreign = append(foreign, path.Dir(p))
			}
			continue
		}
		paths = append(paths, p)
	}
	slices.Sort(paths)
	for _, p := range paths {
		f := &File{Path: p, Dir: path.Dir(p), Test: strings.HasSuffix(p, "_test.go"), Src: []byte(sources[p])}
		f.Foreign = slices.ContainsFunc(foreign, func(dir string) bool { return within(f.Dir, dir) })
		a, err := parser.ParseFile(t.Fset, p, f.Src, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, fmt.Errorf("parse %s: %w", p, err)
		}
		f.AST = a
		t.Files = append(t.Files, f)
	}
	t.types = newTypes(t)
	return t, nil
}

// Dirs returns the files of each directory, tests included.
func (t *Tree) Dirs() map[string][]*File {
	dirs := map[string][]*File{}
	for _, f := range t.Files {
		dirs[f.Dir] = append(dirs[f.Dir], f)
	}
	return dirs
}

// at makes a finding for a place in a file.
func (t *Tree) at(f *File, pos token.Pos, format string, args ...any) Finding {
	return Finding{File: f.Path, Line: t.Fset.Position(pos).Line, Why: fmt.Sprintf(format, args...)}
}

// line is the line that pos is on.
func (t *Tree) line(pos token.Pos) int { return t.Fset.Position(pos).Line }

// within reports whether dir is parent or below it.
func within(dir, parent string) bool {
	return dir == parent || strings.HasPrefix(dir, parent+"/")
}

// importPath returns the path of an import.
func importPath(s *ast.ImportSpec) string {
	p, err := strconv.Unquote(s.Path.Value)
	if err != nil {
		return s.Path.Value
	}
	return p
}

// imports reports whether the file imports the package.
func (f *File) imports(pkg string) bool {
	return slices.ContainsFunc(f.AST.Imports, func(s *ast.ImportSpec) bool { return importPath(s) == pkg })
}

// importedAs returns the names under which the file knows standard packages.
func (f *File) importedAs() map[string]string {
	names := map[string]string{}
	for _, s := range f.AST.Imports {
		p := importPath(s)
		name := path.Base(p)
		if name == "v2" {
			name = path.Base(path.Dir(p))
		}
		if s.Name != nil {
			name = s.Name.Name
		}
		names[name] = p
	}
	return names
}

// qualified returns the package path and name of a selector such as time.Now,
// or "" if it selects from something else than an import.
func qualified(s *ast.SelectorExpr, imports map[string]string) (pkg, name string) {
	x, ok := s.X.(*ast.Ident)
	if !ok {
		return "", ""
	}
	return imports[x.Name], s.Sel.Name
}
