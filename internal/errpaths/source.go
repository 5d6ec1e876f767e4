package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// listed is what the go command says of a package.
type listed struct {
	ImportPath string
	Dir        string
	Export     string // its compiled types
	GoFiles    []string
	Module     *struct {
		Path string
		Main bool
		Dir  string
	}
}

// list asks the go command for packages and all they import.
func list(dir string, patterns []string) ([]listed, error) {
	cmd := exec.Command("go", append([]string{"list", "-export", "-deps", "-json=ImportPath,Dir,Export,GoFiles,Module"}, patterns...)...)
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list packages: %w", err)
	}
	var all []listed
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, fmt.Errorf("list packages: %w", err)
		}
		all = append(all, p)
	}
}

// pathsOf finds the error paths of the module's packages but those below skip.
func pathsOf(all []listed, skip []string) ([]path, error) {
	exports := map[string]string{}
	for _, p := range all {
		exports[p.ImportPath] = p.Export
	}
	fset := token.NewFileSet()
	imports := importer.ForCompiler(fset, "gc", func(p string) (io.ReadCloser, error) { return os.Open(exports[p]) })
	var found []path
	for _, p := range all {
		if p.Module == nil || !p.Module.Main || skipped(relative(p), skip) {
			continue
		}
		files, err := parse(fset, p)
		if err != nil {
			return nil, err
		}
		some, err := check(fset, imports, p.ImportPath, files)
		if err != nil {
			return nil, err
		}
		found = append(found, some...)
	}
	return found, nil
}

// relative is a package's directory below the module's root.
func relative(p listed) string {
	return strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, p.Module.Path), "/")
}

func skipped(dir string, skip []string) bool {
	for _, s := range skip {
		if dir == s || strings.HasPrefix(dir, s+"/") {
			return true
		}
	}
	return false
}

func parse(fset *token.FileSet, p listed) (map[string]*ast.File, error) {
	files := map[string]*ast.File{}
	for _, name := range p.GoFiles {
		full := filepath.Join(p.Dir, name)
		f, err := parser.ParseFile(fset, full, nil, 0)
		if err != nil {
			return nil, fmt.Errorf("parse: %w", err)
		}
		files[filepath.ToSlash(filepath.Join(relative(p), name))] = f
	}
	return files, nil
}

// check types a package's files and finds its error paths.
func check(fset *token.FileSet, imports types.Importer, name string, files map[string]*ast.File) ([]path, error) {
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}, Defs: map[*ast.Ident]types.Object{}}
	var list []*ast.File
	for _, f := range files {
		list = append(list, f)
	}
	conf := types.Config{Importer: imports}
	if _, err := conf.Check(name, fset, list, info); err != nil {
		return nil, fmt.Errorf("check %s: %w", name, err)
	}
	fault := types.Universe.Lookup("error").Type().Underlying().(*types.Interface)
	f := finder{fset: fset, info: info, fault: fault, pkg: name}
	return f.files(files), nil
}
