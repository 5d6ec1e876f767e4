package control

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"

	"pando.dev/pando/cluster/placement"
	"pando.dev/pando/partition"
)

// validateTable refuses what can never be a table.
func validateTable(t *tableBody) *partition.Error {
	if err := validateName("table name", t.Name); err != nil {
		return err
	}
	if err := validateName("partition kind", t.Kind); err != nil {
		return err
	}
	if t.Replicas < 1 || t.Replicas > partition.MaxMembers {
		return partition.Errorf(partition.CodeInvalid, "%d replicas, allowed are 1 to %d", t.Replicas, partition.MaxMembers)
	}
	return validateSplits(t.Splits)
}

// validateName allows what can stand in a path, a URL and a metric without
// quotes.
func validateName(what, s string) *partition.Error {
	if s == "" || len(s) > MaxNameBytes {
		return partition.Errorf(partition.CodeInvalid, "%s %.64q has %d bytes, allowed are 1 to %d", what, s, len(s), MaxNameBytes)
	}
	for i, c := range []byte(s) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || !strings.ContainsRune("-_.", rune(c))) {
			return partition.Errorf(partition.CodeInvalid, "%s %q: letters, digits, '-', '_' and '.' are allowed, beginning with a letter or digit", what, s)
		}
	}
	return nil
}

func validateSplits(splits [][]byte) *partition.Error {
	if len(splits) > MaxSplitPoints {
		return partition.Errorf(partition.CodeTooLarge, "%d split points, limit %d", len(splits), MaxSplitPoints)
	}
	total := 0
	for i, k := range splits {
		total += len(k)
		switch {
		case len(k) == 0:
			return partition.Errorf(partition.CodeInvalid, "split point %d is empty", i+1)
		case len(k) > MaxKeyBytes:
			return partition.Errorf(partition.CodeTooLarge, "split point %d has %d bytes, limit %d", i+1, len(k), MaxKeyBytes)
		case i > 0 && bytes.Compare(splits[i-1], k) >= 0:
			return partition.Errorf(partition.CodeInvalid, "split points must be in strictly ascending order: %.64q is not behind %.64q", k, splits[i-1])
		}
	}
	if total > MaxSplitBytes {
		return partition.Errorf(partition.CodeTooLarge, "split points of %d bytes together, limit %d", total, MaxSplitBytes)
	}
	return nil
}

// splitRange is the i-th of the ranges between the split points.
func splitRange(splits [][]byte, i int) partition.KeyRange {
	var r partition.KeyRange
	if i > 0 {
		r.Lo = splits[i-1]
	}
	if i < len(splits) {
		r.Hi = splits[i]
	}
	return r
}

// prepareCreate places the groups of a new table; the leader calls it.
func prepareCreate(ask *askCreate, first partition.GroupID) (*createBody, error) {
	if err := validateTable(&ask.Table); err != nil {
		return nil, err
	}
	policy := partition.Policy{Rule: ask.Table.Rule, Zones: ask.Table.Zones}
	if err := checkNodes(ask.Table.Replicas, policy, ask.Nodes); err != nil {
		return nil, err
	}
	if len(ask.Nodes) > MaxPlacementNodes {
		return nil, partition.Errorf(partition.CodeTooLarge, "%d nodes to place a table on, limit %d", len(ask.Nodes), MaxPlacementNodes)
	}
	nodes := make([]placement.Node, len(ask.Nodes))
	index := make(map[partition.NodeID]uint16, len(nodes))
	for i, n := range ask.Nodes {
		nodes[i] = placement.Node{ID: n.Node, Zone: n.Zone, Weight: n.Weight}
		index[n.Node] = uint16(i)
	}
	b := &createBody{Table: ask.Table, Nodes: ask.Nodes, First: first}
	for i := range len(ask.Table.Splits) + 1 {
		chosen, err := placement.Place(first+partition.GroupID(i), nodes, ask.Table.Replicas)
		if err != nil {
			return nil, fmt.Errorf("place table %q: %w", ask.Table.Name, err)
		}
		for _, id := range chosen {
			b.Assign = binary.BigEndian.AppendUint16(b.Assign, index[id])
		}
	}
	// The first group stands for all: each has a node of as many zones as there
	// can be, so what one of them can commit, and fail over to, all can.
	if _, err := memberships(b, policy, 0); err != nil {
		return nil, err
	}
	return b, nil
}

