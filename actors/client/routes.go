package client

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"pando.dev/pando/partition"
)

// Limits of routes. What exceeds them is refused by both sides.
const (
	maxTables     = 1 << 12
	maxPartitions = 1 << 20
	maxRouteNodes = 1 << 12
	maxNameBytes  = 255
	maxAddrBytes  = 255
	maxMembers    = 64
)

// Routes is what a client must know of the catalog: which group serves which
// keys, on which nodes, and where these are. It is immutable.
type Routes struct {
	Version uint64  // of the catalog; grows with every change
	Tables  []Table // ordered by Name
	Nodes   []Node
}

// Table is a table's part of the routes.
type Table struct {
	Name string
	Kind string // the partition kind, such as "kv"
	// Partitions are ordered by Lo, and neither overlap nor leave a gap.
	Partitions []Partition
}

// Partition is where one partition is served.
type Partition struct {
	Group        partition.GroupID
	Lo, Hi       []byte // as in partition.KeyRange
	RangeVersion partition.RangeVersion
	// Members are the nodes that may serve the partition: its full voters.
	Members []partition.NodeID
	// Resting are further nodes with its state, in maintenance: none of them is
	// or becomes master. They are asked for old states only, and last.
	Resting []partition.NodeID
	// Master is a hint: which of them probably is master, if known.
	Master partition.NodeID
}

// Range returns the partition's keys.
func (p *Partition) Range() partition.KeyRange { return partition.KeyRange{Lo: p.Lo, Hi: p.Hi} }

// Node is where a node answers clients.
type Node struct {
	ID   partition.NodeID
	Addr string // as the client's Dial takes it
	Zone string // "" if it has none
}

// Table returns the table of that name, or nil.
func (r *Routes) Table(name string) *Table {
	if i, ok := slices.BinarySearchFunc(r.Tables, name, func(t Table, n string) int { return cmp.Compare(t.Name, n) }); ok {
		return &r.Tables[i]
	}
	return nil
}

// Partition returns the partition that holds the key, or nil.
func (t *Table) Partition(key []byte) *Partition {
	i, ok := slices.BinarySearchFunc(t.Partitions, key, func(p Partition, k []byte) int { return bytes.Compare(p.Lo, k) })
	if !ok {
		i--
	}
	if i < 0 || !t.Partitions[i].Range().Contains(key) {
		return nil
	}
	return &t.Partitions[i]
}

// AppendRoutes encodes routes behind dst. It fails if they exceed a limit or
// are not in order.
//
// Every list and text is preceded by its length as a varint; members and master
// are numbers of nodes, the master's counted from 1 so that 0 means none.
func AppendRoutes(dst []byte, r *Routes) ([]byte, error) {
	if err := r.validate(); err != nil {
		return nil, err
	}
	start := len(dst)
	number := make(map[partition.NodeID]uint64, len(r.Nodes))
	dst = binary.AppendUvarint(dst, r.Version)
	dst = binary.AppendUvarint(dst, uint64(len(r.Nodes)))
	for i, n := range r.Nodes {
		number[n.ID] = uint64(i)
		dst = appendText(dst, n.ID)
		dst = appendText(dst, n.Addr)
		dst = appendText(dst, n.Zone)
	}
	dst = binary.AppendUvarint(dst, uint64(len(r.Tables)))
	for i := range r.Tables {
		t := &r.Tables[i]
		dst = appendText(dst, t.Name)
		dst = appendText(dst, t.Kind)
		dst = binary.AppendUvarint(dst, uint64(len(t.Partitions)))
		for j := range t.Partitions {
			dst = appendPartition(dst, &t.Partitions[j], number)
		}
	}
	if n := len(dst) - start; n > MaxAnswerBytes {
		return nil, partition.Errorf(partition.CodeTooLarge, "routes of %d bytes, limit %d", n, MaxAnswerBytes)
	}
	return dst, nil
}

func appendPartition(dst []byte, p *Partition, number map[partition.NodeID]uint64) []byte {
	dst = binary.AppendUvarint(dst, uint64(p.Group))
	dst = binary.AppendUvarint(dst, uint64(p.RangeVersion))
	dst = appendText(dst, p.Lo)
	dst = appendText(dst, p.Hi)
	for _, nodes := range [2][]partition.NodeID{p.Members, p.Resting} {
		dst = binary.AppendUvarint(dst, uint64(len(nodes)))
		for _, m := range nodes {
			dst = binary.AppendUvarint(dst, number[m])
		}
	}
	master := uint64(0)
	if n, ok := number[p.Master]; ok && p.Master != "" {
		master = n + 1
	}
	return binary.AppendUvarint(dst, master)
}

func appendText[T ~string | ~[]byte](dst []byte, s T) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

// ParseRoutes decodes routes that came from outside: every length is checked
// against what is there before room is made for it. The routes do not alias b.
func ParseRoutes(b []byte) (*Routes, error) {
	if len(b) > MaxAnswerBytes {
		return nil, partition.Errorf(partition.CodeTooLarge, "routes of %d bytes, limit %d", len(b), MaxAnswerBytes)
	}
	d := routeDecoder{b: bytes.Clone(b)}
	r := &Routes{Version: d.number()}
	// The smallest node has three bytes, the smallest table three, the smallest
	// partition seven.
	r.Nodes = make([]Node, d.count(maxRouteNodes, 3))
	for i := range r.Nodes {
		r.Nodes[i] = Node{
			ID: partition.NodeID(d.text(partition.MaxNodeIDBytes)), Addr: string(d.text(maxAddrBytes)),
			Zone: string(d.text(partition.MaxZoneBytes)),
		}
	}
	r.Tables = make([]Table, d.count(maxTables, 3))
	for i := range r.Tables {
		t := &r.Tables[i]
		t.Name, t.Kind = string(d.text(maxNameBytes)), string(d.text(maxNameBytes))
		t.Partitions = make([]Partition, d.count(maxPartitions, 7))
		for j := range t.Partitions {
			d.partition(&t.Partitions[j], r.Nodes)
		}
	}
	if d.err == "" && len(d.b) > 0 {
		d.err = fmt.Sprintf("%d bytes behind the end", len(d.b))
	}
	if d.err != "" {
		return nil, partition.Errorf(partition.CodeCorrupt, "routes: %s", d.err)
	}
	if err := r.validate(); err != nil {
		return nil, partition.Errorf(partition.CodeCorrupt, "routes: %s", err.Why)
	}
	return r, nil
}

