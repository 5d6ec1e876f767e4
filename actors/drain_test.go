package actors

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pando.dev/pando/cluster"
	"pando.dev/pando/cluster/placement"
	"pando.dev/pando/partition"
)

// INE-7: a rolling restart by PrepareStop under load: nothing acknowledged is
// lost, no write fails, and each node costs at most one change of master.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	c := newClusterWith(t, 3, never)
	g := c.group(TableSpec{Name: "t", Replicas: 3})
	for i := range c.nodes {
		w := g.write(c.nodes[(i+1)%3])
		eventually(t, "some writes", func() error {
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.acked < 20 {
				return fmt.Errorf("%d writes", w.acked)
			}
			return nil
		})
		epoch := g.epoch()
		wasMaster := g.masterNode() == c.cfgs[i].NodeID
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		info, err := c.nodes[i].PrepareStop(ctx)
		cancel()
		if err != nil || !info.Done {
			t.Fatalf("drain of %s: %+v, %v", c.cfgs[i].NodeID, info, err)
		}
		if m, err := g.membership(); err == nil {
			if x, ok := m.OnNode(c.cfgs[i].NodeID); !ok || x.Eligible {
				t.Errorf("drained, but it counts: %+v", x)
			}
		}
		c.stop(i)
		c.start(i)
		g.become("everybody counts again", fullOn(3))
		if e := g.epoch(); wasMaster != (e != epoch) {
			t.Errorf("%s, master: %v: the epoch went from %s to %s", c.cfgs[i].NodeID, wasMaster, epoch, e)
		}
		w.check(t, c.nodes[i])
	}
}

func (g *groupOf) epoch() partition.Epoch {
	_, c := g.master()
	return c.view.Load().Epoch
}

// INE-5, INE-6: an operator's drain outlives the node; a second one with which
// nothing could be committed is refused and says why; to end it makes the members
// count again.
func TestOperatorsDrain(t *testing.T) {
	t.Parallel()
	c := newClusterWith(t, 3, never)
	g := c.group(TableSpec{Name: "t", Replicas: 3})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	first := g.masterNode()
	info, err := c.nodes[(g.at(first)+1)%3].Drain(ctx, DrainOptions{Node: first, Reason: "new disk"})
	if err != nil || !info.Done || info.Mode != "drained" || info.Reason != "new disk" {
		t.Fatalf("%+v, %v", info, err)
	}
	m := g.become("it does not count", func(m *partition.Membership) bool { x, _ := m.OnNode(first); return !x.Eligible })
	if at := g.masterNode(); at == first {
		t.Error("it is still master")
	}
	i := g.at(first)
	c.stop(i)
	c.start(i)
	eventually(t, "it is back", c.nodes[i].Started)
	if err := c.nodes[i].Ready(); !errors.Is(err, partition.ErrClosed) || !strings.Contains(err.Error(), "new disk") {
		t.Errorf("ready: %v", err)
	}
	eventually(t, "the others know", func() error {
		for _, x := range c.nodes[(i+1)%3].Members() {
			if x.Node == first && x.Mode != "drained" {
				return fmt.Errorf("it is %+v", x)
			}
		}
		return nil
	})
	second := g.peers()[0]
	if second == first {
		second = g.peers()[1]
	}
	// Of the two that count one is stopped: the last one cannot be spared.
	c.stop(g.at(second))
	last := g.masterNode
	eventually(t, "it is seen", func() error {
		if g.any().leases.Reachable(second) {
			return errors.New("not yet")
		}
		return nil
	})
	var others []partition.NodeID
	for _, n := range c.nodes {
		if n != nil && n.ID() != first {
			others = append(others, n.ID())
		}
	}
	if _, err := c.nodes[i].Drain(ctx, DrainOptions{Node: others[0]}); !errors.Is(err, partition.ErrRefused) || !strings.Contains(err.Error(), g.id.String()) || !strings.Contains(err.Error(), "--force") {
		t.Errorf("drain of the last one: %v", err)
	}
	c.start(g.at(second))
	if info, err := c.nodes[i].Undrain(ctx, first); err != nil || !info.Done || info.Mode != "" {
		t.Fatalf("%+v, %v", info, err)
	}
	if after := g.become("everybody counts", fullOn(3)); after.Version <= m.Version {
		t.Errorf("version %d after %d", after.Version, m.Version)
	}
	_ = last
}

