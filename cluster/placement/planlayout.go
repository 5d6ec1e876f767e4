package placement

import (
	"cmp"
	"fmt"
	"slices"

	"pando.dev/pando/partition"
)

// Dim is a dimension in which nodes are kept even.
type Dim uint8

// The dimensions.
const (
	DimBytes    Dim = iota // state on disk, in bytes
	DimLoad                // work, in the caller's unit: what a master has and what every replica has
	DimWritten             // bytes written a second, by every replica
	DimMasters             // masterships
	DimReplicas            // full replicas
	// Dims is how many there are.
	Dims
)

// String returns the name used in plans.
func (d Dim) String() string {
	return [...]string{"bytes", "load", "written", "masters", "replicas"}[d]
}

// Use is an amount in every dimension. Whole numbers: a sum is the same in
// whatever order it was taken, and a step taken back leaves no trace.
type Use [Dims]int64

func (u *Use) add(v *Use) {
	for d := range u {
		u[d] += v[d]
	}
}

func (u *Use) sub(v *Use) {
	for d := range u {
		u[d] -= v[d]
	}
}

// PlanNode is a node as plans see it.
type PlanNode struct {
	Node
	// Capacity is what the node can carry; 0: unknown, so that the dimension
	// always counts. That of DimBytes is the disk's size.
	Capacity Use
	// New: the node has just come and only receives, until it is as full as the others.
	New bool
	// Leaving: the node is to become empty and only gives.
	Leaving bool
	// Closed: the node keeps what it has, receives nothing and is to be nobody's
	// master: drained for maintenance, away, or sick.
	Closed bool
	// Lost: the node is given up, what it had is to be made again from the others.
	Lost bool
}

// open reports whether the node may receive.
func (n *PlanNode) open() bool { return !n.Leaving && !n.Closed && !n.Lost }

// PlanMember is a member of a group as plans see it.
type PlanMember struct {
	Replica partition.ReplicaID
	Node    partition.NodeID
	// LogOnly: a log replica, which stands in for a while: it is left where it is
	// and has no state to speak of.
	LogOnly bool
}

// PlanGroup is a group as plans see it.
type PlanGroup struct {
	Group      partition.GroupID
	Range      partition.RangeVersion
	Membership partition.MembershipVersion
	Members    []PlanMember
	Master     partition.ReplicaID // 0: none now
	Replicas   int                 // full replicas asked for; 0: as many as there are
	Bytes      int64               // of one replica
	// Lead is the master's work beyond that of every replica, Follow that of every
	// replica, Written the bytes a second each replica writes.
	Lead, Follow, Written uint32
	// Busy: something structural is under way, plans leave the group alone.
	Busy bool
}

// None is an ordinal or slot that stands for nothing.
const none = -1

const (
	slotLogOnly uint8 = 1 << iota
	slotMade          // put there by the plan being made: it does not move twice
)

// Layout is where everything is now: an input of plans, kept in flat arrays of
// about 110 bytes a group at three replicas. It belongs to one caller at a time.
//
// A group has slots, one for each replica it has or is asked to have; a free
// one has no node. Every node has the list of its slots, so that what is on it is
// found without a walk over all groups.
type Layout struct {
	nodes   []PlanNode
	ordinal map[partition.NodeID]int32
	zones   []string
	zone    []int32 // of each node
	use     []Use   // of each node
	on      [][]uint32

	// Of each group.
	id         []partition.GroupID
	rv         []partition.RangeVersion
	mv         []partition.MembershipVersion
	first      []uint32 // its slots are first[g] to first[g+1]
	master     []int8   // offset of the master's slot, or none
	busy       []bool
	bytes      []int64
	lead       []uint32
	follow     []uint32
	written    []uint32
	changed    []uint32 // when it was last changed for balance, in s; 0: never
	topReplica []partition.ReplicaID
	slotCounts [partition.MaxMembers + 1]int // groups by how many slots they have

	// Of each slot.
	node    []int32 // or none
	replica []partition.ReplicaID
	flags   []uint8
	of      []uint32 // its group
	at      []uint32 // its place in on[node]
}

// NewLayout returns the layout of these nodes, still without groups.
func NewLayout(nodes []PlanNode) (*Layout, error) {
	plain := make([]Node, len(nodes))
	for i := range nodes {
		plain[i] = nodes[i].Node
	}
	if len(nodes) > 0 {
		if err := check(plain, 1); err != nil {
			return nil, err
		}
	}
	l := &Layout{ordinal: make(map[partition.NodeID]int32, len(nodes)), first: []uint32{0}}
	for i := range nodes {
		l.addNode(nodes[i])
	}
	return l, nil
}

