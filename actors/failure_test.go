package actors

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"pando.dev/pando/actors/client"
	"pando.dev/pando/actors/link"
	"pando.dev/pando/cluster/control"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
)

// fragile is a partition kind that keeps the last command, and fails at those
// that say so.
type fragile struct {
	spec    partition.Spec
	applied *atomic.Int64
}

func (f fragile) Apply(w partition.Writer, c partition.Command) ([]byte, error) {
	f.applied.Add(1)
	switch {
	case bytes.HasPrefix(c.Payload, []byte("panic")):
		panic("the kind is broken")
	case bytes.HasPrefix(c.Payload, []byte("error")):
		return nil, errors.New("the kind cannot go on")
	}
	return bytes.Clone(c.Payload), w.Set([]byte("last"), c.Payload)
}

func (f fragile) Read(r partition.Reader, q []byte) ([]byte, error) {
	switch string(q) {
	case "panic":
		panic("the kind is broken")
	case "spec":
		return fmt.Appendf(nil, "%s %s", f.spec.Table, f.spec.Group), nil
	}
	v, _, err := r.Get([]byte("last"))
	return bytes.Clone(v), err
}

// fragileTable starts n nodes with a table of kind fragile, next to the table t.
func fragileTable(t *testing.T, n int) (*testCluster, *atomic.Int64) {
	applied := new(atomic.Int64)
	c := newClusterWith(t, n, func(cfg *Config) {
		cfg.Kinds = map[string]partition.Factory{"fragile": func(s partition.Spec) (partition.Partition, error) {
			return fragile{s, applied}, nil
		}}
	})
	c.table(TableSpec{Name: "t"})
	c.table(TableSpec{Name: "f", Kind: "fragile"})
	return c, applied
}

// TestApplyFails: a command at which the kind panics or fails takes its own group
// down, on every node, after as many tries as allowed; nothing else. The caller
// learns that the outcome is unknown, and the reason is reported.
func TestApplyFails(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"panic", "error"} {
		t.Run(how, func(t *testing.T) {
			c, applied := fragileTable(t, 1)
			n := c.any()
			if _, err := n.Client().Propose(t.Context(), "f", []byte("k"), []byte("fine")); err != nil {
				t.Fatalf("a good command: %v", err)
			}
			before := applied.Load()
			codes := make(chan partition.Code, 1)
			go func() {
				ctx, cancel := contextWithin(t, patience)
				defer cancel()
				_, err := n.Client().Propose(ctx, "f", []byte("k"), []byte(how))
				codes <- partition.CodeOf(err)
			}()
			eventually(t, "the replica given up", func() error {
				infos, err := n.Partitions(t.Context(), "f")
				if err != nil {
					return err
				}
				if r := infos[0].Replicas[0]; r.Role != "broken" || !strings.Contains(r.Why, "the kind") {
					return fmt.Errorf("replica %+v", r)
				}
				return nil
			})
			if tries := applied.Load() - before; tries != 4 {
				t.Errorf("the command was tried %d times, want 1 and 3 restarts", tries)
			}
			st, err := n.Status(t.Context())
			if err != nil || st.CanLose != -1 || st.WithMaster != 1 {
				t.Errorf("status %+v, %v; want one group down", st, err)
			}
			if err := put(t.Context(), n, "k", "v"); err != nil {
				t.Errorf("another group: %v", err)
			}
			if err := n.Ready(); err != nil {
				t.Errorf("the node is not ready: %v", err)
			}
			n.Client().Close() // ends the retries
			if code := <-codes; code != partition.CodeUnknown {
				t.Errorf("the caller got %s, want outcome_unknown", code)
			}
		})
	}
}

// TestReadPanics: a query at which the kind panics is answered, at every level,
// and takes nothing down.
func TestReadPanics(t *testing.T) {
	t.Parallel()
	c, _ := fragileTable(t, 1)
	n := c.any()
	for level := client.Lease; level <= client.Stale; level++ {
		_, err := n.Client().Read(t.Context(), "f", []byte("k"), []byte("panic"), client.ReadOptions{Level: level})
		if partition.CodeOf(err) != partition.CodeInternal {
			t.Errorf("level %s: %v, want internal", level, err)
		}
	}
	res, err := n.Client().Read(t.Context(), "f", []byte("k"), []byte("spec"), client.ReadOptions{})
	if want := "f " + res.Group.String(); err != nil || string(res.Body) != want {
		t.Errorf("the kind was made for %q, %v; want %q", res.Body, err, want)
	}
	if restarts := n.counters.restarts.Load(); restarts != 0 {
		t.Errorf("%d restarts", restarts)
	}
}

// TestFactoryPanics: a kind that cannot be made costs its replicas, not the node.
func TestFactoryPanics(t *testing.T) {
	t.Parallel()
	cfg := single(t, t.TempDir())
	cfg.Kinds = map[string]partition.Factory{"none": func(partition.Spec) (partition.Partition, error) { panic("no kind") }}
	c := startSingle(t, cfg)
	c.table(TableSpec{Name: "t"})
	n := c.any()
	if _, err := n.CreateTable(t.Context(), TableSpec{Name: "u", Kind: "none"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the replica given up", func() error {
		infos, err := n.Partitions(t.Context(), "u")
		if err == nil && infos[0].Replicas[0].Role != "broken" {
			err = fmt.Errorf("replica %+v", infos[0].Replicas[0])
		}
		return err
	})
	if err := put(t.Context(), n, "k", "v"); err != nil {
		t.Errorf("another group: %v", err)
	}
	if err := n.DropTable(t.Context(), "u"); err != nil {
		t.Errorf("drop: %v", err)
	}
	eventually(t, "the broken replica dropped", func() error {
		if left := len(groupsOf(n)); left != 1 {
			return fmt.Errorf("%d replicas in the log", left)
		}
		return nil
	})
}

