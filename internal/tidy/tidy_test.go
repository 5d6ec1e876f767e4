package tidy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// TestTree runs every rule over the repository.
func TestTree(t *testing.T) {
	tree, err := Load("../..")
	if err != nil {
		t.Fatal(err)
	}
	if len(tree.Files) < 20 {
		t.Fatalf("%d files: that is not the repository", len(tree.Files))
	}
	for _, r := range Rules() {
		t.Run(r.Name, func(t *testing.T) {
			for _, f := range r.Check(tree) {
				t.Error(f)
			}
		})
	}
}

// planted is a small tree with one violation, or with none where something
// close to one is fine.
type planted struct {
	name string
	file string // path of the source below; the package clause is added
	src  string
	want string // part of "file:line: why"; "" means no finding
}

// check runs one rule over the planted source and over the same tree without
// it, which must be clean.
func (p planted) check(t *testing.T, rule string) {
	t.Helper()
	dir := "main"
	if i := strings.LastIndexByte(p.file, '/'); i >= 0 {
		dir = p.file[:i]
	}
	name := dir[strings.LastIndexByte(dir, '/')+1:]
	src := p.src
	if !strings.Contains(src, "package ") {
		src = "package " + name + "\n\n" + src
	}
	tree, err := Parse(map[string]string{p.file: src, "partition/id.go": "// Package partition holds words.\npackage partition\n\nvar Table = map[int]bool{1: true}\n\nvar Err = &E{}\n\ntype E struct{ N int }\n\ntype Set map[int]bool\n"})
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(Rules(), func(r Rule) bool { return r.Name == rule })
	var texts []string
	for _, f := range Rules()[i].Check(tree) {
		texts = append(texts, f.String())
	}
	got := strings.Join(texts, "\n")
	switch {
	case p.want == "" && got != "":
		t.Errorf("found in what is fine: %s", got)
	case !strings.Contains(got, p.want):
		t.Errorf("found %q, want %q", got, p.want)
	case p.want != "" && len(texts) != 1:
		t.Errorf("%d findings, want one: %s", len(texts), got)
	}
}

func run(t *testing.T, rule string, list []planted) {
	t.Helper()
	for _, p := range list {
		t.Run(p.name, func(t *testing.T) { p.check(t, rule) })
	}
}

// importing returns a list with one planted import each.
func importing(cases map[[2]string]string) []planted {
	var list []planted
	for _, k := range slices.SortedFunc(maps.Keys(cases), func(a, b [2]string) int { return strings.Compare(a[0]+a[1], b[0]+b[1]) }) {
		list = append(list, planted{k[0] + " imports " + k[1], k[0], fmt.Sprintf("import _ %q\n", k[1]), cases[k]})
	}
	return list
}

