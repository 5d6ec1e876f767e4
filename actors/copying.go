package actors

import (
	"context"
	"errors"
	"fmt"

	"pando.dev/pando/actors/copies"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/store"
)

// copyHost serves the state of this node's replicas to those that copy it.
type copyHost struct{ node *Node }

var _ copies.Host = copyHost{}

// Checkpoint implements copies.Host.
func (h copyHost) Checkpoint(ctx context.Context, g partition.GroupID, dir string) (store.Manifest, error) {
	c := h.node.cells.get(g)
	if c == nil {
		return store.Manifest{}, partition.Errorf(partition.CodeNotFound, "node %s has no replica of %s", h.node.ID(), g)
	}
	st := c.state.Load()
	if st == nil {
		return store.Manifest{}, partition.Errorf(partition.CodeUnavailable, "the replica of %s on node %s has no state open", g, h.node.ID())
	}
	m, err := st.store.Checkpoint(ctx, dir)
	if errors.Is(err, partition.ErrCorrupt) {
		st.damaged(err)
	}
	return m, err
}

// Describe implements copies.Host.
func (h copyHost) Describe(g partition.GroupID, index partition.Index) (copies.Base, error) {
	sum, ok := h.node.log.Summary(g)
	if !ok {
		return copies.Base{}, partition.Errorf(partition.CodeNotFound, "node %s has no log of %s", h.node.ID(), g)
	}
	var b copies.Base
	for _, rec := range sum.Configurations {
		if rec.Index() <= index {
			b.Configuration = rec
		}
	}
	if b.Configuration == nil {
		return copies.Base{}, partition.Errorf(partition.CodeNotFound, "the log of %s does not tell the configuration at %d", g, index)
	}
	switch {
	case index == sum.Last:
		b.Position, b.Sum = sum.End, sum.LastSum
	case index+1 == sum.First:
		recs, err := h.node.log.Read(g, sum.First, sum.First, 1)
		if err != nil {
			return copies.Base{}, fmt.Errorf("read record %d of %s: %w", sum.First, g, err)
		}
		b.Position, b.Sum = sum.Before, recs[0].Prev()
	case index < sum.First:
		return copies.Base{}, partition.Errorf(partition.CodeNotFound, "the log of %s begins at %d", g, sum.First)
	default:
		recs, err := h.node.log.Read(g, index, index, 1)
		if err != nil {
			return copies.Base{}, fmt.Errorf("read record %d of %s: %w", index, g, err)
		}
		b.Position, b.Sum = recs[0].Position(), recs[0].Checksum()
	}
	return b, nil
}
