package placement

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"pando.dev/pando/partition"
)

// tending is one call of Tend: the situation, and what was found out about it.
type tending struct {
	s       *Situation
	m       *partition.Membership
	limits  Limits
	missing []string       // what keeps the group from being whole, the most important first
	again   partition.Time // earliest time at which more may be known
	refused string         // why the request cannot be met

	// leaving are the full replicas that shall go once another has taken their
	// place: gone for good, damaged, to be replaced at an operator's word, or badly
	// placed.
	leaving []partition.ReplicaID
	// crowded: the one that leaves does because its zone holds others too.
	crowded bool
}

func newTending(s *Situation) *tending {
	t := &tending{s: s, m: s.Membership, limits: s.Limits.withDefaults()}
	for i := range t.m.Members {
		if x := &t.m.Members[i]; x.Kind == partition.Full && (t.gone(x) || t.damaged(x)) {
			t.leaving = append(t.leaving, x.Replica)
		}
	}
	if r := s.Request; r.Kind == ReplaceReplica && !slices.Contains(t.leaving, r.Replica) {
		if x, ok := t.m.Member(r.Replica); ok && x.Kind == partition.Full {
			t.leaving = append(t.leaving, r.Replica)
		}
	}
	if r, ok := t.misplaced(); ok {
		t.leaving, t.crowded = append(t.leaving, r), true
	}
	return t
}

// wait is the step that does nothing.
func (t *tending) wait(why string) Step {
	return Step{Why: why, Refused: t.refused, Again: t.again}
}

// refuse says why the request is not met, as far as nothing was said yet.
func (t *tending) refuse(format string, args ...any) {
	t.miss(format, args...)
	if t.refused == "" {
		t.refused = fmt.Sprintf(format, args...)
	}
}

func (t *tending) miss(format string, args ...any) {
	t.missing = append(t.missing, fmt.Sprintf(format, args...))
}

// reached reports whether the time has come, and remembers it if not.
func (t *tending) reached(at partition.Time) bool {
	if at <= t.s.Now {
		return true
	}
	if t.again == 0 || at < t.again {
		t.again = at
	}
	return false
}

// node returns what is known of a node. One that nobody has heard of is not
// taken for gone: the master may know less than others.
func (t *tending) node(id partition.NodeID) NodeState {
	for _, n := range t.s.Nodes {
		if n.ID == id {
			return n
		}
	}
	return NodeState{Node: Node{ID: id}, Since: t.s.Now}
}

func (t *tending) peer(r partition.ReplicaID) PeerState {
	if r == t.s.Self {
		return PeerState{Replica: r, Present: true, CaughtUp: true, State: true}
	}
	for _, p := range t.s.Peers {
		if p.Replica == r {
			return p
		}
	}
	return PeerState{Replica: r}
}

// answers reports whether the member can take part now.
func (t *tending) answers(x *partition.Member) bool {
	return x.Replica == t.s.Self || t.node(x.Node).Up && t.peer(x.Replica).Broken == ""
}

// damaged reports whether the member fell silent while its node is there.
func (t *tending) damaged(x *partition.Member) bool {
	return x.Replica != t.s.Self && t.peer(x.Replica).Broken != "" && t.node(x.Node).Up
}

// away reports whether the member's node has been away for so long that a log
// replica shall stand in.
func (t *tending) away(x *partition.Member) bool {
	n := t.node(x.Node)
	return x.Replica != t.s.Self && !n.Up && t.reached(n.Since+t.limits.LogAfter)
}

// gone reports whether the member's node is given up.
func (t *tending) gone(x *partition.Member) bool {
	n := t.node(x.Node)
	return x.Replica != t.s.Self && !n.Up && n.Drain != Maintenance && t.reached(n.Since+max(t.limits.ReplaceAfter, t.limits.LogAfter))
}

// zone is where the member is now, which the configuration may not say yet.
func (t *tending) zone(x *partition.Member) string {
	if n := t.node(x.Node); n.Up {
		return n.Zone
	}
	return x.Zone
}

// steady reports whether the node is there to stay, as far as its past tells.
// With every time that it came and went it has to be there for longer. After
// LogAfter it is taken in any case: until then its absence would have no effect.
func (t *tending) steady(n NodeState) bool {
	if !n.Up {
		return false
	}
	if n.Flaps <= 0 {
		return true
	}
	return t.reached(n.Since + min(t.limits.Settle<<min(n.Flaps-1, 16), t.limits.LogAfter))
}

func (t *tending) isLeaving(r partition.ReplicaID) bool { return slices.Contains(t.leaving, r) }