func TestLayers(t *testing.T) {
	const m = Module + "/"
	run(t, "layers", importing(map[[2]string]string{
		{"partition/x.go", m + "internal/crc"}:             "everybody imports the shared words",
		{"partition/x.go", "golang.org/x/sys/unix"}:        "everybody imports the shared words",
		{"partition/x_test.go", "pgregory.net/rapid"}:      "",
		{"partition/replica/x.go", m + "partition"}:        "",
		{"partition/replica/x.go", m + "wal"}:              "partition/replica/x.go:3: partition/replica may not import " + m + "wal: the protocol is pure",
		{"partition/replica/x.go", m + "internal/crc"}:     "the protocol is pure",
		{"partition/replica/x.go", m + "internal/planted"}: "",
		{"partition/replica/x.go", m + "partition/lease"}:  "the protocol is pure",
		{"partition/lease/x.go", m + "partition/replica"}:  "",
		{"partition/lease/x.go", m + "actors/link"}:        "leases are values",
		{"actors/link/x.go", m + "partition/lease"}:        "",
		{"sim/x.go", m + "partition/lease"}:                "",
		{"internal/planted/x.go", m + "partition"}:         "a list of names",
		{"partition/store/x.go", pebble + "/v2/vfs"}:       "",
		{"partition/store/x.go", m + "partition/replica"}:  "not who replicates it",
		{"partition/kv/x.go", m + "partition/store"}:       "",
		{"partition/kv/x.go", m + "partition/replica"}:     "a kind knows the contract",
		{"partition/volume/x.go", m + "actors"}:            "a kind knows the contract",
		{"partition/partitiontest/x.go", m + "sim"}:        "",
		{"partition/partitiontest/x.go", m + "actors"}:     "the contract only",
		{"split/x.go", m + "partition/replica"}:            "split machines are pure",
		{"cluster/x.go", m + "partition"}:                  "",
		{"cluster/x.go", m + "wal"}:                        "no replica and no actor",
		{"cluster/control/x.go", raft}:                     "",
		{"cluster/placement/x.go", raft}:                   "planner is pure",
		{"cluster/detector/x.go", m + "cluster"}:           "detector is pure",
		{"wal/x.go", "golang.org/x/sys/unix"}:              "",
		{"wal/x.go", m + "partition/replica"}:              "the log knows records",
		{"actors/link/x.go", m + "partition/replica"}:      "",
		{"actors/x.go", m + "sim"}:                         "simulator and the command line are above",
		{"actors/x.go", "github.com/spf13/cobra"}:          "actors runs everything below",
		{"sim/x.go", m + "wal"}:                            "",
		{"sim/x.go", m + "actors"}:                         "never actors",
		{"cmd/pando/x.go", m + "actors"}:                   "",
		{"cmd/pando/x.go", m + "wal"}:                      "flags and printing",
		{"cmd/pando/x.go", m + "internal/history"}:         "flags and printing",
		{"internal/mpcheck/x.go", m + "partition"}:         "",
		{"internal/mpcheck/x.go", m + "actors"}:            "a shared piece is small",
		{"internal/hammer/x.go", m + "internal/history"}:   "",
		{"internal/history/x.go", porcupine}:               "",
		{"surprise/x.go", "fmt"}:                           "has no row in the layer table",
	}))
}

func TestLibraries(t *testing.T) {
	run(t, "libraries", importing(map[[2]string]string{
		{"actors/x.go", protoActor + "/actor"}:                  "",
		{"actors/link/x.go", protoActor + "/actor"}:             "",
		{"actors/x.go", protoActor + "/remote"}:                 "belongs nowhere",
		{"actors/x_test.go", protoActor + "/cluster/x"}:         "belongs nowhere",
		{"cluster/x_test.go", protoActor + "/actor"}:            "behind package actors",
		{"partition/store/x.go", pebble + "/v2"}:                "",
		{"partition/kv/x.go", pebble + "/v2/bloom"}:             "",
		{"cluster/control/store.go", pebble + "/v2"}:            "",
		{"cluster/control/fsm.go", pebble + "/v2"}:              "how state is kept",
		{"wal/x_test.go", pebble + "/v2"}:                       "",
		{"wal/x.go", pebble + "/v2"}:                            "how state is kept",
		{"cluster/gossip.go", serf + "/serf"}:                   "",
		{"cluster/events.go", serf + "/serf"}:                   "gossip is a hint",
		{"cluster/gossip_test.go", serf + "/serf"}:              "",
		{"actors/link/codec.go", msgpack + "/v5"}:               "",
		{"cluster/control/codec.go", msgpack + "/v5"}:           "",
		{"actors/link/link.go", msgpack + "/v5"}:                "structural check",
		{"actors/link/codec_test.go", msgpack + "/v5"}:          "structural check",
		{"internal/mpcheck/check_test.go", msgpack + "/v5"}:     "",
		{"internal/mpcheck/check.go", msgpack + "/v5/msgpcode"}: "structural check",
	}))
}

func TestForeignModule(t *testing.T) {
	tree, err := Parse(map[string]string{
		"bench/rivals/go.mod":  "module rivals\n",
		"bench/rivals/main.go": "package main\n\nimport _ \"" + pebble + "\"\n",
	})
	if err != nil {
		t.Fatal(err)
	}
	if found := append(checkLayers(tree), checkLibraries(tree)...); len(found) != 0 {
		t.Errorf("a module of its own is none of our layers: %v", found)
	}
}

