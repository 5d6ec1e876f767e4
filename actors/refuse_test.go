package actors

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pando.dev/pando/actors/client"
	"pando.dev/pando/partition"
)

// single returns the configuration of a node that is a cluster of its own.
func single(tb testing.TB, dir string) Config {
	return Config{
		Dir: dir, Listen: "127.0.0.1:0", Gossip: "127.0.0.1:0", Expect: 1,
		WALSegmentBytes: 1 << 20, MemoryBytes: 8 << 20, CacheBytes: 8 << 20,
		Fatal: func(err error) { tb.Errorf("fatal: %v", err) },
	}
}

func startSingle(t *testing.T, cfg Config) *testCluster {
	t.Helper()
	c := &testCluster{tb: t, cfgs: []Config{cfg}, nodes: []*Node{nil}}
	c.start(0)
	return c
}

// refused starts a node that must not start, and says what the error must name.
func refused(t *testing.T, cfg Config, code partition.Code, names string) {
	t.Helper()
	n, err := Start(t.Context(), cfg)
	if err == nil {
		n.Stop(t.Context())
		t.Fatalf("the node started; want %s", code)
	}
	var e *partition.Error
	if !errors.As(err, &e) || e.Code != code || !strings.Contains(e.Why, names) || e.Next == "" {
		t.Errorf("error %q (%+v), want %s that names %q and says what to do", err, e, code, names)
	}
}

func TestConfigIsRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		damage func(*Config)
		code   partition.Code
		names  string
	}{
		{"no directory", func(c *Config) { c.Dir = "" }, partition.CodeInvalid, "directory"},
		{"four seats", func(c *Config) { c.Expect = 4 }, partition.CodeInvalid, "4 seats"},
		{"beyond loopback without certificates", func(c *Config) { c.Listen = "0.0.0.0:0" }, partition.CodeRefused, "0.0.0.0"},
		{"beyond loopback without an address for others", func(c *Config) { c.Listen, c.TLSDir = "0.0.0.0:0", "x" }, partition.CodeInvalid, "0.0.0.0"},
		{"beyond loopback without a gossip key", func(c *Config) { c.Gossip = "0.0.0.0:0" }, partition.CodeRefused, "0.0.0.0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := single(t, t.TempDir())
			c.damage(&cfg)
			refused(t, cfg, c.code, c.names)
		})
	}
}

// TestDirectoryIsRefused: a data directory in use, of another node, of another
// cluster, and one whose log is gone.
func TestDirectoryIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cfg := single(t, dir)
	cfg.NodeID = "first"
	c := startSingle(t, cfg)
	c.table(TableSpec{Name: "t"})
	if err := put(t.Context(), c.any(), "k", "v"); err != nil {
		t.Fatal(err)
	}
	refused(t, cfg, partition.CodeRefused, "in use")

	taken := single(t, t.TempDir())
	taken.Listen = c.any().LinkAddr()
	refused(t, taken, partition.CodeRefused, taken.Listen)
	c.stop(0)

	other := cfg
	other.NodeID = "second"
	refused(t, other, partition.CodeRefused, "first")
	other = cfg
	other.Cluster = "another"
	refused(t, other, partition.CodeRefused, "another")

	if err := os.RemoveAll(filepath.Join(dir, "wal")); err != nil {
		t.Fatal(err)
	}
	refused(t, cfg, partition.CodeCorrupt, "log")
}

// TestRequestsAreRefused: what a client gets for a request that makes no sense.
func TestRequestsAreRefused(t *testing.T) {
	t.Parallel()
	c := startSingle(t, single(t, t.TempDir()))
	c.table(TableSpec{Name: "t"})
	n := c.any()
	kv := n.Client().KV("t")
	_, unknownKind := n.CreateTable(t.Context(), TableSpec{Name: "u", Kind: "nothing"})
	_, twice := n.CreateTable(t.Context(), TableSpec{Name: "t"})
	_, many := n.CreateTable(t.Context(), TableSpec{Name: "u", Replicas: 2})
	_, nowhere := n.CreateTable(t.Context(), TableSpec{Name: "u", Nodes: []partition.NodeID{"nobody"}})
	_, noTable := n.Client().KV("u").Get(t.Context(), []byte("k"))
	_, longKey := kv.Put(t.Context(), make([]byte, 1<<10+1), nil)
	_, longValue := kv.Put(t.Context(), []byte("k"), make([]byte, 1<<20+1))
	_, level := n.Client().Read(t.Context(), "t", []byte("k"), nil, client.ReadOptions{Level: client.Stale + 1})
	_, noPartition := n.Partition(t.Context(), 4711)
	for _, x := range []struct {
		what string
		err  error
		want error
	}{
		{"unknown kind", unknownKind, partition.ErrInvalid},
		{"table made twice", twice, partition.ErrExists},
		{"more replicas than nodes", many, partition.ErrRefused},
		{"a node that is not there", nowhere, partition.ErrRefused},
		{"unknown table", noTable, partition.ErrNoSuchTable},
		{"key over the limit", longKey, partition.ErrTooLarge},
		{"value over the limit", longValue, partition.ErrTooLarge},
		{"a read level that is not served", level, partition.ErrInvalid},
		{"unknown partition", noPartition, partition.ErrNotFound},
	} {
		if !errors.Is(x.err, x.want) {
			t.Errorf("%s: error %v, want %s", x.what, x.err, x.want.(*partition.Error).Code)
		}
	}
	if err := put(t.Context(), n, "k", "still serves"); err != nil {
		t.Errorf("after all that: %v", err)
	}
}

// TestDropTable: a dropped table is gone from every answer and from the disk.
func TestDropTable(t *testing.T) {
	t.Parallel()
	cfg := single(t, t.TempDir())
	c := startSingle(t, cfg)
	c.table(TableSpec{Name: "t"})
	n := c.any()
	if err := put(t.Context(), n, "k", "v"); err != nil {
		t.Fatal(err)
	}
	if err := n.DropTable(t.Context(), "t"); err != nil {
		t.Fatalf("drop: %v", err)
	}
	eventually(t, "the store removed", func() error {
		left, err := filepath.Glob(filepath.Join(cfg.Dir, "stores", "*", "*"))
		if err != nil || len(left) > 0 {
			return errors.Join(err, partition.Errorf(partition.CodeExists, "still there: %q", left))
		}
		return nil
	})
	if _, err := get(t.Context(), n, "k"); !errors.Is(err, partition.ErrNoSuchTable) {
		t.Errorf("get from a dropped table: %v, want no_such_table", err)
	}
	for range n.log.Groups() {
		t.Error("the log still has the replica")
	}
	c.table(TableSpec{Name: "t"})
	if got, err := get(t.Context(), n, "k"); err != nil || got != "" {
		t.Errorf("get from a new table of the same name: %q, %v; want nothing", got, err)
	}
}
