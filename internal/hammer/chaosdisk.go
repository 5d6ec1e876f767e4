//go:build linux

package main

import (
	"context"
	"errors"
	"time"

	"pando.dev/pando/internal/chaos"
	"pando.dev/pando/sim/fault"
)

// diskInjuries are what befalls the disks of nodes that run.
func diskInjuries() []injury {
	ms := time.Millisecond
	list := []injury{
		{class: fault.DiskStall, weight: 4, takes: 1, hold: [2]time.Duration{100 * ms, 3 * time.Second}, do: stallDisk},
		{class: fault.DiskFull, weight: 3, takes: 1, hold: [2]time.Duration{500 * ms, 5 * time.Second}, do: fillDisk},
		{class: fault.DiskReadOnly, weight: 4, takes: 1, live: true, hold: [2]time.Duration{200 * ms, 3 * time.Second}, do: deadDisk},
		{class: fault.SyncFail, weight: 4, takes: 1, live: true, hold: [2]time.Duration{500 * ms, 3 * time.Second}, do: failSyncs},
	}
	for i := range list {
		list[i].group, list[i].disk = "disk", true
	}
	return list
}

// stallDisk lets no sync return.
func stallDisk(_ context.Context, _ *nemesis, p *patient) (func(context.Context) error, error) {
	if err := p.disk.Freeze(); err != nil {
		return nil, err
	}
	return func(context.Context) error { return p.disk.Thaw() }, nil
}

// fillDisk leaves a node some kilobytes, or nothing.
func fillDisk(_ context.Context, n *nemesis, p *patient) (func(context.Context) error, error) {
	if err := p.disk.Fill(n.rng.Int64N(256 << 10)); err != nil {
		return nil, err
	}
	return func(context.Context) error { return p.disk.Free() }, nil
}

// deadDisk lets every read and write fail from now on. The process is stopped
// for that moment, as for a power cut.
func deadDisk(_ context.Context, n *nemesis, p *patient) (func(context.Context) error, error) {
	if err := p.freeze(); err != nil {
		return nil, err
	}
	chaos.Settle()
	if err := p.disk.Kill(); err != nil {
		return nil, err
	}
	n.powerCut++
	p.excused = true
	return n.replug(p), p.thaw()
}

// failSyncs lets syncs of what lies where nothing lay before fail once, and lose
// what they were for.
func failSyncs(_ context.Context, n *nemesis, p *patient) (func(context.Context) error, error) {
	if err := p.disk.BreakSyncs(); err != nil {
		return nil, err
	}
	p.excused = true
	replug := n.replug(p)
	return func(ctx context.Context) error {
		n.note("%s ended of its disk: %v", p.name, p.proc.ended())
		return errors.Join(p.disk.MendSyncs(), replug(ctx))
	}, nil
}

// replug is what heals a disk that has failed: the machine starts anew.
func (n *nemesis) replug(p *patient) func(context.Context) error {
	return func(context.Context) error {
		n.end(p)
		if err := p.disk.Revive(); err != nil {
			return err
		}
		return p.start()
	}
}
