package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// copiedDirectory starts what a node must not be: its own copy, and somebody
// else in its directory.
func (c *cluster) copiedDirectory(ctx context.Context) error {
	victim := c.nodes[2]
	victim.kill()
	copied := filepath.Join(c.t.dir, "copied")
	if err := os.CopyFS(copied, os.DirFS(victim.dir)); err != nil {
		return fmt.Errorf("copy a data directory: %w", err)
	}
	for _, x := range []struct {
		what  string
		words []string
		with  func(n *node)
	}{
		{"another node's directory", []string{"refused", "data directory of another node"}, func(n *node) { n.flags = append(n.flags, "--id", "somebody") }},
		{"another cluster's directory", []string{"refused", "belongs to the cluster"}, func(n *node) { n.cluster = "another" }},
	} {
		n, err := c.stranger(victim.flags)
		if err != nil {
			return err
		}
		n.dir = victim.dir
		x.with(n)
		if err := n.start(); err != nil {
			return err
		}
		limited, cancel := context.WithTimeout(ctx, refuseWait)
		code, err := n.proc.wait(limited)
		cancel()
		if err != nil {
			n.kill()
			return fmt.Errorf("%s: the node does not end: %s", x.what, n.proc.printed())
		}
		c.t.wants(x.what, outcome{code: code, err: n.proc.printed()}, 11, x.words...)
	}
	if err := c.start(victim); err != nil {
		return err
	}
	if err := c.awaitReady(ctx, victim); err != nil {
		return err
	}
	return c.startCopy(ctx, copied, victim)
}

// startCopy starts a second process with a running node's id.
func (c *cluster) startCopy(ctx context.Context, dir string, original *node) error {
	n, err := c.stranger(original.flags)
	if err != nil {
		return err
	}
	n.dir = dir
	if err := n.start(); err != nil {
		return err
	}
	const word = "another process"
	said := func() string { return n.proc.printed() + "\n" + original.proc.printed() }
	err = await(ctx, refuseWait, "copy of a running node's directory", func(context.Context) error {
		if !strings.Contains(said(), word) {
			return fmt.Errorf("neither process says %q", word)
		}
		return nil
	})
	if err != nil {
		c.t.violate("%v: %s", err, said())
	}
	c.t.row("copy of a running node's directory", "%.200s", lineWith(said(), word))
	n.kill()
	return c.restart(ctx, original)
}

// restart kills a node, if it still runs, and starts it again.
func (c *cluster) restart(ctx context.Context, n *node) error {
	n.kill()
	if err := n.start(); err != nil {
		return err
	}
	if err := c.awaitReady(ctx, n); err != nil {
		return err
	}
	return c.awaitCaughtUp(ctx, tableName)
}

// damagedLog flips one byte in the middle of what a stopped node has synced. The
// node may start and be silent about what it lost, or refuse with a typed error.
func (c *cluster) damagedLog(ctx context.Context) error {
	const what = "damaged log"
	victim := c.nodes[2]
	victim.kill()
	where, err := flipByte(victim.dir)
	if err != nil {
		return err
	}
	if err := victim.start(); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, refuseWait)
	defer cancel()
	err = await(limited, refuseWait, what, func(ctx context.Context) error { return victim.ready(ctx) })
	var ended *endedError
	printed := victim.proc.printed()
	switch {
	case errors.As(err, &ended):
		code, _ := victim.proc.wait(ctx)
		c.t.wants(what, outcome{code: code, err: printed}, wantedCode(printed), "corrupt")
	case !strings.Contains(printed, "records lost on disk") && !strings.Contains(printed, "corrupt: "):
		c.t.violate("%s: a byte was changed at %s, and the node does not say that anything is damaged: %s", what, where, printed)
	default:
		c.t.row(what, "%s; ready: %v; %.200s", where, err == nil, cmp.Or(lineWith(printed, "records lost on disk"), lineWith(printed, "corrupt: ")))
	}
	return nil
}

// flipByte changes one byte of a record in the oldest log segment that holds
// any, and says where. A record is recognized by a key that fill has written.
func flipByte(dir string) (string, error) {
	var changed string
	err := filepath.WalkDir(filepath.Join(dir, "wal"), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || changed != "" {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		at := bytes.Index(b, fmt.Appendf(nil, "pair%04d", badPairs/2))
		if at < 0 {
			return nil
		}
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteAt([]byte{b[at] ^ 0xff}, int64(at))
		changed = fmt.Sprintf("byte %d of %s", at, filepath.Base(path))
		return errors.Join(err, f.Sync(), f.Close())
	})
	if err == nil && changed == "" {
		err = fmt.Errorf("no log segment in %s holds what was written", dir)
	}
	return changed, err
}