// memberships returns the first configuration of the i-th group of a create
// command.
func memberships(b *createBody, policy partition.Policy, i int) (*partition.Membership, *partition.Error) {
	rf := b.Table.Replicas
	if len(b.Assign) != 2*rf*(len(b.Table.Splits)+1) {
		return nil, partition.Errorf(partition.CodeInvalid, "an assignment of %d bytes for %d groups of %d replicas", len(b.Assign), len(b.Table.Splits)+1, rf)
	}
	m := &partition.Membership{Version: 1, Policy: policy, Next: partition.ReplicaID(rf + 1)}
	for r := range rf {
		n := int(binary.BigEndian.Uint16(b.Assign[2*(i*rf+r):]))
		if n >= len(b.Nodes) {
			return nil, partition.Errorf(partition.CodeInvalid, "an assignment to node %d of %d", n, len(b.Nodes))
		}
		m.Members = append(m.Members, partition.Member{
			Replica: partition.ReplicaID(r + 1), Node: b.Nodes[n].Node, Zone: b.Nodes[n].Zone,
			Kind: partition.Full, Eligible: true,
		})
	}
	if err := m.Validate(); err != nil {
		return nil, asError(err)
	}
	return m, nil
}

// digestOf tells whether two requests with the same token are the same request.
func digestOf(t *tableBody) uint32 {
	b := fmt.Appendf(nil, "create\x00%q %q %d %d %d", t.Name, t.Kind, t.Replicas, t.Rule, t.Zones)
	for _, k := range t.Splits {
		b = fmt.Appendf(b, " %q", k)
	}
	return partition.Checksum(b)
}

// groupOf reads a group from untrusted bytes.
func groupOf(u *groupItem) (*Group, *partition.Error) {
	g := &Group{
		ID: u.ID, Table: u.Table, RangeVersion: u.RangeVersion, Master: u.Master, Epoch: u.Epoch, Changed: u.Changed,
		Membership: &partition.Membership{},
	}
	if err := g.Membership.UnmarshalBinary(u.Membership); err != nil {
		return nil, asError(err)
	}
	if len(u.Lo) > MaxKeyBytes || len(u.Hi) > MaxKeyBytes || len(u.Master) > partition.MaxNodeIDBytes {
		return nil, partition.Errorf(partition.CodeTooLarge, "%s: bounds of %d and %d bytes (limit %d), a master of %d (limit %d)",
			u.ID, len(u.Lo), len(u.Hi), MaxKeyBytes, len(u.Master), partition.MaxNodeIDBytes)
	}
	// Equal ranges must be equal values, so an open bound is always nil.
	if len(u.Lo) > 0 {
		g.Range.Lo = u.Lo
	}
	if len(u.Hi) > 0 {
		g.Range.Hi = u.Hi
	}
	if g.ID == 0 || g.Range.Empty() || g.RangeVersion == 0 {
		return nil, partition.Errorf(partition.CodeInvalid, "%s: range %s, range version %d", u.ID, g.Range, g.RangeVersion)
	}
	return g, nil
}

func sameRange(a, b partition.KeyRange) bool {
	return bytes.Equal(a.Lo, b.Lo) && bytes.Equal(a.Hi, b.Hi)
}

// itemOf is the form of a group that is sent and kept.
func itemOf(g *Group) groupItem {
	m, _ := g.Membership.AppendBinary(nil) // never fails
	return groupItem{
		ID: g.ID, Table: g.Table, Lo: g.Range.Lo, Hi: g.Range.Hi, RangeVersion: g.RangeVersion,
		Membership: m, Master: g.Master, Epoch: g.Epoch, Changed: g.Changed,
	}
}

// tableOf reads a table from untrusted bytes.
func tableOf(t *tableItem) (*Table, *partition.Error) {
	if err := validateTable(&tableBody{Name: t.Name, Kind: t.Kind, Replicas: t.Replicas}); err != nil {
		return nil, err
	}
	if t.ID == 0 {
		return nil, partition.Errorf(partition.CodeInvalid, "table %q has no id", t.Name)
	}
	return &Table{
		ID: t.ID, Name: t.Name, Kind: t.Kind, Replicas: t.Replicas,
		Policy: partition.Policy{Rule: t.Rule, Zones: t.Zones}, Changed: t.Changed,
	}, nil
}

func tableItemOf(t *Table) tableItem {
	return tableItem{
		ID: t.ID, Name: t.Name, Kind: t.Kind, Replicas: t.Replicas,
		Rule: t.Policy.Rule, Zones: t.Policy.Zones, Changed: t.Changed,
	}
}

// asError returns the typed error in err's chain, or wraps err as an internal
// one.
func asError(err error) *partition.Error {
	if err == nil {
		return nil
	}
	e := &partition.Error{Code: partition.CodeOf(err), Why: err.Error()}
	if typed, ok := err.(*partition.Error); ok {
		e = typed
	}
	return e
}

func toItem(e *partition.Error) *errorItem {
	if e == nil {
		return nil
	}
	return &errorItem{Code: e.Code, Why: e.Why, Next: e.Next}
}

func fromItem(i *errorItem) *partition.Error {
	if i == nil {
		return nil
	}
	return &partition.Error{Code: i.Code, Why: i.Why, Next: i.Next}
}
