package tidy

import (
	"go/ast"
	"go/token"
	"go/types"
	"slices"
	"strings"
)

// isPure reports whether the non-test files of a directory must be pure: no
// goroutine, clock, I/O or chance of their own, so that the same code runs
// under real actors and under a simulator, and twice the same.
func isPure(dir string) bool {
	return slices.Contains([]string{"partition", "partition/replica", "cluster/placement", "cluster/detector", "split", "split/load"}, dir)
}

// noFloat reports whether floating-point numbers are banned as well: a result
// must be the same on every machine.
func noFloat(dir string) bool { return dir == "partition/replica" }

// bannedImports are the packages, with all below them, that no pure package
// imports.
func bannedImports() map[string]string {
	return map[string]string{
		"os": "I/O is work that a machine asks for", "io/fs": "I/O is work that a machine asks for",
		"net": "sending is work that a machine asks for", "syscall": "I/O is work that a machine asks for",
		"sync":      "a machine has one caller at a time",
		"math/rand": "chance comes from the seeded source in the Config", "crypto/rand": "chance comes from the seeded source in the Config",
		"log": "machines do not log; they trace", "runtime": "a machine does not know what runs it", "unsafe": "addresses differ from run to run",
	}
}

// bannedTimes are the functions of package time that read or wait for a clock.
var bannedTimes = []string{"Now", "Since", "Until", "After", "AfterFunc", "Sleep", "Tick", "NewTimer", "NewTicker"}

// seeded are the names of math/rand/v2 that have no global source behind them.
var seeded = []string{"Rand", "Source", "New", "NewPCG", "PCG", "NewChaCha8", "ChaCha8", "NewZipf", "Zipf"}

// checkPurity finds what would make a pure package depend on more than its
// inputs.
func checkPurity(t *Tree) []Finding {
	var found []Finding
	for _, f := range t.Files {
		if f.Test || f.Foreign || !isPure(f.Dir) {
			continue
		}
		p := &purity{t: t, f: f, checked: t.types.check(f.Dir), imports: f.importedAs(), excused: excusedLines(t, f)}
		p.checkImports()
		p.sorted = p.sortedIterators()
		ast.Inspect(f.AST, p.visit)
		found = append(found, p.found...)
	}
	return found
}

// purity checks one file.
type purity struct {
	t       *Tree
	f       *File
	checked *checked
	imports map[string]string
	excused map[int]bool      // lines with an "order:" comment
	sorted  map[ast.Expr]bool // iterators over maps that are sorted at once
	floats  map[int]bool      // lines already reported
	found   []Finding
}

func (p *purity) report(pos token.Pos, format string, args ...any) {
	p.found = append(p.found, p.t.at(p.f, pos, format, args...))
}

func (p *purity) checkImports() {
	banned := bannedImports()
	for _, s := range p.f.AST.Imports {
		path := importPath(s)
		if path == "math/rand/v2" {
			continue // by name, see selector
		}
		for b, why := range banned {
			if within(path, b) {
				p.report(s.Pos(), "a pure package may not import %s: %s", path, why)
			}
		}
	}
}

func (p *purity) visit(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.GoStmt:
		p.report(n.Pos(), "a pure package starts no goroutine: its caller decides what runs when")
	case *ast.SelectStmt:
		p.report(n.Pos(), "a pure package has no select: it never waits")
	case *ast.ChanType:
		p.report(n.Pos(), "a pure package has no channel: it never waits")
	case *ast.SendStmt:
		p.report(n.Pos(), "a pure package sends on no channel: it never waits")
	case *ast.SelectorExpr:
		p.selector(n)
	case *ast.BasicLit:
		if n.Kind == token.STRING && strings.Contains(n.Value, "%p") {
			p.report(n.Pos(), "a pure package prints no addresses (%%p): they differ from run to run")
		}
	case *ast.RangeStmt:
		p.ranges(n)
	}
	if e, ok := n.(ast.Expr); ok && noFloat(p.f.Dir) {
		p.float(e)
	}
	return true
}

