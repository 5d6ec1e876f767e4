package actors

import (
	"context"
	"errors"

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
	at, err := h.node.log.BaseAt(g, index)
	if err != nil {
		return copies.Base{}, err
	}
	return copies.Base{Position: at.Base, Sum: at.BaseSum, Configuration: at.Configuration}, nil
}
