package actors

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"strings"

	"pando.dev/pando/cluster/control"
	"pando.dev/pando/partition"
)

// A group that has lost its failover quorum for good goes on by an operator's
// word only: what the lost members alone had is lost with them. A plan says which
// groups these are, who is left and what may be lost; its id names exactly this
// state, and to apply it is refused when the state has changed.
//
//	plan   ask every node that is left -> who survives, how new, who is lost
//	apply  plan again, compare -> decree of the control group -> the newest
//	       survivor goes on with the others that are left

const (
	// MaxRecover bounds the partitions of one plan.
	MaxRecover = 256
	// recoverGap is how many replica ids are left out by a recovery: what the lost
	// members made of the group before they were lost must never be taken for what
	// is made of it later.
	recoverGap = 256
)

// What a plan says of a partition.
const (
	RecoverServes = "serves"      // it has a master, or is about to: nothing to do
	RecoverWaits  = "waits"       // it may come back by itself
	RecoverLost   = "lost"        // the plan brings it back
	RecoverNobody = "no survivor" // nobody who is left can be master
)

// RecoverAsk is what a plan is wanted for.
type RecoverAsk struct {
	// Groups are the partitions; empty: all that take no writes.
	Groups []partition.GroupID `json:"groups,omitempty"`
	// Dead are nodes that are gone for good, by the operator's word.
	Dead []partition.NodeID `json:"dead,omitempty"`
}

// RecoverPlan says which partitions are lost and what would bring them back.
type RecoverPlan struct {
	// Plan names what to apply: the lost partitions, the dead nodes and the state
	// that all that is left is in. Empty if nothing can be applied.
	Plan string             `json:"plan"`
	Dead []partition.NodeID `json:"dead,omitempty"`
	// Control says why the control group cannot decide, if it cannot.
	Control string            `json:"control,omitempty"`
	Groups  []PartitionRescue `json:"partitions"`
}

// PartitionRescue is what a plan says of one partition.
type PartitionRescue struct {
	Group   partition.GroupID           `json:"group"`
	Table   string                      `json:"table"`
	Version partition.MembershipVersion `json:"membership_version"`
	Policy  string                      `json:"policy"`
	State   string                      `json:"state"` // serves, waits, lost, no survivor
	Why     string                      `json:"why"`
	Next    string                      `json:"next,omitempty"`
	// Survivors are the members that are left, the newest first.
	Survivors []Survivor   `json:"survivors"`
	Lost      []LostMember `json:"lost"`
	// Node and Replica are who would go on.
	Node    partition.NodeID    `json:"node,omitempty"`
	Replica partition.ReplicaID `json:"replica,omitempty"`
	// Loss says in words what may be lost by that.
	Loss string `json:"loss,omitempty"`
	// Becomes describes the partition right after it.
	Becomes string `json:"becomes,omitempty"`
	// Number is the group's in-sync number, from which the decree goes on.
	Number uint64 `json:"in_sync_number"`

	next *partition.Membership // the configuration after it; nil unless lost
	last *partition.Membership // the newest one of the newest survivor
}

// Survivor is a member that is left.
type Survivor struct {
	Replica partition.ReplicaID `json:"replica"`
	Node    partition.NodeID    `json:"node"`
	Zone    string              `json:"zone"`
	Kind    string              `json:"kind"`
	// Epoch and Last are of the last record of its log; Commit is up to where it
	// knows the log to be committed.
	Epoch  string          `json:"epoch"`
	Last   partition.Index `json:"last"`
	Commit partition.Index `json:"commit"`

	end partition.Position
}

// LostMember is a member that is taken for lost.
type LostMember struct {
	Replica partition.ReplicaID `json:"replica"`
	Node    partition.NodeID    `json:"node"`
	Zone    string              `json:"zone"`
	Kind    string              `json:"kind"`
	Why     string              `json:"why"`
}

// survey is what a node says of its replica of a group.
type survey struct {
	Group   partition.GroupID   `json:"g"`
	Replica partition.ReplicaID `json:"r"`
	Role    string              `json:"role"`
	Serving bool                `json:"serving,omitempty"`
	Last    partition.Position  `json:"last"`
	Commit  partition.Index     `json:"commit"`
	Opening bool                `json:"opening,omitempty"`
	Removed bool                `json:"removed,omitempty"`
	Broken  string              `json:"broken,omitempty"`
	Configs [][]byte            `json:"configs,omitempty"`

	active partition.Configurations // Configs, decoded
}

// usable reports whether the replica can take part.
func (s *survey) usable() bool {
	return !s.Opening && !s.Removed && s.Broken == "" && len(s.active) > 0
}

