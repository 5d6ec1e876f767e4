package main

import (
	"cmp"
	"go/ast"
	"go/token"
	"go/types"
	"slices"
)

// heading says why a block is an error path.
type heading uint8

const (
	handled heading = iota // its condition tests an error
	raised                 // it returns a fresh error
)

func (h heading) String() string { return [...]string{"handled", "raised"}[h] }

// place is a position in a file.
type place struct{ Line, Column int }

func compare(a, b place) int {
	return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
}

// path is one error path.
type path struct {
	Heading heading
	Package string
	File    string // below the module's root
	Func    string
	From    place // of the block's begin
	To      place
	At      int // the line that is shown for it
}

// finder collects the error paths of one package.
type finder struct {
	fset  *token.FileSet
	info  *types.Info
	fault *types.Interface
	pkg   string
	file  string
	fun   string
	found []path
}

// files finds the error paths of a package's files.
func (f *finder) files(all map[string]*ast.File) []path {
	for name, file := range all {
		f.file = name
		for _, d := range file.Decls {
			if fun, ok := d.(*ast.FuncDecl); ok && fun.Body != nil {
				f.fun = fun.Name.Name
				f.walk(fun.Body, fun.Body)
			}
		}
	}
	slices.SortFunc(f.found, func(a, b path) int {
		return cmp.Or(cmp.Compare(a.File, b.File), compare(a.From, b.From), cmp.Compare(a.Heading, b.Heading))
	})
	// A block that handles and raises is counted once, as handled.
	return slices.CompactFunc(f.found, func(a, b path) bool { return a.File == b.File && a.From == b.From })
}

// walk visits what is below n; in is the innermost block around it.
func (f *finder) walk(n, in ast.Node) {
	ast.Inspect(n, func(x ast.Node) bool {
		switch x := x.(type) {
		case *ast.IfStmt:
			f.branch(x)
		case *ast.CaseClause:
			if slices.ContainsFunc(x.List, f.failed) {
				f.add(handled, x, x.Colon+1, x.End(), x.Pos())
			}
		case *ast.ReturnStmt:
			if slices.ContainsFunc(x.Results, f.fresh) {
				f.add(raised, in, f.begin(in), in.End(), x.Pos())
			}
		}
		if inner := block(x); inner && x != n {
			f.walk(x, x)
			return false
		}
		return true
	})
}

// block reports whether a node begins a block of its own.
func block(n ast.Node) bool {
	switch n.(type) {
	case *ast.BlockStmt, *ast.CaseClause, *ast.CommClause:
		return true
	}
	return false
}

// begin returns where the statements of a block begin.
func (f *finder) begin(n ast.Node) token.Pos {
	switch n := n.(type) {
	case *ast.CaseClause:
		return n.Colon + 1
	case *ast.CommClause:
		return n.Colon + 1
	}
	return n.Pos()
}

// branch adds the sides of an if that run on an error only.
func (f *finder) branch(x *ast.IfStmt) {
	if f.failed(x.Cond) {
		f.add(handled, x.Body, x.Body.Lbrace, x.Body.End(), x.Pos())
	}
	if other, ok := x.Else.(*ast.BlockStmt); ok && f.fine(x.Cond) {
		f.add(handled, other, other.Lbrace, other.End(), other.Lbrace)
	}
}

func (f *finder) add(h heading, in ast.Node, from, to, at token.Pos) {
	if empty(in) {
		return
	}
	b, e := f.fset.Position(from), f.fset.Position(to)
	f.found = append(f.found, path{
		Heading: h, Package: f.pkg, File: f.file, Func: f.fun,
		From: place{b.Line, b.Column}, To: place{e.Line, e.Column}, At: f.fset.Position(at).Line,
	})
}

// empty reports whether a block has no statement, and so no count.
func empty(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.BlockStmt:
		return len(n.List) == 0
	case *ast.CaseClause:
		return len(n.Body) == 0
	}
	return false
}

// isError reports whether an expression's type is an error's.
func (f *finder) isError(e ast.Expr) bool {
	t := f.info.TypeOf(e)
	return t != nil && !f.info.Types[e].IsNil() && types.Implements(t, f.fault)
}

// failed reports whether a condition is true on an error: it compares one with
// another value or asks errors.Is or its like, and is not just err == nil.
func (f *finder) failed(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.ParenExpr:
		return f.failed(e.X)
	case *ast.UnaryExpr:
		return f.failed(e.X)
	case *ast.BinaryExpr:
		switch e.Op {
		case token.LAND, token.LOR:
			return f.failed(e.X) || f.failed(e.Y)
		case token.NEQ:
			return f.isError(e.X) || f.isError(e.Y) || f.recovered(e.X) || f.asked(e.X)
		case token.EQL:
			return f.isError(e.X) && f.isError(e.Y) || f.asked(e.X)
		}
	}
	return f.isError(e) || f.asked(e)
}

// asked reports whether an expression is a call that judges an error, like
// errors.Is.
func (f *finder) asked(e ast.Expr) bool {
	call, ok := e.(*ast.CallExpr)
	return ok && slices.ContainsFunc(call.Args, f.isError)
}

// fine reports whether a condition is err == nil.
func (f *finder) fine(e ast.Expr) bool {
	b, ok := e.(*ast.BinaryExpr)
	return ok && b.Op == token.EQL && f.isError(b.X) != f.isError(b.Y)
}

// recovered reports whether an expression is what recover returned.
func (f *finder) recovered(e ast.Expr) bool {
	id, ok := e.(*ast.Ident)
	if !ok || id.Obj == nil {
		return false
	}
	a, ok := id.Obj.Decl.(*ast.AssignStmt)
	if !ok || len(a.Rhs) != 1 {
		return false
	}
	call, ok := a.Rhs[0].(*ast.CallExpr)
	if !ok {
		return false
	}
	name, ok := call.Fun.(*ast.Ident)
	return ok && name.Name == "recover"
}

// fresh reports whether a result makes an error: a call of fmt.Errorf and its
// like, a literal, or a sentinel.
func (f *finder) fresh(e ast.Expr) bool {
	if !f.isError(e) {
		return false
	}
	switch e := e.(type) {
	case *ast.UnaryExpr:
		_, ok := e.X.(*ast.CompositeLit)
		return ok
	case *ast.CallExpr:
		return f.maker(e.Fun)
	case *ast.SelectorExpr:
		return f.sentinel(e.Sel)
	case *ast.Ident:
		return f.sentinel(e)
	}
	return false
}

// maker reports whether a function makes errors and does nothing else.
func (f *finder) maker(fun ast.Expr) bool {
	if s, ok := fun.(*ast.SelectorExpr); ok {
		fun = s.Sel
	}
	id, ok := fun.(*ast.Ident)
	if !ok {
		return false
	}
	switch id.Name {
	case "Errorf", "New", "Join", "refuse", "refused", "corrupt", "damaged", "malformed":
		return true
	}
	return false
}

// sentinel reports whether a name is an error of a package.
func (f *finder) sentinel(id *ast.Ident) bool {
	v, ok := f.info.Uses[id].(*types.Var)
	return ok && v.Pkg() != nil && v.Parent() == v.Pkg().Scope()
}
