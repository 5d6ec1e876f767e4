package actors

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
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
	Bytes   int64             `json:"bytes,omitempty"` // of its state on disk
	Applied partition.Index   `json:"applied"`
	Why     string            `json:"why"`
	// Behind are the members whose next record the master's log no longer has.
	Behind []partition.ReplicaID `json:"behind,omitempty"`
	// Configs are the active configurations, encoded, of a replica that is not
	// just a peer of a master.
	Configs [][]byte `json:"configs,omitempty"`
	// Tending is what a master's node does for the group.
	Tending string `json:"tending,omitempty"`
	// Extent says what the group serves by this replica's state, and Splitting what
	// the master does for a split. Made are the children of the split under way
	// whose replicas are here, and Seeded those that are ready to be.
	Extent    string              `json:"extent,omitempty"`
	Splitting string              `json:"splitting,omitempty"`
	Made      []partition.GroupID `json:"made,omitempty"`
	Seeded    []partition.GroupID `json:"seeded,omitempty"`
	// Removed: the group has gone on without this replica.
	Removed bool `json:"removed,omitempty"`
}

// configurations are those of the report; nil if it has none that can be read.
func (r *report) configurations() partition.Configurations {
	var all partition.Configurations
	for _, b := range r.Configs {
		m := new(partition.Membership)
		if m.UnmarshalBinary(b) != nil {
			return nil
		}
		all = append(all, m)
	}
	return all
}