func TestPurity(t *testing.T) {
	const dir = "partition/replica/x.go"
	run(t, "purity", []planted{
		{"goroutine", dir, "func f() { go f() }\n", "x.go:3: a pure package starts no goroutine"},
		{"channel", dir, "type c chan int\n", "no channel"},
		{"channel parameter", dir, "func f(c <-chan int) {}\n", "no channel"},
		{"select", dir, "func f() { select {} }\n", "no select"},
		{"now", dir, "import \"time\"\n\nvar x = time.Now\n", "time.Now"},
		{"since under another name", dir, "import clock \"time\"\n\nfunc f(t clock.Time) clock.Duration { return clock.Since(t) }\n", "time.Since"},
		{"timer", "split/x.go", "import \"time\"\n\nvar x = time.NewTimer\n", "time.NewTimer"},
		{"durations", dir, "import \"time\"\n\nconst x = 3 * time.Second\n", ""},
		{"os", "cluster/placement/x.go", "import \"os\"\n\nvar x = os.Args\n", "may not import os"},
		{"atomics", "cluster/detector/x.go", "import \"sync/atomic\"\n\ntype x = atomic.Bool\n", "may not import sync/atomic"},
		{"sockets", "partition/x.go", "import \"net/http\"\n\ntype x = http.Client\n", "may not import net/http"},
		{"old rand", dir, "import \"math/rand\"\n\nvar x = rand.Int\n", "may not import math/rand"},
		{"global rand", dir, "import \"math/rand/v2\"\n\nvar x = rand.IntN(3)\n", "rand.IntN"},
		{"seeded rand", dir, "import \"math/rand/v2\"\n\nfunc f(r *rand.Rand) int { return r.IntN(3) }\n", ""},
		{"addresses", dir, "const x = \"%p\"\n", "prints no addresses"},
		{"map", dir, "func f(m map[int]int) {\n\tfor range m {\n\t}\n}\n", "x.go:4: ranging over a map"},
		{"map of another package", dir, "import \"" + Module + "/partition\"\n\nfunc f(s partition.Set) {\n\tfor range s {\n\t}\n}\n", "ranging over a map"},
		{"map behind a field and a call", dir, "type s struct{ m map[int]int }\n\nfunc g() *s { return nil }\n\nfunc f() {\n\tfor range g().m {\n\t}\n}\n", "ranging over a map"},
		{"map behind a type parameter", dir, "func f[M ~map[K]int, K comparable](m M) {\n\tfor range m {\n\t}\n}\n", "ranging over a map"},
		{"map with a reason", dir, "func f(m map[int]int) (n int) {\n\tfor range m { // order: only counted\n\t\tn++\n\t}\n\treturn n\n}\n", ""},
		{"map with a reason above", dir, "func f(m map[int]int) (n int) {\n\t// order: only counted\n\tfor range m {\n\t\tn++\n\t}\n\treturn n\n}\n", ""},
		{"map with an empty reason", dir, "func f(m map[int]int) {\n\tfor range m { // order:\n\t}\n}\n", "ranging over a map"},
		{"slice, string, number, function", dir, "import \"slices\"\n\nfunc f(a []int, s string) {\n\tfor range a {\n\t}\n\tfor range s {\n\t}\n\tfor range 3 {\n\t}\n\tfor range slices.Values(a) {\n\t}\n}\n", ""},
		{"unknown type", dir, "func f() {\n\tfor range nobody {\n\t}\n}\n", "cannot tell"},
		{"keys of a map", dir, "import \"maps\"\n\nfunc f(m map[int]int) {\n\tfor range maps.Keys(m) {\n\t}\n}\n", "maps.Keys"},
		{"sorted keys of a map", dir, "import (\n\t\"maps\"\n\t\"slices\"\n)\n\nfunc f(m map[int]int) []int { return slices.Sorted(maps.Keys(m)) }\n", ""},
		{"float", dir, "func f(x float64) {}\n", "no floating-point"},
		{"float by a constant", dir, "var x = 1.5\n", "no floating-point"},
		{"float by a call", dir, "import \"time\"\n\nfunc f(d time.Duration) int { return int(d.Seconds()) }\n", "no floating-point"},
		{"float elsewhere", "cluster/placement/x.go", "var x = 1.5\n", ""},
		{"tests are free", "partition/replica/x_test.go", "import \"os\"\n\nfunc f() { go f(); _ = os.Args }\n", ""},
		{"others are free", "actors/x.go", "func f() { go f() }\n", ""},
	})
}

