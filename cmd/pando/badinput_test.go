package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"pando.dev/pando/actors"
	"pando.dev/pando/cmd/pando/internal/bulk"
	"pando.dev/pando/partition"
)

// badInput are command lines that make no sense, and what is said of each.
func badInput() map[string]string {
	return map[string]string{
		"kv get t zz --encoding hex":               "not hex",
		"kv get t k --token x":                     "token",
		"kv put t zz v --encoding hex":             "not hex",
		"kv put t k v --token x":                   "token",
		"kv put t k --file DIR/none":               "no such file",
		"kv put t k --file DIR":                    "read the value",
		"kv delete t zz --encoding hex":            "not hex",
		"kv delete t k --token x":                  "token",
		"kv scan t --lo zz --encoding hex":         "not hex",
		"kv scan t --hi zz --encoding hex":         "not hex",
		"kv scan t --token x":                      "token",
		"kv scan t --max-age -1s":                  "negative",
		"table create t --split zz --encoding hex": "not hex",
		"partition show nope":                      "does not name a partition",
		"task ls nope":                             "nope", "task tree nope": "nope", "task wait nope": "nope", "task abort nope": "nope", "task ls t99": "t99", "task tree t99": "t99", "task wait t99": "t99",
		"plan show nope": "nope", "plan show t99": "t99", "plan apply nope": "nope", "plan cancel nope": "nope",
		"partition transfer-master nope":                            "does not name a partition",
		"partition remove-replica g1":                               "neither --node nor --replica",
		"partition replace-replica g1 --from n9":                    "no replica on node",
		"export t --lo zz --encoding hex":                           "not hex",
		"export t --to DIR/none/out":                                "no such file",
		"cert ca --cluster sp\u00e4t":                               "printable",
		"cert ca --ca DIR/ca":                                       "is there already",
		"cert ca --ca FILE/ca":                                      "not a directory",
		"cert ca --ca DIR/expired --valid -1h":                      "holds for -1h",
		"cert node --ca DIR/ca --id n1":                             "--out",
		"cert node --ca DIR/none --id n1 --out DIR/n1":              "no authority in",
		"cert node --ca DIR/ca --id n1 --out FILE/n1":               "not a directory",
		"cert node --ca DIR/ca --id n1 --out DIR/n1 --valid -1h":    "holds for -1h",
		"cert node --ca DIR/ca --dir DIR/of-other --out DIR/n1":     "other",
		"cert client --ca DIR/ca --name ann --role boss --out x":    "neither client nor admin",
		"cert client --ca DIR/none --name ann --out DIR/ann":        "no authority in",
		"cert gossip-key --out DIR/none/key":                        "no such file",
		"cert gossip-key --out FILE":                                "is there already",
		"sim --seed 1 --trace=DIR/none/trace":                       "no such file",
		"sim --plan DIR/none":                                       "no such file",
		"sim --plan FILE":                                           "FILE",
		"sim --plant nonsense":                                      "nonsense",
		"demo --dir FILE/demo --no-load":                            "not a directory",
		"node --dir DIR/n --http nowhere":                           "nowhere",
		"node --dir DIR/n --tls-dir DIR/none":                       "no DIR/none",
		"node --dir FILE/n --http 127.0.0.1:0 --listen 127.0.0.1:0": "not a directory",
	}
}

// TestBadInput: what makes no sense is refused with words before anybody is asked
// for it, and leaves nothing behind.
func TestBadInput(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	n := newBadNode(t)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"cert ca --ca DIR/ca", "cert ca --ca DIR/other --cluster other", "cert node --ca DIR/other --dir DIR/of-other --out DIR/x"} {
		if code, p := n.run(t, strings.ReplaceAll(line, "DIR", dir), io.Discard); code != exitOK {
			t.Fatalf("%s: %+v", line, p)
		}
	}
	for line, want := range badInput() {
		in := strings.NewReplacer("DIR", dir, "FILE", file)
		before := entries(t, dir)
		n.goWrong(0, false, nil)
		code, p := n.run(t, in.Replace(line), io.Discard)
		if (code != exitError && code != exitUsage && code != exitRefused) || !strings.Contains(p.Why+p.Next, in.Replace(want)) {
			t.Errorf("%s: exit code %d, %+v, want %q", line, code, p, want)
		}
		if changes := n.method; changes != "" {
			t.Errorf("%s: the node was asked", line)
		}
		if after := entries(t, dir); after != before && !strings.HasPrefix(line, "cert") {
			t.Errorf("%s leaves behind: %s, before %s", line, after, before)
		}
	}
}