// encodeConfigurations is what a report carries.
func encodeConfigurations(all partition.Configurations) [][]byte {
	var out [][]byte
	for _, m := range all {
		b, _ := m.AppendBinary(nil) // never fails
		out = append(out, b)
	}
	return out
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
		if st, v := c.status.Load(), c.view.Load(); st != nil && v != nil {
			r = report{
				Group: g, Role: st.Role, Serving: st.Serving, Epoch: st.Epoch, Removed: st.Removed,
				Last: st.Last.Index, Commit: st.Commit, Applied: st.Applied, Why: st.Why, Behind: st.Behind,
			}
			if st.Serving || v.Master == 0 {
				r.Configs = encodeConfigurations(v.Configurations)
			}
		}
		if o := c.state.Load(); o != nil {
			r.Bytes = o.store.Usage().DiskBytes
		}
		if s := c.stalled.Load(); s != nil {
			r.Why = s.Why
		}
		if b := c.broken.Load(); b != nil {
			r.Role, r.Serving, r.Why = "broken", false, b.Why
		}
		if x, ok := c.served(); ok {
			r.Extent = x.Describe()
			r.Extent = r.Extent[:min(len(r.Extent), maxWhyBytes)]
			r.Made, r.Seeded = n.madeHere(c), c.seededHere()
		}
		if r.Serving {
			r.Splitting = cmp.Or(n.splitter.why(g), n.merger.why(g))
			r.Splitting = r.Splitting[:min(len(r.Splitting), maxWhyBytes)]
			_, why := n.tending(g)
			r.Tending = why[:min(len(why), maxWhyBytes)]
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

// collect asks every member of the groups for its reports: those that the
// catalog knows, and then those that the masters name beside them. What a node
// did not tell is missing from the result; silent has the nodes that did not
// answer every question.
func (n *Node) collect(ctx context.Context, groups []*control.Group) (all map[reportKey]report, silent map[partition.NodeID]bool) {
	all, silent = make(map[reportKey]report), make(map[partition.NodeID]bool)
	byNode := make(map[partition.NodeID][]partition.GroupID)
	for _, g := range groups {
		for _, m := range g.Membership.Members {
			byNode[m.Node] = append(byNode[m.Node], g.ID)
		}
	}
	n.askAll(ctx, byNode, all, silent)
	byNode = make(map[partition.NodeID][]partition.GroupID)
	for _, g := range groups {
		for _, m := range everyMember(shape(g, all)) {
			if _, known := g.Membership.OnNode(m.Node); !known {
				byNode[m.Node] = append(byNode[m.Node], g.ID)
			}
		}
	}
	n.askAll(ctx, byNode, all, silent)
	return all, silent
}

// askAll asks nodes for their reports, all at once.
func (n *Node) askAll(ctx context.Context, byNode map[partition.NodeID][]partition.GroupID, all map[reportKey]report, silent map[partition.NodeID]bool) {
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
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
}

func (n *Node) askReports(ctx context.Context, node partition.NodeID, groups []partition.GroupID) ([]report, error) {
	if node == n.ID() {
		return n.reports(groups), nil
	}
	return askNode[[]report](ctx, n, node, callReports, groups)
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
		if cat, err = n.catalogWith(ctx, cat, table); err != nil {
			return nil, err
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
	p := n.describe(ctx, cat, []*control.Group{g})[0]
	n.addPermit(ctx, &p)
	return p, nil
}

// addPermit adds who may go on alone, as the control group has it. It is left
// out if the control group does not answer in time.
func (n *Node) addPermit(ctx context.Context, p *PartitionInfo) {
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	all, err := n.control.Permits(ctx, []partition.GroupID{p.Group})
	switch {
	case err != nil && p.Solo != "":
		p.Solo += "; the control group does not say whether it still holds"
	case err == nil && all[0].Held() && (p.Solo != "" || len(p.LeftBehind) == 0):
		p.Solo = all[0].String()
		if all[0].Why != "" {
			p.Solo += ": " + all[0].Why
		}
	}
}

func (n *Node) describe(ctx context.Context, cat *control.Catalog, groups []*control.Group) []PartitionInfo {
	reports, silent := n.collect(ctx, groups)
	out := make([]PartitionInfo, 0, len(groups))
	for _, g := range groups {
		p := PartitionInfo{Group: g.ID, Lo: g.Range.Lo, Hi: g.Range.Hi, RangeVersion: g.RangeVersion}
		if t, ok := cat.TableOf(g); ok {
			p.Table = t.Name
		}
		fillReplicas(&p, g, reports, silent)
		out = append(out, p)
	}
	return out
}

// fillReplicas adds what the members reported.
func fillReplicas(p *PartitionInfo, g *control.Group, reports map[reportKey]report, silent map[partition.NodeID]bool) {
	active := shape(g, reports)
	last := active.Last()
	p.Version, p.InFlight = last.Version, len(active) > 1
	p.Policy, p.Rule, p.Asked = last.Policy.String(), last.Describe(), int(last.Asked.Replicas)
	p.LeftBehind = last.LeftBehind
	missed := func(r partition.ReplicaID) bool { _, ok := last.Member(r); return ok }
	if slices.ContainsFunc(last.LeftBehind, missed) {
		p.Solo = fmt.Sprintf("%s on alone, in-sync number %d", nodesOf(last), last.Permit)
	}
	up := make(map[partition.ReplicaID]bool)
	var master *report
	for _, m := range everyMember(active) {
		r, ok := reports[reportKey{g.ID, m.Node}]
		info := replicaInfo(m, r, ok, silent[m.Node])
		up[m.Replica] = ok && r.Role != "broken" && r.Role != "opening" && !r.Removed
		// Of two that serve, one has been cut off and does not know it yet: the
		// newer epoch counts.
		if r.Serving && (master == nil || r.Epoch > master.Epoch) {
			master = &r
			p.Master, p.Epoch, p.Commit, p.Tending = m.Node, r.Epoch.String(), r.Commit, r.Tending
			p.Extent, p.Splitting = r.Extent, r.Splitting
		}
		p.Replicas = append(p.Replicas, info)
	}
	for i, r := range p.Replicas {
		if master != nil && slices.Contains(master.Behind, r.Replica) {
			p.Replicas[i].Role, p.Replicas[i].Why = "behind", "its next record is no longer in the master's log: only a copy brings it back"
			up[r.Replica] = false
		}
	}
	answers := func(r partition.ReplicaID) bool { return up[r] }
	p.CanLose = -1
	if p.Master != "" {
		p.CanLose = active.CanLose(answers)
	}
	if p.CanLose < 0 {
		p.Missing = active.Missing(answers)
	}
}

// shape returns the group's configurations in force: by the word of the newest
// master, or of the replica with the newest configuration, or of the catalog.
func shape(g *control.Group, reports map[reportKey]report) partition.Configurations {
	var best partition.Configurations
	var from report
	for _, m := range g.Membership.Members {
		r := reports[reportKey{g.ID, m.Node}]
		if len(r.Configs) == 0 {
			continue
		}
		all := r.configurations()
		newer := best == nil || r.Serving && !from.Serving || r.Serving == from.Serving &&
			(r.Epoch > from.Epoch || r.Epoch == from.Epoch && len(all) > 0 && all.Last().Version > best.Last().Version)
		if all != nil && newer {
			best, from = all, r
		}
	}
	if best == nil || !from.Serving && best.Last().Version < g.Membership.Version {
		return partition.Configurations{g.Membership}
	}
	return best
}

// everyMember lists the members of all configurations by id, as the newest one
// that has them describes them.
func everyMember(all partition.Configurations) []partition.Member {
	var out []partition.Member
	seen := make(map[partition.ReplicaID]bool)
	for i := len(all) - 1; i >= 0; i-- {
		for _, m := range all[i].Members {
			if !seen[m.Replica] {
				seen[m.Replica] = true
				out = append(out, m)
			}
		}
	}
	slices.SortFunc(out, func(a, b partition.Member) int { return cmp.Compare(a.Replica, b.Replica) })
	return out
}

// nodesOf names the members that count as the subject of a sentence.
func nodesOf(m *partition.Membership) string {
	var names []string
	for _, x := range m.Members {
		if x.Eligible && x.Kind != partition.Learner {
			names = append(names, string(x.Node))
		}
	}
	if len(names) == 1 {
		return names[0] + " goes"
	}
	return strings.Join(names, ", ") + " go"
}

func replicaInfo(m partition.Member, r report, ok, silent bool) ReplicaInfo {
	info := ReplicaInfo{
		Replica: m.Replica, Node: m.Node, Zone: m.Zone, Kind: m.Kind.String(), Eligible: m.Eligible,
		Role: r.Role, Applied: r.Applied, Last: r.Last, Bytes: r.Bytes, Why: r.Why,
	}
	switch {
	case !ok && silent:
		info.Role, info.Why = "unreachable", "its node does not answer"
	case !ok:
		info.Role, info.Why = "missing", "its node does not have it yet"
	case r.Removed:
		info.Role, info.Why = "removed", "the group has gone on without it"
	}
	return info
}

func noSuchTable(name string) error {
	return &partition.Error{
		Code: partition.CodeNoSuchTable, Why: fmt.Sprintf("there is no table %q", name),
		Next: "list them with `pando table ls`, or make it with `pando table create`",
	}
}
