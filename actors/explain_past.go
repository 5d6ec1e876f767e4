package actors

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"pando.dev/pando/cluster/control"
	"pando.dev/pando/partition"
)

const (
	// historyRecords and historyBytes bound how much of a log is read for a history,
	// from its end, and historyChunk what is read at once.
	historyRecords = 100_000
	historyBytes   = 32 << 20
	historyChunk   = 1024
	// maxEvents bounds the events of a history; the oldest are left out.
	maxEvents = 200
)

// History is what is known of a partition's past.
type History struct {
	Group partition.GroupID `json:"group"`
	Table string            `json:"table"`
	// Parent is what it was split from, and Children what was split from it, as far
	// as they are still there.
	Parent   partition.GroupID   `json:"parent,omitempty"`
	Children []partition.GroupID `json:"children"`
	// Node is whose log this is; From and To are the records that were read.
	Node partition.NodeID `json:"node"`
	From partition.Index  `json:"from"`
	To   partition.Index  `json:"to"`
	// Events are in the order of their records, and then the tasks.
	Events []HistoryEvent `json:"events"`
	Tasks  []TaskInfo     `json:"tasks"`
	// Lost says what is not kept any more.
	Lost string `json:"lost,omitempty"`
}

// HistoryEvent is one record that has changed the group.
type HistoryEvent struct {
	Index partition.Index `json:"index"`
	Epoch string          `json:"epoch"`
	Kind  string          `json:"kind"`
	Text  string          `json:"text"`
}

// logHistory is what a replica's node tells of its log.
type logHistory struct {
	From   partition.Index `json:"from"`
	To     partition.Index `json:"to"`
	First  partition.Index `json:"first"` // of the log
	Parent uint64          `json:"parent,omitempty"`
	Base   partition.Index `json:"base,omitempty"`
	Events []HistoryEvent  `json:"events"`
}

// History tells what is known of a partition's past: epochs, members and splits, by
// the log of its replicas that goes back furthest.
func (n *Node) History(ctx context.Context, id partition.GroupID) (History, error) {
	p, err := n.Partition(ctx, id)
	if err != nil {
		return History{}, err
	}
	cat := n.control.Catalog()
	h := History{Group: id, Table: p.Table, Children: []partition.GroupID{}, Tasks: []TaskInfo{}}
	for _, g := range cat.AllGroups() {
		if g.Parent == id {
			h.Children = append(h.Children, g.ID)
		}
	}
	for _, t := range cat.Tasks() {
		if t.Group == id {
			h.Tasks = append(h.Tasks, taskInfo(cat, t))
		}
	}
	if g, ok := cat.Group(id); ok {
		h.Parent = g.Parent
	}
	node, l, err := n.longestLog(ctx, &p)
	if err != nil {
		return h, err
	}
	h.take(node, l)
	return h, nil
}

// longestLog is the log that goes back furthest of those that have all that is
// known to be committed; of equal ones the master's.
func (n *Node) longestLog(ctx context.Context, p *PartitionInfo) (node partition.NodeID, best logHistory, err error) {
	logs, errs := make([]logHistory, len(p.Replicas)), make([]error, len(p.Replicas))
	inParallel(len(p.Replicas), func(i int) {
		r := &p.Replicas[i]
		if errs[i] = partition.Errorf(partition.CodeUnavailable, "replica %d on node %s is %s", r.Replica, r.Node, r.Role); r.Role != "unreachable" && r.Role != "missing" {
			logs[i], errs[i] = n.askHistory(ctx, r.Node, p.Group)
		}
	})
	for i, r := range p.Replicas {
		l := logs[i]
		if errs[i] != nil || l.To < p.Commit {
			continue
		}
		if node == "" || l.From < best.From || l.From == best.From && r.Node == p.Master {
			node, best = r.Node, l
		}
	}
	if node == "" {
		return "", best, cmp.Or(errors.Join(errs...), error(partition.Errorf(partition.CodeUnavailable, "no replica of %s has a log of all that is committed", p.Group)))
	}
	return node, best, nil
}

