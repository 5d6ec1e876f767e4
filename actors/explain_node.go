package actors

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"pando.dev/pando/cluster/control"
	"pando.dev/pando/partition"
)

// NodeInfo is a node and what it holds.
type NodeInfo struct {
	MemberInfo
	Replicas int   `json:"replicas"` // full ones
	LogOnly  int   `json:"log_replicas,omitempty"`
	Masters  int   `json:"masters"`
	Bytes    int64 `json:"bytes"` // of its replicas on disk, as far as it tells
	// Leaving is the task that empties it, and LeavingPhase how far that is.
	Leaving      TaskID `json:"leaving,omitempty"`
	LeavingPhase string `json:"leaving_phase,omitempty"`
}

// Nodes lists the nodes with what they hold. One that is in no gossip any more is
// listed as long as it holds replicas.
func (n *Node) Nodes(ctx context.Context) ([]NodeInfo, error) {
	parts, err := n.Partitions(ctx, "")
	if err != nil {
		return nil, err
	}
	cat := n.control.Catalog()
	all := nodesOfParts(n.Members(), parts)
	for i := range all {
		if t, ok := cat.Leaving(all[i].Node); ok {
			all[i].Leaving, all[i].LeavingPhase = t.ID, cmp.Or(t.Phase, t.State.String())
		}
	}
	return all, nil
}

// nodesOfParts adds up what the nodes hold.
func nodesOfParts(members []MemberInfo, parts []PartitionInfo) []NodeInfo {
	var all []NodeInfo
	at := make(map[partition.NodeID]int)
	for _, m := range members {
		at[m.Node] = len(all)
		all = append(all, NodeInfo{MemberInfo: m})
	}
	for i := range parts {
		for _, r := range parts[i].Replicas {
			if _, ok := at[r.Node]; !ok {
				at[r.Node] = len(all)
				all = append(all, NodeInfo{MemberInfo: MemberInfo{Node: r.Node, Zone: r.Zone, Status: "unknown"}})
			}
			x := &all[at[r.Node]]
			switch r.Kind {
			case partition.LogReplica.String():
				x.LogOnly++
			case partition.Full.String():
				x.Replicas++
			}
			x.Bytes += r.Bytes
			if parts[i].Master == r.Node {
				x.Masters++
			}
		}
	}
	slices.SortFunc(all, func(a, b NodeInfo) int { return strings.Compare(string(a.Node), string(b.Node)) })
	return all
}

// nodeFacts are what is known of a node when it is explained.
type nodeFacts struct {
	node  NodeInfo
	all   []NodeInfo
	parts []PartitionInfo
	tasks []TaskInfo
	loads []NodeLoad    // of the nodes that tell
	limps []AnomalyInfo // what the answering node knows of those that limp
}

// ExplainNode says how a node is, what it holds and waits for, and what depends on
// it.
func (n *Node) ExplainNode(ctx context.Context, id partition.NodeID) (Explanation, error) {
	parts, err := n.Partitions(ctx, "")
	if err != nil {
		return Explanation{}, err
	}
	all, err := n.Nodes(ctx)
	if err != nil {
		return Explanation{}, err
	}
	tasks, err := n.Tasks(ctx)
	if err != nil {
		return Explanation{}, err
	}
	i := slices.IndexFunc(all, func(x NodeInfo) bool { return x.Node == id })
	if i < 0 {
		return Explanation{}, &partition.Error{Code: partition.CodeNotFound, Why: fmt.Sprintf("there is no node %q", id), Next: "list them with: pando node ls"}
	}
	f := &nodeFacts{node: all[i], all: all, parts: parts, tasks: tasks, loads: n.NodeLoads(ctx, answering(all)), limps: n.Anomalies()}
	return f.explain(), nil
}

func (f *nodeFacts) explain() Explanation {
	x, e := &f.node, &Explanation{Subject: "node " + string(f.node.Node)}
	seat := ""
	if x.Seat {
		seat = ", and holds a seat of the control group"
	}
	e.say(AboutIs, "It is %s, in zone %s%s.", x.Status, cmp.Or(x.Zone, "(none)"), seat)
	switch {
	case x.Status != "alive" && x.Status != "left":
		e.say(AboutWaits, "It does not answer the others.")
		e.help("look whether its process runs and its addresses can be reached, and start it again with its directory")
	case x.Mode != "":
		e.say(AboutWaits, "It is %s: its replicas go on receiving what is written and do not count.", x.Mode)
		e.help("pando node undrain %s, when the work on it is done", x.Node)
	}
	for _, v := range f.limps {
		if v.Until == nil && (v.Node == x.Node || v.Peer == x.Node) {
			e.say(AboutWaits, "It limps (%s, %s, as %s): %s.", v.Kind, limpState(v), v.ID, v.Evidence)
			e.help("%s", v.Advice)
		}
	}
	e.say(AboutIs, "It holds %d full replicas, %d bytes on its disk; %d further ones keep only the log. It is the master's node of %d of them.", x.Replicas, x.Bytes, x.LogOnly, x.Masters)
	f.heat(e)
	f.share(e)
	f.dependents(e)
	f.work(e)
	return e.sorted()
}