// staying returns the full replicas that are to stay.
func (t *tending) staying() []*partition.Member {
	var out []*partition.Member
	for i := range t.m.Members {
		if x := &t.m.Members[i]; x.Kind == partition.Full && !t.isLeaving(x.Replica) {
			out = append(out, x)
		}
	}
	return out
}

func (t *tending) ofKind(k partition.MemberKind) []*partition.Member {
	var out []*partition.Member
	for i := range t.m.Members {
		if x := &t.m.Members[i]; x.Kind == k {
			out = append(out, x)
		}
	}
	return out
}

// covered reports whether a log replica that stands in for the member is still
// of use: the member is away, or does not count yet again.
func (t *tending) covered(x *partition.Member) bool { return t.away(x) || !x.Eligible }

// lacking is the number of members whose log replicas are to be kept, and absent
// the number of those who need one now. Members that leave are replaced instead.
func (t *tending) lacking() int { return t.count(t.covered) }
func (t *tending) absent() int  { return t.count(t.away) }

func (t *tending) count(fits func(*partition.Member) bool) int {
	c := 0
	for _, x := range t.staying() {
		c += btoi(fits(x))
	}
	return c
}

// target is how many full replicas the group shall have.
func (t *tending) target() int {
	return wanted(t.m, t.s.Spec)
}

// roles divides the members that are not full by what they are to become, the
// first ones first: full replicas, as far as some are missing, or log replicas.
// Learners become full; a log replica, or a learner that was brought up without
// state, does only if nobody needs it as a stand-in any more.
func (t *tending) roles() (full, logs []*partition.Member) {
	var learners []*partition.Member
	for i := range t.m.Members {
		switch x := &t.m.Members[i]; {
		case t.isGuest(x):
		case x.Kind == partition.LogReplica, x.Kind == partition.Learner && t.withoutState(x):
			logs = append(logs, x)
		case x.Kind == partition.Learner:
			learners = append(learners, x)
		}
	}
	byState := func(a, b *partition.Member) int {
		return cmp.Or(cmp.Compare(stateless(t.peer(a.Replica)), stateless(t.peer(b.Replica))), cmp.Compare(t.cost(a), t.cost(b)))
	}
	slices.SortStableFunc(learners, byState)
	slices.SortStableFunc(logs, byState)
	need := max(0, t.target()-len(t.staying()))
	spare := max(0, len(logs)-t.lacking())
	pool := slices.Concat(learners, logs[:spare])
	if t.m.Policy.Rule == partition.Zones {
		// A zone that only a log replica is left of needs a full one.
		slices.SortStableFunc(pool, func(a, b *partition.Member) int {
			return cmp.Compare(btoi(t.holds(t.zone(a))), btoi(t.holds(t.zone(b))))
		})
	}
	full, rest := t.spread(pool, need)
	return full, slices.Concat(logs[spare:], rest)
}

// spread takes need members of the pool, the first ones first. It keeps places for
// zones without which a policy of zones cannot be met, and the place of one that
// leaves because its zone is crowded, as far as somebody could come from another
// zone: whoever comes from elsewhere would perhaps not be allowed to count, and
// stand in the way for ever.
func (t *tending) spread(pool []*partition.Member, need int) (full, rest []*partition.Member) {
	held, open := map[string]bool{}, map[string]bool{}
	for _, x := range t.staying() {
		held[t.zone(x)] = true
	}
	offer := func(zone string) {
		if !held[zone] {
			open[zone] = true
		}
	}
	for _, x := range pool {
		offer(t.zone(x))
	}
	for _, n := range t.candidates() {
		offer(n.Zone)
	}
	kept := min(max(int(t.m.Policy.Zones)-len(held), btoi(t.crowded)), len(open))
	for _, x := range pool {
		fresh := kept > 0 && !held[t.zone(x)]
		if need <= 0 || need <= kept && !fresh {
			rest = append(rest, x)
			continue
		}
		full = append(full, x)
		held[t.zone(x)] = true
		need, kept = need-1, kept-btoi(fresh)
	}
	return full, rest
}

// holds reports whether a full replica that stays is in the zone.
func (t *tending) holds(zone string) bool {
	return slices.ContainsFunc(t.staying(), func(x *partition.Member) bool { return t.zone(x) == zone })
}

// cost is what it takes to bring a member up to date: nothing, some records, or
// what has changed of the whole state.
func (t *tending) cost(x *partition.Member) uint64 {
	switch p := t.peer(x.Replica); {
	case p.CaughtUp:
		return 0
	case p.Behind:
		return math.MaxUint64
	default:
		return max(1, p.Lacks)
	}
}

