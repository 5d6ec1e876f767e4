//go:build linux

package main

import (
	"context"
	"time"

	"pando.dev/pando/actors"
)

// transferSome hands masterships to drawn members. It may be refused.
func transferSome(ctx context.Context, n *nemesis, _ *patient) (func(context.Context) error, error) {
	nothing := func(context.Context) error { return nil }
	limited, cancel := context.WithTimeout(ctx, lookWait)
	defer cancel()
	ps, err := n.c.partitions(limited, "")
	if err != nil {
		return nothing, nil // nobody answers now
	}
	for range 1 + n.rng.IntN(len(ps)) {
		p := ps[n.rng.IntN(len(ps))]
		to := p.Replicas[n.rng.IntN(len(p.Replicas))].Node
		master, err := n.c.byID(p.Master)
		if err != nil || !master.running() {
			continue
		}
		limited, cancel := context.WithTimeout(ctx, lookWait)
		_, err = master.api().BeginChange(limited, actors.PartitionChange{Kind: actors.ChangeTransfer, Group: p.Group, Node: to})
		cancel()
		n.note("%s handed from %s to %s: %.100v", p.Group, p.Master, to, err)
	}
	return nothing, nil
}

// drain takes a node out of service and back.
func drain(ctx context.Context, n *nemesis, p *patient) (func(context.Context) error, error) {
	ask := func(what string, do func(context.Context) error) {
		limited, cancel := context.WithTimeout(ctx, askWait)
		defer cancel()
		if err := do(limited); err != nil {
			n.note("%s: %.200v", what, err)
		}
	}
	ask("drain "+p.name, func(ctx context.Context) error {
		_, err := p.api().BeginDrain(ctx, actors.DrainOptions{Reason: "chaos"})
		return err
	})
	return func(ctx context.Context) error {
		// It must come back, so it is asked until it does.
		return await(ctx, drainWait, "undrain "+p.name, func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			_, err := p.api().BeginUndrain(ctx, p.id)
			return err
		})
	}, nil
}
