package main

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"pando.dev/pando/actors/httpapi"
)

// demoProcess is pando demo in a process of its own.
type demoProcess struct {
	cmd   *exec.Cmd
	log   *tail
	first chan demoInfo // has one when the demo serves
	lines chan demoLine // has one when the load has done something
	ended chan struct{}
}

func startDemo(t *testing.T, args ...string) *demoProcess {
	t.Helper()
	d := &demoProcess{
		cmd: exec.Command("pando", append([]string{"demo", "-o", "json"}, args...)...), log: &tail{},
		first: make(chan demoInfo, 1), lines: make(chan demoLine, 1), ended: make(chan struct{}),
	}
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	d.cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir())
	d.cmd.Stderr = d.log
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go d.watch(out)
	t.Cleanup(func() {
		_ = d.cmd.Process.Kill() // it may be gone already
		<-d.ended
	})
	return d
}

func (d *demoProcess) watch(out io.Reader) {
	defer close(d.ended)
	dec := json.NewDecoder(out)
	var info demoInfo
	if dec.Decode(&info) == nil {
		d.first <- info
	}
	for l := (demoLine{}); dec.Decode(&l) == nil; l = (demoLine{}) {
		if l.OpsPerSecond > 0 {
			select {
			case d.lines <- l:
			default:
			}
		}
	}
	_ = d.cmd.Wait() // how it ended is in ProcessState
}

// TestDemo: the demo serves, says where, and ends cleanly on Ctrl-C.
func TestDemo(t *testing.T) {
	t.Parallel()
	d := startDemo(t, "--every", "200ms")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var info demoInfo
	select {
	case info = <-d.first:
	case <-d.ended:
		t.Fatalf("the demo ended: %s", d.log)
	case <-ctx.Done():
		t.Fatalf("the demo does not serve: %s", d.log)
	}
	api := &httpapi.Client{Addrs: []string{info.Nodes[1].HTTP}}
	if _, err := api.Put(ctx, info.Table, []byte("hello"), []byte("world"), httpapi.Condition{}); err != nil {
		t.Fatal(err)
	}
	select {
	case l := <-d.lines:
		t.Logf("%+v", l)
	case <-ctx.Done():
		t.Fatal("the load does nothing")
	}
	if err := d.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	select {
	case <-d.ended:
	case <-ctx.Done():
		t.Fatalf("the demo does not end: %s", d.log)
	}
	if code := d.cmd.ProcessState.ExitCode(); code != 0 {
		t.Fatalf("exit code %d: %s", code, d.log)
	}
	if _, err := os.Stat(info.Dir); !os.IsNotExist(err) {
		t.Fatalf("the data is still there: %v", err)
	}
	tellStory(t) // not beside the other: both want the same ports
}

// tellStory: the demo's story works as it is told, each command by itself, and no
// operation of the load fails by it.
func tellStory(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "pando", "demo", "--script", "--pause", "100ms")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, has := range []string{
		"kv put demo hot user-60", "LOAD", "by-load", "split      partition g1 of table demo", "node --cluster demo --id n4",
		"plan of rebalance: done", "partition g3\n", "everything is as it should be", " 0 failed",
	} {
		if !strings.Contains(string(out), has) {
			t.Errorf("no %q in the story:\n%s", has, out)
		}
	}
}

// TestHotLoad: the load goes where it is told to be hot, and everywhere otherwise.
func TestHotLoad(t *testing.T) {
	l := newDemoLoad()
	count := func() (hot int) {
		for range 1000 {
			if strings.HasPrefix(string(l.key()), "user-60") {
				hot++
			}
		}
		return hot
	}
	if n := count(); n > 100 {
		t.Errorf("%d of 1000 are hot, nobody said so", n)
	}
	l.setHot("user-60")
	if n := count(); n < 800 {
		t.Errorf("%d of 1000 are hot", n)
	}
	l.setHot("")
	if n := count(); n > 100 {
		t.Errorf("%d of 1000 are hot after it was taken back", n)
	}
}