func stateless(p PeerState) int {
	if p.State {
		return 0
	}
	return 1
}

// isGuest reports whether the learner is here for something else.
func (t *tending) isGuest(x *partition.Member) bool {
	return x.Kind == partition.Learner && slices.Contains(t.s.Guests, x.Node)
}

// withoutState reports whether the learner was brought up as a log replica.
func (t *tending) withoutState(x *partition.Member) bool {
	p := t.peer(x.Replica)
	return !p.State && (p.Asked != 0 && p.AskedLogOnly || p.Asked == 0 && p.CaughtUp)
}

// allowed returns why the group may not go on to next, or "". Asked says that an
// operator wants it, even if fewer losses are survived then.
func (t *tending) allowed(next *partition.Membership, asked, force bool) string {
	if err := t.m.CheckNext(next); err != nil {
		return err.Error()
	}
	if x, ok := next.Member(t.s.Self); !ok || x.Kind != partition.Full || !x.Eligible {
		if y, _ := t.m.Member(t.s.Self); y.Eligible && y.Kind == partition.Full {
			return "the master must hand over first"
		}
	}
	if force {
		return ""
	}
	up := t.up
	switch {
	case !t.m.Durable(up):
		return "nothing can be committed among the members that answer"
	case !next.Durable(up):
		return "nothing could be committed then among the members that answer"
	case !asked && survives(next, up) < survives(t.m, up):
		return "fewer losses would be survived then"
	}
	return ""
}

// up reports whether a replica, of this configuration or the next, takes part: one
// that is behind the log acknowledges nothing.
func (t *tending) up(r partition.ReplicaID) bool {
	x, ok := t.m.Member(r)
	return ok && t.answers(&x) && !t.peer(r).Behind
}

// next is the configuration to be edited. What an operator asked for ends when
// the table asks for another number, also if that comes back later.
func (t *tending) next() *partition.Membership {
	n := t.m.Successor()
	if int(n.Asked.Instead) != t.s.Spec.Replicas {
		n.Asked = partition.Asked{}
	}
	return n
}

// best is next with all that may be put right by the same change: without the
// stand-ins that nobody needs then, and with the zones as they are now.
func (t *tending) best(next *partition.Membership) *partition.Membership {
	lean := t.withoutSurplus(next)
	for _, x := range []*partition.Membership{t.withZones(lean), lean, t.withZones(next)} {
		if t.allowed(x, false, false) == "" {
			return x
		}
	}
	return next
}

// configure is the step to next if it is allowed.
func (t *tending) configure(next *partition.Membership, asked bool, why string) (Step, bool) {
	if no := t.allowed(next, asked, false); no != "" {
		t.miss("%s: %s", why, no)
		return Step{}, false
	}
	return Step{Kind: Configure, Next: next, Why: why}, true
}

// survives is how many of the members in up may fail, whichever they are, while
// the rest can elect a master and commit; -1: they cannot even now. It is what
// Membership.CanLose says, in a time that stays small for many members.
func survives(m *partition.Membership, up func(partition.ReplicaID) bool) int {
	var all []int
	for i := range m.Members {
		x := &m.Members[i]
		if x.Eligible && x.Kind != partition.Learner && up(x.Replica) {
			all = append(all, i)
		}
	}
	for f := range len(all) + 1 {
		if !anyLoss(m, all, f) {
			return f - 1
		}
	}
	return len(all)
}

// anyLoss reports whether m serves whichever f of the members at the places fail.
func anyLoss(m *partition.Membership, places []int, f int) bool {
	n := len(places)
	// lost goes through all sets of f of the n places, as the bits of a word.
	for lost := uint32(1)<<f - 1; lost < 1<<n; {
		left := make([]bool, len(m.Members))
		for i, at := range places {
			left[at] = lost&(1<<i) == 0
		}
		if !serves(m, left) {
			return false
		}
		if lost == 0 {
			break
		}
		low := lost & -lost
		high := lost + low
		lost = high | ((lost^high)>>2)/low
	}
	return true
}

func serves(m *partition.Membership, left []bool) bool {
	has := func(r partition.ReplicaID) bool {
		i, ok := slices.BinarySearchFunc(m.Members, r, func(x partition.Member, r partition.ReplicaID) int { return cmp.Compare(x.Replica, r) })
		return ok && left[i]
	}
	master := false
	for i := range m.Members {
		master = master || left[i] && m.Members[i].Eligible && m.Members[i].Kind == partition.Full
	}
	return master && m.Durable(has) && m.CanFailover(has)
}