func (l *Layout) addNode(n PlanNode) {
	l.ordinal[n.ID] = int32(len(l.nodes))
	z := slices.Index(l.zones, n.Zone)
	if z < 0 {
		z = len(l.zones)
		l.zones = append(l.zones, n.Zone)
	}
	l.nodes, l.zone = append(l.nodes, n), append(l.zone, int32(z))
	l.use, l.on = append(l.use, Use{}), append(l.on, nil)
}

// AddNode adds a node; it refuses one that is there already.
func (l *Layout) AddNode(n PlanNode) error {
	if _, ok := l.ordinal[n.ID]; ok || n.ID == "" {
		return partition.Errorf(partition.CodeInvalid, "node %q is there already or has no id", n.ID)
	}
	l.addNode(n)
	return nil
}

// Node returns a node, whose marks, weight and capacities the caller may
// change between plans; nil if there is none.
func (l *Layout) Node(id partition.NodeID) *PlanNode {
	if i, ok := l.ordinal[id]; ok {
		return &l.nodes[i]
	}
	return nil
}

// Nodes returns the nodes in the order they were added, to be read.
func (l *Layout) Nodes() []PlanNode { return l.nodes }

// NodeUse returns what a node carries, by its place in Nodes.
func (l *Layout) NodeUse(i int) Use { return l.use[i] }

// Groups returns how many groups there are.
func (l *Layout) Groups() int { return len(l.id) }

// Reserve makes room for so many groups and slots at once.
func (l *Layout) Reserve(groups, slots int) {
	l.id, l.rv, l.mv = slices.Grow(l.id, groups), slices.Grow(l.rv, groups), slices.Grow(l.mv, groups)
	l.first, l.master, l.busy = slices.Grow(l.first, groups), slices.Grow(l.master, groups), slices.Grow(l.busy, groups)
	l.bytes, l.lead, l.follow = slices.Grow(l.bytes, groups), slices.Grow(l.lead, groups), slices.Grow(l.follow, groups)
	l.written, l.changed, l.topReplica = slices.Grow(l.written, groups), slices.Grow(l.changed, groups), slices.Grow(l.topReplica, groups)
	l.node, l.replica, l.flags = slices.Grow(l.node, slots), slices.Grow(l.replica, slots), slices.Grow(l.flags, slots)
	l.of, l.at = slices.Grow(l.of, slots), slices.Grow(l.at, slots)
	for i := range l.on {
		l.on[i] = slices.Grow(l.on[i], slots*9/8/max(1, len(l.on)))
	}
}

// Add adds a group. Groups come in rising order of their ids.
func (l *Layout) Add(g PlanGroup) error {
	if err := l.checkGroup(&g); err != nil {
		return err
	}
	i := len(l.id)
	l.id, l.rv, l.mv = append(l.id, g.Group), append(l.rv, g.Range), append(l.mv, g.Membership)
	l.master, l.busy, l.bytes = append(l.master, none), append(l.busy, g.Busy), append(l.bytes, g.Bytes)
	l.lead, l.follow, l.written = append(l.lead, g.Lead), append(l.follow, g.Follow), append(l.written, g.Written)
	l.changed, l.topReplica = append(l.changed, 0), append(l.topReplica, 0)
	slots, full := 0, 0
	for _, m := range g.Members {
		l.addSlot(i, m.Replica, m.LogOnly)
		l.put(uint32(len(l.node)-1), l.ordinal[m.Node])
		l.topReplica[i] = max(l.topReplica[i], m.Replica)
		if slots++; !m.LogOnly {
			full++
		}
	}
	for ; full < g.Replicas; full++ {
		l.addSlot(i, 0, false)
		slots++
	}
	l.first = append(l.first, uint32(len(l.node)))
	l.slotCounts[slots]++
	for o, m := range g.Members {
		if m.Replica == g.Master && g.Master != 0 {
			l.setMaster(i, int8(o))
		}
	}
	return nil
}

