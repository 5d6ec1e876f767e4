package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	// refuseWait bounds the start of a node that must end with an error.
	refuseWait = 20 * time.Second
	// badPairs are written before the harm and read after it.
	badPairs = 300
)

// badInput gives the command line and the nodes what they must refuse, and wants
// each time the code and the words that say what is wrong.
func badInput(ctx context.Context, t *trial) error {
	key := filepath.Join(t.dir, "gossip.key")
	other := filepath.Join(t.dir, "other.key")
	for i, path := range []string{key, other} {
		secret := slices.Repeat([]byte{byte(i + 1)}, 32)
		if err := os.WriteFile(path, []byte(hex.EncodeToString(secret)+"\n"), 0o600); err != nil {
			return err
		}
	}
	c, err := t.newCluster("n", 3, 3)
	if err != nil {
		return err
	}
	for _, n := range c.nodes {
		n.flags = append(n.flags, "--gossip-key-file", key)
	}
	if err := c.up(ctx); err != nil {
		return err
	}
	if err := c.createTable(ctx, tableName); err != nil {
		return err
	}
	want, err := c.fill(ctx)
	if err != nil {
		return err
	}
	for _, step := range []func() error{
		func() error { return c.badCommands(ctx) },
		func() error { return c.badNodes(ctx, key, other) },
		func() error { return c.copiedDirectory(ctx) },
		func() error { return c.damagedLog(ctx) },
	} {
		if err := step(); err != nil {
			return err
		}
		if err := c.unharmed(ctx, want); err != nil {
			return err
		}
	}
	t.row("data", "all %d pairs were there after each of these, and writes went on", len(want))
	return nil
}

// fill writes some pairs and returns them.
func (c *cluster) fill(ctx context.Context) (map[string]string, error) {
	s, err := c.open(ctx)
	if err != nil {
		return nil, err
	}
	defer s.close()
	want := map[string]string{}
	for i := range badPairs {
		key, value := fmt.Sprintf("pair%04d", i), strings.Repeat(fmt.Sprint(i), 200)
		if err := s.put(ctx, key, value); err != nil {
			return nil, fmt.Errorf("write %s: %w", key, err)
		}
		want[key] = value
	}
	return want, nil
}

// unharmed reads the pairs back and writes one more.
func (c *cluster) unharmed(ctx context.Context, want map[string]string) error {
	s, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer s.close()
	got, _, err := s.scan(ctx, "pair")
	if err != nil {
		return err
	}
	for key, value := range want {
		if got[key] != value {
			c.t.violate("%q holds %.40q instead of %.40q", key, got[key], value)
		}
	}
	return s.put(ctx, "after", fmt.Sprint(time.Now()))
}

// wants judges one refusal: the exit code and every one of the words.
func (t *trial) wants(what string, o outcome, code int, words ...string) {
	missing := slices.DeleteFunc(slices.Clone(words), func(w string) bool { return strings.Contains(o.err, w) })
	first, _, _ := strings.Cut(o.err, "\n")
	if i := strings.Index(o.err, "why:"); i >= 0 {
		first, _, _ = strings.Cut(strings.TrimSpace(o.err[i+4:]), "\n")
	}
	t.row(what, "exit code %d: %.150s", o.code, first)
	if o.code != code || len(missing) > 0 {
		t.violate("%s: exit code %d (wanted %d), without the words %q: %s", what, o.code, code, missing, o.err)
	}
}

// badCommands are what an operator or client may get wrong.
func (c *cluster) badCommands(ctx context.Context) error {
	big := filepath.Join(c.t.dir, "big")
	if err := os.WriteFile(big, make([]byte, 1<<20+1), 0o600); err != nil {
		return err
	}
	addr := "--addr=" + c.https()
	for _, x := range []struct {
		what  string
		code  int
		words []string
		args  []string
	}{
		{"unknown table", 1, []string{"no_such_table", "nowhere"}, []string{"kv", "get", "nowhere", "k", addr}},
		{"load into an unknown table", 1, []string{"no_such_table", "nowhere"}, []string{"load", "nowhere", big, addr}},
		{"key over the limit", 1, []string{"too_large", "1024"}, []string{"kv", "put", tableName, strings.Repeat("k", 1025), "v", addr}},
		{"value over the limit", 1, []string{"too_large", "1048576"}, []string{"kv", "put", tableName, "k", "--file", big, addr}},
		{"table that is there", 1, []string{"exists"}, []string{"table", "create", tableName, addr}},
		{"more replicas than nodes", 11, []string{"refused"}, []string{"table", "create", "t2", "--replicas", "5", addr}},
		{"unknown node", 11, []string{"refused", "nobody"}, []string{"table", "create", "t2", "--on", "nobody", addr}},
		{"nobody there", 1, []string{"unavailable"}, []string{"status", "--addr", "127.0.0.1:1", "--timeout", "2s"}},
		{"unknown flag", 2, []string{"usage"}, []string{"status", "--no-such-flag"}},
	} {
		o, err := c.t.command(ctx, x.args...)
		if err != nil {
			return fmt.Errorf("%s: %w", x.what, err)
		}
		c.t.wants(x.what, o, x.code, x.words...)
	}
	return nil
}