// groupFacts is what is known of a group when it is planned for.
type groupFacts struct {
	group    *control.Group
	table    string
	surveys  map[partition.NodeID]*survey // of the nodes that hold a replica
	answered map[partition.NodeID]bool    // the nodes that answered
	dead     []partition.NodeID           // by the operator's word
	permit   control.Permit
}

// planGroup decides what is to be done about a group. It is pure.
func planGroup(f *groupFacts) PartitionRescue {
	p := PartitionRescue{
		Group: f.group.ID, Table: f.table, Version: f.group.Membership.Version,
		Policy: f.group.Membership.Policy.String(), Number: f.permit.Number,
	}
	active := partition.Configurations{f.group.Membership}
	if best := f.newest(nil); best != nil {
		active = best.active
	}
	p.last = active.Last()
	p.Version, p.Policy = p.last.Version, p.last.Policy.String()
	waits := f.sort(&p, active)
	up := func(r partition.ReplicaID) bool {
		return slices.ContainsFunc(p.Survivors, func(s Survivor) bool { return s.Replica == r })
	}
	if f.byItself(&p, active, up) {
		return p
	}
	if len(waits) > 0 {
		p.State, p.Why = RecoverWaits, active.Missing(up)
		p.Next = fmt.Sprintf("start %s again; if gone for good: pando recover plan %s --dead %s", join(waits, "and"), f.group.ID, join(append(slices.Clone(f.dead), waits...), ","))
		return p
	}
	f.rescue(&p, active, up)
	return p
}

// masters reports whether the replica is master, or about to be, as it sees it.
func (s *survey) masters() bool {
	return s.Serving || s.Role == "leveling" || s.Role == "recovering"
}

// newest returns the usable replica with the newest log of those that ok holds
// for (nil: all); of equal ones a master, since another would refuse to go on
// beside it, and then the least id.
func (f *groupFacts) newest(ok func(*survey) bool) *survey {
	var best *survey
	for _, s := range f.surveys {
		if !s.usable() || ok != nil && !ok(s) {
			continue
		}
		if best == nil || cmp.Or(s.Last.Compare(best.Last), boolOrder(s.masters(), best.masters()), cmp.Compare(best.Replica, s.Replica)) > 0 {
			best = s
		}
	}
	return best
}