func (l *Layout) checkGroup(g *PlanGroup) error {
	bad := func(format string, args ...any) error {
		return partition.Errorf(partition.CodeInvalid, "%s: %s", g.Group, fmt.Sprintf(format, args...))
	}
	if n := len(l.id); n > 0 && g.Group <= l.id[n-1] {
		return bad("groups come in rising order, the last was %s", l.id[n-1])
	}
	logs := 0
	for _, m := range g.Members {
		if m.LogOnly {
			logs++
		}
	}
	if len(g.Members) == 0 || max(len(g.Members), g.Replicas+logs) > partition.MaxMembers {
		return bad("%d members, %d full ones asked for; allowed are 1 to %d", len(g.Members), g.Replicas, partition.MaxMembers)
	}
	if g.Bytes < 0 {
		return bad("%d bytes", g.Bytes)
	}
	for i, m := range g.Members {
		if _, ok := l.ordinal[m.Node]; !ok {
			return bad("replica %d is on %s, which is not known", m.Replica, m.Node)
		}
		for _, o := range g.Members[:i] {
			if o.Node == m.Node || o.Replica == m.Replica {
				return bad("replica %d on %s twice", m.Replica, m.Node)
			}
		}
	}
	return nil
}

func (l *Layout) addSlot(g int, r partition.ReplicaID, logOnly bool) {
	f := uint8(0)
	if logOnly {
		f = slotLogOnly
	}
	l.node, l.replica = append(l.node, none), append(l.replica, r)
	l.flags, l.of, l.at = append(l.flags, f), append(l.of, uint32(g)), append(l.at, 0)
}

// Find returns a group's place, by its id.
func (l *Layout) Find(id partition.GroupID) (int, bool) { return slices.BinarySearch(l.id, id) }

// ID returns the id of the group at a place.
func (l *Layout) ID(g int) partition.GroupID { return l.id[g] }

// Group returns the group at a place as it was added and has become since.
func (l *Layout) Group(g int) PlanGroup {
	p := PlanGroup{
		Group: l.id[g], Range: l.rv[g], Membership: l.mv[g], Bytes: l.bytes[g],
		Lead: l.lead[g], Follow: l.follow[g], Written: l.written[g], Busy: l.busy[g],
	}
	for s := l.first[g]; s < l.first[g+1]; s++ {
		if l.flags[s]&slotLogOnly == 0 {
			p.Replicas++
		}
		if l.node[s] != none {
			p.Members = append(p.Members, PlanMember{Replica: l.replica[s], Node: l.nodes[l.node[s]].ID, LogOnly: l.flags[s]&slotLogOnly != 0})
		}
	}
	if m := l.masterSlot(g); m != none {
		p.Master = l.replica[m]
	}
	return p
}

// masterSlot is the slot of the group's master, or none.
func (l *Layout) masterSlot(g int) int {
	if l.master[g] == none {
		return none
	}
	return int(l.first[g]) + int(l.master[g])
}

// slotOn is the group's slot on a node, or none.
func (l *Layout) slotOn(g int, n int32) int {
	for s := l.first[g]; s < l.first[g+1]; s++ {
		if l.node[s] == n {
			return int(s)
		}
	}
	return none
}

// carried is what a slot's node carries for it.
func (l *Layout) carried(s uint32) Use {
	if l.flags[s]&slotLogOnly != 0 {
		return Use{}
	}
	g := l.of[s]
	u := Use{DimBytes: l.bytes[g], DimLoad: int64(l.follow[g]), DimWritten: int64(l.written[g]), DimReplicas: 1}
	if l.masterSlot(int(g)) == int(s) {
		u[DimLoad] += int64(l.lead[g])
		u[DimMasters]++
	}
	return u
}

// led is what a group's mastership adds.
func (l *Layout) led(g int) Use { return Use{DimLoad: int64(l.lead[g]), DimMasters: 1} }

// put places a free slot on a node.
func (l *Layout) put(s uint32, n int32) {
	l.node[s], l.at[s] = n, uint32(len(l.on[n]))
	l.on[n] = append(l.on[n], s)
	u := l.carried(s)
	l.use[n].add(&u)
}

// take frees a slot. The last of the node's list takes its place there.
func (l *Layout) take(s uint32) {
	n, at := l.node[s], l.at[s]
	u := l.carried(s)
	l.use[n].sub(&u)
	list := l.on[n]
	last := list[len(list)-1]
	list[at], l.at[last] = last, at
	l.on[n] = list[:len(list)-1]
	l.node[s] = none
}

// untake is the inverse of take, the node's list included, if everything since
// was taken back.
func (l *Layout) untake(s uint32, n int32, at uint32) {
	l.put(s, n)
	last := l.on[n][at]
	end := l.at[s]
	l.on[n][at], l.on[n][end] = s, last
	l.at[last], l.at[s] = end, at
}

// setMaster makes the slot at an offset the master's, or none.
func (l *Layout) setMaster(g int, offset int8) {
	u := l.led(g)
	if s := l.masterSlot(g); s != none && l.node[s] != none {
		l.use[l.node[s]].sub(&u)
	}
	l.master[g] = offset
	if s := l.masterSlot(g); s != none && l.node[s] != none {
		l.use[l.node[s]].add(&u)
	}
}

