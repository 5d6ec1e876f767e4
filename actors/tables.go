package actors

import (
	"context"
	"fmt"

	"pando.dev/pando/cluster"
	"pando.dev/pando/cluster/control"
	"pando.dev/pando/cluster/placement"
	"pando.dev/pando/partition"
)

// defaultReplicas is the replication factor of a table that names none, if
// there are that many nodes.
const defaultReplicas = 3

// catalog returns the node's copy of the catalog.
func (n *Node) catalog() (*control.Catalog, error) {
	if n.control.Synced() {
		return n.control.Catalog(), nil
	}
	st := n.control.Status()
	return nil, &partition.Error{
		Code: partition.CodeUnavailable, Why: fmt.Sprintf("node %s has no catalog: %s: %s", n.ID(), st.State, st.Why),
		Next: "retry when the control group has a leader",
	}
}

// catalogWith returns a catalog that has the table. If this node's copy lacks it
// the control group is asked: the node may not have heard of a new table yet.
func (n *Node) catalogWith(ctx context.Context, cat *control.Catalog, table string) (*control.Catalog, error) {
	if _, ok := cat.Table(table); ok {
		return cat, nil
	}
	if err := n.control.AwaitCurrent(ctx); err != nil {
		return nil, fmt.Errorf("look for table %q: %w", table, err)
	}
	cat = n.control.Catalog()
	if _, ok := cat.Table(table); !ok {
		return nil, noSuchTable(table)
	}
	return cat, nil
}

// Tables returns the tables of the catalog by name.
func (n *Node) Tables() []TableInfo {
	cat := n.control.Catalog()
	var out []TableInfo
	for _, t := range cat.Tables() {
		out = append(out, tableInfo(cat, t))
	}
	return out
}

func tableInfo(cat *control.Catalog, t *control.Table) TableInfo {
	p := t.Splits.WithDefaults()
	info := TableInfo{
		Name: t.Name, Kind: t.Kind, Replicas: t.Replicas, Policy: t.Policy.String(), Version: t.Changed,
		Splits: SplitPolicy{p.Mode.String(), p.Load, p.Size, p.Rest, p.Partitions},
	}
	for _, g := range cat.Groups(t.Name) {
		info.Partitions = append(info.Partitions, g.ID)
	}
	return info
}

// CreateTable makes a table. Its replicas are placed over the zones of the
// nodes that seem alive, or on the nodes that the spec names.
func (n *Node) CreateTable(ctx context.Context, spec TableSpec) (TableInfo, error) {
	if spec.Kind == "" {
		spec.Kind = "kv"
	}
	if _, ok := n.cfg.Kinds[spec.Kind]; !ok {
		return TableInfo{}, partition.Errorf(partition.CodeInvalid, "partition kind %q is not known to node %s", spec.Kind, n.ID())
	}
	nodes, err := n.candidates(spec.Nodes)
	if err != nil {
		return TableInfo{}, err
	}
	splits, err := spec.Splits.parse()
	if err != nil {
		return TableInfo{}, err
	}
	policy := partition.Policy{Rule: partition.Majority}
	if spec.Policy != "" {
		if policy, err = partition.ParsePolicy(spec.Policy); err != nil {
			return TableInfo{}, err
		}
	}
	if spec.Replicas == 0 {
		spec.Replicas = usualReplicas(policy, len(spec.Nodes), len(nodes))
	}
	t, err := n.control.CreateTable(ctx, control.TableSpec{
		Name: spec.Name, Kind: spec.Kind, Replicas: spec.Replicas, Policy: policy,
		SplitPoints: spec.SplitPoints, Nodes: nodes, Token: spec.Token,
	})
	if err != nil {
		return TableInfo{}, err
	}
	if splits != (control.SplitPolicy{}) {
		if t, err = n.control.SetSplits(ctx, spec.Name, splits, splitsToken(spec.Token)); err != nil {
			return TableInfo{}, fmt.Errorf("the table is there, and splits as usual: %w", err)
		}
	}
	return tableInfo(n.control.Catalog(), t), nil
}

