package tidy

import (
	"go/ast"
	"go/importer"
	"go/token"
	"go/types"
	"path"
	"strings"
)

// typesOf type-checks packages of the tree on demand and without building
// anything. Other modules are not read: what comes from them has no type, and
// the errors that follow are ignored. Names still resolve, which is what most
// rules need; the pure packages import nothing but the standard library and
// each other, so they are checked in full.
type typesOf struct {
	tree     *Tree
	dirs     map[string][]*File
	std      types.Importer
	packages map[string]*checked
}

// checked is one type-checked package, without its tests.
type checked struct {
	pkg  *types.Package
	info *types.Info
}

func newTypes(t *Tree) *typesOf {
	return &typesOf{
		tree: t, dirs: t.Dirs(), packages: map[string]*checked{},
		// The source importer needs neither the network nor built packages.
		std: importer.ForCompiler(token.NewFileSet(), "source", nil),
	}
}

// check type-checks the non-test files of a directory.
func (c *typesOf) check(dir string) *checked {
	if p, ok := c.packages[dir]; ok {
		return p
	}
	p := &checked{info: &types.Info{
		Types: map[ast.Expr]types.TypeAndValue{}, Defs: map[*ast.Ident]types.Object{},
		Uses: map[*ast.Ident]types.Object{}, Selections: map[*ast.SelectorExpr]*types.Selection{},
	}}
	c.packages[dir] = p
	var files []*ast.File
	for _, f := range c.dirs[dir] {
		if !f.Test {
			files = append(files, f.AST)
		}
	}
	conf := types.Config{
		Importer: importerFor{c, isPure(dir)}, FakeImportC: true,
		Error: func(error) {}, // the compiler reports them; see typesOf
	}
	p.pkg, _ = conf.Check(path.Join(Module, dir), c.tree.Fset, files, p.info)
	return p
}

// importerFor resolves the imports of one package.
type importerFor struct {
	c *typesOf
	// full: the standard library is read as well, which takes a second.
	full bool
}

// Import returns a package of the tree, one of the standard library, or an
// empty one.
func (i importerFor) Import(p string) (*types.Package, error) {
	if rel, ok := strings.CutPrefix(p, Module+"/"); ok && len(i.c.dirs[rel]) > 0 {
		if q := i.c.check(rel); q.pkg != nil {
			return q.pkg, nil
		}
	}
	if i.full && isStd(p) {
		return i.c.std.Import(p)
	}
	name := path.Base(p)
	if name == "v2" || name == "v5" || name == "v8" {
		name = path.Base(path.Dir(p))
	}
	empty := types.NewPackage(p, name)
	empty.MarkComplete()
	return empty, nil
}

// isStd reports whether an import path belongs to the standard library.
func isStd(p string) bool {
	first, _, _ := strings.Cut(p, "/")
	return !strings.Contains(first, ".")
}

// packageVar returns the package-level variable that an identifier names, if
// it names one.
func (p *checked) packageVar(id *ast.Ident) *types.Var {
	obj := p.info.Uses[id]
	if obj == nil {
		obj = p.info.Defs[id]
	}
	v, ok := obj.(*types.Var)
	if !ok || v.Pkg() == nil || v.Parent() != v.Pkg().Scope() {
		return nil
	}
	return v
}