// SetLoad says what a group's work is now, as measured and smoothed by the
// caller; Observe smooths itself.
func (l *Layout) SetLoad(g int, lead, follow, written uint32) {
	was := Use{DimLoad: int64(l.follow[g]), DimWritten: int64(l.written[g])}
	now := Use{DimLoad: int64(follow), DimWritten: int64(written)}
	dLead := int64(lead) - int64(l.lead[g])
	l.lead[g], l.follow[g], l.written[g] = lead, follow, written
	m := l.masterSlot(g)
	for s := l.first[g]; s < l.first[g+1]; s++ {
		n := l.node[s]
		if n == none || l.flags[s]&slotLogOnly != 0 {
			continue
		}
		l.use[n].sub(&was)
		l.use[n].add(&now)
		if int(s) == m {
			l.use[n][DimLoad] += dLead
		}
	}
}

// Observe brings a window's measurement of a group in, as an exponentially
// weighted mean: a share of 1/keep of the new one. With keep 1 it follows every
// window.
func (l *Layout) Observe(g int, lead, follow, written uint32, keep uint32) {
	l.SetLoad(g, ewma(l.lead[g], lead, keep), ewma(l.follow[g], follow, keep), ewma(l.written[g], written, keep))
}

// ewma rounds towards the new value, so that it is reached.
func ewma(old, now, keep uint32) uint32 {
	if keep <= 1 {
		return now
	}
	if now > old {
		return old + (now-old+keep-1)/keep
	}
	return old - (old-now+keep-1)/keep
}

// SetBytes says how much state a replica of the group has.
func (l *Layout) SetBytes(g int, bytes int64) {
	for s := l.first[g]; s < l.first[g+1]; s++ {
		if n := l.node[s]; n != none && l.flags[s]&slotLogOnly == 0 {
			l.use[n][DimBytes] += bytes - l.bytes[g]
		}
	}
	l.bytes[g] = bytes
}

// SetVersions says which versions the group's catalog entry has.
func (l *Layout) SetVersions(g int, rv partition.RangeVersion, mv partition.MembershipVersion) {
	l.rv[g], l.mv[g] = rv, mv
}

// SetBusy says whether something structural is under way in the group.
func (l *Layout) SetBusy(g int, busy bool) { l.busy[g] = busy }

// SetMaster says who is master of a group now; it reports whether there is such
// a replica. Zero means nobody.
func (l *Layout) SetMaster(g int, r partition.ReplicaID) bool {
	if r == 0 {
		l.setMaster(g, none)
		return true
	}
	for s := l.first[g]; s < l.first[g+1]; s++ {
		if l.replica[s] == r && l.node[s] != none {
			l.setMaster(g, int8(s-l.first[g]))
			return true
		}
	}
	return false
}

// Clone returns a copy that shares nothing with the layout.
func (l *Layout) Clone() *Layout {
	c := *l
	c.nodes, c.zones, c.zone, c.use = slices.Clone(l.nodes), slices.Clone(l.zones), slices.Clone(l.zone), slices.Clone(l.use)
	c.ordinal = make(map[partition.NodeID]int32, len(l.nodes))
	for i := range c.nodes {
		c.ordinal[c.nodes[i].ID] = int32(i)
	}
	c.on = make([][]uint32, len(l.on))
	for i := range c.on {
		c.on[i] = slices.Clone(l.on[i])
	}
	c.id, c.rv, c.mv, c.first = slices.Clone(l.id), slices.Clone(l.rv), slices.Clone(l.mv), slices.Clone(l.first)
	c.master, c.busy, c.bytes = slices.Clone(l.master), slices.Clone(l.busy), slices.Clone(l.bytes)
	c.lead, c.follow, c.written = slices.Clone(l.lead), slices.Clone(l.follow), slices.Clone(l.written)
	c.changed, c.topReplica = slices.Clone(l.changed), slices.Clone(l.topReplica)
	c.node, c.replica, c.flags = slices.Clone(l.node), slices.Clone(l.replica), slices.Clone(l.flags)
	c.of, c.at = slices.Clone(l.of), slices.Clone(l.at)
	return &c
}

// bySize orders slots by falling bytes, then by group, then by slot: it does not
// depend on the order of any list.
func (l *Layout) bySize(a, b uint32) int {
	return cmp.Or(cmp.Compare(l.bytes[l.of[b]], l.bytes[l.of[a]]), cmp.Compare(a, b))
}