// parse checks the policy.
func (p SplitPolicy) parse() (out control.SplitPolicy, err error) {
	out = control.SplitPolicy{Load: p.Load, Size: p.Size, Rest: p.Rest, Partitions: p.Partitions}
	if p.Mode != "" {
		if out.Mode, err = control.ParseSplitMode(p.Mode); err != nil {
			return out, err
		}
	}
	return out, out.Validate()
}

// splitsToken is the token of the second part of a request that has one.
func splitsToken(token string) string {
	if token == "" {
		return ""
	}
	return fmt.Sprintf("%08x/splits", partition.Checksum([]byte(token)))
}

// usualReplicas is how many replicas a table gets that asks for no number: one
// on each node that it names, otherwise what its policy is for, as far as there
// are nodes.
func usualReplicas(p partition.Policy, named, nodes int) int {
	usual := defaultReplicas
	switch {
	case named > 0:
		return named
	case p.Rule == partition.AllInSync:
		usual = 2
	case p.Rule == partition.Zones:
		// Fewer would be refused: the policy could not be met.
		return max(min(usual, nodes), int(p.Zones))
	}
	return min(usual, nodes)
}

// AlterTable changes what a table shall be. Its masters bring the partitions
// there, step by step, and each stays as durable as it was meanwhile.
func (n *Node) AlterTable(ctx context.Context, name string, change TableChange) (TableInfo, error) {
	if change.Replicas == 0 && change.Policy == "" && change.Splits == (SplitPolicy{}) {
		return TableInfo{}, &partition.Error{
			Code: partition.CodeInvalid, Why: fmt.Sprintf("nothing of table %q is to be altered", name),
			Next: "give replicas, a policy, or when its partitions split",
		}
	}
	splits, err := change.Splits.parse()
	if err != nil {
		return TableInfo{}, err
	}
	if change.Replicas == 0 && change.Policy == "" {
		t, err := n.control.SetSplits(ctx, name, splits, change.Token)
		if err != nil {
			return TableInfo{}, err
		}
		return tableInfo(n.control.Catalog(), t), nil
	}
	c := control.TableChange{Replicas: change.Replicas, Token: change.Token}
	if change.Policy != "" {
		p, err := partition.ParsePolicy(change.Policy)
		if err != nil {
			return TableInfo{}, err
		}
		c.Policy = &p
	}
	c.Nodes, _ = n.candidates(nil) // of nobody in particular there are always some
	t, err := n.control.AlterTable(ctx, name, c)
	if err == nil && splits != (control.SplitPolicy{}) {
		t, err = n.control.SetSplits(ctx, name, splits, splitsToken(change.Token))
	}
	if err != nil {
		return TableInfo{}, err
	}
	return tableInfo(n.control.Catalog(), t), nil
}

// candidates returns the nodes that may hold a replica: those asked for, or all
// that seem alive.
func (n *Node) candidates(asked []partition.NodeID) ([]placement.Node, error) {
	alive := make(map[partition.NodeID]placement.Node)
	var all []placement.Node
	for _, m := range n.gossip.Members() {
		if m.Status == cluster.Alive {
			p := placement.Node{ID: m.ID, Zone: m.Zone, Weight: 1}
			alive[m.ID] = p
			all = append(all, p)
		}
	}
	if len(asked) == 0 {
		return all, nil
	}
	var picked []placement.Node
	for _, id := range asked {
		p, ok := alive[id]
		if !ok {
			return nil, &partition.Error{
				Code: partition.CodeRefused, Why: fmt.Sprintf("node %q is not among the %d nodes that are alive", id, len(all)),
				Next: "see: pando members",
			}
		}
		picked = append(picked, p)
	}
	return picked, nil
}

// DropTable removes a table and everything in it.
func (n *Node) DropTable(ctx context.Context, name string) error {
	return n.control.DropTable(ctx, name, "")
}
