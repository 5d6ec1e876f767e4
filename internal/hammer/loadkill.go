package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// corpus is a file to load, and what must be in the table afterwards.
type corpus struct {
	table, path, pkg string
	flags            []string // of pando load
	key              func(line string) string
	make             func(n int) string // a line, with --generated
	lines            int                // of the file that is made up
}

func corpora() []corpus {
	return []corpus{
		{
			table: "chars", path: "/usr/share/unicode/UnicodeData.txt", pkg: "unicode-data",
			flags: []string{"--delimiter", ";", "--key", "0"}, lines: 35_000,
			key:  func(line string) string { key, _, _ := strings.Cut(line, ";"); return key },
			make: func(n int) string { return fmt.Sprintf("%04X;MADE UP CHARACTER %d;Lo;0;L;;;;;N;;;;;", n, n) },
		},
		{
			table: "words", path: "/usr/share/dict/american-english", pkg: "wamerican", lines: 104_000,
			key:  func(line string) string { return line },
			make: func(n int) string { return fmt.Sprintf("word%x's", n*2654435761) },
		},
	}
}

// loadKill loads real files with pando load, kills the master's process in the
// middle, starts it again, and reads every line back.
func loadKill(ctx context.Context, t *trial) error {
	c, err := t.newCluster("n", 3, 3)
	if err != nil {
		return err
	}
	if err := c.up(ctx); err != nil {
		return err
	}
	for _, f := range corpora() {
		if err := f.prepare(t); err != nil {
			return err
		}
		want, err := f.read()
		if err != nil {
			return err
		}
		if err := c.createTable(ctx, f.table); err != nil {
			return err
		}
		if err := c.loadOnce(ctx, f, len(want)); err != nil {
			return fmt.Errorf("load %s: %w", f.path, err)
		}
		if err := c.compareExport(ctx, f, want); err != nil {
			return err
		}
		if err := c.compareScan(ctx, f, want); err != nil {
			return err
		}
	}
	return nil
}

// prepare makes the file up if that is asked for, and otherwise wants it.
func (f *corpus) prepare(t *trial) error {
	if !t.opts.generated {
		if _, err := os.Stat(f.path); err != nil {
			return fmt.Errorf("%w; install the Debian package %s, or give --generated to make the input up", err, f.pkg)
		}
		return nil
	}
	var b bytes.Buffer
	for n := range f.lines {
		fmt.Fprintln(&b, f.make(n))
	}
	f.path = filepath.Join(t.dir, f.table+".txt")
	t.row(f.table, "made up, not the real file")
	return os.WriteFile(f.path, b.Bytes(), 0o600)
}

// read returns the lines by key; of those with the same key the last one counts.
func (f *corpus) read() (map[string]string, error) {
	file, err := os.Open(f.path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	want := map[string]string{}
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		want[f.key(lines.Text())] = lines.Text()
	}
	return want, lines.Err()
}

// loadOnce runs one load. When a quarter is stored the master is killed and
// started again at once; at the half the loader itself is killed and its
// command repeated.
func (c *cluster) loadOnce(ctx context.Context, f corpus, lines int) error {
	args := append([]string{
		"load", f.table, f.path, "--addr", strings.Join(c.allHTTP(), ","), "--progress", filepath.Join(c.t.dir, f.table+".progress"),
		"--quiet", "-o", "json",
	}, f.flags...)
	empty, err := c.committed(ctx, f.table)
	if err != nil {
		return err
	}
	loader, err := c.t.start("load-"+f.table, args...)
	if err != nil {
		return err
	}
	at, err := c.awaitLoaded(ctx, loader, f.table, empty, lines/4)
	if err != nil {
		return err
	}
	n, _, err := c.master(ctx, f.table)
	if err != nil {
		return err
	}
	n.kill()
	if loader.ended() {
		return fmt.Errorf("the load was over before the master was killed")
	}
	if err := n.start(); err != nil {
		return err
	}
	c.t.row(f.table, "master %s killed and restarted after %d of %d records", n.name, at, lines)
	if at, err = c.awaitLoaded(ctx, loader, f.table, empty, lines/2); err != nil {
		return err
	}
	loader.kill()
	out, err := c.t.must(ctx, args...)
	if err != nil {
		return err
	}
	var r struct {
		Loaded           int64   `json:"loaded"`
		From             int64   `json:"resumed_from_line"`
		RecordsPerSecond float64 `json:"records_per_second"`
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		return fmt.Errorf("read the loader's report: %w", err)
	}
	c.t.row(f.table, "loader killed after %d records, went on from line %d; %d records in all, the rest at %.0f records/s", at, r.From, r.Loaded, r.RecordsPerSecond)
	return c.awaitReady(ctx, n)
}

// committed is how many records the table's partitions have committed.
func (c *cluster) committed(ctx context.Context, table string) (int, error) {
	ps, err := c.partitions(ctx, table)
	n := 0
	for _, p := range ps {
		n += int(p.Commit)
	}
	return n, err
}

// awaitLoaded waits until about so many records were stored by a loader that
// still runs, and returns how many.
func (c *cluster) awaitLoaded(ctx context.Context, loader *process, table string, empty, want int) (at int, err error) {
	err = await(ctx, 2*time.Minute, fmt.Sprintf("%d records are loaded", want), func(ctx context.Context) error {
		now, err := c.committed(ctx, table)
		at = now - empty
		switch {
		case loader.ended():
			return &endedError{fmt.Errorf("the load ended with %d of %d records: %s", at, want, loader.printed())}
		case err == nil && at < want:
			err = fmt.Errorf("%d so far", at)
		}
		return err
	})
	return at, err
}

// allHTTP lists the HTTP addresses of all nodes, running or not.
func (c *cluster) allHTTP() []string {
	var addrs []string
	for _, n := range c.nodes {
		addrs = append(addrs, n.http)
	}
	return addrs
}

// compareExport compares every line with what pando export writes.
func (c *cluster) compareExport(ctx context.Context, f corpus, want map[string]string) error {
	to := filepath.Join(c.t.dir, f.table+".export")
	if _, err := c.t.must(ctx, "export", f.table, "--addr", strings.Join(c.allHTTP(), ","), "--raw", "--quiet", "--to", to); err != nil {
		return err
	}
	exported := corpus{path: to, key: f.key}
	got, err := exported.read()
	if err != nil {
		return err
	}
	c.compareLines(f.table+" by pando export", want, got)
	return nil
}

// compareScan compares every line with what the client reads.
func (c *cluster) compareScan(ctx context.Context, f corpus, want map[string]string) error {
	s, err := openTable(ctx, c.name, f.table, c.links())
	if err != nil {
		return err
	}
	defer s.close()
	got, _, err := s.scan(ctx, "")
	if err != nil {
		return err
	}
	c.compareLines(f.table+" by the client", want, got)
	return nil
}

func (c *cluster) compareLines(what string, want, got map[string]string) {
	wrong := 0
	for key, line := range want {
		if got[key] != line {
			wrong++
			if wrong == 1 {
				c.t.violate("%s: key %q holds %q instead of %q", what, key, got[key], line)
			}
		}
	}
	if len(got) > len(want) {
		c.t.violate("%s: %d keys, %d were loaded", what, len(got), len(want))
	}
	c.t.row(what, "%d of %d lines byte-equal", len(want)-wrong, len(want))
}
