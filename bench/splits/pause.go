package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"pando.dev/pando/actors"
	"pando.dev/pando/actors/client"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/kv"
)

// pauseAfter is how long behind its end gaps are counted to a split.
const pauseAfter = 250 * time.Millisecond

// pauseOptions are the flags of pause.
type pauseOptions struct {
	dir    string
	splits int
	rate   int
	state  int64
	trace  bool
}

// pauses is what is measured: per window the longest gap, and all latencies.
type pauses struct {
	stay, leave, calmStay, calmLeave             durations
	latStay, latLeave, latCalmStay, latCalmLeave durations
	took                                         durations
	phases                                       map[string]durations
	again                                        int // splits that were sealed in vain
}

// measurePause splits a partition again and again: what leaves is the last part of
// it, and from then on the part before leaves.
func measurePause(ctx context.Context, o pauseOptions, out io.Writer) (err error) {
	c, err := startCluster(ctx, o.dir, 3, 16<<20)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := c.close(); err == nil {
			err = cerr
		}
	}()
	g, err := c.table(ctx, 3)
	if err != nil {
		return err
	}
	if err := fill(ctx, c.client, o.splits+1, o.state); err != nil {
		return err
	}
	value := make([]byte, 128)
	stay := &writer{client: c.client, every: time.Second / time.Duration(o.rate), value: value}
	leave := &writer{client: c.client, every: time.Second / time.Duration(o.rate), value: value}
	first, last := partPrefix(0), partPrefix(o.splits)
	stay.prefix.Store(&first)
	leave.prefix.Store(&last)
	load, stop := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Go(func() { stay.run(load) })
	done.Go(func() { leave.run(load) })
	pause(ctx, time.Second)
	p := &pauses{phases: make(map[string]durations)}
	for i := o.splits; i > 0 && err == nil; i-- {
		err = p.once(ctx, c, g, i, stay, leave, o, out)
	}
	stop()
	done.Wait()
	if err == nil {
		p.print(out, o)
		fmt.Fprintf(out, "errors: %d %v, %d %v\n", stay.failed, stay.why, leave.failed, leave.why)
	}
	return err
}

// once makes one split, and then waits as long without one.
func (p *pauses) once(ctx context.Context, c *cluster, g partition.GroupID, i int, stay, leave *writer, o pauseOptions, out io.Writer) error {
	prefix := partPrefix(i)
	leave.prefix.Store(&prefix)
	pause(ctx, pauseAfter)
	info, from, ended, err := c.split(ctx, actors.SplitRequest{Group: g, At: [][]byte{[]byte(prefix)}, By: "bench"})
	if err != nil {
		return fmt.Errorf("split at %s: %w", prefix, err)
	}
	pause(ctx, pauseAfter)
	to := time.Now()
	pause(ctx, to.Sub(from))
	calm := time.Now()
	p.took = append(p.took, ended.Sub(from))
	gapStay, stayed := stay.gap(from, to)
	gapLeave, resumed := leave.gap(from, to)
	p.stay, p.leave = append(p.stay, gapStay), append(p.leave, gapLeave)
	if resumed.After(to) {
		to = resumed
	}
	gap, _ := stay.gap(to, calm)
	p.calmStay = append(p.calmStay, gap)
	gap, _ = leave.gap(to, calm)
	p.calmLeave = append(p.calmLeave, gap)
	p.latStay, p.latLeave = append(p.latStay, stay.latencies(from, to)...), append(p.latLeave, leave.latencies(from, to)...)
	p.latCalmStay, p.latCalmLeave = append(p.latCalmStay, stay.latencies(to, calm)...), append(p.latCalmLeave, leave.latencies(to, calm)...)
	hold := p.addPhases(c, from, leave, g, info.Pieces[0].Group, o.trace, out)
	if o.trace {
		fmt.Fprintf(out, "longest gaps: leaving %s until %s, retained %s until %s\n", ms(gapLeave), ms(resumed.Sub(hold)), ms(gapStay), ms(stayed.Sub(hold)))
	}
	return nil
}