func TestSizes(t *testing.T) {
	body := func(n int) string { return strings.Repeat("\t_ = 0\n", n) }
	run(t, "sizes", []planted{
		{"long file", "wal/x_test.go", strings.Repeat("// x\n", 599), "the file has 601 lines, limit 600"},
		{"full file", "wal/x_test.go", strings.Repeat("// x\n", 598), ""},
		{"long function", "wal/x.go", "func f() {\n" + body(69) + "}\n", "x.go:3: f has 71 lines, limit 70"},
		{"full function", "wal/x.go", "func f() {\n" + body(68) + "}\n", ""},
		{"long function literal", "wal/x.go", "var f = func() {\n" + body(69) + "}\n", "the function has 71 lines"},
		{"wide interface", "wal/x.go", "type i interface{ a(); b(); c(); d(); e(); f(); g() }\n", "7 methods"},
		{"full interface", "wal/x.go", "type i interface{ a(); b(); c(); d(); e(); f() }\n", ""},
	})
}

func TestPackageComments(t *testing.T) {
	run(t, "package comments", []planted{
		{"none", "wal/x.go", "", "package wal has no package comment"},
		{"of another", "wal/x.go", "// Package log is.\npackage wal\n", "no package comment"},
		{"given", "wal/doc.go", "// Package wal is.\npackage wal\n", ""},
		{"command", "cmd/pando/main.go", "// Command pando runs.\npackage main\n", ""},
		{"silent command", "cmd/pando/main.go", "package main\n", "no package comment"},
		{"tests alone", "wal/x_test.go", "", ""},
	})
}

func TestFormat(t *testing.T) {
	run(t, "format", []planted{
		{"crooked", "wal/x.go", "var  x=1\n", "not formatted"},
		{"straight", "wal/x.go", "var x = 1\n", ""},
	})
}

func TestState(t *testing.T) {
	const dir = "wal/x.go"
	run(t, "no package state", []planted{
		{"assigned", dir, "var x int\n\nfunc f() { x = 1 }\n", "x.go:5: package-level x is assigned to"},
		{"counted", dir, "var x int\n\nfunc f() { x++ }\n", "assigned to"},
		{"element", dir, "var x = []int{1}\n\nfunc f() { x[0] = 1 }\n", "assigned to"},
		{"field", dir, "var x struct{ n int }\n\nfunc f() { x.n = 1 }\n", "assigned to"},
		{"through a pointer", dir, "var x = f()\n\nfunc f() *int {\n\t*x = 1\n\treturn x\n}\n", "assigned to"},
		{"in a range", dir, "var x int\n\nfunc f() {\n\tfor x = range 3 {\n\t}\n}\n", "assigned to"},
		{"address", dir, "var x int\n\nfunc f() *int { return &x }\n", "handed out by address"},
		{"delete", dir, "var x = map[int]int{1: 1}\n\nfunc f() { delete(x, 1) }\n", "changed by delete"},
		{"method", dir, "type n int\n\nfunc (x *n) up() {}\n\nvar x n\n\nfunc f() { x.up() }\n", "changed by up"},
		{"method that only reads", dir, "type n int\n\nfunc (x n) get() {}\n\nvar x n\n\nfunc f() { x.get() }\n", ""},
		{"mutex", dir, "import \"sync\"\n\nvar mu sync.Mutex\n", "exists to be changed"},
		{"atomic in a struct", dir, "import \"sync/atomic\"\n\nvar x struct{ n atomic.Int64 }\n", "exists to be changed"},
		{"generic atomic", dir, "import \"sync/atomic\"\n\nvar x atomic.Pointer[int]\n", "exists to be changed"},
		{"pool", dir, "import \"sync\"\n\nvar p = sync.Pool{New: nil}\n", "made to be changed"},
		{"empty map", dir, "var x = map[int]int{}\n", "made to be changed"},
		{"made map", dir, "var x = make(map[int]int)\n", "made to be changed"},
		{"channel", dir, "var x = make(chan int)\n", "made to be changed"},
		{"of another package", dir, "import \"" + Module + "/partition\"\n\nfunc f() { partition.Table[2] = true }\n", "package-level Table is assigned to"},
		{"field of another package's", dir, "import \"" + Module + "/partition\"\n\nfunc f() { partition.Err.N = 2 }\n", "package-level Err is assigned to"},
		{"of the standard library", dir, "import \"os\"\n\nfunc f() { os.Args = nil }\n", "package-level variable of os"},
		{"a local one of the same name", dir, "var x = []int{1}\n\nfunc f(x []int) { x[0] = x[1] }\n", ""},
		{"errors, patterns, tables, guards", dir, "import (\n\t\"errors\"\n\t\"regexp\"\n)\n\nvar ErrX = errors.New(\"x\")\n\nvar re = regexp.MustCompile(\"x\")\n\nvar names = map[int]string{1: \"x\"}\n\nvar zeros [4]byte\n\nvar _ error = ErrX\n\nfunc f() (string, byte, bool) { return names[1], zeros[0], re.MatchString(\"x\") }\n", ""},
	})
}