// boolOrder orders true behind false.
func boolOrder(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// sort divides the members into survivors and lost ones, and returns the nodes
// of which neither can be said.
func (f *groupFacts) sort(p *PartitionRescue, active partition.Configurations) (waits []partition.NodeID) {
	p.Survivors, p.Lost = []Survivor{}, []LostMember{}
	for _, m := range everyMember(active) {
		s := f.surveys[m.Node]
		lost := LostMember{Replica: m.Replica, Node: m.Node, Zone: m.Zone, Kind: m.Kind.String()}
		switch {
		case s != nil && s.Replica == m.Replica && s.usable():
			p.Survivors = append(p.Survivors, Survivor{
				Replica: m.Replica, Node: m.Node, Zone: m.Zone, Kind: m.Kind.String(),
				Epoch: s.Last.Epoch.String(), Last: s.Last.Index, Commit: s.Commit, end: s.Last,
			})
			continue
		case s != nil && s.Replica == m.Replica && s.Opening:
			waits = append(waits, m.Node)
			continue
		case s != nil && s.Replica == m.Replica && s.Broken != "":
			lost.Why = "damaged: " + s.Broken
		case f.answered[m.Node]:
			lost.Why = "its node does not have it any more"
		case slices.Contains(f.dead, m.Node):
			lost.Why = "its node is gone for good, by the operator's word"
		case m.Kind == partition.Learner:
			lost.Why = "it was being brought up, and its node does not answer"
		default:
			waits = append(waits, m.Node)
			continue
		}
		p.Lost = append(p.Lost, lost)
	}
	slices.SortStableFunc(p.Survivors, func(a, b Survivor) int { return b.end.Compare(a.end) })
	return waits
}

// byItself finds the groups that need nobody's help.
func (f *groupFacts) byItself(p *PartitionRescue, active partition.Configurations, up func(partition.ReplicaID) bool) bool {
	whole := len(active) > 0 && active.Missing(up) == ""
	mine := f.permit.Held() && f.surveys[f.permit.Node] != nil && f.surveys[f.permit.Node].Replica == f.permit.Replica && up(f.permit.Replica)
	free := p.last.Policy.Rule == partition.AllInSync && lastOne(p.last, up) && (!f.permit.Held() || anyAble(&f.permit, p.last, up))
	switch {
	case f.permit.Held() && !mine && !anyAble(&f.permit, p.last, up):
		return false // nobody who is left may be master
	case whole && servesBy(f.surveys) != "":
		p.State, p.Why = RecoverServes, fmt.Sprintf("it has a master, on %s, and who it needs", servesBy(f.surveys))
	case whole:
		p.State, p.Why = RecoverServes, "those that answer can elect a master and commit"
		p.Next = fmt.Sprintf("wait a moment; if it stays so: pando partition show %s", p.Group)
	case mine && f.permit.Decreed:
		return false // a recovery that was not carried out
	case mine || free:
		p.State = RecoverServes
		p.Why = "one that is left may go on alone, and does so by itself"
		p.Next = fmt.Sprintf("wait a moment; if it stays so: pando partition show %s", p.Group)
	default:
		return false
	}
	return true
}

// servesBy is the node that serves as master, if one does.
func servesBy(all map[partition.NodeID]*survey) (found partition.NodeID) {
	for node, s := range all {
		if s.usable() && s.Serving && (found == "" || node < found) {
			found = node
		}
	}
	return found
}

// lastOne reports whether one voter that counts is left, and is a full one: only
// such a one goes on alone. Two that are left wait for the others.
func lastOne(m *partition.Membership, up func(partition.ReplicaID) bool) bool {
	left, full := 0, false
	for _, x := range m.Members {
		if x.Eligible && x.Kind != partition.Learner && up(x.Replica) {
			left++
			full = full || x.Kind == partition.Full
		}
	}
	return left == 1 && full
}

// anyAble reports whether somebody who is left may have the lock beside a permit
// of another.
func anyAble(p *control.Permit, m *partition.Membership, up func(partition.ReplicaID) bool) bool {
	return slices.ContainsFunc(m.Members, func(x partition.Member) bool {
		may := slices.Contains(p.Able, x.Replica) || p.Next != 0 && x.Replica >= p.Next
		return may && x.Kind == partition.Full && x.Eligible && up(x.Replica)
	})
}

// rescue plans how a lost group goes on.
func (f *groupFacts) rescue(p *PartitionRescue, active partition.Configurations, up func(partition.ReplicaID) bool) {
	full := func(s *survey) bool {
		m, ok := p.last.Member(s.Replica)
		return ok && m.Kind == partition.Full
	}
	chosen := f.newest(full)
	if chosen == nil {
		p.State, p.Why = RecoverNobody, "no member that is left keeps the partition's state"
		p.Next = "bring one of the lost nodes back, or restore the table from a copy"
		return
	}
	behind := chosen.Last.Compare(p.Survivors[0].end) < 0
	next, err := rescued(p.last, up, chosen.Replica, behind)
	if err != nil {
		p.State, p.Why = RecoverNobody, fmt.Sprintf("those that are left cannot be a group: %v", err)
		p.Next = "bring one of the lost nodes back, or restore the table from a copy"
		return
	}
	m, _ := next.Member(chosen.Replica)
	p.State, p.Node, p.Replica, p.next = RecoverLost, m.Node, chosen.Replica, next
	p.Why = active.Missing(up)
	if p.Why == "" {
		p.Why = fmt.Sprintf("only %s may go on with it (%s)", f.permit.Node, f.permit.String())
	}
	p.Becomes = next.Describe()
	p.Loss = f.loss(p, active, up, chosen)
}

// rescued is the configuration of those that are left. The policy asks for no
// more zones than they lie in; the table's is adopted again when others joined.
// If the one that is chosen is behind another, which keeps only the log, the
// policy is zones:1 for the moment: by that a master needs everybody to fail over,
// so it has the newest log of all.
func rescued(last *partition.Membership, up func(partition.ReplicaID) bool, chosen partition.ReplicaID, behind bool) (*partition.Membership, error) {
	next := last.Successor()
	// The lost members may have given out ids that nobody here has heard of.
	next.Next += min(recoverGap, math.MaxUint16-next.Next)
	next.Members = slices.DeleteFunc(next.Members, func(m partition.Member) bool { return !up(m.Replica) })
	next.At(chosen).Eligible = true
	if behind {
		for i := range next.Members {
			next.Members[i].Eligible = true
		}
		next.Policy = partition.Policy{Rule: partition.Zones, Zones: 1}
	}
	if next.Policy.Rule == partition.Zones {
		var zones []string
		for _, m := range next.Members {
			if m.Eligible && m.Kind != partition.Learner && !slices.Contains(zones, m.Zone) {
				zones = append(zones, m.Zone)
			}
		}
		next.Policy.Zones = uint8(min(int(next.Policy.Zones), len(zones)))
	}
	if err := next.Validate(); err == nil {
		return next, nil
	}
	// Too many of them keep only the log: without those it is a group.
	next.Members = slices.DeleteFunc(next.Members, func(m partition.Member) bool { return m.Kind == partition.LogReplica })
	return next, next.Validate()
}

// loss says in words what may be lost, with the bound that follows from what is
// left: a record that is known here to be committed is kept, and what lies behind
// the newest log here may have been acknowledged without it.
func (f *groupFacts) loss(p *PartitionRescue, active partition.Configurations, up func(partition.ReplicaID) bool, chosen *survey) string {
	newest := p.Survivors[0]
	commit := partition.Index(0)
	for _, s := range p.Survivors {
		commit = max(commit, s.Commit)
	}
	text := ""
	switch elsewhere := f.permit.Held() && f.permit.Node != chosen.node(p); {
	case active.CanFailover(up) && !elsewhere:
		return "nothing that was acknowledged; those that are left have all of it"
	case elsewhere:
		text = fmt.Sprintf("acknowledged writes after record %d that were only on %s, which went on alone, may be lost", newest.Last, f.permit.Node)
	default:
		text = fmt.Sprintf("acknowledged writes after record %d that were only on %s may be lost", newest.Last, lostNodes(p, active))
	}
	text += fmt.Sprintf("; all through record %d are kept for certain", commit)
	if newest.Last > commit {
		text += fmt.Sprintf(", and records %d to %d as they are on %s, unless a later master put others in their place", commit+1, newest.Last, newest.Node)
	}
	return text
}

// node is where the replica lives.
func (s *survey) node(p *PartitionRescue) partition.NodeID {
	m, _ := p.last.Member(s.Replica)
	return m.Node
}

// lostNodes names the nodes of the lost members that count in some configuration.
func lostNodes(p *PartitionRescue, active partition.Configurations) string {
	var names []partition.NodeID
	for _, l := range p.Lost {
		for _, c := range active {
			if m, ok := c.Member(l.Replica); ok && m.Eligible && m.Kind != partition.Learner && !slices.Contains(names, m.Node) {
				names = append(names, m.Node)
			}
		}
	}
	return join(names, "and")
}

// join lists nodes as a sentence, or with "," as a flag.
func join(nodes []partition.NodeID, word string) string {
	names := make([]string, len(nodes))
	for i, n := range nodes {
		names[i] = string(n)
	}
	if word == "," {
		slices.Sort(names)
		return strings.Join(slices.Compact(names), ",")
	}
	if n := len(names); n > 1 {
		return strings.Join(names[:n-1], ", ") + " " + word + " " + names[n-1]
	}
	return strings.Join(names, "")
}

// planID names the lost partitions, the dead nodes and the state of all that is
// left: GROUPS/NODES/HASH.
func planID(groups []PartitionRescue, dead []partition.NodeID) string {
	var ids []string
	h := sha256.New()
	for _, p := range groups {
		if p.State != RecoverLost {
			continue
		}
		ids = append(ids, p.Group.String())
		config, _ := p.last.AppendBinary(nil)
		fmt.Fprintf(h, "%s %d %x %d %d %s\n", p.Group, p.Version, config, p.Number, p.Replica, p.Node)
		for _, s := range p.Survivors {
			fmt.Fprintf(h, "left %d %s %s %d\n", s.Replica, s.Node, s.end, s.Commit)
		}
		for _, l := range p.Lost {
			fmt.Fprintf(h, "lost %d %s\n", l.Replica, l.Node)
		}
	}
	if len(ids) == 0 {
		return ""
	}
	return strings.Join(ids, ",") + "/" + join(dead, ",") + "/" + hex.EncodeToString(h.Sum(nil)[:8])
}

// parsePlan reads what planID returns.
func parsePlan(plan string) (RecoverAsk, error) {
	var ask RecoverAsk
	bad := &partition.Error{
		Code: partition.CodeInvalid, Why: fmt.Sprintf("%.80q is not a plan", plan),
		Next: "give the plan as pando recover plan prints it",
	}
	parts := strings.Split(plan, "/")
	if len(parts) != 3 || len(parts[2]) != 16 {
		return ask, bad
	}
	for _, s := range strings.Split(parts[0], ",") {
		g, err := partition.ParseGroupID(s)
		if err != nil || g.String() != s || len(ask.Groups) >= MaxRecover {
			return ask, bad
		}
		ask.Groups = append(ask.Groups, g)
	}
	if parts[1] != "" {
		for _, s := range strings.Split(parts[1], ",") {
			ask.Dead = append(ask.Dead, partition.NodeID(s))
		}
	}
	return ask, nil
}