// selector looks at names of the standard library.
func (p *purity) selector(s *ast.SelectorExpr) {
	switch pkg, name := qualified(s, p.imports); pkg {
	case "time":
		if slices.Contains(bannedTimes, name) {
			p.report(s.Pos(), "a pure package does not call time.%s: time enters with each event", name)
		}
	case "math/rand/v2":
		if !slices.Contains(seeded, name) {
			p.report(s.Pos(), "a pure package does not use rand.%s: chance comes from the seeded source in the Config", name)
		}
	case "maps":
		if slices.Contains([]string{"Keys", "Values", "All"}, name) && !p.sorted[s] && !p.excused[p.t.line(s.Pos())] {
			p.report(s.Pos(), "maps.%s yields another order in every run: sort it, or say behind // order: why it does not matter", name)
		}
	}
}

// ranges looks at what is ranged over.
func (p *purity) ranges(r *ast.RangeStmt) {
	if p.excused[p.t.line(r.Pos())] {
		return
	}
	typ := p.checked.info.TypeOf(r.X)
	if typ == nil || typ == types.Typ[types.Invalid] {
		p.report(r.Pos(), "cannot tell what is ranged over: the package does not type-check")
		return
	}
	if isMap(typ) {
		p.report(r.Pos(), "ranging over a map takes another order in every run: sort the keys, or say behind // order: why it does not matter")
	}
}

// isMap reports whether values of the type may be maps.
func isMap(typ types.Type) bool {
	if param, ok := typ.(*types.TypeParam); ok {
		c, ok := param.Constraint().Underlying().(*types.Interface)
		if !ok {
			return false
		}
		for i := range c.NumEmbeddeds() {
			u, ok := c.EmbeddedType(i).(*types.Union)
			if !ok && isMap(c.EmbeddedType(i)) {
				return true
			}
			for j := 0; ok && j < u.Len(); j++ {
				if isMap(u.Term(j).Type()) {
					return true
				}
			}
		}
		return false
	}
	_, ok := typ.Underlying().(*types.Map)
	return ok
}

// float reports an expression of a floating-point or complex type, once a line.
func (p *purity) float(e ast.Expr) {
	tv, ok := p.checked.info.Types[e]
	if !ok || tv.Type == nil {
		return
	}
	b, ok := tv.Type.Underlying().(*types.Basic)
	line := p.t.line(e.Pos())
	if !ok || b.Info()&(types.IsFloat|types.IsComplex) == 0 || p.floats[line] {
		return
	}
	if p.floats == nil {
		p.floats = map[int]bool{}
	}
	p.floats[line] = true
	p.report(e.Pos(), "the protocol has no floating-point numbers: every replica must compute the same")
}

// sortedIterators returns the functions of package maps whose result goes
// straight into slices.Sorted and the like.
func (p *purity) sortedIterators() map[ast.Expr]bool {
	sorted := map[ast.Expr]bool{}
	ast.Inspect(p.f.AST, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) == 0 {
			return true
		}
		outer, ok := call.Fun.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		pkg, name := qualified(outer, p.imports)
		inner, ok := call.Args[0].(*ast.CallExpr)
		if ok && pkg == "slices" && strings.HasPrefix(name, "Sorted") {
			sorted[inner.Fun] = true
		}
		return true
	})
	return sorted
}

// excusedLines returns the lines that carry an "order:" comment with a reason,
// or stand right below one.
func excusedLines(t *Tree, f *File) map[int]bool {
	lines := map[int]bool{}
	for _, g := range f.AST.Comments {
		for _, c := range g.List {
			reason, ok := strings.CutPrefix(strings.TrimSpace(strings.TrimPrefix(c.Text, "//")), "order:")
			if ok && strings.TrimSpace(reason) != "" {
				lines[t.line(c.Pos())] = true
				lines[t.line(g.End())+1] = true
			}
		}
	}
	return lines
}