func TestInitAndOptions(t *testing.T) {
	run(t, "no init", []planted{
		{"init", "wal/x.go", "func init() {}\n", "x.go:3: no init function"},
		{"init of a test", "wal/x_test.go", "func init() {}\n", "no init function"},
		{"method", "wal/x.go", "type t int\n\nfunc (t) init() {}\n", ""},
	})
	run(t, "no functional options", []planted{
		{"option", "wal/x.go", "type config struct{}\n\nfunc WithSize(n int) func(*config) { return nil }\n", "WithSize is a functional option"},
		{"named option", "wal/x.go", "type option func()\n\nfunc WithSize(n int) option { return nil }\n", "functional option"},
		{"another result", "wal/x.go", "func WithSize(n int) int { return n }\n", ""},
		{"another name", "wal/x.go", "func Without() func() { return nil }\n", ""},
	})
}

func TestSleeps(t *testing.T) {
	const sleep = "import \"time\"\n\nfunc f() { time.Sleep(1) }\n"
	run(t, "no sleeps in tests", []planted{
		{"sleep", "wal/x_test.go", sleep, "x_test.go:5: a test that sleeps"},
		{"sleep in disguise", "wal/x_test.go", "import \"time\"\n\nfunc f() { <-time.After(1) }\n", "a test that sleeps"},
		{"deadline", "wal/x_test.go", "import \"time\"\n\nfunc f() {\n\tselect {\n\tcase <-time.After(1):\n\t}\n}\n", ""},
		{"bubble", "wal/x_test.go", "import _ \"testing/synctest\"\n" + sleep, ""},
		{"not a test", "wal/x.go", sleep, ""},
	})
}

func TestNotes(t *testing.T) {
	run(t, "notes", []planted{
		{"bare", "wal/x.go", "// TODO: later\nvar x = 1\n", "a note without name and issue"},
		{"name only", "wal/x.go", "// TODO(ann): later\nvar x = 1\n", "a note without name and issue"},
		{"second of two", "wal/x.go", "// TODO(ann): later (#7)\n// TODO: more\nvar x = 1\n", "a note without name and issue"},
		{"fixme", "wal/x.go", "var x = 1 // FIXME\n", "a note without name and issue"},
		{"full", "wal/x.go", "// TODO(ann): later,\n// when there is time (#7)\nvar x = 1\n", ""},
	})
}

func TestTopLevel(t *testing.T) {
	found := checkEntries(&Tree{Entries: []string{"README.md", "wal", "notes.txt"}})
	if len(found) != 1 || found[0].File != "notes.txt" {
		t.Errorf("found %v, want notes.txt", found)
	}
	const gitignore = "/bin/\n*.out\n/bench/results/tmp/\n"
	if !ignores(gitignore, "bin") || !ignores(gitignore, "cover.out") || ignores(gitignore, "bench") {
		t.Error(".gitignore is misread")
	}
}
