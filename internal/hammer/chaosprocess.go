//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"pando.dev/pando/internal/chaos"
	"pando.dev/pando/sim/fault"
)

// processInjuries are what befalls processes and whole machines.
func processInjuries() []injury {
	ms := time.Millisecond
	return []injury{
		{class: fault.Kill, group: "kill", weight: 12, takes: 1, hold: [2]time.Duration{0, 700 * ms}, do: kill},
		{class: fault.KillFast, group: "kill", weight: 14, do: killFast},
		{class: fault.KillMany, group: "kill", weight: 6, takes: 2, hold: [2]time.Duration{0, 500 * ms}, do: killMany(2, 2)},
		{class: fault.KillMany, group: "kill", weight: 10, takes: labNodes, hold: [2]time.Duration{0, 300 * ms}, do: killMany(3, labNodes)},
		{class: fault.PowerCut, group: "power-cut", weight: 12, disk: true, takes: 1, hold: [2]time.Duration{0, 500 * ms}, do: powerCut(1, 1, false)},
		{class: fault.TornWrite, group: "power-cut", weight: 6, disk: true, takes: 1, hold: [2]time.Duration{0, 500 * ms}, do: powerCut(1, 1, true)},
		{class: fault.PowerCutMany, group: "power-cut", weight: 4, disk: true, takes: 2, hold: [2]time.Duration{0, 300 * ms}, do: powerCut(2, 2, true)},
		{class: fault.PowerCutMany, group: "power-cut", weight: 10, disk: true, takes: labNodes, hold: [2]time.Duration{0, 300 * ms}, do: powerCut(3, labNodes, true)},
		{class: fault.Pause, group: "process", weight: 8, takes: 1, hold: [2]time.Duration{50 * ms, 2 * time.Second}, do: freeze},
		{class: fault.Freeze, group: "process", weight: 3, takes: 1, live: true, hold: [2]time.Duration{3 * time.Second, 15 * time.Second}, do: freeze},
		{class: fault.Starve, group: "process", weight: 3, takes: 1, hold: [2]time.Duration{time.Second, 3 * time.Second}, do: starve},
		{class: fault.Restart, group: "process", weight: 3, takes: 1, hold: [2]time.Duration{0, 500 * ms}, do: restartOne},
		{class: fault.Rolling, group: "process", weight: 1, takes: 1, alone: true, do: rollingRestart},
		{class: fault.ControlDown, group: "process", weight: 2, takes: 2, hold: [2]time.Duration{500 * ms, 3 * time.Second}, do: controlPaused},
		{class: fault.Transfer, group: "operator", weight: 3, do: transferSome},
		{class: fault.AddMember, group: "operator", weight: 1, hold: [2]time.Duration{500 * ms, 4 * time.Second}, do: addMember},
		{class: fault.RemoveMember, group: "operator", weight: 1, hold: [2]time.Duration{500 * ms, 4 * time.Second}, do: removeMember},
		{class: fault.SetPolicy, group: "operator", weight: 1, hold: [2]time.Duration{500 * ms, 4 * time.Second}, do: setPolicy},
		{class: fault.Resign, group: "operator", weight: 1, do: resign},
		{class: fault.ReplaceMember, group: "operator", weight: 1, hold: [2]time.Duration{0, 2 * time.Second}, do: replaceMember},
		{class: fault.Drain, group: "operator", weight: 1, takes: 1, alone: true, hold: [2]time.Duration{500 * ms, 2 * time.Second}, do: drain},
	}
}

// end kills a process that runs.
func (n *nemesis) end(p *patient) {
	if !p.proc.ended() {
		n.killed++
	}
	p.kill()
}

// startAll starts nodes one after the other with drawn pauses.
func (n *nemesis) startAll(ctx context.Context, nodes []*patient) error {
	n.rng.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
	for _, p := range nodes {
		if !n.one(3) {
			if err := pause(ctx, n.between(0, 200*time.Millisecond)); err != nil {
				return err
			}
		}
		if err := p.start(); err != nil {
			return err
		}
	}
	return nil
}

func kill(_ context.Context, n *nemesis, p *patient) (func(context.Context) error, error) {
	n.end(p)
	return func(context.Context) error { return p.start() }, nil
}

// killFast kills a node and starts it at once, and does the same once more while
// it replays, or soon after.
func killFast(ctx context.Context, n *nemesis, p *patient) (func(context.Context) error, error) {
	for range 1 + n.rng.IntN(8) {
		n.end(p)
		if err := p.start(); err != nil {
			return nil, err
		}
		if err := pause(ctx, n.between(0, 400*time.Millisecond)); err != nil {
			return nil, err
		}
	}
	return func(context.Context) error { return nil }, nil
}

// some takes the node and others that nothing is done to.
func (n *nemesis) some(p *patient, lo, hi int) []*patient {
	nodes := []*patient{p}
	want := lo + n.rng.IntN(hi-lo+1)
	for _, q := range n.others(p) {
		if len(nodes) < want && !q.busy {
			q.busy = true
			nodes = append(nodes, q)
		}
	}
	return nodes
}

type deed func(context.Context, *nemesis, *patient) (func(context.Context) error, error)

func killMany(lo, hi int) deed {
	return func(_ context.Context, n *nemesis, p *patient) (func(context.Context) error, error) {
		nodes := n.some(p, lo, hi)
		for _, q := range nodes {
			if !q.proc.ended() {
				n.killed++
			}
			if err := q.proc.signal(syscall.SIGKILL); err != nil {
				return nil, err
			}
		}
		for _, q := range nodes {
			q.kill() // waits for the end
		}
		return func(ctx context.Context) error { return n.startAll(ctx, nodes) }, nil
	}
}

