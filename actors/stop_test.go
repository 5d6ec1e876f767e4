package actors

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"pando.dev/pando/actors/client"
	"pando.dev/pando/partition"
)

// TestStopUnderLoad: the master's node is stopped, by two callers at once, while
// clients of all nodes write. Whatever was acknowledged is still there.
func TestStopUnderLoad(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	c.table(TableSpec{Name: "t"})
	m := c.master("t")
	acked := make([][]string, 6)
	var writers, warm sync.WaitGroup
	for w := range acked {
		n := c.nodes[w%3]
		warm.Add(1)
		writers.Go(func() {
			for i := range 200 {
				key := fmt.Sprintf("w%d-%04d", w, i)
				if err := put(t.Context(), n, key, key); err == nil {
					acked[w] = append(acked[w], key)
				}
				if i == 20 {
					warm.Done()
				}
			}
		})
	}
	warm.Wait()
	old := c.nodes[m]
	second := make(chan error, 1)
	go func() { second <- old.Stop(context.Background()) }()
	c.stop(m)
	if err := <-second; err != nil {
		t.Errorf("the other Stop: %v", err)
	}
	if err := old.Stop(t.Context()); err != nil {
		t.Errorf("a third Stop: %v", err)
	}
	writers.Wait()
	for w := range acked {
		if len(acked[w]) < 20 {
			t.Errorf("writer %d had only %d writes acknowledged", w, len(acked[w]))
		}
		for _, key := range acked[w] {
			if got, err := get(t.Context(), c.any(), key); err != nil || got != key {
				t.Fatalf("%s was acknowledged: %q, %v", key, got, err)
			}
		}
	}
}

// TestStartFails: a node that fails at any step of its start lets go of
// everything, so that the next start works. That no goroutine is left, TestMain
// checks.
func TestStartFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	control := filepath.Join(dir, "control")
	for _, x := range []struct {
		step   string
		damage func(*Config)
	}{
		{"the log", func(c *Config) { c.WALSegmentBytes = 1 }},
		{"the certificates", func(c *Config) { c.TLSDir = filepath.Join(dir, "nothing") }},
		{"the links", func(c *Config) { c.Listen = taken.Addr().String() }},
		{"the gossip key", func(c *Config) { c.GossipKeyFile = filepath.Join(dir, "nothing") }},
		{"the gossip", func(c *Config) { c.Gossip = taken.Addr().String() }},
		{"the control group", func(*Config) {
			if err := os.WriteFile(control, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		cfg := single(t, dir)
		x.damage(&cfg)
		if n, err := Start(t.Context(), cfg); err == nil {
			n.Stop(t.Context())
			t.Errorf("%s: the node started", x.step)
		}
	}
	if err := os.Remove(control); err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Start(ended, single(t, dir)); err == nil {
		t.Error("started although its context had ended")
	}
	c := startSingle(t, single(t, dir))
	c.table(TableSpec{Name: "t"})
	if err := put(t.Context(), c.any(), "k", "v"); err != nil {
		t.Error(err)
	}
}

// counting is a partition kind whose commands add one and return the sum.
type counting struct{}

func (counting) Apply(w partition.Writer, _ partition.Command) ([]byte, error) {
	old, _, err := w.Get([]byte("n"))
	if err != nil {
		return nil, err
	}
	n, _ := strconv.Atoi(string(old))
	next := []byte(strconv.Itoa(n + 1))
	return next, w.Set([]byte("n"), next)
}

func (counting) Read(r partition.Reader, _ []byte) ([]byte, error) {
	n, _, err := r.Get([]byte("n"))
	return append([]byte(nil), n...), err
}

// TestRetryAtAnotherNode: the same command, sent to one master and after its end
// to the next, is executed once, and gets the first result.
func TestRetryAtAnotherNode(t *testing.T) {
	t.Parallel()
	c := newClusterWith(t, 3, func(cfg *Config) {
		cfg.Kinds = map[string]partition.Factory{"counting": func(partition.Spec) (partition.Partition, error) { return counting{}, nil }}
	})
	c.table(TableSpec{Name: "t", Kind: "counting"})
	g := c.any().control.Catalog().Groups("t")[0]
	send := func(req client.Request) (res *client.Response) {
		eventually(t, "an answer", func() error {
			m := c.nodes[c.master("t")]
			r := req
			r.Group, r.RangeVersion = g.ID, g.RangeVersion
			if res = propose(m, &r); res.Code != 0 {
				return res.Err()
			}
			return nil
		})
		return res
	}
	opened := send(client.Request{Op: client.OpOpenSession})
	session := partition.SessionID{Group: g.ID, Index: opened.Index}
	command := client.Request{Op: client.OpPropose, Session: session, Seq: 1, Key: []byte("k")}
	first := send(command)
	again := send(command)
	c.stop(c.master("t"))
	elsewhere := send(command)
	for _, r := range []*client.Response{first, again, elsewhere} {
		if string(r.Body) != "1" {
			t.Errorf("result %q, want 1: the command was executed again", r.Body)
		}
	}
	command.Seq = 2
	if next := send(command); string(next.Body) != "2" {
		t.Errorf("the next command: %q, want 2", next.Body)
	}
}
