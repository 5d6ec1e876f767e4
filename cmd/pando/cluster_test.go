package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"pando.dev/pando/actors/httpapi"
)

// TestCluster runs a cluster of real processes through its first day: three
// nodes in three zones, started in any order, that find each other by gossip
// and nothing else; the command line on them; a fourth that joins; a load in
// the middle of which the master dies; and a power cut.
func TestCluster(t *testing.T) {
	t.Parallel()
	p := newProcesses(t, 4, 3)
	order := rand.Perm(3)
	t.Logf("started in the order %v", order)
	for _, i := range order {
		p.start(i)
	}
	p.waitReady(0, 1, 2)
	if out := p.pando("status", "--wait", "30s"); !strings.HasPrefix(out, "1 more failure can be taken") {
		t.Fatalf("three nodes that are up: %s", out)
	}
	t.Run("scripts", func(t *testing.T) {
		testscript.Run(t, testscript.Params{
			Dir: "testdata/script/cluster", Cmds: scriptCommands(t), RequireExplicitExec: true,
			Setup: func(e *testscript.Env) error {
				e.Setenv("PANDO_ADDR", p.nodes[0].http+","+p.nodes[1].http+","+p.nodes[2].http)
				e.Setenv("N1_DIR", p.nodes[0].dir)
				e.Setenv("N1_LINK", p.nodes[0].link)
				e.Setenv("N1_GOSSIP", p.nodes[0].gossip)
				e.Setenv("N1_HTTP", p.nodes[0].http)
				return nil
			},
		})
	})
	t.Run("readme", func(t *testing.T) { p.checkReadme(t) })
	t.Run("health", func(t *testing.T) { p.checkHealth(t) })
	t.Run("a fourth joins", func(t *testing.T) { p.checkFourth(t) })
	t.Run("operators", func(t *testing.T) { p.checkOperate(t) })
	t.Run("the master dies in mid-load", func(t *testing.T) { p.checkLoad(t) })
	t.Run("an interrupted load", func(t *testing.T) { p.checkInterrupted(t) })
	t.Run("all die at once", func(t *testing.T) { p.checkPowerCut(t) })
	t.Run("strangers", func(t *testing.T) { p.checkStrangers(t) })
	t.Run("a damaged log", func(t *testing.T) { p.checkDamage(t) })
	t.Run("stop in order", func(t *testing.T) { p.checkStop(t) })
}

// checkReadme runs the commands that the README shows a newcomer who runs three
// nodes, in order: those of pando, and the ones that make its input. Those for the
// demo are the demo's own story, see TestDemo.
func (p *processes) checkReadme(t *testing.T) {
	dir := t.TempDir()
	ran := 0
	_, byHand, _ := strings.Cut(string(readFile(t, "../../README.md")), "## Three processes by hand")
	for line := range strings.Lines(byHand) {
		line, shown := strings.CutPrefix(strings.TrimSpace(line), "$ ")
		if !shown || !strings.HasPrefix(line, "pando ") && !strings.HasPrefix(line, "printf ") {
			continue
		}
		cmd := exec.Command("sh", "-c", line)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), envAddr+"="+p.addrs())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", line, err, out)
		}
		ran++
	}
	if ran < 5 {
		t.Fatalf("the README has only %d commands to try", ran)
	}
}