func groupsOf(n *Node) (all []partition.GroupID) {
	for g := range n.log.Groups() {
		all = append(all, g)
	}
	return all
}

// failMaster makes the master's replica of the group fail as if it had found
// damage, and returns its node.
func (c *testCluster) failMaster(table string) int {
	m := c.master(table)
	n := c.nodes[m]
	cell := n.cells.get(n.control.Catalog().Groups(table)[0].ID)
	st := cell.state.Load()
	st.damaged(partition.Errorf(partition.CodeCorrupt, "planted damage"))
	return m
}

// TestMasterGivenUp: the master's replica ends for good while its node lives on.
// Nobody's heartbeats stop, so only the node's word lets the others take over.
func TestMasterGivenUp(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	c.table(TableSpec{Name: "t"})
	if err := put(t.Context(), c.any(), "k", "v"); err != nil {
		t.Fatal(err)
	}
	m := c.failMaster("t")
	if got, err := get(t.Context(), c.nodes[m], "k"); err != nil || got != "v" {
		t.Fatalf("get through the node of the broken replica: %q, %v", got, err)
	}
	if err := put(t.Context(), c.nodes[m], "k", "w"); err != nil {
		t.Fatalf("put: %v", err)
	}
	eventually(t, "the report", func() error {
		st, err := c.nodes[m].Status(t.Context())
		if err == nil && (st.CanLose != 0 || !strings.Contains(st.Why, "broken")) {
			err = fmt.Errorf("status %+v", st)
		}
		return err
	})
	// What it may have promised is not known any more: its grants do not count.
	group := c.nodes[m].control.Catalog().Groups("t")[0]
	other := c.nodes[(m+1)%3]
	eventually(t, "the revocation", func() error {
		if until := other.leases.Granted(group.ID, math.MaxUint64-1, c.nodes[m].ID(), supporterOn(c.nodes[m], group)); until != 0 {
			return fmt.Errorf("its grant counts until %v", until)
		}
		return nil
	})
}

// TestForgedMessages: what a peer sends must not end a replica, whatever it is.
func TestForgedMessages(t *testing.T) {
	t.Parallel()
	c := startSingle(t, single(t, t.TempDir()))
	c.table(TableSpec{Name: "t"})
	n := c.any()
	g := n.control.Catalog().Groups("t")[0]
	self := g.Membership.Members[0].Replica
	forge := func(from partition.ReplicaID, m replica.Message) {
		f := link.Frame{Group: g.ID, From: from, To: self}
		link.EncodeReplica(&f, m)
		n.onFrame("stranger", f)
	}
	for range 10 { // more than restarts are allowed
		forge(9, &replica.Append{Epoch: partition.NewEpoch(99, 5)}) // of another's epoch
		forge(9, &replica.Gather{Epoch: partition.NewEpoch(99, 5)})
		forge(self, &replica.Probe{Epoch: partition.NewEpoch(99, 5)}) // in our own name
		if err := put(t.Context(), n, "k", "v"); err != nil {
			t.Fatalf("put: %v", err)
		}
	}
	if restarts, bad := n.counters.restarts.Load(), n.counters.badFrames.Load(); restarts != 0 || bad < 20 {
		t.Errorf("%d restarts, %d bad messages counted", restarts, bad)
	}
}

// flip is a catalog that becomes whole between two questions.
type flip struct {
	whole bool
	cat   *control.Catalog
}

func (f *flip) Catalog() *control.Catalog {
	f.whole = true
	return f.cat
}
func (f *flip) Synced() bool { return f.whole }

// TestNothingDroppedBeforeSynced: a replica that only an old catalog lacks must
// not be dropped when the catalog becomes whole in between.
func TestNothingDroppedBeforeSynced(t *testing.T) {
	t.Parallel()
	c := startSingle(t, single(t, t.TempDir()))
	c.table(TableSpec{Name: "t"})
	a := newReplicas(c.any())
	a.catalog = &flip{cat: &control.Catalog{}}
	a.reconcile(nil) // a drop would use the context
	if len(a.leaving) != 0 {
		t.Error("replicas were dropped")
	}
	n := c.any()
	eventually(t, "the catalog to be written down", func() error {
		_, cat, err := readCatalog(filepath.Join(n.cfg.Dir, catalogFile))
		if err == nil && cat.Version < n.control.Catalog().Version {
			err = fmt.Errorf("version %d", cat.Version)
		}
		return err
	})
	c.stop(0)
	n = c.start(0)
	eventually(t, "the replica", func() error { return put(t.Context(), n, "k", "v") })
	a = newReplicas(n)
	a.catalog = &flip{cat: &control.Catalog{}, whole: true}
	a.reconcile(nil)
	if len(a.leaving) != 0 {
		t.Error("replicas were dropped at the word of an older catalog")
	}
}