// routeDecoder eats b; after the first error everything it returns is empty.
type routeDecoder struct {
	b   []byte
	err string
}

func (d *routeDecoder) fail(format string, args ...any) {
	if d.err == "" {
		d.err = fmt.Sprintf(format, args...)
	}
	d.b = nil
}

func (d *routeDecoder) number() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail("cut short")
		return 0
	}
	d.b = d.b[n:]
	return v
}

// count reads a list's length; each item takes at least size bytes.
func (d *routeDecoder) count(limit, size int) int {
	n := d.number()
	if n > uint64(limit) || n > uint64(len(d.b)/size) {
		d.fail("list of %d items, limit %d, %d bytes left", n, limit, len(d.b))
		return 0
	}
	return int(n)
}

func (d *routeDecoder) text(limit int) []byte {
	n := d.number()
	if n > uint64(limit) || n > uint64(len(d.b)) {
		d.fail("text of %d bytes, limit %d, %d bytes left", n, limit, len(d.b))
		return nil
	}
	s := d.b[:n:n]
	d.b = d.b[n:]
	return s
}

func (d *routeDecoder) partition(p *Partition, nodes []Node) {
	p.Group = partition.GroupID(d.number())
	p.RangeVersion = partition.RangeVersion(d.number())
	p.Lo, p.Hi = d.text(MaxKeyBytes), d.text(MaxKeyBytes)
	p.Members, p.Resting = d.list(nodes), d.list(nodes)
	if m := d.number(); m > 0 {
		p.Master = d.node(m-1, nodes)
	}
}

// list reads nodes; an empty one is nil.
func (d *routeDecoder) list(nodes []Node) []partition.NodeID {
	n := d.count(maxMembers, 1)
	if n == 0 {
		return nil
	}
	ids := make([]partition.NodeID, n)
	for i := range ids {
		ids[i] = d.node(d.number(), nodes)
	}
	return ids
}

func (d *routeDecoder) node(n uint64, nodes []Node) partition.NodeID {
	if n >= uint64(len(nodes)) {
		d.fail("node number %d of %d", n, len(nodes))
		return ""
	}
	return nodes[n].ID
}

// validate checks limits, order, and that members are known nodes.
func (r *Routes) validate() *partition.Error {
	bad := func(format string, args ...any) *partition.Error {
		return partition.Errorf(partition.CodeInvalid, format, args...)
	}
	if len(r.Nodes) > maxRouteNodes || len(r.Tables) > maxTables {
		return bad("%d nodes and %d tables, limits %d and %d", len(r.Nodes), len(r.Tables), maxRouteNodes, maxTables)
	}
	known := make(map[partition.NodeID]bool, len(r.Nodes))
	for _, n := range r.Nodes {
		if n.ID == "" || len(n.ID) > partition.MaxNodeIDBytes || len(n.Addr) > maxAddrBytes || len(n.Zone) > partition.MaxZoneBytes || known[n.ID] {
			return bad("node %.80q at %.80q in zone %.80q", n.ID, n.Addr, n.Zone)
		}
		known[n.ID] = true
	}
	total := 0
	for i := range r.Tables {
		t := &r.Tables[i]
		if t.Name == "" || len(t.Name) > maxNameBytes || len(t.Kind) > maxNameBytes || i > 0 && r.Tables[i-1].Name >= t.Name {
			return bad("table %.80q of kind %.80q is out of order or too long", t.Name, t.Kind)
		}
		if total += len(t.Partitions); total > maxPartitions {
			return bad("more than %d partitions", maxPartitions)
		}
		if err := t.validate(known); err != nil {
			return err
		}
	}
	return nil
}

// validate checks that the partitions follow each other without a gap and that
// their members are known nodes.
func (t *Table) validate(known map[partition.NodeID]bool) *partition.Error {
	for i := range t.Partitions {
		p := &t.Partitions[i]
		follows := i == 0 && len(p.Lo) == 0 || i > 0 && bytes.Equal(t.Partitions[i-1].Hi, p.Lo) && len(p.Lo) > 0
		last := i == len(t.Partitions)-1
		if p.Group == 0 || !follows || p.Range().Empty() || last != (len(p.Hi) == 0) || len(p.Lo) > MaxKeyBytes || len(p.Hi) > MaxKeyBytes {
			return partition.Errorf(partition.CodeInvalid, "table %q: partition %s %.200s does not follow the one before", t.Name, p.Group, p.Range())
		}
		if n := len(p.Members) + len(p.Resting); n > maxMembers {
			return partition.Errorf(partition.CodeInvalid, "partition %s has %d members, limit %d", p.Group, n, maxMembers)
		}
		for _, nodes := range [2][]partition.NodeID{p.Members, p.Resting} {
			for _, m := range nodes {
				if !known[m] {
					return partition.Errorf(partition.CodeInvalid, "partition %s is on node %.80q, which has no address", p.Group, m)
				}
			}
		}
	}
	return nil
}
