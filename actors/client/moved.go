package client

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"pando.dev/pando/partition"
)

// A replica that does not serve a key any more answers CodeWrongGroup and, in the
// body, the partitions that it knows in place of the one that was asked. So a
// client whose routes are old gets on with one more hop and without the catalog.
//
//	format u8=1 | nodes | partitions, both as in routes
const (
	movedFormat = 1
	maxMoved    = 64
	// maxLearned bounds what a client remembers of answers, and learnedFor for how
	// long: by then the catalog has it.
	maxLearned = 256
	learnedFor = 10 * time.Second
	// maxHops is how often in a row a call follows such answers.
	maxHops = 4
)

// Moved makes the answer to a request for keys that are elsewhere. Members of the
// partitions that are not among the nodes must not be named.
func Moved(why *partition.Error, nodes []Node, parts []Partition) *Response {
	r := ErrorResponse(why)
	number := make(map[partition.NodeID]uint64)
	var used []Node
	for i := range parts {
		for _, ids := range [][]partition.NodeID{parts[i].Members, parts[i].Resting} {
			for _, id := range ids {
				at := slices.IndexFunc(nodes, func(n Node) bool { return n.ID == id })
				if _, ok := number[id]; ok || at < 0 {
					continue
				}
				number[id] = uint64(len(used))
				used = append(used, nodes[at])
			}
		}
	}
	if len(parts) == 0 || len(parts) > maxMoved {
		return r
	}
	b := binary.AppendUvarint([]byte{movedFormat}, uint64(len(used)))
	for _, n := range used {
		b = appendText(appendText(appendText(b, n.ID), n.Addr), n.Zone)
	}
	b = binary.AppendUvarint(b, uint64(len(parts)))
	for i := range parts {
		b = appendPartition(b, &parts[i], number)
	}
	r.Body = b
	return r
}

// parseMoved reads what Moved has put into an answer. It does not alias b.
func parseMoved(b []byte) (nodes []Node, parts []Partition, err error) {
	if len(b) == 0 || b[0] != movedFormat {
		return nil, nil, partition.Errorf(partition.CodeNewerFormat, "an answer of where keys have gone that this program does not know")
	}
	d := routeDecoder{b: bytes.Clone(b[1:])}
	nodes = make([]Node, d.count(maxMoved*maxMembers, 3))
	for i := range nodes {
		nodes[i] = Node{
			ID: partition.NodeID(d.text(partition.MaxNodeIDBytes)), Addr: string(d.text(maxAddrBytes)),
			Zone: string(d.text(partition.MaxZoneBytes)),
		}
	}
	parts = make([]Partition, d.count(maxMoved, 7))
	for i := range parts {
		d.partition(&parts[i], nodes)
	}
	if d.err == "" && len(d.b) > 0 {
		d.err = fmt.Sprintf("%d bytes behind the end", len(d.b))
	}
	if d.err != "" {
		return nil, nil, partition.Errorf(partition.CodeCorrupt, "where keys have gone: %s", d.err)
	}
	return nodes, parts, nil
}

// learned is a partition that a replica has told of.
type learned struct {
	table string
	part  Partition
	nodes []Node
	at    time.Time
}

// overlay returns the routes with what was learned in the place of what is older;
// the same routes if nothing of it is newer, or if it does not fit.
func overlay(r *Routes, x *learned) *Routes {
	at := slices.IndexFunc(r.Tables, func(t Table) bool { return t.Name == x.table })
	if at < 0 {
		return r
	}
	parts := splice(r.Tables[at].Partitions, &x.part)
	if parts == nil {
		return r
	}
	next := *r
	next.Tables = slices.Clone(r.Tables)
	next.Tables[at].Partitions = parts
	next.Nodes = slices.Clone(r.Nodes)
	for _, n := range x.nodes {
		if !slices.ContainsFunc(next.Nodes, func(o Node) bool { return o.ID == n.ID }) {
			next.Nodes = append(next.Nodes, n)
		}
	}
	if next.validate() != nil {
		return r
	}
	return &next
}

// splice puts a partition in the place of older ones, of which it may leave some
// keys; nil if they are not all older. Range versions only rise along a lineage, so
// of two partitions with a key in common the one of the higher version is right.
func splice(old []Partition, p *Partition) []Partition {
	var out []Partition
	keys, placed := p.Range(), false
	for i := range old {
		q := old[i]
		r := q.Range()
		if r.Intersect(keys).Empty() {
			out = append(out, q)
			continue
		}
		if q.RangeVersion >= p.RangeVersion {
			return nil
		}
		if bytes.Compare(r.Lo, keys.Lo) < 0 {
			left := q
			left.Hi = keys.Lo
			out = append(out, left)
		}
		if !placed {
			out, placed = append(out, *p), true
		}
		if len(keys.Hi) > 0 && (len(r.Hi) == 0 || bytes.Compare(keys.Hi, r.Hi) < 0) {
			right := q
			right.Lo = keys.Hi
			out = append(out, right)
		}
	}
	if !placed {
		return nil
	}
	return out
}

// learn takes over what a replica has answered, never an older version.
func (c *Client) learn(table string, nodes []Node, parts []Partition) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	old := c.routing.Load()
	r := old.routes
	for i := range parts {
		x := learned{table: table, part: parts[i], nodes: nodes, at: now}
		if next := overlay(r, &x); next != r {
			r = next
			c.learned = append(c.learned, x)
		}
	}
	if extra := len(c.learned) - maxLearned; extra > 0 {
		c.learned = slices.Delete(c.learned, 0, extra)
	}
	if r != old.routes {
		c.routing.Store(c.routingLocked(r, old.number, old.asOf))
	}
}

// relearnLocked keeps what was learned while the catalog's routes are older.
func (c *Client) relearnLocked(r *Routes) *Routes {
	now := time.Now()
	c.learned = slices.DeleteFunc(c.learned, func(x learned) bool {
		next := overlay(r, &x)
		stays := next != r && now.Sub(x.at) < learnedFor
		if stays {
			r = next
		}
		return !stays
	})
	return r
}

// unlearn forgets what was learned of a group, since it is not where it was said
// to be: its table may have been dropped.
func (c *Client) unlearn(g partition.GroupID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.learned = slices.DeleteFunc(c.learned, func(x learned) bool { return x.part.Group == g })
}

// tableOf returns the name of the table that a group is of, "" if none is.
func (r *routing) tableOf(g partition.GroupID) string {
	for name, t := range r.tables { // in no order: a group is of one table
		if slices.ContainsFunc(t.routes, func(x route) bool { return x.Group == g }) {
			return name
		}
	}
	return ""
}

// redirected reports whether an answer leads the call elsewhere at once.
func (k *call) redirected(r *Response) bool {
	if r.Code != partition.CodeWrongGroup || len(r.Body) == 0 || k.hops >= maxHops {
		return false
	}
	nodes, parts, err := parseMoved(r.Body)
	if err != nil {
		k.c.cfg.Logger.Debug("answer not understood", "err", err)
		return false
	}
	k.c.learn(k.routing.tableOf(k.req.Group), nodes, parts)
	k.routing = k.c.routing.Load()
	rt := k.target()
	return rt != nil && (rt.group.id != k.req.Group || rt.RangeVersion != k.req.RangeVersion)
}
