package actors

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"pando.dev/pando/cluster/control"
	"pando.dev/pando/partition"
)

const (
	// askGroups bounds the groups of one question to another node, so that the
	// answer fits into one call.
	askGroups = 100
	// maxWhyBytes bounds the reason in a report.
	maxWhyBytes = 512
	// askWait bounds the wait for another node's answer.
	askWait = time.Second
)

// report is what a node tells another about one of its replicas.
type report struct {
	Group   partition.GroupID `json:"g"`
	Role    string            `json:"role"`
	Serving bool              `json:"serving"`
	Epoch   partition.Epoch   `json:"epoch"`
	Last    partition.Index   `json:"last"`
	Commit  partition.Index   `json:"commit"`
	Applied partition.Index   `json:"applied"`
	Why     string            `json:"why"`
	// Behind are the members whose next record the master's log no longer has.
	Behind []partition.ReplicaID `json:"behind,omitempty"`
}

// reports describes this node's replicas of the given groups.
func (n *Node) reports(groups []partition.GroupID) []report {
	out := make([]report, 0, len(groups))
	for _, g := range groups {
		c := n.cells.get(g)
		if c == nil {
			continue
		}
		r := report{Group: g, Role: "opening", Why: "the replica is being opened"}
		if st := c.status.Load(); st != nil && c.view.Load() != nil {
			r = report{
				Group: g, Role: st.Role, Serving: st.Serving, Epoch: st.Epoch,
				Last: st.Last.Index, Commit: st.Commit, Applied: st.Applied, Why: st.Why, Behind: st.Behind,
			}
		}
		if s := c.stalled.Load(); s != nil {
			r.Why = s.Why
		}
		if b := c.broken.Load(); b != nil {
			r.Role, r.Serving, r.Why = "broken", false, b.Why
		}
		r.Why = r.Why[:min(len(r.Why), maxWhyBytes)]
		out = append(out, r)
	}
	return out
}

// serveReports answers another node's question for reports.
func (n *Node) serveReports(body []byte) ([]byte, error) {
	var groups []partition.GroupID
	if err := json.Unmarshal(body, &groups); err != nil || len(groups) > askGroups {
		return nil, partition.Errorf(partition.CodeInvalid, "a question for reports that cannot be read, or of over %d groups", askGroups)
	}
	return json.Marshal(n.reports(groups))
}

// reportKey names a replica in a set of reports.
type reportKey struct {
	group partition.GroupID
	node  partition.NodeID
}

