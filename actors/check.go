package actors

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"pando.dev/pando/cluster/control"
	"pando.dev/pando/partition"
)

const (
	// maxFindings bounds what one check tells.
	maxFindings = 1000
	// checkAgain is how long a check waits before it looks again at what may only
	// be on its way.
	checkAgain = 2 * time.Second
	// taskStands is how long an open task may tell nothing new before it is said to
	// stand still.
	taskStands = 5 * time.Minute
	// heldPage bounds the replicas that a node lists in one answer.
	heldPage = 4096
)

// The kinds of findings.
const (
	FindHole        = "hole"         // keys of a table that no partition has
	FindOverlap     = "overlap"      // keys of a table that two partitions have
	FindNoMaster    = "no master"    // a partition that nobody serves
	FindNoWrites    = "no writes"    // it has a master, and cannot commit
	FindReplica     = "replica"      // a replica that the catalog has is not in order
	FindTooFew      = "too few"      // fewer replicas than the table asks for
	FindStray       = "stray"        // a replica that no partition has
	FindNode        = "node"         // a node that does not answer
	FindTask        = "task"         // a task that stands still
	FindControl     = "control"      // the control group
	FindNotCompared = "not compared" // the digests of a partition's replicas
	FindDigest      = "digest"       // a replica with another state, or with damage
)

// Finding is one thing that is not as it should be.
type Finding struct {
	Kind  string            `json:"kind"`
	Table string            `json:"table,omitempty"`
	Group partition.GroupID `json:"group,omitempty"`
	Node  partition.NodeID  `json:"node,omitempty"`
	Task  TaskID            `json:"task,omitempty"`
	Text  string            `json:"text"`
	Next  string            `json:"next,omitempty"`
}

// CheckReport is what a check has found.
type CheckReport struct {
	Catalog    uint64    `json:"catalog_version"`
	Tables     int       `json:"tables"`
	Partitions int       `json:"partitions"`
	Replicas   int       `json:"replicas"`
	Tasks      int       `json:"tasks"` // open
	Findings   []Finding `json:"findings"`
	Left       int       `json:"left,omitempty"` // further findings
}

// checkFacts are what a check judges.
type checkFacts struct {
	tables []checkTable
	parts  []PartitionInfo
	tasks  []*control.Task
	known  map[partition.GroupID]bool // also those that a split is to make
	held   map[partition.NodeID][]heldReplica
	silent []partition.NodeID // nodes that were asked and did not answer
	now    time.Time
}

type checkTable struct {
	name     string
	replicas int
	groups   []*control.Group // by the beginning of their ranges
}

// heldReplica is a replica that a node has, whatever the catalog says.
type heldReplica struct {
	Group   partition.GroupID   `json:"g"`
	Replica partition.ReplicaID `json:"r"`
}

// Check looks for what is not as it should be: ranges, masters, replicas, tasks.
// What may only be on its way is looked at twice.
func (n *Node) Check(ctx context.Context) (CheckReport, error) {
	report, err := n.checkOnce(ctx)
	if err != nil || len(report.Findings) == 0 {
		return report, err
	}
	select {
	case <-ctx.Done():
		return report, partition.Errorf(partition.CodeTimeout, "no time left for a second look at %d findings", len(report.Findings))
	case <-time.After(checkAgain):
	}
	second, err := n.checkOnce(ctx)
	if err != nil {
		return second, err
	}
	second.Findings = bothTimes(report.Findings, second.Findings)
	if len(second.Findings) > maxFindings {
		second.Left = len(second.Findings) - maxFindings
		second.Findings = second.Findings[:maxFindings]
	}
	return second, nil
}

// bothTimes are the findings of the second look that were there at the first.
func bothTimes(first, second []Finding) []Finding {
	key := func(f Finding) Finding {
		f.Text, f.Next = "", ""
		return f
	}
	seen := make(map[Finding]bool)
	for _, f := range first {
		seen[key(f)] = true
	}
	return slices.DeleteFunc(second, func(f Finding) bool { return !seen[key(f)] })
}

func (n *Node) checkOnce(ctx context.Context) (CheckReport, error) {
	cat, err := n.catalog()
	if err != nil {
		return CheckReport{}, err
	}
	f := &checkFacts{parts: n.describe(ctx, cat, cat.AllGroups()), tasks: cat.Tasks(), known: make(map[partition.GroupID]bool), now: time.Now()}
	for _, t := range cat.Tables() {
		f.tables = append(f.tables, checkTable{name: t.Name, replicas: t.Replicas, groups: cat.Groups(t.Name)})
	}
	f.held, f.silent = n.everyReplica(ctx)
	for _, all := range f.held {
		for _, h := range all {
			f.known[h.Group] = wanted(cat, h.Group)
		}
	}
	report := f.report(cat.Version)
	if st := n.controlStatus(); st.State != string(control.Ready) {
		report.Findings = append(report.Findings, Finding{Kind: FindControl, Text: "the control group has no leader: " + n.control.Status().Why, Next: "see pando status"})
	}
	return report, nil
}

