package control

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"

	"pando.dev/pando/cluster/placement"
	"pando.dev/pando/partition"
)

// TableChange is what of a table shall become otherwise.
type TableChange struct {
	Replicas int               // 0: as it is
	Policy   *partition.Policy // nil: as it is
	// Nodes are where the groups may be placed; empty means all that seem alive.
	Nodes []placement.Node
	// Token is as in TableSpec.
	Token string
}

// AlterTable changes what a table shall be: how many replicas its groups have,
// and by which policy. The catalog shows it at once; the masters bring their
// groups there step by step, each step as durable as before. Refused is what the
// nodes that seem alive now could never be brought to. Table.Changed is the
// version of what was asked for. It is tried as CreateTable is.
func (c *Control) AlterTable(ctx context.Context, name string, change TableChange) (*Table, error) {
	ask := &alterBody{Token: change.Token, Name: name, Replicas: change.Replicas}
	if ask.Token == "" {
		ask.Token = rand.Text()
	}
	if change.Policy != nil {
		ask.Rule, ask.Zones = change.Policy.Rule, change.Policy.Zones
	}
	nodes := change.Nodes
	if len(nodes) == 0 {
		nodes = c.aliveNodes()
	}
	for _, n := range nodes {
		ask.Nodes = append(ask.Nodes, placeItem{Node: n.ID, Zone: n.Zone})
	}
	done, err := askFor[tableAnswer](ctx, c, kindAskAlter, ask, kindTableAnswer)
	if err != nil {
		return nil, fmt.Errorf("alter table %.64q: %w", name, err)
	}
	c.await(ctx, done.Version)
	if t, ok := c.Catalog().Table(name); ok && t.ID == done.Table {
		return t, nil
	}
	return nil, partition.Errorf(partition.CodeUnknown, "table %.64q was altered (catalog version %d), and is not in the catalog of this node", name, done.Version)
}

// altered is the table after the change.
func (b *alterBody) altered(t *Table) *Table {
	next := *t
	if b.Replicas != 0 {
		next.Replicas = b.Replicas
	}
	if b.Rule != 0 {
		next.Policy = partition.Policy{Rule: b.Rule, Zones: b.Zones}
	}
	return &next
}

// digestOfAlter tells whether two requests with the same token are the same one.
func digestOfAlter(b *alterBody) uint32 {
	return partition.Checksum(fmt.Appendf(nil, "alter\x00%q %d %d %d", b.Name, b.Replicas, b.Rule, b.Zones))
}

// prepareAlter refuses what the nodes there are cannot be brought to; the leader
// calls it.
func prepareAlter(ask *alterBody, t *Table) (*alterBody, *partition.Error) {
	if len(ask.Nodes) > MaxPlacementNodes {
		return nil, partition.Errorf(partition.CodeTooLarge, "%d nodes to place a table on, limit %d", len(ask.Nodes), MaxPlacementNodes)
	}
	next := ask.altered(t)
	if err := checkNodes(next.Replicas, next.Policy, ask.Nodes); err != nil {
		return nil, err
	}
	command := *ask
	command.Nodes = nil
	return &command, nil
}

// serveAlter answers the leader's part of AlterTable. A retry of a change that
// was made gets its answer also when the nodes have gone meanwhile.
func (s *seat) serveAlter(ctx context.Context, ask *alterBody) (*tableAnswer, *partition.Error) {
	var t *Table
	var done *tableAnswer
	var failed *partition.Error
	s.fsm.look(func(st *state) {
		t, _ = st.catalog.Table(ask.Name)
		done, _, failed = st.finished(ask.Token, digestOfAlter(ask))
	})
	switch {
	case failed != nil || done != nil:
		return done, failed
	case t == nil:
		return nil, partition.Errorf(partition.CodeNoSuchTable, "there is no table %.64q", ask.Name)
	}
	command, failed := prepareAlter(ask, t)
	if failed != nil {
		return nil, failed
	}
	r, failed := s.propose(ctx, kindAlter, command)
	return r.table, failed
}

// checkSpec refuses what no nodes could ever be: a policy that so many replicas
// cannot meet.
func checkSpec(replicas int, p partition.Policy) *partition.Error {
	if replicas < 1 || replicas > partition.MaxMembers {
		return partition.Errorf(partition.CodeInvalid, "%d replicas, allowed are 1 to %d", replicas, partition.MaxMembers)
	}
	if _, err := partition.ParsePolicy(p.String()); err != nil {
		return asError(err)
	}
	if p.Rule == partition.Zones && replicas < int(p.Zones) {
		return &partition.Error{
			Code: partition.CodeRefused,
			Why:  fmt.Sprintf("%s wants every write in %d zones, and %s can lie in %d at most", p, p.Zones, count(replicas, "replica"), replicas),
			Next: fmt.Sprintf("ask for %d replicas or more, or for zones:%d", p.Zones, replicas),
		}
	}
	return nil
}

// checkNodes refuses what the given nodes cannot be brought to.
func checkNodes(replicas int, p partition.Policy, nodes []placeItem) *partition.Error {
	if err := checkSpec(replicas, p); err != nil {
		return err
	}
	if replicas > len(nodes) {
		return &partition.Error{
			Code: partition.CodeRefused,
			Why:  fmt.Sprintf("%d replicas are asked for, but only %s there to hold them", replicas, count(len(nodes), "node is", "nodes are")),
			Next: "start more nodes, or ask for fewer replicas",
		}
	}
	zones := zonesOf(nodes)
	if p.Rule != partition.Zones || len(zones) >= int(p.Zones) {
		return nil
	}
	e := &partition.Error{
		Code: partition.CodeRefused,
		Why: fmt.Sprintf("%s wants every write in %d zones, but the %s there lie in %s: %s",
			p, p.Zones, count(len(nodes), "node"), count(len(zones), "zone"), strings.Join(zones, ", ")),
		Next: fmt.Sprintf("start nodes in further zones (pando node --zone), or ask for zones:%d", len(zones)),
	}
	return e
}

// zonesOf returns the names of the nodes' zones, in order.
func zonesOf(nodes []placeItem) []string {
	var names []string
	for _, n := range nodes {
		name := n.Zone
		if name == "" {
			name = "(no zone)"
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// count is a number with its noun, of which the plural may be given.
func count(n int, noun ...string) string {
	switch {
	case n == 1:
		return "1 " + noun[0]
	case len(noun) > 1:
		return fmt.Sprintf("%d %s", n, noun[1])
	}
	return fmt.Sprintf("%d %ss", n, noun[0])
}
