package tidy

import (
	"go/ast"
	"go/token"
	"go/types"
	"regexp"
	"slices"
	"strings"
)

// checkInit finds init functions.
func checkInit(t *Tree) []Finding {
	var found []Finding
	eachFunc(t, func(f *File, d *ast.FuncDecl) {
		if d.Recv == nil && d.Name.Name == "init" {
			found = append(found, t.at(f, d.Pos(), "no init function: what a package needs is passed in, and importing it changes nothing"))
		}
	})
	return found
}

var optionName = regexp.MustCompile(`^With[A-Z]`)

// checkOptions finds functional options.
func checkOptions(t *Tree) []Finding {
	var found []Finding
	eachFunc(t, func(f *File, d *ast.FuncDecl) {
		if f.Test || f.Foreign || !optionName.MatchString(d.Name.Name) || d.Type.Results == nil {
			return
		}
		info := t.types.check(f.Dir).info
		for _, r := range d.Type.Results.List {
			typ := info.TypeOf(r.Type)
			if typ == nil {
				continue
			}
			if _, ok := typ.Underlying().(*types.Signature); ok {
				found = append(found, t.at(f, d.Pos(), "%s is a functional option: give the Config a field whose zero value works", d.Name.Name))
			}
		}
	})
	return found
}

func eachFunc(t *Tree, do func(*File, *ast.FuncDecl)) {
	for _, f := range t.Files {
		for _, d := range f.AST.Decls {
			if d, ok := d.(*ast.FuncDecl); ok {
				do(f, d)
			}
		}
	}
}

// stateful are types of the standard library that exist to be changed.
var stateful = []string{
	"sync.Mutex", "sync.RWMutex", "sync.Once", "sync.WaitGroup", "sync.Pool", "sync.Map", "sync.Cond",
	"bytes.Buffer", "strings.Builder", "math/rand/v2.Rand", "math/rand.Rand",
}

// checkState finds package-level variables that are changed, or can only be
// meant to be. Errors, compiled patterns and tables that are never assigned to
// are fine.
func checkState(t *Tree) []Finding {
	var found []Finding
	for _, f := range t.Files {
		if f.Test || f.Foreign {
			continue
		}
		s := &state{t: t, f: f, checked: t.types.check(f.Dir), imports: f.importedAs()}
		s.declarations()
		ast.Inspect(f.AST, s.visit)
		found = append(found, s.found...)
	}
	return found
}

// state checks one file.
type state struct {
	t       *Tree
	f       *File
	checked *checked
	imports map[string]string
	found   []Finding
}

func (s *state) report(pos token.Pos, format string, args ...any) {
	format += ": state belongs to a value that somebody owns, not to a package"
	s.found = append(s.found, s.t.at(s.f, pos, format, args...))
}

// declarations looks at what package-level variables are made of.
func (s *state) declarations() {
	for _, d := range s.f.AST.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.VAR {
			continue
		}
		for _, spec := range g.Specs {
			v, ok := spec.(*ast.ValueSpec)
			if !ok {
				continue
			}
			if v.Type != nil && s.changing(v.Type) {
				s.report(v.Pos(), "package-level %s of a type that exists to be changed", v.Names[0].Name)
			}
			for i, x := range v.Values {
				if s.makes(x) {
					s.report(x.Pos(), "package-level %s is made to be changed", v.Names[min(i, len(v.Names)-1)].Name)
				}
			}
		}
	}
}

// changing reports whether a type expression names, points to or holds a
// stateful type.
func (s *state) changing(x ast.Expr) bool {
	switch x := x.(type) {
	case *ast.StarExpr:
		return s.changing(x.X)
	case *ast.ChanType:
		return true
	case *ast.IndexExpr:
		return s.changing(x.X)
	case *ast.StructType:
		return slices.ContainsFunc(x.Fields.List, func(f *ast.Field) bool { return s.changing(f.Type) })
	case *ast.SelectorExpr:
		pkg, name := qualified(x, s.imports)
		return pkg == "sync/atomic" || slices.Contains(stateful, pkg+"."+name)
	}
	return false
}