// take adds what a log tells.
func (h *History) take(node partition.NodeID, l logHistory) {
	h.Node, h.From, h.To, h.Events = node, l.From, l.To, l.Events
	h.Parent = cmp.Or(h.Parent, partition.GroupID(l.Parent))
	lost := []string{fmt.Sprintf("of the tasks that have ended the cluster keeps the last %d", control.MaxEndedTasks)}
	if l.First > l.Base+1 {
		lost = append(lost, fmt.Sprintf("records before %d are not kept: the state has them, without their past", l.First))
	}
	if l.From > l.First {
		lost = append(lost, fmt.Sprintf("records %d to %d were not read", l.First, l.From-1))
	}
	h.Lost = strings.Join(lost, "; ")
}

func (n *Node) askHistory(ctx context.Context, node partition.NodeID, id partition.GroupID) (logHistory, error) {
	if node == n.ID() {
		return n.logHistory(ctx, id)
	}
	ctx, cancel := context.WithTimeout(ctx, serveWait)
	defer cancel()
	return askNode[logHistory](ctx, n, node, callHistory, id)
}

// serveHistory answers another node's question for the past of a replica.
func (n *Node) serveHistory(ctx context.Context, body []byte) ([]byte, error) {
	var id partition.GroupID
	if err := json.Unmarshal(body, &id); err != nil {
		return nil, partition.Errorf(partition.CodeInvalid, "a question for the past of a partition that cannot be read")
	}
	l, err := n.logHistory(ctx, id)
	if err != nil {
		return nil, err
	}
	return json.Marshal(l)
}

// logHistory reads the end of a replica's log for what has changed the group.
func (n *Node) logHistory(ctx context.Context, id partition.GroupID) (logHistory, error) {
	sum, ok := n.log.Summary(id)
	if !ok || sum.Damage != nil {
		return logHistory{}, partition.Errorf(partition.CodeUnavailable, "node %s has no log of %s that can be read", n.ID(), id)
	}
	l := logHistory{From: sum.Last + 1, To: sum.Last, First: sum.First, Events: []HistoryEvent{}}
	if c := n.cells.get(id); c != nil {
		if x, ok := c.served(); ok {
			l.Parent, l.Base = uint64(x.Parent), x.Base
		}
	}
	var found []partition.Record
	left := historyBytes
	for l.From > sum.First && l.To+1-l.From < historyRecords && left > 0 && ctx.Err() == nil {
		from := max(sum.First, l.From-min(l.From-1, historyChunk))
		chunk, used, err := n.structural(id, from, l.From-1)
		if err != nil {
			return l, err
		}
		found = append(chunk, found...)
		l.From, left = from, left-used
	}
	var before []partition.Record // what was in force where it begins
	for _, rec := range sum.Configurations {
		if rec.Index() < l.From {
			before = append(before, rec)
		}
	}
	found = append(before, found...)
	l.Events = eventsOf(found, sum.Commit)
	return l, nil
}

// structural returns the records of a part of the log that change the group, and
// how many bytes were read.
func (n *Node) structural(id partition.GroupID, from, to partition.Index) (found []partition.Record, used int, err error) {
	for from <= to {
		recs, err := n.log.Read(id, from, to, maxReadBack)
		if err != nil {
			return nil, used, fmt.Errorf("read the log of %s: %w", id, err)
		}
		for _, rec := range recs {
			used += len(rec)
			switch rec.Kind() {
			case partition.KindCommand, partition.KindSession, partition.KindAbsorb:
			default:
				found = append(found, slices.Clone(rec)) // it shares memory with all that was read
			}
		}
		from += partition.Index(len(recs))
	}
	return found, used, nil
}

// eventsOf tells what records mean, in their order.
func eventsOf(recs []partition.Record, commit partition.Index) []HistoryEvent {
	events := []HistoryEvent{}
	var last *partition.Membership
	for _, rec := range recs {
		e := HistoryEvent{Index: rec.Index(), Epoch: rec.Epoch().String(), Kind: rec.Kind().String()}
		e.Text, last = eventText(rec, last)
		if rec.Index() > commit {
			e.Text += " (not known to be committed)"
		}
		events = append(events, e)
	}
	return events[max(0, len(events)-maxEvents):]
}

