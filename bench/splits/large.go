package main

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"pando.dev/pando/actors"
	"pando.dev/pando/actors/client"
	"pando.dev/pando/partition"
)

const (
	largeClients = 64
	largeParts   = 16 // of the keys; the upper half leaves
	// largeAfter is how long behind its end what happens is counted to a split: the
	// keys of others are removed then.
	largeAfter = 5 * time.Second
)

// largeOptions are the flags of large.
type largeOptions struct {
	dir      string
	state    int64
	replicas int
	newNodes bool
	rate     int // operations per second of each client
	calm     time.Duration
}

// mixed is the load: clients that read and write by turns, at a steady rate as long
// as they are answered in time. Their writes are counted by where the keys go.
type mixed struct {
	stay, leave, read writer
}

// measureLarge splits one large partition in the middle under load.
func measureLarge(ctx context.Context, o largeOptions, out io.Writer) (err error) {
	size := o.replicas
	if o.newNodes {
		size *= 2
	}
	c, err := startCluster(ctx, o.dir, size, 16<<20)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := c.close(); err == nil {
			err = cerr
		}
	}()
	g, err := c.table(ctx, o.replicas)
	if err != nil {
		return err
	}
	began, cpu := time.Now(), cpuTime()
	if err := fill(ctx, c.client, largeParts, o.state); err != nil {
		return err
	}
	filled := cpuTime() - cpu
	fmt.Fprintf(out, "%d MiB written to %d replicas in %s, %.1f s of CPU\n", o.state>>20, o.replicas, time.Since(began).Round(time.Second), filled.Seconds())
	pause(ctx, largeAfter)

	m := &mixed{}
	load, stop := context.WithCancel(ctx)
	var clients sync.WaitGroup
	for i := range largeClients {
		clients.Go(func() { m.run(load, c.client, uint64(i), o) })
	}
	pause(ctx, time.Second)
	calm, calmCPU := time.Now(), cpuTime()
	pause(ctx, o.calm)
	calmCPU = cpuTime() - calmCPU
	cpu = cpuTime()
	info, from, ended, err := c.split(ctx, actors.SplitRequest{Group: g, At: [][]byte{[]byte(partPrefix(largeParts / 2))}, NewNodes: o.newNodes, By: "bench"})
	if err == nil {
		shared, own := c.files(info.Pieces[0].Group, from)
		pause(ctx, largeAfter)
		to := time.Now()
		cpu = cpuTime() - cpu - time.Duration(float64(calmCPU)*to.Sub(from).Seconds()/o.calm.Seconds())
		m.print(out, calm, from, to)
		c.printLarge(out, from, ended, g, info.Pieces[0].Group)
		fmt.Fprintf(out, "files of the new partition when it was done: %d MiB linked, %d MiB of its own\n", shared>>20, own>>20)
		fmt.Fprintf(out, "CPU of the split beyond the load's: %.1f s, of writing the same half by commands: %.1f s\n", cpu.Seconds(), filled.Seconds()/2)
	}
	stop()
	clients.Wait()
	return err
}

// run is one client.
func (m *mixed) run(ctx context.Context, c *client.Client, seed uint64, o largeOptions) {
	rng := rand.New(rand.NewPCG(seed, 3))
	table := c.KV(tableName)
	value := make([]byte, 1024)
	keys := int(o.state / fillBytes)
	due := time.Now()
	for ctx.Err() == nil {
		if due = due.Add(time.Second / time.Duration(o.rate)); time.Until(due) > 0 {
			time.Sleep(time.Until(due))
		} else {
			due = time.Now()
		}
		i := rng.IntN(keys)
		key := fillKey(i, largeParts)
		at := time.Now()
		if rng.IntN(2) == 0 {
			_, err := table.Get(context.Background(), key)
			m.read.note(at, err)
			continue
		}
		_, err := table.Put(context.Background(), key, value)
		if i%largeParts < largeParts/2 {
			m.stay.note(at, err)
		} else {
			m.leave.note(at, err)
		}
	}
}

func (m *mixed) print(out io.Writer, calm, from, to time.Time) {
	fmt.Fprintf(out, "%-34s %8s %8s %8s %8s\n", "", "p50", "p90", "p99", "max")
	for _, x := range []struct {
		name string
		w    *writer
	}{{"writes, leaving range", &m.leave}, {"writes, retained range", &m.stay}, {"reads", &m.read}} {
		fmt.Fprintln(out, x.w.latencies(calm, from).row(x.name+", without"))
		fmt.Fprintln(out, x.w.latencies(from, to).row("  with the split"))
		was, _ := x.w.gap(calm, from)
		is, _ := x.w.gap(from, to)
		fmt.Fprintf(out, "  longest gap without %s ms, with the split %s ms; %d errors %v\n", ms(was), ms(is), x.w.failed, x.w.why)
	}
}

// printLarge prints how long which part of the split took.
func (c *cluster) printLarge(out io.Writer, from, ended time.Time, parent, child partition.GroupID) {
	var hold, serves, removed time.Time
	for _, e := range c.events.since(from, parent) {
		if e.what == "split hold" {
			hold = e.at
		}
	}
	for _, e := range c.events.since(from, child) {
		switch {
		case e.what == "serves" && serves.IsZero():
			serves = e.at
		case e.what == "keys of others removed":
			removed = e.at
		}
	}
	fmt.Fprintf(out, "split: asked to hold %s ms, hold to the new partition's first master %s ms, to done %s ms", ms(hold.Sub(from)), ms(serves.Sub(hold)), ms(ended.Sub(hold)))
	if !removed.IsZero() {
		fmt.Fprintf(out, ", keys of others removed %s ms later", ms(removed.Sub(ended)))
	}
	fmt.Fprintln(out)
}

// files sums up the tables of a group on all nodes: those that were there before a
// point in time, under whatever name, and those that were written since.
func (c *cluster) files(g partition.GroupID, from time.Time) (shared, own int64) {
	for i := range c.nodes {
		walk(filepath.Join(c.dir, fmt.Sprintf("n%d", i+1), "stores", g.String()), func(info fs.FileInfo) {
			switch {
			case !strings.HasSuffix(info.Name(), ".sst"):
			case info.ModTime().Before(from):
				shared += info.Size()
			default:
				own += info.Size()
			}
		})
	}
	return shared, own
}

// walk visits the files below a directory that stay there meanwhile.
func walk(dir string, visit func(fs.FileInfo)) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil
		}
		if info, err := d.Info(); err == nil {
			visit(info)
		}
		return nil
	})
}