// powerCut takes the power of machines: all processes are stopped first and their
// syncs come to an end, for one that the cut overtakes would be a lie. With torn,
// some sectors survive of what was written to the log and not synced.
func powerCut(lo, hi int, torn bool) deed {
	return func(_ context.Context, n *nemesis, p *patient) (func(context.Context) error, error) {
		nodes := n.some(p, lo, hi)
		if err := n.powerOff(nodes, torn); err != nil {
			return nil, err
		}
		return func(ctx context.Context) error { return n.startAll(ctx, nodes) }, nil
	}
}

// powerOff leaves the nodes dead, with their disks as they are after a start.
func (n *nemesis) powerOff(nodes []*patient, torn bool) error {
	for _, q := range nodes {
		if err := q.freeze(); err != nil {
			return err
		}
	}
	chaos.Settle()
	logs := make([]map[string][]byte, len(nodes))
	for i, q := range nodes {
		if torn {
			logs[i] = readLogs(q.dir)
		}
		if err := q.disk.Kill(); err != nil {
			return err
		}
		n.powerCut++
	}
	for i, q := range nodes {
		q.kill()
		if err := q.disk.Revive(); err != nil {
			return err
		}
		if err := n.tear(logs[i]); err != nil {
			return fmt.Errorf("tear writes of %s: %w", q.name, err)
		}
	}
	return nil
}

// readLogs reads the log segments as the processes see them, synced or not.
func readLogs(dir string) map[string][]byte {
	logs := map[string][]byte{}
	paths, _ := filepath.Glob(filepath.Join(dir, "wal", "*.wal")) // the pattern is right
	for _, path := range paths {
		if b, err := os.ReadFile(path); err == nil {
			logs[path] = b
		}
	}
	return logs
}

// sector is what a disk writes as a whole.
const sector = 512

// tear writes some of the sectors that were lost.
func (n *nemesis) tear(logs map[string][]byte) error {
	for path, before := range logs { // each on its own; the drawing follows the disk
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if errors.Is(err, os.ErrNotExist) {
			continue // made and not synced
		}
		if err != nil {
			return err
		}
		err = n.tearFile(f, before)
		if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	return nil
}

func (n *nemesis) tearFile(f *os.File, before []byte) error {
	after := make([]byte, len(before))
	got, err := f.ReadAt(after, 0)
	if got != len(before) {
		return nil // its size was not synced, so nothing behind it can be there
	}
	if err != nil {
		return err
	}
	for at := 0; at < len(before); at += sector {
		end := min(at+sector, len(before))
		if string(before[at:end]) == string(after[at:end]) || n.one(2) {
			continue
		}
		if _, err := f.WriteAt(before[at:end], int64(at)); err != nil {
			return err
		}
	}
	return nil
}

func freeze(_ context.Context, _ *nemesis, p *patient) (func(context.Context) error, error) {
	return func(context.Context) error { return p.thaw() }, p.freeze()
}

// starve lets a process run for a fifth of the time.
func starve(_ context.Context, _ *nemesis, p *patient) (func(context.Context) error, error) {
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		proc := p.proc
		for {
			for _, s := range []struct {
				signal syscall.Signal
				lasts  time.Duration
			}{{syscall.SIGSTOP, 40 * time.Millisecond}, {syscall.SIGCONT, 10 * time.Millisecond}} {
				if err := proc.signal(s.signal); err != nil {
					done <- err
					return
				}
				select {
				case <-time.After(s.lasts):
				case <-stop:
					done <- proc.signal(syscall.SIGCONT)
					return
				}
			}
		}
	}()
	return func(context.Context) error {
		close(stop)
		return <-done
	}, nil
}

// stopInOrder ends a node with SIGTERM; one that takes too long is killed, as an
// operator's tools would.
func (n *nemesis) stopInOrder(ctx context.Context, p *patient) error {
	if err := p.proc.signal(syscall.SIGTERM); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, drainWait)
	defer cancel()
	code, err := p.proc.wait(limited)
	if err != nil {
		n.t.violate("%s does not end within %s of SIGTERM: %s", p.name, drainWait, p.proc.printed())
		n.end(p)
		return ctx.Err()
	}
	if code != 0 {
		n.t.violate("%s ended with exit code %d after SIGTERM: %s", p.name, code, p.proc.printed())
	}
	return nil
}

func restartOne(ctx context.Context, n *nemesis, p *patient) (func(context.Context) error, error) {
	return func(context.Context) error { return p.start() }, n.stopInOrder(ctx, p)
}

func rollingRestart(ctx context.Context, n *nemesis, p *patient) (func(context.Context) error, error) {
	for _, q := range append([]*patient{p}, n.others(p)...) {
		if q.busy && q != p {
			continue
		}
		if err := n.stopInOrder(ctx, q); err != nil {
			return nil, err
		}
		if err := q.start(); err != nil {
			return nil, err
		}
		if err := n.c.awaitReady(ctx, q.node); err != nil {
			return nil, err
		}
	}
	return func(context.Context) error { return nil }, nil
}

// controlPaused stops a majority of the seats.
func controlPaused(_ context.Context, n *nemesis, _ *patient) (func(context.Context) error, error) {
	var stopped []*patient
	var err error
	for _, q := range n.l.nodes[:labSeats] {
		if len(stopped) < 2 && !q.proc.ended() && !q.frozen {
			q.busy = true
			err = errors.Join(err, q.freeze())
			stopped = append(stopped, q)
		}
	}
	return func(context.Context) (err error) {
		for _, q := range stopped {
			err = errors.Join(err, q.thaw())
		}
		return err
	}, err
}
