// Package copies brings the state of a replica from one node to another: the
// files of a checkpoint, over a bulk stream of their own, checked, taken up
// where they broke off, and at a bounded rate.
//
//	p, err := c.Fetch(ctx, Request{Group: g, From: source, MinIndex: i})
//	generation := engine.NextGeneration(g)
//	engine.Install(p.Dir, g, generation)
//	log.Append(wal.Write{Group: g, Replica: id, Install: p.Install(generation)}, done)
package copies