// answering are the nodes that may tell something.
func answering(all []NodeInfo) (ids []partition.NodeID) {
	for _, x := range all {
		if x.Status == "alive" {
			ids = append(ids, x.Node)
		}
	}
	return ids
}

// heat says what is asked of the partitions mastered on the node.
func (f *nodeFacts) heat(e *Explanation) {
	sum, own := 0.0, -1.0
	for _, l := range f.loads {
		sum += l.Units
		if l.Node == f.node.Node {
			own = l.Units
		}
	}
	if own >= 0 && sum > 0 {
		e.say(AboutIs, "What it is master of is asked for %.0f units a second, %.0f%% of what the %d nodes that tell are.", own, 100*own/sum, len(f.loads))
	}
}

// share compares the node with the others in service.
func (f *nodeFacts) share(e *Explanation) {
	nodes, replicas, masters := 0, 0, 0
	for _, x := range f.all {
		if x.Status == "alive" && x.Mode == "" && x.Leaving == 0 {
			nodes++
			replicas += x.Replicas
			masters += x.Masters
		}
	}
	if nodes == 0 {
		return
	}
	e.say(AboutPlace, "The mean over the %d nodes that may take replicas is %.1f replicas and %.1f masters.",
		nodes, float64(replicas)/float64(nodes), float64(masters)/float64(nodes))
	if x := f.node; x.Status == "alive" && x.Mode == "" && x.Leaving == 0 && float64(x.Replicas)+1 < float64(replicas)/float64(nodes) {
		e.say(AboutWaits, "It holds fewer replicas than most; nothing moves there by itself.")
		e.help("pando rebalance plans what brings the cluster into balance")
	}
}

// dependents are the partitions that stand no loss while this node is one of their
// members.
func (f *nodeFacts) dependents(e *Explanation) {
	var need []string
	for i := range f.parts {
		p := &f.parts[i]
		for _, r := range p.Replicas {
			if r.Node == f.node.Node && r.Eligible && r.Kind != partition.Learner.String() && p.Master != "" && p.CanLose == 0 {
				need = append(need, p.Group.String())
			}
		}
	}
	if len(need) > 0 {
		e.say(AboutIs, "%s stand no further loss and count its replicas: they may take no writes if it stops now.", some(need))
		e.help("pando explain partition %s says what that one waits for", need[0])
	}
}

// some names the first of many.
func some(names []string) string {
	if len(names) > maxExplained {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:maxExplained], ", "), len(names)-maxExplained)
	}
	return strings.Join(names, ", ")
}

// work is what is under way from and to the node.
func (f *nodeFacts) work(e *Explanation) {
	listed := 0
	for i := range f.tasks {
		t := &f.tasks[i]
		if !t.Open() || t.From != f.node.Node && t.To != f.node.Node {
			continue
		}
		switch listed++; {
		case t.Kind == control.TaskDecommission.String():
			e.say(AboutWaits, "It is being emptied, by %s.", taskSentence(t)).Since = t.Created
			e.help("pando node recommission %s lets replicas come again", f.node.Node)
		case listed <= maxExplained:
			e.say(AboutWaits, "%s, of %s from %s to %s.", taskSentence(t), t.Group, t.From, t.To).Since = t.Created
		}
	}
	if listed > maxExplained {
		e.say(AboutWaits, "There are %d open tasks from it or to it in all.", listed)
		e.help("pando task ls lists them")
	}
}

// ExplainTask says what a task does, what it waits for, and since when.
func (n *Node) ExplainTask(ctx context.Context, id TaskID) (Explanation, error) {
	tasks, err := n.Tasks(ctx)
	if err != nil {
		return Explanation{}, err
	}
	i := slices.IndexFunc(tasks, func(t TaskInfo) bool { return t.ID == id })
	if i < 0 {
		return Explanation{}, &partition.Error{
			Code: partition.CodeNotFound, Why: fmt.Sprintf("no task %s is known: it never was, or it ended long ago", id), Next: "list them with: pando task ls --all",
		}
	}
	return explainTask(&tasks[i], tasks), nil
}