// steps are what is told of a split, and of its child.
var (
	steps      = []string{"split propose seal", "split goes on seal", "split propose activate", "split goes on activate", "split goes on done"}
	childSteps = []string{"replica of a child made", "probes", "asks for the lock", "gathers", "leads", "became master", "serves"}
)

// addPhases adds when what happened, counted from the last hold. What each member
// does is told of the first, the second and so on; what several try, of the last.
func (p *pauses) addPhases(c *cluster, from time.Time, leave *writer, parent, child partition.GroupID, trace bool, out io.Writer) (hold time.Time) {
	for _, e := range c.events.since(from, parent) {
		switch e.what {
		case "split hold":
			hold = e.at
		case "split goes on unseal":
			p.again++
		}
	}
	at := make(map[string]time.Time)
	made := 0
	for _, g := range []partition.GroupID{parent, child} {
		for _, e := range c.events.since(from, g) {
			if trace {
				fmt.Fprintf(out, "%8s %s %s %s\n", ms(e.at.Sub(hold)), e.node, e.group, e.what)
			}
			switch {
			case g == child && e.what == childSteps[0]:
				made++
				at[fmt.Sprintf("child: made %d", made)] = e.at
			case g == child && slices.Contains(childSteps, e.what) && at["child: serves"].IsZero():
				at["child: "+e.what] = e.at
			case g == parent && slices.Contains(steps, e.what):
				at[e.what] = e.at
			}
		}
	}
	_, at["the end of the gap then"] = leave.gap(hold, at["child: serves"])
	for name, t := range at { // in no order: each on its own
		p.phases[name] = append(p.phases[name], t.Sub(hold))
	}
	return hold
}

func (p *pauses) print(out io.Writer, o pauseOptions) {
	fmt.Fprintf(out, "%d splits, %d MiB of state at first, two writers at %d/s, %d sealed in vain\n", len(p.took), o.state>>20, o.rate, p.again)
	fmt.Fprintf(out, "%-34s %8s %8s %8s %8s\n", "", "p50", "p90", "p99", "max")
	fmt.Fprintln(out, p.took.row("split, from asked to done"))
	fmt.Fprintln(out, p.leave.row("longest gap, leaving range"))
	fmt.Fprintln(out, p.calmLeave.row("  without a split"))
	fmt.Fprintln(out, p.stay.row("longest gap, retained range"))
	fmt.Fprintln(out, p.calmStay.row("  without a split"))
	fmt.Fprintln(out, p.latLeave.row("latency, leaving range"))
	fmt.Fprintln(out, p.latCalmLeave.row("  without a split"))
	fmt.Fprintln(out, p.latStay.row("latency, retained range"))
	fmt.Fprintln(out, p.latCalmStay.row("  without a split"))
	fmt.Fprintln(out, "from the hold to:")
	for _, name := range byTime(p.phases) {
		fmt.Fprintln(out, p.phases[name].row("  "+name))
	}
}

// partPrefix begins the keys of a part of the table.
func partPrefix(i int) string { return fmt.Sprintf("p%04d/", i) }

// fillBytes is the size of the values that fill writes.
const fillBytes = 4 << 10

// fillKey is the key of the value i.
func fillKey(i, parts int) []byte { return fmt.Appendf(nil, "%sf%08d", partPrefix(i%parts), i) }

// fill writes so many bytes that do not compress, evenly over the parts.
func fill(ctx context.Context, c *client.Client, parts int, size int64) error {
	var mu sync.Mutex
	var failed error
	var under sync.WaitGroup
	room := make(chan struct{}, 256)
	rng := rand.NewChaCha8([32]byte{1})
	for i := range int(size / fillBytes) {
		value := make([]byte, fillBytes)
		_, _ = rng.Read(value)
		key := fillKey(i, parts)
		cmd, err := kv.Put(key, value)
		if err != nil {
			return err
		}
		room <- struct{}{}
		under.Add(1)
		c.Go(ctx, tableName, key, cmd, func(_ client.Result, err error) {
			mu.Lock()
			if err != nil {
				failed = err
			}
			mu.Unlock()
			<-room
			under.Done()
		})
	}
	under.Wait()
	return failed
}

// pause waits, but not beyond the context.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
