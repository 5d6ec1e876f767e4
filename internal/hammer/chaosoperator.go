//go:build linux

package main

import (
	"context"
	"fmt"
	"time"

	"pando.dev/pando/actors"
	"pando.dev/pando/actors/httpapi"
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
		_, err := p.api().BeginDrain(ctx, actors.DrainOptions{Node: p.id, Reason: "chaos"})
		return err
	})
	return func(ctx context.Context) error { // before it is waited for: a drained node is not ready
		return await(ctx, drainWait, "undrain "+p.name, func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			_, err := p.api().BeginUndrain(ctx, p.id)
			return err
		})
	}, ctx.Err()
}

// altered changes a table until the end of the episode. Without a control group
// the change is not made.
func (n *nemesis) altered(ctx context.Context, f *front, to, back actors.TableChange) (func(context.Context) error, error) {
	alter := func(ctx context.Context, change actors.TableChange) error {
		return n.c.ask(ctx, func(ctx context.Context, api *httpapi.Client) error {
			_, err := api.AlterTable(ctx, f.name, change)
			return err
		})
	}
	limited, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	err := alter(limited, to)
	n.note("table %s is to become %+v: %.100v", f.name, to, err)
	n.owed = append(n.owed, func(ctx context.Context) error {
		return await(ctx, readyWait, fmt.Sprintf("table %s is to become %+v again", f.name, back), func(ctx context.Context) error { return alter(ctx, back) })
	})
	return func(context.Context) error { return nil }, ctx.Err()
}

// addMember lets a table have more replicas, removeMember fewer, and setPolicy
// another policy.
func addMember(ctx context.Context, n *nemesis, _ *patient) (func(context.Context) error, error) {
	f := n.fronts[0]
	return n.altered(ctx, f, actors.TableChange{Replicas: f.replicas + 1 + n.rng.IntN(labNodes-f.replicas)}, actors.TableChange{Replicas: f.replicas})
}

func removeMember(ctx context.Context, n *nemesis, _ *patient) (func(context.Context) error, error) {
	f := n.fronts[1]
	return n.altered(ctx, f, actors.TableChange{Replicas: f.replicas - 1 - n.rng.IntN(2)}, actors.TableChange{Replicas: f.replicas})
}

func setPolicy(ctx context.Context, n *nemesis, _ *patient) (func(context.Context) error, error) {
	if n.one(2) {
		return n.altered(ctx, n.fronts[2], actors.TableChange{Policy: "majority"}, actors.TableChange{Policy: "zones:2"})
	}
	return n.altered(ctx, n.fronts[1], actors.TableChange{Policy: "zones:2"}, actors.TableChange{Policy: "majority"})
}

// resign lets the masters on a node give up.
func resign(ctx context.Context, n *nemesis, p *patient) (func(context.Context) error, error) {
	nothing := func(context.Context) error { return nil }
	limited, cancel := context.WithTimeout(ctx, lookWait)
	defer cancel()
	ps, err := n.c.partitions(limited, "")
	if err != nil {
		return nothing, nil // nobody answers now
	}
	for _, q := range ps {
		if q.Master != p.id || !p.running() {
			continue
		}
		limited, cancel := context.WithTimeout(ctx, lookWait)
		_, err = p.api().BeginChange(limited, actors.PartitionChange{Kind: actors.ChangeTransfer, Group: q.Group})
		cancel()
		n.note("%s resigns from %s: %.100v", p.name, q.Group, err)
	}
	return nothing, nil
}

// replaceMember moves a drawn replica to where it fits. It may be refused.
func replaceMember(ctx context.Context, n *nemesis, _ *patient) (func(context.Context) error, error) {
	nothing := func(context.Context) error { return nil }
	limited, cancel := context.WithTimeout(ctx, lookWait)
	defer cancel()
	ps, err := n.c.partitions(limited, n.fronts[0].name)
	if err != nil {
		return nothing, nil // nobody answers now
	}
	p := ps[n.rng.IntN(len(ps))]
	r := p.Replicas[n.rng.IntN(len(p.Replicas))]
	err = n.c.ask(limited, func(ctx context.Context, api *httpapi.Client) error {
		_, err := api.BeginChange(ctx, actors.PartitionChange{Kind: actors.ChangeReplace, Group: p.Group, Replica: r.Replica})
		return err
	})
	n.note("%s replaces replica %d on %s: %.100v", p.Group, r.Replica, r.Node, err)
	return nothing, nil
}
