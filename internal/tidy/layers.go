package tidy

import (
	"fmt"
	"go/ast"
	"path"
	"slices"
	"strings"
)

// The modules that the rules name.
const (
	protoActor = "github.com/asynkron/protoactor-go"
	pebble     = "github.com/cockroachdb/pebble"
	serf       = "github.com/hashicorp/serf"
	memberlist = "github.com/hashicorp/memberlist"
	raft       = "github.com/hashicorp/raft"
	hclog      = "github.com/hashicorp/go-hclog" // the type of raft's and memberlist's logger
	msgpack    = "github.com/vmihailenco/msgpack"
	prometheus = "github.com/prometheus"
	hdr        = "github.com/HdrHistogram/hdrhistogram-go"
	porcupine  = "github.com/anishathalye/porcupine"
	cobra      = "github.com/spf13"
	progress   = "github.com/vbauerster/mpb"
	goX        = "golang.org/x"
)

// layer is a row of the layer table: what the packages under Dir may import
// besides the standard library. An entry that ends in /... means the package
// and all below it.
type layer struct {
	Dir     string
	Own     []string // packages of this module
	Modules []string
	Reason  string
	// Alone: the row is for this directory only and not for those below.
	Alone bool
}

// layers is the layer table. The first row that fits a directory counts, so a
// package stands before the one it is below.
func layers() []layer {
	pure := []string{"partition", "partition/replica", "split/...", "cluster/placement", "cluster/detector"}
	shared := []string{"internal/..."}
	return []layer{
		{Dir: "partition/replica", Own: []string{"partition", "internal/planted"}, Reason: "the protocol is pure and knows the shared words only, so that a simulator can own its world"},
		{Dir: "partition/lease", Own: []string{"partition", "partition/replica", "internal/planted"}, Reason: "leases are values and a clock that is handed in; links carry them and actors or a simulator own the clock"},
		{Dir: "partition/store", Own: append(shared, "partition", "partition/store/..."), Modules: []string{pebble, goX}, Reason: "a store knows the contract and Pebble, not who replicates it"},
		{Dir: "partition/partitiontest", Own: []string{"partition", "sim/..."}, Reason: "the test kit is for kinds that know the contract only"},
		{Dir: "partition", Alone: true, Reason: "everybody imports the shared words, so they import nothing but the standard library"},
		{Dir: "partition", Own: append(shared, "partition", "partition/store/..."), Modules: []string{pebble}, Reason: "a kind knows the contract and its store; replication, clocks and links are not its business"},
		{Dir: "split", Own: []string{"partition"}, Reason: "the split machines are pure and know the shared words only"},
		{Dir: "cluster/placement", Own: []string{"partition"}, Reason: "the planner is pure and knows the shared words only"},
		{Dir: "cluster/detector", Own: []string{"partition"}, Reason: "the detector is pure and knows the shared words only"},
		{Dir: "cluster", Own: append(shared, "partition", "cluster/..."), Modules: []string{serf, memberlist, raft, hclog, msgpack, pebble, prometheus, goX}, Reason: "cluster says who is here and who decides; it knows no replica and no actor"},
		{Dir: "wal", Own: append(shared, "partition", "wal/..."), Modules: []string{goX}, Reason: "the log knows records and a file system, not who appends"},
		{Dir: "actors", Own: append(shared, "actors/...", "partition/...", "cluster/...", "wal/...", "split/..."), Modules: []string{protoActor, msgpack, prometheus, hdr, goX}, Reason: "actors runs everything below it; the simulator and the command line are above"},
		{Dir: "sim", Own: append(append(shared, pure...), "partition/lease", "sim/...", "wal/..."), Reason: "the simulator drives the pure packages and the log, never actors, whose clock and goroutines it cannot own"},
		{Dir: "cmd", Own: append(shared, "cmd/...", "actors/...", "sim/...", "partition"), Modules: []string{cobra, progress, prometheus, hdr, goX}, Reason: "a command is flags and printing; everything else is reached through actors"},
		{Dir: "bench", Own: append(shared, "bench/...", "partition/...", "wal/...", "cluster/...", "actors/..."), Modules: []string{hdr, goX}, Reason: "benchmarks use what they measure"},
		{Dir: "internal/history", Modules: []string{porcupine}, Reason: "the history checker judges from outside and knows no part of the cluster"},
		{Dir: "internal/hammer", Own: append(shared, "actors/...", "cluster/...", "partition/...", "sim/..."), Modules: []string{hdr, goX}, Reason: "the hammer acts like a client and an operator"},
		{Dir: "internal/tidy", Reason: "the rules read source and need nothing of it"},
		{Dir: "internal/planted", Reason: "a list of names: what asks for it stays as free of others as it was"},
		{Dir: "internal", Own: append(shared, "partition"), Modules: []string{goX}, Reason: "a shared piece is small and stands on the shared words at most"},
	}
}

// testOnly are the packages that no product may link.
var testOnly = []string{"internal/history", "internal/hammer", "internal/tidy"}