// badNodes are nodes that may not start, or may not join.
func (c *cluster) badNodes(ctx context.Context, key, other string) error {
	running := c.nodes[1]
	withKey := []string{"--gossip-key-file", key}
	for _, x := range []struct {
		what  string
		words []string
		with  func(n *node)
	}{
		{"directory in use", []string{"refused", "in use by pid"}, func(n *node) { n.dir = running.dir }},
		{"HTTP port taken", []string{"refused", running.http}, func(n *node) { n.http = running.http }},
		{"link port taken", []string{running.link}, func(n *node) { n.link = running.link }},
		{"gossip port taken", []string{running.gossip}, func(n *node) { n.gossip = running.gossip }},
		{"beyond loopback without certificates", []string{"refused", "certificates"}, func(n *node) { n.link = "0.0.0.0:0" }},
		{"no such key file", []string{"gossip key"}, func(n *node) { n.flags = []string{"--gossip-key-file", key + ".none"} }},
	} {
		n, err := c.stranger(withKey)
		if err != nil {
			return err
		}
		x.with(n)
		if err := n.start(); err != nil {
			return err
		}
		limited, cancel := context.WithTimeout(ctx, refuseWait)
		code, err := n.proc.wait(limited)
		cancel()
		if err != nil {
			c.t.violate("%s: the node did not end within %s: %s", x.what, refuseWait, n.proc.printed())
			n.kill()
			continue
		}
		c.t.wants(x.what, outcome{code: code, err: n.proc.printed()}, wantedCode(n.proc.printed()), x.words...)
	}
	if err := c.outsider(ctx, "wrong cluster name", "belongs to the cluster", func(n *node) { n.cluster = "another" }, withKey); err != nil {
		return err
	}
	if err := c.outsider(ctx, "wrong gossip key", "key", func(n *node) { n.flags = []string{"--gossip-key-file", other} }, nil); err != nil {
		return err
	}
	return c.outsider(ctx, "no gossip key", "key", func(n *node) { n.flags = nil }, nil)
}

// wantedCode is the exit code that goes with what was printed.
func wantedCode(printed string) int {
	if strings.Contains(printed, "error: refused") {
		return 11
	}
	return 1
}

// stranger plans a node that does not belong to the cluster's nodes but joins
// them.
func (c *cluster) stranger(flags []string) (*node, error) {
	n, err := c.add(0)
	if err != nil {
		return nil, err
	}
	c.nodes = c.nodes[:len(c.nodes)-1]
	n.name = fmt.Sprintf("stranger%d", len(c.t.ports))
	n.dir = filepath.Join(c.t.dir, n.name)
	n.flags = append(n.flags, flags...)
	return n, nil
}

// outsider starts a node that the others must keep out. It may end or wait; it
// must say why, and nobody may list it.
func (c *cluster) outsider(ctx context.Context, what, word string, with func(*node), flags []string) error {
	n, err := c.stranger(flags)
	if err != nil {
		return err
	}
	with(n)
	if err := n.start(); err != nil {
		return err
	}
	defer n.kill()
	err = await(ctx, refuseWait, what, func(context.Context) error {
		if !strings.Contains(n.proc.printed(), word) {
			return fmt.Errorf("%s does not say %q", n.name, word)
		}
		return nil
	})
	if err != nil {
		c.t.violate("%v: %s", err, n.proc.printed())
	}
	c.t.row(what, "%.200s", lineWith(n.proc.printed(), word))
	for _, x := range c.nodes {
		if err := x.lists(ctx, len(c.nodes)); err != nil {
			c.t.violate("%s: %v", what, err)
		}
	}
	return nil
}

func lineWith(text, word string) string {
	for line := range strings.Lines(text) {
		if strings.Contains(line, word) {
			return strings.TrimSpace(line)
		}
	}
	return ""
}