// report judges the facts.
func (f *checkFacts) report(version uint64) CheckReport {
	r := CheckReport{Catalog: version, Tables: len(f.tables), Partitions: len(f.parts), Findings: []Finding{}}
	want := make(map[string]int)
	for _, t := range f.tables {
		r.Findings = append(r.Findings, checkRanges(t)...)
		want[t.name] = t.replicas
	}
	members := make(map[heldReplica]partition.NodeID)
	for i := range f.parts {
		p := &f.parts[i]
		r.Replicas += len(p.Replicas)
		r.Findings = append(r.Findings, checkPartition(p, cmp.Or(p.Asked, want[p.Table]))...)
		for _, x := range p.Replicas {
			members[heldReplica{p.Group, x.Replica}] = x.Node
		}
	}
	r.Findings = append(r.Findings, f.strays(members)...)
	for _, t := range f.tasks {
		if t.State == control.TaskOpen {
			r.Tasks++
			r.Findings = append(r.Findings, f.checkTask(t)...)
		}
	}
	for _, id := range f.silent {
		r.Findings = append(r.Findings, Finding{Kind: FindNode, Node: id, Text: fmt.Sprintf("node %s does not answer", id), Next: "see pando explain node " + string(id)})
	}
	return r
}

// checkRanges finds keys that no partition of a table has, or two.
func checkRanges(t checkTable) []Finding {
	var found []Finding
	find := func(kind string, g *control.Group, r partition.KeyRange, text string) {
		found = append(found, Finding{
			Kind: kind, Table: t.name, Group: g.ID, Text: fmt.Sprintf("keys %.200s of table %s %s", r, t.name, text),
			Next: "this is a fault of the catalog: keep the data directories of the control group's seats for whoever looks into it",
		})
	}
	if len(t.groups) == 0 {
		return []Finding{{Kind: FindHole, Table: t.name, Text: fmt.Sprintf("table %s has no partition", t.name)}}
	}
	end, last := []byte{}, t.groups[0] // every key below end is somebody's; nil: all are
	for i, g := range t.groups {
		lo := g.Range.Lo
		switch {
		case end == nil || i > 0 && bytes.Compare(lo, end) < 0:
			both := g.Range.Intersect(partition.KeyRange{Lo: lo, Hi: end})
			find(FindOverlap, g, both, fmt.Sprintf("are of %s and of %s", last.ID, g.ID))
		case bytes.Compare(lo, end) > 0:
			find(FindHole, g, partition.KeyRange{Lo: end, Hi: lo}, "are of no partition")
		}
		if len(g.Range.Hi) == 0 {
			end, last = nil, g
		} else if end != nil && bytes.Compare(g.Range.Hi, end) > 0 {
			end, last = g.Range.Hi, g
		}
	}
	if end != nil {
		find(FindHole, last, partition.KeyRange{Lo: end}, "are of no partition")
	}
	return found
}

// checkPartition finds what is wrong with a partition and its replicas.
func checkPartition(p *PartitionInfo, want int) []Finding {
	var found []Finding
	explain := "see pando explain partition " + p.Group.String()
	find := func(kind string, node partition.NodeID, text string) {
		found = append(found, Finding{Kind: kind, Table: p.Table, Group: p.Group, Node: node, Text: text, Next: explain})
	}
	why := ""
	if p.Missing != "" {
		why = ": " + p.Missing
	}
	switch {
	case p.Master == "":
		find(FindNoMaster, "", fmt.Sprintf("partition %s has no master%s", p.Group, why))
	case p.CanLose < 0:
		find(FindNoWrites, "", fmt.Sprintf("partition %s takes no writes%s", p.Group, why))
	}
	full := 0
	for _, r := range p.Replicas {
		if r.Kind == partition.Full.String() {
			full++
		}
		switch r.Role {
		case "unreachable", "missing", "broken", "behind", "removed", "opening":
			find(FindReplica, r.Node, fmt.Sprintf("replica %d of %s on node %s is %s: %s", r.Replica, p.Group, r.Node, r.Role, r.Why))
		}
	}
	if full < want {
		text := fmt.Sprintf("partition %s has %d full replicas, its table asks for %d", p.Group, full, want)
		if p.Tending != "" {
			text += ": " + p.Tending
		}
		find(FindTooFew, "", text)
	}
	return found
}