// checkLayers finds imports that the layer table does not allow. Tests may
// import more.
func checkLayers(t *Tree) []Finding {
	var found []Finding
	unknown := map[string]bool{}
	table := layers()
	for _, f := range t.Files {
		if f.Foreign || f.Test {
			continue
		}
		i := slices.IndexFunc(table, func(l layer) bool { return f.Dir == l.Dir || !l.Alone && within(f.Dir, l.Dir) })
		if i < 0 {
			if !unknown[f.Dir] {
				unknown[f.Dir] = true
				found = append(found, Finding{File: f.Dir, Why: "the package has no row in the layer table: say there what it may import, and why"})
			}
			continue
		}
		for _, s := range f.AST.Imports {
			if p := importPath(s); !table[i].allows(f.Dir, p) {
				found = append(found, t.at(f, s.Pos(), "%s may not import %s: %s", f.Dir, p, table[i].Reason))
			}
		}
	}
	return found
}

// allows reports whether a package in dir may import p.
func (l *layer) allows(dir, p string) bool {
	if isStd(p) {
		return true
	}
	rel, own := strings.CutPrefix(p, Module+"/")
	if !own {
		return slices.ContainsFunc(l.Modules, func(m string) bool { return m == "..." || within(p, m) })
	}
	if slices.Contains(testOnly, rel) && dir != "internal/hammer" {
		return false
	}
	return slices.ContainsFunc(l.Own, func(o string) bool {
		parent, all := strings.CutSuffix(o, "/...")
		return rel == parent || all && within(rel, parent)
	})
}

// library is a module that few files may know.
type library struct {
	Path   string
	Dirs   []string // and below
	Files  []string
	Tests  bool // any test may import it
	Reason string
}

func libraries() []library {
	return []library{
		{Path: protoActor + "/remote", Reason: "one message from anyone can end the process"},
		{Path: protoActor + "/cluster", Reason: "the catalog says who is where; its own activations double after a membership change"},
		{Path: protoActor, Dirs: []string{"actors"}, Reason: "the actor library stays behind package actors, so that the rest runs without it"},
		{Path: pebble, Dirs: []string{"partition/store", "partition/kv"}, Files: []string{"cluster/control/store.go"}, Tests: true, Reason: "only the kinds and the control group's store know how state is kept"},
		{Path: serf, Files: []string{"cluster/gossip.go"}, Tests: true, Reason: "gossip is a hint; one file turns it into one"},
		{Path: msgpack, Files: []string{"actors/link/codec.go", "cluster/control/codec.go"}, Reason: "five hostile bytes can exhaust the memory of its decoder, so every decode stands behind the structural check in one of two codec files"},
	}
}

// checkLibraries finds imports of a library outside its place, tests included.
func checkLibraries(t *Tree) []Finding {
	var found []Finding
	for _, f := range t.Files {
		if f.Foreign {
			continue
		}
		for _, s := range f.AST.Imports {
			p := importPath(s)
			i := slices.IndexFunc(libraries(), func(l library) bool { return within(p, l.Path) })
			if i < 0 {
				continue
			}
			if l := libraries()[i]; !l.allows(f) {
				found = append(found, t.at(f, s.Pos(), "%s belongs %s: %s", p, l.place(), l.Reason))
			}
		}
	}
	return found
}

func (l *library) allows(f *File) bool {
	in := func(dir string) bool { return within(f.Dir, dir) }
	return l.Tests && f.Test || slices.ContainsFunc(l.Dirs, in) || slices.Contains(l.Files, f.Path) ||
		// The structural check is compared with what the decoder does.
		l.Path == msgpack && f.Test && f.Dir == "internal/mpcheck"
}

func (l *library) place() string {
	places := append(slices.Clone(l.Dirs), l.Files...)
	if len(places) == 0 {
		return "nowhere"
	}
	return "into " + strings.Join(places, ", ") + " only"
}

// checkPackageComments finds packages that do not say what they are.
func checkPackageComments(t *Tree) []Finding {
	var found []Finding
	for dir, files := range t.Dirs() {
		name, documented := "", false
		for _, f := range files {
			if f.Test {
				continue
			}
			name = f.AST.Name.Name
			documented = documented || introduces(f.AST, dir)
		}
		if name != "" && !documented {
			found = append(found, Finding{File: dir, Why: fmt.Sprintf(
				"package %s has no package comment: doc.go says in a sentence what the package is", name)})
		}
	}
	return found
}

// introduces reports whether the file carries a package comment of the usual
// form.
func introduces(a *ast.File, dir string) bool {
	text := a.Doc.Text()
	if a.Name.Name == "main" {
		return strings.HasPrefix(text, "Command "+path.Base(dir)+" ") ||
			strings.HasPrefix(strings.ToLower(text), path.Base(dir)+" ")
	}
	return strings.HasPrefix(text, "Package "+a.Name.Name+" ")
}