// eventText says what one record means, by the configuration before it.
func eventText(rec partition.Record, last *partition.Membership) (string, *partition.Membership) {
	switch rec.Kind() {
	case partition.KindNoop:
		r := rec.Epoch().Replica()
		if last != nil {
			if m, ok := last.Member(r); ok {
				return fmt.Sprintf("epoch %s: node %s, replica %d, becomes master", rec.Epoch(), m.Node, r), last
			}
		}
		return fmt.Sprintf("epoch %s: replica %d becomes master", rec.Epoch(), r), last
	case partition.KindMember, partition.KindMode:
		m := new(partition.Membership)
		if err := m.UnmarshalBinary(rec.Payload()); err != nil {
			return fmt.Sprintf("a configuration that cannot be read: %v", err), last
		}
		return configurationText(m, last), m
	case partition.KindIntent:
		var in partition.Intent
		if err := in.UnmarshalBinary(rec.Payload()); err != nil {
			return fmt.Sprintf("a split that cannot be read: %v", err), last
		}
		s := partition.Split{Task: in.Task, Phase: partition.Intended, Children: in.Children}
		return fmt.Sprintf("a split begins at range version %d: %s", in.Version, s.Describe()), last
	}
	return decisionText(rec), last
}

// decisionText says what a record about a split or a merge under way decides.
func decisionText(rec partition.Record) string {
	switch rec.Kind() {
	case partition.KindMergeIntent:
		var in partition.MergeIntent
		if err := in.UnmarshalBinary(rec.Payload()); err == nil {
			return fmt.Sprintf("task t%d: a merge begins, %s is to be absorbed", in.Task, in.Source)
		}
	case partition.KindMerging:
		return "the keys of the other group are this one's, for ever"
	case partition.KindSourceSeal:
		return "nothing changes here any more: another group is to absorb this one"
	}
	text := map[partition.Kind]string{
		partition.KindSeal: "what leaves is held", partition.KindUnseal: "what was to leave is served again",
		partition.KindActivate: "what leaves belongs to the children, for ever", partition.KindDone: "it is done everywhere", partition.KindAbort: "it is given up",
		partition.KindSourceUnseal: "it serves again: the merge was given up", partition.KindSourceGone: "its keys are another group's, for ever",
	}[rec.Kind()]
	var d partition.Decision
	if err := d.UnmarshalBinary(rec.Payload()); err != nil {
		return text
	}
	return fmt.Sprintf("task t%d, range version %d: %s", d.Task, d.Version, text)
}

// configurationText says what a configuration is, or how it differs from the one
// before.
func configurationText(m, last *partition.Membership) string {
	text := fmt.Sprintf("membership version %d", m.Version)
	if last == nil {
		var names []string
		for _, x := range m.Members {
			names = append(names, memberText(x))
		}
		return fmt.Sprintf("%s, policy %s: %s", text, m.Policy, some(names))
	}
	var changes []string
	for _, x := range m.Members {
		switch old, ok := last.Member(x.Replica); {
		case !ok:
			changes = append(changes, memberText(x)+" comes")
		case old.Kind != x.Kind:
			changes = append(changes, fmt.Sprintf("replica %d on %s becomes a %s", x.Replica, x.Node, kindText(x.Kind.String())))
		case old.Eligible != x.Eligible && x.Eligible:
			changes = append(changes, fmt.Sprintf("replica %d on %s counts again", x.Replica, x.Node))
		case old.Eligible != x.Eligible:
			changes = append(changes, fmt.Sprintf("replica %d on %s does not count", x.Replica, x.Node))
		case old.Zone != x.Zone:
			changes = append(changes, fmt.Sprintf("replica %d on %s is in zone %s", x.Replica, x.Node, x.Zone))
		}
	}
	for _, x := range last.Members {
		if _, stays := m.Member(x.Replica); !stays {
			changes = append(changes, fmt.Sprintf("replica %d on %s goes", x.Replica, x.Node))
		}
	}
	if m.Policy != last.Policy {
		changes = append(changes, fmt.Sprintf("policy %s", m.Policy))
	}
	if len(changes) == 0 {
		return text
	}
	return text + ": " + some(changes)
}

func memberText(x partition.Member) string {
	text := fmt.Sprintf("replica %d on %s", x.Replica, x.Node)
	if x.Kind != partition.Full {
		text += " (" + kindText(x.Kind.String()) + ")"
	}
	return text
}

// kindText is a kind of member as a noun.
func kindText(kind string) string {
	if kind == partition.Learner.String() {
		return kind
	}
	return kind + " replica"
}