// strays finds replicas that nodes have and no partition does.
func (f *checkFacts) strays(members map[heldReplica]partition.NodeID) []Finding {
	var found []Finding
	listed := make(map[partition.GroupID]bool)
	for i := range f.parts {
		listed[f.parts[i].Group] = true
	}
	for node, all := range f.held {
		for _, h := range all {
			text := ""
			switch {
			case !f.known[h.Group]:
				text = fmt.Sprintf("node %s has a replica of %s, which the catalog does not know", node, h.Group)
			case listed[h.Group] && members[h] != node:
				text = fmt.Sprintf("node %s has replica %d of %s, which is no member of it", node, h.Replica, h.Group)
			default:
				continue
			}
			found = append(found, Finding{Kind: FindStray, Group: h.Group, Node: node, Text: text, Next: "it is dropped when the node knows that nobody needs it; see the node's log"})
		}
	}
	slices.SortFunc(found, func(a, b Finding) int { return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Group, b.Group)) })
	return found
}

// checkTask finds a task that tells nothing new. A step waits for those before it,
// and a node that is empty may stay so for ever.
func (f *checkFacts) checkTask(t *control.Task) []Finding {
	last := t.Touched
	for _, s := range f.tasks {
		if s.Parent == t.ID || t.Parent != 0 && (s.Parent == t.Parent || s.ID == t.Parent) {
			if s.Touched.After(last) {
				last = s.Touched
			}
			if s.Ended.After(last) {
				last = s.Ended
			}
		}
	}
	stood := f.now.Sub(last)
	if stood < taskStands || t.Phase == phaseEmpty {
		return nil
	}
	why := cmp.Or(t.Why, "it does not say why")
	return []Finding{{
		Kind: FindTask, Group: t.Group, Task: t.ID, Text: fmt.Sprintf("%s, a %s, tells nothing new since %s: %s", t.ID, t.Kind, stood.Round(time.Second), why),
		Next: fmt.Sprintf("see pando explain task %s; it is given up with pando task abort %s", t.ID, t.ID),
	}}
}

// heldHere lists this node's replicas behind a group, in the order of the groups.
func (n *Node) heldHere(after partition.GroupID) []heldReplica {
	var all []heldReplica
	for g, hard := range n.log.Groups() {
		if g > after {
			all = append(all, heldReplica{g, hard.Replica})
		}
	}
	slices.SortFunc(all, func(a, b heldReplica) int { return cmp.Compare(a.Group, b.Group) })
	return all[:min(len(all), heldPage)]
}

// serveHeld answers another node's question for the replicas here.
func (n *Node) serveHeld(body []byte) ([]byte, error) {
	var after uint64
	if err := json.Unmarshal(body, &after); err != nil {
		return nil, partition.Errorf(partition.CodeInvalid, "a question for replicas that cannot be read")
	}
	return json.Marshal(n.heldHere(partition.GroupID(after)))
}

// everyReplica asks all nodes that are not known to be gone what they hold.
func (n *Node) everyReplica(ctx context.Context) (held map[partition.NodeID][]heldReplica, silent []partition.NodeID) {
	var nodes []partition.NodeID
	for _, m := range n.Members() {
		if m.Status != "left" {
			nodes = append(nodes, m.Node)
		}
	}
	got := make([][]heldReplica, len(nodes))
	failed := make([]bool, len(nodes))
	inParallel(len(nodes), func(i int) {
		var err error
		got[i], err = n.replicasOn(ctx, nodes[i])
		failed[i] = err != nil
	})
	held = make(map[partition.NodeID][]heldReplica)
	for i, id := range nodes {
		if failed[i] {
			silent = append(silent, id)
		} else {
			held[id] = got[i]
		}
	}
	return held, silent
}

func (n *Node) replicasOn(ctx context.Context, node partition.NodeID) ([]heldReplica, error) {
	var all []heldReplica
	for {
		after := partition.GroupID(0)
		if len(all) > 0 {
			after = all[len(all)-1].Group
		}
		page := n.heldHere(after)
		if node != n.ID() {
			limited, cancel := context.WithTimeout(ctx, askWait)
			var err error
			page, err = askNode[[]heldReplica](limited, n, node, callHeld, uint64(after))
			cancel()
			if err != nil {
				return nil, err
			}
		}
		if all = append(all, page...); len(page) < heldPage {
			return all, nil
		}
	}
}
