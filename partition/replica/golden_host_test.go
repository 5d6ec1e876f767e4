package replica

import (
	"testing"

	"github.com/cockroachdb/datadriven"

	"pando.dev/pando/partition"
)

// host plays what hosts do with copies and logs.
func (g *golden) host(t *testing.T, d *datadriven.TestData) {
	w, id, from := g.w, replicaArg(t, d, 0), 0
	n := w.node(id)
	switch d.Cmd {
	case "make":
		log := image{first: 1, recs: w.check.committed[:1:1]}
		if d.HasArg("copy") {
			d.ScanArgs(t, "copy", &from)
			o := w.node(partition.ReplicaID(from))
			at := o.state.applied
			if d.HasArg("log") {
				at = o.rep.everywhere
			}
			log = w.check.copyOf(at)
			n = w.addNode(id, log)
			n.flushed = o.state.clone()
		} else {
			n = w.addNode(id, log)
		}
		n.logOnly = d.HasArg("log")
		n.boots()
	case "give":
		d.ScanArgs(t, "from", &from)
		o := w.node(partition.ReplicaID(from))
		n.logOnly = false
		n.install(w.check.copyOf(o.state.applied), o.state.clone())
	case "truncate":
		n.flushed = n.state.clone()
		first := n.state.applied + 1
		if n.logOnly {
			first = min(first, n.rep.everywhere+1)
		}
		w.check.truncated = true
		n.disk.synced.truncate(first)
		n.disk.seen.truncate(first)
		n.take(Truncated{First: first})
		w.printf("the log of %d begins at %d", id, first)
	}
}

// recover gives a replica an operator's decree, with a permit of the control group.
func (g *golden) recover(t *testing.T, n *node, d *datadriven.TestData) {
	p := &g.w.lock.permit
	next := n.rep.log.newest().Membership.Successor()
	p.number, p.holder, p.able, p.next = p.number+1, n, nil, next.Next
	next.Alone, next.Permit = p.number, p.number
	for i := len(next.Members) - 1; i >= 0; i-- {
		kept := false
		for _, a := range d.CmdArgs {
			for j := range a.Vals {
				id := 0
				a.Scan(t, j, &id)
				kept = kept || next.Members[i].Replica == partition.ReplicaID(id)
			}
		}
		if !kept {
			next.Remove(next.Members[i].Replica)
		}
	}
	c := g.w.check
	c.nextID++
	c.decreed = true
	c.ops[c.nextID] = &op{opens: true, node: n, floor: c.floor, done: func(r *Reply, _ Result) {
		if r.Err != nil {
			g.w.printf("operator: not recovered: %v", r.Err)
		} else {
			g.w.printf("operator: recovered by the record at %d", r.Index)
		}
	}}
	n.take(Recover{ID: c.nextID, Membership: next})
}