// collect asks every member of the groups for its reports, all nodes at once.
// What a node did not tell is missing from the result; silent has the nodes that
// did not answer every question.
func (n *Node) collect(ctx context.Context, groups []*control.Group) (all map[reportKey]report, silent map[partition.NodeID]bool) {
	byNode := make(map[partition.NodeID][]partition.GroupID)
	for _, g := range groups {
		for _, m := range g.Membership.Members {
			byNode[m.Node] = append(byNode[m.Node], g.ID)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	all, silent = make(map[reportKey]report), make(map[partition.NodeID]bool)
	for node, ids := range byNode {
		wg.Go(func() {
			for part := range slices.Chunk(ids, askGroups) {
				got, err := n.askReports(ctx, node, part)
				if err != nil {
					n.logger.Debug("no report", "node", node, "err", err)
					mu.Lock()
					silent[node] = true
					mu.Unlock()
					return
				}
				mu.Lock()
				for _, r := range got {
					all[reportKey{r.Group, node}] = r
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return all, silent
}

func (n *Node) askReports(ctx context.Context, node partition.NodeID, groups []partition.GroupID) ([]report, error) {
	if node == n.ID() {
		return n.reports(groups), nil
	}
	body, err := json.Marshal(groups)
	if err != nil {
		return nil, err
	}
	answer, err := n.call(ctx, node, callReports, body)
	if err != nil {
		return nil, fmt.Errorf("ask %s for reports: %w", node, err)
	}
	var got []report
	if err := json.Unmarshal(answer, &got); err != nil {
		return nil, fmt.Errorf("read the reports of %s: %w", node, err)
	}
	return got, nil
}

// Partitions describes the partitions of a table, or of all tables if table is
// empty, in the order of their ranges.
func (n *Node) Partitions(ctx context.Context, table string) ([]PartitionInfo, error) {
	cat, err := n.catalog()
	if err != nil {
		return nil, err
	}
	groups := cat.AllGroups()
	if table != "" {
		if _, ok := cat.Table(table); !ok {
			return nil, noSuchTable(table)
		}
		groups = cat.Groups(table)
	}
	return n.describe(ctx, cat, groups), nil
}

// Partition describes one partition.
func (n *Node) Partition(ctx context.Context, id partition.GroupID) (PartitionInfo, error) {
	cat, err := n.catalog()
	if err != nil {
		return PartitionInfo{}, err
	}
	g, ok := cat.Group(id)
	if !ok {
		return PartitionInfo{}, &partition.Error{
			Code: partition.CodeNotFound, Why: fmt.Sprintf("there is no partition %s", id), Next: "list them with: pando partition ls",
		}
	}
	return n.describe(ctx, cat, []*control.Group{g})[0], nil
}

func (n *Node) describe(ctx context.Context, cat *control.Catalog, groups []*control.Group) []PartitionInfo {
	reports, silent := n.collect(ctx, groups)
	out := make([]PartitionInfo, 0, len(groups))
	for _, g := range groups {
		p := PartitionInfo{
			Group: g.ID, Lo: g.Range.Lo, Hi: g.Range.Hi, RangeVersion: g.RangeVersion,
			Version: g.Membership.Version, Policy: g.Membership.Policy.String(), Rule: g.Membership.Describe(),
		}
		if t, ok := cat.TableOf(g); ok {
			p.Table = t.Name
		}
		fillReplicas(&p, g, reports, silent)
		out = append(out, p)
	}
	return out
}

// fillReplicas adds what the members reported. Of two that serve, one has been
// cut off and does not know it yet: the newer epoch counts.
func fillReplicas(p *PartitionInfo, g *control.Group, reports map[reportKey]report, silent map[partition.NodeID]bool) {
	up := make(map[partition.ReplicaID]bool)
	var epoch partition.Epoch
	var behind []partition.ReplicaID
	for _, m := range g.Membership.Members {
		r, ok := reports[reportKey{g.ID, m.Node}]
		info := ReplicaInfo{
			Replica: m.Replica, Node: m.Node, Zone: m.Zone, Kind: m.Kind.String(), Eligible: m.Eligible,
			Role: r.Role, Applied: r.Applied, Last: r.Last, Why: r.Why,
		}
		switch {
		case !ok && silent[m.Node]:
			info.Role, info.Why = "unreachable", "its node does not answer"
		case !ok:
			info.Role, info.Why = "missing", "its node does not have it yet"
		case r.Role != "broken" && r.Role != "opening":
			up[m.Replica] = true
		}
		if r.Serving && r.Epoch >= epoch {
			epoch = r.Epoch
			p.Master, p.Epoch, p.Commit, behind = m.Node, r.Epoch.String(), r.Commit, r.Behind
		}
		p.Replicas = append(p.Replicas, info)
	}
	for i, r := range p.Replicas {
		if slices.Contains(behind, r.Replica) {
			p.Replicas[i].Role, p.Replicas[i].Why = "behind", "its next record is no longer in the master's log: only a copy brings it back"
			up[r.Replica] = false
		}
	}
	p.CanLose = -1
	if p.Master != "" {
		p.CanLose = g.Membership.CanLose(func(r partition.ReplicaID) bool { return up[r] })
	}
}

func noSuchTable(name string) error {
	return &partition.Error{
		Code: partition.CodeNoSuchTable, Why: fmt.Sprintf("there is no table %q", name),
		Next: "list them with `pando table ls`, or make it with `pando table create`",
	}
}
