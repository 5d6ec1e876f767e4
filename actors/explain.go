package actors

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"pando.dev/pando/cluster/control"
	"pando.dev/pando/cluster/placement"
	"pando.dev/pando/partition"
)

// What a sentence of an explanation is about.
const (
	AboutIs    = "is"    // what it is now
	AboutPlace = "place" // why it is where it is
	AboutWaits = "waits" // what it waits for
	AboutHelp  = "help"  // what would help
)

// maxExplained bounds what is listed of one sort in an explanation.
const maxExplained = 8

// Explanation says why something is as it is: sentences, each of which can be
// checked by another command.
type Explanation struct {
	Subject string `json:"subject"`
	Facts   []Fact `json:"facts"`
}

// Fact is one sentence of an explanation.
type Fact struct {
	About string    `json:"about"`
	Text  string    `json:"text"`
	Since time.Time `json:"since,omitzero"`
}

func (e *Explanation) say(about, format string, args ...any) *Fact {
	e.Facts = append(e.Facts, Fact{About: about, Text: fmt.Sprintf(format, args...)})
	return &e.Facts[len(e.Facts)-1]
}

// help adds what would help, once.
func (e *Explanation) help(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if !slices.ContainsFunc(e.Facts, func(f Fact) bool { return f.About == AboutHelp && f.Text == text }) {
		e.Facts = append(e.Facts, Fact{About: AboutHelp, Text: text})
	}
}

// sorted brings the sentences into their order: what, why there, waits, help.
func (e *Explanation) sorted() Explanation {
	order := []string{AboutIs, AboutPlace, AboutWaits, AboutHelp}
	slices.SortStableFunc(e.Facts, func(a, b Fact) int {
		return cmp.Compare(slices.Index(order, a.About), slices.Index(order, b.About))
	})
	return *e
}

// partitionFacts are what is known of a partition when it is explained.
type partitionFacts struct {
	p      PartitionInfo
	parent partition.GroupID
	want   int // replicas, by the table
	tasks  []TaskInfo
	chosen []partition.NodeID // by rendezvous hashing, of the nodes in service now
	nodes  map[partition.NodeID]MemberInfo
	load   *PartitionLoad // nil: nobody tells of any
}

// ExplainPartition says why a partition is where and how it is, and what it waits
// for.
func (n *Node) ExplainPartition(ctx context.Context, id partition.GroupID) (Explanation, error) {
	p, err := n.Partition(ctx, id)
	if err != nil {
		return Explanation{}, err
	}
	tasks, err := n.Tasks(ctx)
	if err != nil {
		return Explanation{}, err
	}
	cat := n.control.Catalog()
	f := &partitionFacts{p: p, tasks: tasks, want: p.Asked, nodes: make(map[partition.NodeID]MemberInfo)}
	if g, ok := cat.Group(id); ok {
		f.parent = g.Parent
		if t, ok := cat.TableOf(g); ok {
			f.want = cmp.Or(p.Asked, t.Replicas)
		}
	}
	var free []placement.Node
	for _, m := range n.Members() {
		f.nodes[m.Node] = m
		if _, leaving := cat.Leaving(m.Node); m.Status == "alive" && m.Mode == "" && !leaving {
			free = append(free, placement.Node{ID: m.Node, Zone: m.Zone, Weight: 1})
		}
	}
	f.chosen, _ = placement.Place(id, free, f.want) // none, if there are too few nodes
	if h, err := n.Hot(ctx, HotOptions{Group: id}); err == nil && len(h.Partitions) > 0 {
		f.load = &h.Partitions[0]
	}
	return f.explain(), nil
}

func (f *partitionFacts) explain() Explanation {
	p, e := &f.p, &Explanation{Subject: "partition " + f.p.Group.String()}
	e.say(AboutIs, "It is a partition of table %s and has %s.", p.Table, keysText(p.Lo, p.Hi))
	switch {
	case p.Master == "":
		e.say(AboutWaits, "It has no master%s.", colon(p.Missing))
		e.help("pando recover plan %s says whether it can come back by itself", p.Group)
	case p.CanLose < 0:
		e.say(AboutWaits, "Node %s is its master, and it takes no writes%s.", p.Master, colon(p.Missing))
		e.help("pando recover plan %s says whether it can come back by itself", p.Group)
	default:
		e.say(AboutIs, "Node %s is its master in epoch %s; %d more of its nodes may fail.", p.Master, p.Epoch, p.CanLose)
	}
	e.say(AboutIs, "Its policy is %s: %s.", p.Policy, p.Rule)
	if p.Solo != "" {
		e.say(AboutWaits, "%s.", p.Solo)
	}
	if f.parent != 0 {
		e.say(AboutPlace, "It was split from %s, and began on the nodes that the split named.", f.parent)
	}
	for i := range p.Replicas {
		f.replica(e, &p.Replicas[i])
	}
	if len(f.chosen) > 0 {
		e.say(AboutPlace, "Of the nodes in service now rendezvous hashing chooses %s for it; nothing moves for that alone.", join(slices.Clone(f.chosen), "and"))
	}
	f.heat(e)
	f.waits(e)
	return e.sorted()
}