// stopTogether has all nodes know that they stop before any of them acts on it. A
// node that is told later may be the only one left that counts.
func stopTogether(t *testing.T, nodes []*Node) {
	t.Helper()
	for _, n := range nodes {
		n.service.mu.Lock()
	}
	for _, n := range nodes {
		s := n.service
		s.word = word{Seq: s.word.Seq + 1, Drain: placement.Stopping, Reason: "it stops"}
		close(s.changed)
		s.changed = make(chan struct{})
		b, err := json.Marshal(s.word)
		if err := errors.Join(err, writeFile(s.path, b)); err != nil {
			t.Error(err)
		}
	}
	for _, n := range nodes {
		n.service.mu.Unlock()
	}
}

// All nodes are told to stop at once: none hangs, and all say what is left.
func TestAllPrepareToStop(t *testing.T) {
	t.Parallel()
	c := newClusterWith(t, 3, never)
	g := c.group(TableSpec{Name: "t", Replicas: 3})
	if err := put(t.Context(), c.any(), "a", "b"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stopTogether(t, c.nodes)
	done := make(chan error, 3)
	for _, n := range c.nodes {
		go func() {
			info, err := n.PrepareStop(ctx)
			if err == nil && !info.Done && len(info.Left) == 0 {
				err = fmt.Errorf("%s does not say what is left: %+v", n.ID(), info)
			}
			done <- err
		}()
	}
	for range 3 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	m, err := g.membership()
	if err != nil {
		t.Fatal(err)
	}
	counting := 0
	for _, x := range m.Members {
		if x.Eligible {
			counting++
		}
	}
	if counting < 2 {
		t.Errorf("%d member counts alone: %+v", counting, m.Members)
	}
	for i := range c.nodes {
		c.stop(i)
	}
	for i := range c.nodes {
		c.start(i)
	}
	g.become("everybody counts again", fullOn(3))
	if got, err := get(t.Context(), c.any(), "a"); err != nil || got != "b" {
		t.Errorf("%q, %v", got, err)
	}
}

// A node alone stops at once.
func TestPrepareStopAlone(t *testing.T) {
	t.Parallel()
	c := newClusterWith(t, 1, func(c *Config) { never(c); c.Expect = 1 })
	g := c.group(TableSpec{Name: "t", Replicas: 1})
	info, err := c.nodes[0].PrepareStop(t.Context())
	if err != nil || info.Mode != "" {
		t.Errorf("%+v, %v", info, err)
	}
	if m, err := g.membership(); err != nil || m.Version != 1 {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestWords(t *testing.T) {
	for _, w := range []word{{}, {Seq: 7}, {Seq: 8, Drain: placement.Stopping}, {Seq: 9, Drain: placement.Maintenance}} {
		if got := wordOf(w.tag()); got != w {
			t.Errorf("%+v as %q is %+v", w, w.tag(), got)
		}
	}
	for _, tag := range []string{"m", "12x", "sm", "12sm", "-1"} {
		if got := wordOf(tag); got != (word{}) {
			t.Errorf("%q is %+v", tag, got)
		}
	}
}

// What a node says of itself is on disk; that it stops ends with the next start.
func TestServiceFile(t *testing.T) {
	dir := t.TempDir()
	s, err := openService(dir)
	if err != nil || s.now() != (word{}) {
		t.Fatal(s, err)
	}
	_, changed := s.get()
	if err := s.set(func(w *word) { w.Drain, w.Reason = placement.Maintenance, "x" }); err != nil {
		t.Fatal(err)
	}
	select {
	case <-changed:
	default:
		t.Error("the change was not told")
	}
	if s, err = openService(dir); err != nil || s.now() != (word{Seq: 1, Drain: placement.Maintenance, Reason: "x"}) {
		t.Fatal(s.now(), err)
	}
	if err := s.set(func(w *word) { *w = word{Drain: placement.Stopping} }); err != nil {
		t.Fatal(err)
	}
	if s, err = openService(dir); err != nil || s.now() != (word{Seq: 3}) {
		t.Fatal(s.now(), err)
	}
	if err := os.WriteFile(filepath.Join(dir, drainFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openService(dir); !errors.Is(err, partition.ErrCorrupt) {
		t.Error(err)
	}
}

// A node that comes and goes without a word is held to have done so; one that
// says goodbye, or is drained, is not.
func TestNodeWatch(t *testing.T) {
	up := true
	s := nodeWatch{nodes: make(map[partition.NodeID]*watched)}
	look := func(at time.Duration, status string, mode string) bool {
		return s.look(watchedAs(status, mode), func(partition.NodeID) bool { return up }, at)
	}
	if !look(1*time.Second, "alive", "") || look(2*time.Second, "alive", "") {
		t.Error("a new node is news once")
	}
	up = false
	if !look(3*time.Second, "alive", "") {
		t.Error("it went, and that is no news")
	}
	if st := s.state("n", 0); st.Up || st.Since != 3*time.Second || st.Flaps != 0 {
		t.Errorf("%+v", st)
	}
	up = true
	look(4*time.Second, "alive", "")
	if st := s.state("n", 0); !st.Up || st.Since != 4*time.Second || st.Flaps != 1 {
		t.Errorf("%+v", st)
	}
	up = false
	look(5*time.Second, "left", "")
	up = true
	look(6*time.Second, "alive", "")
	look(6*time.Second, "alive", "1s")
	up = false
	look(6*time.Second, "alive", "1s")
	up = true
	look(6*time.Second, "alive", "2")
	if st := s.state("n", 0); st.Flaps != 1 {
		t.Errorf("it had said goodbye: %+v", st)
	}
	if !look(7*time.Second, "alive", "5m") || look(8*time.Second, "alive", "4") {
		t.Error("a newer word is news, an older one is not")
	}
	if st := s.state("n", 0); st.Drain != placement.Maintenance {
		t.Errorf("%+v", st)
	}
	look(20*time.Minute, "alive", "6")
	if st := s.state("n", 0); st.Flaps != 0 || st.Drain != placement.InService {
		t.Errorf("much later: %+v", st)
	}
}

// INE-7: a forced drain is known for one although the gossip tag, which does not
// say so, was there first; and a node whose disk was lost while it was drained
// begins anew, though nothing that it says has a number as high.
func TestNodeWatchWords(t *testing.T) {
	s := nodeWatch{nodes: make(map[partition.NodeID]*watched)}
	look := func(boot uint64, mode string) {
		nodes := watchedAs("alive", mode)
		nodes[0].Boot = boot
		s.look(nodes, func(partition.NodeID) bool { return true }, time.Second)
	}
	look(3, "9m")
	forced := word{Seq: 9, Drain: placement.Maintenance, Force: true}
	if !s.heard("n", forced, time.Second) || s.heard("n", forced, time.Second) || !s.state("n", time.Second).Force {
		t.Errorf("%+v", s.state("n", time.Second))
	}
	look(3, "9m")
	if look(2, ""); !s.state("n", time.Second).Force || s.state("n", time.Second).Drain != placement.Maintenance {
		t.Errorf("by an older word: %+v", s.state("n", time.Second))
	}
	if look(7, ""); s.state("n", time.Second).Drain != placement.InService {
		t.Errorf("as another incarnation: %+v", s.state("n", time.Second))
	}
	if look(7, "1m"); s.state("n", time.Second).Drain != placement.Maintenance {
		t.Errorf("drained anew: %+v", s.state("n", time.Second))
	}
}

func watchedAs(status, mode string) []cluster.Node {
	return []cluster.Node{{ID: "n", Status: cluster.NodeStatus(status), Mode: mode}}
}