func entries(t *testing.T, dir string) string {
	t.Helper()
	es, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range es {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

// TestValueThatCannotBeRead: nothing is stored of it.
func TestValueThatCannotBeRead(t *testing.T) {
	t.Parallel()
	n := newBadNode(t)
	broken := errors.New("the pipe is broken")
	for want, in := range map[string]io.Reader{
		"the pipe is broken": io.MultiReader(strings.NewReader("some"), iotest.ErrReader(broken)),
		"too_large":          bytes.NewReader(make([]byte, maxPutBytes+1)),
	} {
		var errOut bytes.Buffer
		args := []string{"--addr", n.server.Listener.Addr().String(), "kv", "put", "t", "k", "--file", "-"}
		if code := execute(t.Context(), args, in, io.Discard, &errOut); code != exitError || !strings.Contains(errOut.String(), want) {
			t.Errorf("exit code %d: %s", code, &errOut)
		}
	}
	if n.asked > 0 {
		t.Errorf("the node was asked %d times", n.asked)
	}
}

// TestEndsBeforeItServes: a node and a demo that are told to stop before they serve
// end in order, and a demo that cannot start takes down what it began.
func TestEndsBeforeItServes(t *testing.T) {
	t.Parallel()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "n2"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		ctx  context.Context
		line string
		want int
	}{
		{ended, "node --dir DIR/n --http 127.0.0.1:0 --listen 127.0.0.1:0 --gossip 127.0.0.1:0", exitError},
		{ended, "demo --dir DIR/demo", exitOK},
		{t.Context(), "demo --dir DIR", exitError}, // the second node's directory is a file
		{ended, "sim --exhaustive", exitError},
	} {
		var out, errOut bytes.Buffer
		args := strings.Fields(strings.ReplaceAll(c.line, "DIR", dir))
		if code := execute(c.ctx, args, strings.NewReader(""), &out, &errOut); code != c.want {
			t.Errorf("%s: exit code %d, %s", c.line, code, &errOut)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	errs := &until{text: "not ready yet", then: cancel}
	args := strings.Fields("node --expect 3 --http 127.0.0.1:0 --listen 127.0.0.1:0 --gossip 127.0.0.1:0 --drain-timeout 0 --dir " + filepath.Join(dir, "n"))
	if code := execute(ctx, args, strings.NewReader(""), io.Discard, errs); code != exitOK {
		t.Errorf("a node that waits for others: exit code %d, %s", code, errs.String())
	}
	var errOut bytes.Buffer
	if code := execute(ended, []string{"sim", "--exhaustive"}, strings.NewReader(""), &full{}, &errOut); code != exitError || !strings.Contains(errOut.String(), "no space") {
		t.Errorf("walks on a full disk: exit code %d, %s", code, &errOut)
	}
}

// until does something when a text was written to it.
type until struct {
	tail
	text string
	then func()
}

func (u *until) Write(b []byte) (int, error) {
	n, err := u.tail.Write(b)
	if strings.Contains(u.String(), u.text) {
		u.then()
	}
	return n, err
}

// TestAddressesOfANode: what is no address is left as it is, and refused where it
// is used.
func TestAddressesOfANode(t *testing.T) {
	for _, c := range []struct{ addr, advertise, want string }{
		{"0.0.0.0:1", "10.0.0.1:2", "10.0.0.1:1"}, {"127.0.0.1:1", "10.0.0.1:2", "127.0.0.1:1"}, {"0.0.0.0:1", "", "0.0.0.0:1"}, {"nowhere", "10.0.0.1:2", "nowhere"},
	} {
		if got := reachable(c.addr, c.advertise); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}

// TestLoadThatCannotGoOn: a progress file of something else, or none that can be
// read, ends a load before anything is stored.
func TestLoadThatCannotGoOn(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "progress")
	job := func() *loadJob {
		return &loadJob{flags: loadFlags{progress: path, format: bulk.Format{Name: bulk.Lines}}, table: "t", file: "in", size: 5, target: &bulkTarget{cluster: "c", group: 1}}
	}
	j := job()
	if err := j.open(strings.NewReader("a\nb\n")); err != nil {
		t.Fatal(err)
	}
	s := newSaver(j)
	if err := s.end(bulk.Mark{Offset: 2, Line: 2, Loaded: 1}, false); err != nil {
		t.Fatal(err)
	}
	if j = job(); j.open(strings.NewReader("a\nb\n")) != nil || j.progress.Mark.Loaded != 1 {
		t.Errorf("it does not go on: %+v", j.progress)
	}
	j = job()
	j.table = "u"
	if err := j.open(strings.NewReader("a\nb\n")); partition.CodeOf(err) != partition.CodeRefused {
		t.Errorf("it goes on in another table: %v", err)
	}
	if err := errors.Join(os.Remove(path), os.MkdirAll(filepath.Join(path, "x"), 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := job().open(strings.NewReader("a\nb\n")); err == nil {
		t.Error("a directory is taken for progress")
	}
	j = job()
	if err := newSaver(j).end(bulk.Mark{Offset: 2}, false); err == nil {
		t.Error("progress is kept in a directory")
	}
	if err := newSaver(j).end(bulk.Mark{}, true); err == nil || !strings.Contains(err.Error(), "remove the progress file") {
		t.Errorf("a directory is removed: %v", err)
	}
}

// TestExportThatIsNotWhole leaves no file.
func TestExportThatIsNotWhole(t *testing.T) {
	name := filepath.Join(t.TempDir(), "out")
	f, err := newFile(name)
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("half of it")
	if err := f.finish(broken); !errors.Is(err, broken) || entries(t, filepath.Dir(name)) != "" {
		t.Errorf("%v, and there is %s", err, entries(t, filepath.Dir(name)))
	}
}

// TestStopsOnce: a node that is closed already has nothing to drain.
func TestStopsOnce(t *testing.T) {
	t.Parallel()
	var logs bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&logs, nil))
	cfg := memberConfig{logger: logger, http: "127.0.0.1:0", node: actors.Config{
		Dir: t.TempDir(), Cluster: "c", NodeID: "n1", Zone: "a", Listen: "127.0.0.1:0", Gossip: "127.0.0.1:0", Expect: 1, WALSegmentBytes: 1 << 20,
	}}
	m, err := startMember(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	logs.Reset()
	m.prepareStop(t.Context(), 0, cfg)
	if m.prepareStop(t.Context(), time.Second, cfg); logs.Len() > 0 {
		t.Errorf("it says %q", logs.String())
	}
}