// heat says what is asked of the partition, and why it was divided for that, or not.
func (f *partitionFacts) heat(e *Explanation) {
	l := f.load
	if l == nil {
		return
	}
	limit := "load does not divide it: its table does not ask for that"
	if l.Limit > 0 {
		limit = fmt.Sprintf("its table lets it carry %.0f", l.Limit)
	}
	e.say(AboutIs, "It is asked for %.0f units a second, %.0f%% of what the cluster is; %s.", l.Units, 100*l.Share, limit)
	if l.Decision != "" {
		e.say(AboutIs, "Whether to divide it was decided last: %s%s.", l.Decision, colon(l.Reason)).Since = l.Decided
	}
	if l.HotKeyShare > 0 {
		e.say(AboutIs, "One key, %.200q, is %.0f%% of that.", l.HotKey, 100*l.HotKeyShare)
	}
}

// replica says why a replica is where it is, and what is wrong with it.
func (f *partitionFacts) replica(e *Explanation, r *ReplicaInfo) {
	why := "no task that is still remembered moved it there"
	switch {
	case slices.Contains(f.chosen, r.Node):
		why = "rendezvous hashing chooses that node"
	case f.p.Version == 1:
		why = "it was placed there when the partition was made"
	}
	for _, t := range f.tasks {
		if t.Group == f.p.Group && t.Kind == control.TaskMove.String() && t.To == r.Node && t.Succeeded() {
			why = fmt.Sprintf("%s moved it there from %s: %s", t.ID, t.From, t.Reason)
		}
	}
	switch r.Kind {
	case partition.LogReplica.String():
		why = "it keeps only the log, and stands in until as many full replicas answer as there should be"
	case partition.Learner.String():
		why = "it is being brought up and does not count yet"
	}
	e.say(AboutPlace, "Replica %d is on node %s, zone %s: %s.", r.Replica, r.Node, r.Zone, why)
	m := f.nodes[r.Node]
	switch {
	case r.Role == "unreachable":
		e.say(AboutWaits, "Replica %d on node %s does not answer; gossip says that the node is %s.", r.Replica, r.Node, cmp.Or(m.Status, "not known"))
		e.help("start node %s again; without it the partition replaces the replica in time, if there is another node", r.Node)
	case r.Role == "broken" || r.Role == "missing" || r.Role == "behind" || r.Role == "opening":
		e.say(AboutWaits, "Replica %d on node %s is %s%s.", r.Replica, r.Node, r.Role, colon(r.Why))
	case !r.Eligible && r.Kind == partition.Full.String():
		e.say(AboutWaits, "Replica %d on node %s does not count%s.", r.Replica, r.Node, colon(outOfService(m)))
		if m.Mode != "" {
			e.help("pando node undrain %s, when the work on it is done", r.Node)
		}
	}
}

func outOfService(m MemberInfo) string {
	if m.Mode == "" {
		return ""
	}
	return "its node is " + m.Mode
}

// waits says what is under way, or stands in the way.
func (f *partitionFacts) waits(e *Explanation) {
	p := &f.p
	full := 0
	for _, r := range p.Replicas {
		if r.Kind == partition.Full.String() {
			full++
		}
	}
	switch {
	case full < f.want:
		e.say(AboutWaits, "It has %d full replicas and shall have %d.", full, f.want)
		if len(f.chosen) == 0 {
			e.help("start another node: there are fewer in service than the %d replicas it shall have", f.want)
		}
	case full > f.want && f.want > 0:
		e.say(AboutWaits, "It has %d full replicas and shall have %d: the surplus goes.", full, f.want)
	}
	if p.InFlight {
		e.say(AboutWaits, "Membership version %d is not known to be committed yet: the one before it holds as well.", p.Version)
	}
	if p.Tending != "" {
		e.say(AboutWaits, "Its master's node brings it to what it shall be: %s.", p.Tending)
	}
	if p.Splitting != "" {
		e.say(AboutWaits, "Of the split under way: %s.", p.Splitting)
	}
	for i := range f.tasks {
		if t := &f.tasks[i]; t.Group == p.Group && t.Open() {
			e.say(AboutWaits, "%s.", taskSentence(t)).Since = t.Created
			e.help("pando explain task %s", t.ID)
		}
	}
	if !slices.ContainsFunc(e.Facts, func(x Fact) bool { return x.About == AboutWaits }) {
		e.say(AboutIs, "It waits for nothing.")
	}
}

// taskSentence is a task in one sentence, without its end.
func taskSentence(t *TaskInfo) string {
	s := fmt.Sprintf("%s, a %s, is %s", t.ID, t.Kind, cmp.Or(t.Phase, t.State))
	return s + colon(cmp.Or(t.Why, t.Cancel, t.Reason))
}

func colon(why string) string {
	if why == "" {
		return ""
	}
	return ": " + strings.TrimSuffix(why, ".")
}

func keysText(lo, hi []byte) string {
	if len(lo) == 0 && len(hi) == 0 {
		return "all its keys"
	}
	return fmt.Sprintf("its keys %.200s", partition.KeyRange{Lo: lo, Hi: hi})
}