// checkHealth: what supervisors and monitoring ask.
func (p *processes) checkHealth(t *testing.T) {
	for path, want := range map[string]string{
		"/livez": "alive", "/readyz": "ready", "/metrics": "\npando_wal_syncs_total ", "/api/v1/tables": "[",
	} {
		resp, err := http.Get("http://" + p.nodes[1].http + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK || !strings.Contains(string(body), want) {
			t.Errorf("%s: %d %v %.200s", path, resp.StatusCode, err, body)
		}
	}
}

// checkFourth: a node that is started later shows up at every other one.
func (p *processes) checkFourth(t *testing.T) {
	p.start(3)
	p.waitReady(3)
	for i := range p.nodes {
		eventually(t, p.nodes[i].name+" sees four", func(ctx context.Context) error {
			ms, err := p.api(i).Members(ctx)
			if err != nil {
				return err
			}
			alive := 0
			for _, m := range ms {
				if m.Status == "alive" {
					alive++
				}
			}
			if len(ms) != 4 || alive != 4 {
				return fmt.Errorf("%d members, %d alive", len(ms), alive)
			}
			return nil
		})
	}
}

// loadLines is how long the load of the end-to-end test is.
const loadLines = 30_000

// checkLoad: kill -9 of the master in the middle of a load, and its restart,
// lose nothing, and the load goes on by itself. What is read back is byte-equal.
func (p *processes) checkLoad(t *testing.T) {
	input := inputLines(loadLines)
	file := filepath.Join(filepath.Dir(p.nodes[0].dir), "chars.txt")
	if err := os.WriteFile(file, input, 0o600); err != nil {
		t.Fatal(err)
	}
	p.pando("table", "create", "chars", "--replicas", "3", "--on", "n1,n2,n3")
	loaded := make(chan error, 1)
	go func() {
		_, err := p.try("load", "chars", file, "--delimiter", ";", "--key", "0", "-q")
		loaded <- err
	}()
	master := p.waitUnderWay(t, "chars")
	select {
	case err := <-loaded:
		t.Fatalf("the load ended before the master was killed: %v", err)
	default:
	}
	victim := p.byName(master)
	p.kill(victim)
	p.start(victim)
	if err := <-loaded; err != nil {
		t.Fatalf("load: %v", err)
	}
	p.waitReady(victim)
	p.checkSame(t, input)
}

// waitUnderWay waits until a table of one partition has taken some writes, and
// returns its master.
func (p *processes) waitUnderWay(t *testing.T, table string) (master string) {
	t.Helper()
	eventually(t, "the load is under way", func(ctx context.Context) error {
		ps, err := p.api(3).Partitions(ctx, table)
		if err != nil {
			return err
		}
		if len(ps) != 1 || ps[0].Master == "" || ps[0].Commit < 100 {
			return fmt.Errorf("%+v", ps)
		}
		master = string(ps[0].Master)
		return nil
	})
	return master
}

// checkInterrupted: Ctrl-C ends a load with its own exit code, and the same
// command goes on where it was.
func (p *processes) checkInterrupted(t *testing.T) {
	dir := filepath.Dir(p.nodes[0].dir)
	p.pando("table", "create", "again")
	args := []string{"load", "again", "chars.txt", "--delimiter", ";", "-q", "--addr", p.addrs()}
	first := exec.Command("pando", args...)
	first.Dir = dir
	var errOut bytes.Buffer
	first.Stderr = &errOut
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	p.waitUnderWay(t, "again")
	if err := first.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	err := first.Wait()
	if first.ProcessState.ExitCode() != exitTimedOut || !strings.Contains(errOut.String(), "run the same command again") {
		t.Fatalf("%v: %s", err, &errOut)
	}
	out := p.pando(args[:len(args)-2]...)
	if !strings.Contains(out, "went on from line") || !strings.Contains(out, fmt.Sprintf("%d records in all", loadLines)) {
		t.Fatalf("the second run: %s", out)
	}
	if got := p.pando("export", "again", "--raw", "-q"); got != string(readFile(t, filepath.Join(dir, "chars.txt"))) {
		t.Fatalf("the export has %d bytes", len(got))
	}
}

// checkSame compares the table with what was loaded: all of it by an export, and
// some of it key by key.
func (p *processes) checkSame(t *testing.T, input []byte) {
	t.Helper()
	got := []byte(p.pando("export", "chars", "--raw", "-q"))
	if want := sortedLines(input); !bytes.Equal(sortedLines(got), want) {
		t.Fatalf("the export has %d bytes in %d lines, the input %d in %d", len(got), bytes.Count(got, []byte("\n")), len(input), loadLines)
	}
	api := &httpapi.Client{Addrs: strings.Split(p.addrs(), ",")}
	lines := bytes.Split(bytes.TrimSuffix(input, []byte("\n")), []byte("\n"))
	for i := 0; i < len(lines); i += 97 {
		key, _, _ := bytes.Cut(lines[i], []byte(";"))
		v, err := api.Get(t.Context(), "chars", key, httpapi.ReadOptions{})
		if err != nil || !bytes.Equal(v.Bytes, lines[i]) {
			t.Fatalf("line %d: %q, %v, want %q", i+1, v.Bytes, err, lines[i])
		}
	}
}

func sortedLines(b []byte) []byte {
	lines := bytes.SplitAfter(b, []byte("\n"))
	slices.SortFunc(lines, bytes.Compare)
	return bytes.Join(lines, nil)
}

// checkPowerCut: after kill -9 of all processes at once everything is there.
func (p *processes) checkPowerCut(t *testing.T) {
	p.killAll()
	for _, i := range rand.Perm(len(p.nodes)) {
		p.start(i)
	}
	p.waitReady(0, 1, 2, 3)
	p.pando("status", "--wait", "30s")
	p.checkSame(t, inputLines(loadLines))
}

// checkStrangers: a node of another cluster is told so, and shows up nowhere.
func (p *processes) checkStrangers(t *testing.T) {
	q := newProcesses(t, 1, 0)
	q.nodes[0].cluster, q.nodes[0].join = "other", []string{p.nodes[0].gossip}
	q.start(0)
	eventually(t, "the stranger is told", func(context.Context) error {
		if log := q.nodes[0].log.String(); !strings.Contains(log, `belongs to the cluster`) {
			return fmt.Errorf("its log: %s", log)
		}
		return nil
	})
	if ms, err := p.api(0).Members(t.Context()); err != nil || len(ms) != len(p.nodes) {
		t.Fatalf("%+v %v", ms, err)
	}
}

// checkDamage: a node whose log was damaged on disk starts, keeps the replica
// that lost records silent, and says so; the others serve what is asked.
func (p *processes) checkDamage(t *testing.T) {
	const victim = 1
	file := filepath.Join(filepath.Dir(p.nodes[0].dir), "chars.txt")
	p.pando("load", "chars", file, "--delimiter", ";", "--key", "0", "-q") // so that the log has something
	p.kill(victim)
	damageLog(t, filepath.Join(p.nodes[victim].dir, "wal"))
	p.start(victim)
	p.waitReady(victim)
	eventually(t, "the damage shows", func(ctx context.Context) error {
		ps, err := p.api(0).Partitions(ctx, "chars")
		if err != nil {
			return err
		}
		for _, r := range ps[0].Replicas {
			if string(r.Node) == p.nodes[victim].name && r.Role == "broken" && r.Why != "" && ps[0].CanLose == 0 {
				return nil
			}
		}
		return fmt.Errorf("%+v", ps[0])
	})
	p.checkSame(t, inputLines(loadLines))
}

// damageLog turns a bit here and there in every segment of a log that has been
// written to. Segments are used again, so what lies behind their end may look
// written, too; that does no harm.
func damageLog(t *testing.T, dir string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.wal"))
	if err != nil || len(names) == 0 {
		t.Fatalf("no segments: %v", err)
	}
	const first, every = 12 << 10, 64 << 10 // behind the head; and batches between stay whole
	for _, name := range names {
		raw := readFile(t, name)
		for i := first; i < len(raw); i += every {
			raw[i] ^= 0x10
		}
		if err := os.WriteFile(name, raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// checkStop: SIGTERM ends a node with 0, and the others go on.
func (p *processes) checkStop(t *testing.T) {
	if code := p.stop(1); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	eventually(t, "the others go on", func(ctx context.Context) error {
		_, err := p.api(0).Put(ctx, "chars", []byte("after"), []byte("the stop"), httpapi.Condition{})
		return err
	})
	eventually(t, "status says what is left", func(ctx context.Context) error {
		s, err := p.api(0).Status(ctx)
		if err == nil && s.CanLose != 0 {
			err = fmt.Errorf("can lose %d: %s", s.CanLose, s.Why)
		}
		return err
	})
	p.kill(2)
	out, err := exec.Command("pando", "status", "--addr", p.nodes[0].http, "-o", "json").Output()
	eventually(t, "status ends with 10 when nothing can be written", func(context.Context) error {
		out, err = exec.Command("pando", "status", "--addr", p.nodes[0].http, "-o", "json").Output()
		if e, ok := err.(*exec.ExitError); !ok || e.ExitCode() != exitUnhealthy {
			return fmt.Errorf("%v: %s", err, out)
		}
		return nil
	})
	var s struct {
		CanLose int `json:"can_lose"`
	}
	if err := json.Unmarshal(out, &s); err != nil || s.CanLose != -1 {
		t.Fatalf("%v: %s", err, out)
	}
}