// explainTask explains a task of all that are known.
func explainTask(t *TaskInfo, all []TaskInfo) Explanation {
	e := &Explanation{Subject: "task " + t.ID.String()}
	e.say(AboutIs, "%s", taskPurpose(t)).Since = t.Created
	if t.By != "" || t.Reason != "" {
		e.say(AboutIs, "It was begun by %s%s.", cmp.Or(t.By, "somebody"), colon(t.Reason))
	}
	if t.Parent != 0 {
		e.say(AboutIs, "It is a step of %s.", t.Parent)
	}
	switch {
	case !t.Open():
		e.say(AboutIs, "It is %s%s.", t.State, colon(t.Why)).Since = t.Ended
		return e.sorted()
	case t.Cancel != "":
		e.say(AboutWaits, "It is being given up: %s. What was begun is undone first.", t.Cancel)
	case t.State == control.TaskPlanned.String():
		e.say(AboutWaits, "It waits to be looked at: nobody works on it.")
		e.help("pando plan apply %s carries it out, pando plan cancel %s drops it", cmp.Or(t.Parent, t.ID), cmp.Or(t.Parent, t.ID))
		return e.sorted()
	case t.Phase == phaseEmpty:
		e.say(AboutIs, "The node holds nothing, and stays empty as long as this task is open.")
		e.help("pando node recommission %s ends it", t.From)
		return e.sorted()
	}
	taskWaits(e, t, all)
	e.help("pando task abort %s gives it up", t.ID)
	return e.sorted()
}

// taskPurpose says what a task is for.
func taskPurpose(t *TaskInfo) string {
	switch t.Kind {
	case control.TaskSplit.String():
		var children []string
		for _, c := range t.Children {
			children = append(children, c.String())
		}
		return fmt.Sprintf("It divides partition %s; what leaves becomes %s.", t.Group, some(children))
	case control.TaskMerge.String():
		var sources []string
		for _, c := range t.Children {
			sources = append(sources, c.String())
		}
		return fmt.Sprintf("Partition %s absorbs %s, which is behind it.", t.Group, some(sources))
	case control.TaskMove.String():
		return fmt.Sprintf("It brings the replica of %s from node %s to node %s: %d bytes, as far as known.", t.Group, t.From, t.To, t.Bytes)
	case control.TaskTransfer.String():
		return fmt.Sprintf("It hands the mastership of %s from node %s to node %s.", t.Group, t.From, t.To)
	case control.TaskDecommission.String():
		return fmt.Sprintf("It empties node %s.", t.From)
	}
	return fmt.Sprintf("It is a %s of %d steps, %d of which are done.", t.Kind, t.OfUnits, t.Units)
}

// taskWaits says what an open task waits for.
func taskWaits(e *Explanation, t *TaskInfo, all []TaskInfo) {
	if t.Why != "" || t.Phase != "" {
		f := e.say(AboutWaits, "Its master's node says that it is %s%s.", cmp.Or(t.Phase, "under way"), colon(t.Why))
		f.Since = t.Touched
	}
	if t.Tries > 0 {
		e.say(AboutWaits, "It was given back %s, and is tried again after a growing pause; after %d times it fails.", times(t.Tries), maxTaskTries)
	}
	for i := range all {
		if o := &all[i]; t.Group != 0 && o.Group == t.Group && o.Open() && o.ID < t.ID {
			e.say(AboutWaits, "It waits for %s, which is of the same partition and comes first.", o.ID)
			return
		}
	}
	if t.Kind == control.TaskMove.String() && !t.Running {
		from, to := 0, 0
		for i := range all {
			if o := &all[i]; o.Open() && o.Running {
				from += b2i(o.From == t.From)
				to += b2i(o.To == t.To)
			}
		}
		e.say(AboutWaits, "It does not run: %d copies run from node %s and %d to node %s; more than %d each never run at a time.", from, t.From, to, t.To, control.MaxCopiesPerNode)
	}
	if t.OfUnits > 0 && t.Group == 0 {
		steps := StepsOf(all, t.ID)
		for i := range steps {
			if s := &steps[i]; s.Open() && (s.Why != "" || s.Phase != "") {
				e.say(AboutWaits, "Of its steps %s.", taskSentence(s))
				e.help("pando explain task %s", s.ID)
				return
			}
		}
	}
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Explain explains what the first argument names: "partition", "node" or "task".
func (n *Node) Explain(ctx context.Context, what, id string) (Explanation, error) {
	switch what {
	case "partition":
		g, err := partition.ParseGroupID(id)
		if err != nil {
			return Explanation{}, err
		}
		return n.ExplainPartition(ctx, g)
	case "node":
		return n.ExplainNode(ctx, partition.NodeID(id))
	case "task":
		t, err := ParseTaskID(id)
		if err != nil {
			return Explanation{}, err
		}
		return n.ExplainTask(ctx, t)
	}
	return Explanation{}, &partition.Error{Code: partition.CodeInvalid, Why: fmt.Sprintf("%.40q is nothing that can be explained", what), Next: "explain a partition, a node or a task"}
}