// makes reports whether an initial value is an empty map or channel, or a
// stateful type.
func (s *state) makes(x ast.Expr) bool {
	switch x := x.(type) {
	case *ast.UnaryExpr:
		return x.Op == token.AND && s.makes(x.X)
	case *ast.CompositeLit:
		_, isMap := x.Type.(*ast.MapType)
		return isMap && len(x.Elts) == 0 || x.Type != nil && s.changing(x.Type)
	case *ast.CallExpr:
		id, ok := x.Fun.(*ast.Ident)
		if !ok || len(x.Args) == 0 {
			return false
		}
		_, isMap := x.Args[0].(*ast.MapType)
		return id.Name == "make" && (isMap || s.changing(x.Args[0])) || id.Name == "new" && s.changing(x.Args[0])
	}
	return false
}

func (s *state) visit(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.AssignStmt:
		if n.Tok != token.DEFINE {
			for _, x := range n.Lhs {
				s.changed(x, "assigned to")
			}
		}
	case *ast.IncDecStmt:
		s.changed(n.X, "assigned to")
	case *ast.RangeStmt:
		if n.Tok == token.ASSIGN {
			s.changed(n.Key, "assigned to")
			s.changed(n.Value, "assigned to")
		}
	case *ast.UnaryExpr:
		if n.Op == token.AND {
			s.changed(n.X, "handed out by address")
		}
	case *ast.CallExpr:
		s.call(n)
	}
	return true
}

// call looks at built-ins that change their argument, and at methods that
// change what they are called on.
func (s *state) call(c *ast.CallExpr) {
	switch fun := c.Fun.(type) {
	case *ast.Ident:
		if len(c.Args) > 0 && slices.Contains([]string{"delete", "clear", "copy", "close"}, fun.Name) {
			s.changed(c.Args[0], "changed by "+fun.Name)
		}
	case *ast.SelectorExpr:
		sel := s.checked.info.Selections[fun]
		if sel == nil || sel.Kind() != types.MethodVal || isPointer(sel.Recv()) {
			return
		}
		m, ok := sel.Obj().(*types.Func)
		if ok && isPointer(m.Signature().Recv().Type()) {
			s.changed(fun.X, "changed by "+m.Name())
		}
	}
}

func isPointer(typ types.Type) bool {
	_, ok := typ.Underlying().(*types.Pointer)
	return ok
}

// changed reports x if it is, or is a part of, a package-level variable.
func (s *state) changed(x ast.Expr, how string) {
	if x == nil {
		return
	}
	id := s.root(x)
	if id == nil || id.Name == "_" {
		return
	}
	if s.checked.packageVar(id) != nil {
		s.report(x.Pos(), "package-level %s is %s", id.Name, how)
		return
	}
	_, isPackage := s.checked.info.Uses[id].(*types.PkgName)
	if isPackage && !strings.HasPrefix(how, "handed") {
		s.report(x.Pos(), "a package-level variable of %s is %s", id.Name, how)
	}
}

// root returns the identifier that an operand begins with: v of v.f[i]; for a
// variable of another package of the tree, its name there.
func (s *state) root(x ast.Expr) *ast.Ident {
	switch x := x.(type) {
	case *ast.Ident:
		return x
	case *ast.ParenExpr:
		return s.root(x.X)
	case *ast.StarExpr:
		return s.root(x.X)
	case *ast.IndexExpr:
		return s.root(x.X)
	case *ast.SliceExpr:
		return s.root(x.X)
	case *ast.SelectorExpr:
		id := s.root(x.X)
		if id == nil {
			return nil
		}
		if _, ok := s.checked.info.Uses[id].(*types.PkgName); ok && s.checked.packageVar(x.Sel) != nil {
			return x.Sel
		}
		return id
	}
	return nil
}
