package placement

import (
	"time"

	"pando.dev/pando/partition"
)

// Mode says why an operator is planned.
type Mode uint8

// The modes, in the order in which they are planned.
const (
	// Emergency: groups with too few replicas or zones, disks that run full. Only
	// the hard rules count.
	Emergency Mode = iota
	// Draining: a leaving node gives everything it has.
	Draining
	// Filling: a new node receives its share. Nothing moves between the others.
	Filling
	// Leveling: a node that carries too much gives some of it.
	Leveling
	// Modes is how many there are.
	Modes
)

// String returns the name used in plans.
func (m Mode) String() string {
	return [...]string{"emergency", "drain", "fill", "level"}[m]
}

// OperatorKind says what an operator does.
type OperatorKind uint8

// The kinds of operators.
const (
	// OpTransfer hands the mastership from From to To, which has a replica.
	OpTransfer OperatorKind = iota + 1
	// OpMove replaces the replica on From by one on To, in one joint step.
	OpMove
	// OpSwap is OpMove of the master's replica, the mastership with it.
	OpSwap
	// OpAdd adds a replica on To.
	OpAdd
)

// String returns the name used in plans.
func (k OperatorKind) String() string {
	return [...]string{"none", "transfer", "move", "swap", "add"}[k]
}

// copies reports whether the operator copies state.
func (k OperatorKind) copies() bool { return k != OpTransfer }

// Operator is one change of one group. It is done only while the group has the
// versions it was planned for; of several of one group each waits for the one
// before it and goes by the versions that one left.
type Operator struct {
	Kind  OperatorKind
	Mode  Mode
	Group partition.GroupID
	From  partition.NodeID // empty with OpAdd
	To    partition.NodeID
	// Replica is the one that goes, with OpTransfer the one that gets the
	// mastership; 0: none yet, it is the one on To by then.
	Replica    partition.ReplicaID
	Bytes      int64 // to be copied
	Range      partition.RangeVersion
	Membership partition.MembershipVersion
	Why        string
}

// Balance is how even the nodes are: of each dimension the greatest share of a
// node over what it should be. 0: nothing there.
type Balance struct {
	Max    [Dims]float64
	Active [Dims]bool // the dimension counts
}

// Worst is the greatest value of the dimensions that count.
func (b *Balance) Worst() float64 {
	worst := 0.0
	for d, x := range b.Max {
		if b.Active[d] {
			worst = max(worst, x)
		}
	}
	return worst
}

// Impossible is something that a plan should do and cannot.
type Impossible struct {
	Node  partition.NodeID  // whom it concerns, or empty
	Group partition.GroupID // an example, or 0
	Count int               // how many groups
	Why   string
}

// Plan is what is to be done, as data: nothing happens until somebody executes it.
type Plan struct {
	Operators     []Operator
	Before, After Balance
	// Moved are the bytes to be copied in each mode, Least the least possible: what
	// is missing, what leaving nodes have, what new nodes lack, what is above the
	// limit.
	Moved, Least [Modes]int64
	Impossible   []Impossible
	// Full: the plan was cut at PlanConfig.MaxOperators.
	Full bool
}

// Bytes is what the plan copies.
func (p *Plan) Bytes() int64 {
	sum := int64(0)
	for _, n := range p.Moved {
		sum += n
	}
	return sum
}

// Ratio is the bytes moved over the least possible of the modes given; 1 if
// neither is any.
func (p *Plan) Ratio(modes ...Mode) float64 {
	moved, least := int64(0), int64(0)
	for _, m := range modes {
		moved, least = moved+p.Moved[m], least+p.Least[m]
	}
	if least == 0 {
		return 1
	}
	return float64(moved) / float64(least)
}

// PlanConfig says what to plan and how. The zero value plans everything with
// the defaults.
type PlanConfig struct {
	// Skip are modes that are not wanted.
	Skip [Modes]bool
	// Active says which dimensions count, as a Watch found; nil: those of which the
	// busiest node has used more than ActiveAbove of its capacity.
	Active *[Dims]bool
	// ActiveAbove (default 0.25): below it nobody suffers, and moving would only cost.
	ActiveAbove float64
	// High and Low (defaults 1.05 and 1.03, of the mean): a node above High is
	// brought down to Low. The gap between the two is what keeps leveling from
	// following every change.
	High, Low float64
	// Hot are the nodes that may give when leveling, as a Watch found; nil: all
	// that are above High.
	Hot []partition.NodeID
	// FillTo (default 0.98 of the mean) is when a new node counts as full: a little
	// less than all, so that nothing has to move later.
	FillTo float64
	// DiskHigh (default 0.85 of the capacity) is what no receiver may exceed;
	// DiskFull (default 0.90) is when a node gives without being asked.
	DiskHigh, DiskFull float64
	// Scatter is the greatest number of nodes that a node may share groups with; 0:
	// any. Fewer make it less likely that three losses at once hit a group, and
	// rebuilding slower. Needs memory for the square of the nodes.
	Scatter int
	// Now and Cooldown (default 10 min): a group that was changed for balance less
	// than Cooldown ago is left alone when leveling.
	Now      partition.Time
	Cooldown time.Duration
	// MaxOperators (default 1,000,000) bounds a plan.
	MaxOperators int
	// InFlight are operators that are being executed: they count as done, and their
	// groups are left alone.
	InFlight []Operator

	planted mistake // tests only: a known mistake
}

// mistake is a known mistake that tests plant, to see that they find it.
type mistake uint8

const (
	fillBetweenOld mistake = iota + 1
	forgetZones
	forgetDisk
	giveToLeaving
	moveTwice
	forgetUndo
)

func (c PlanConfig) withDefaults() PlanConfig {
	def := func(x *float64, v float64) {
		if *x <= 0 {
			*x = v
		}
	}
	def(&c.ActiveAbove, 0.25)
	def(&c.High, 1.05)
	def(&c.Low, 1.03)
	def(&c.FillTo, 0.98)
	def(&c.DiskHigh, 0.85)
	def(&c.DiskFull, 0.90)
	if c.Cooldown <= 0 {
		c.Cooldown = 10 * time.Minute
	}
	if c.MaxOperators <= 0 {
		c.MaxOperators = 1_000_000
	}
	return c
}

// MakePlan says what should move, and why. The layout is changed while it works and
// is as before when it returns. Equal layouts, built in the same way, and equal
// configs give equal plans.
//
// Every operator keeps the hard rules if those before it are done: replicas on
// distinct nodes, in as many zones as there are or are needed, no disk above
// DiskHigh, nothing onto nodes that are leaving, closed or lost. A new node only
// receives, and a leaving one only gives.
//
// Among what the rules allow, steps are chosen that bring the sum over all
// nodes and dimensions of a penalty on unevenness down, most for their cost
// first: a mastership handed over costs little, a replica moved its bytes.
func MakePlan(l *Layout, cfg PlanConfig) *Plan {
	s := newSearch(l, cfg.withDefaults())
	s.pretend()
	if s.refreshed < len(s.steps) {
		s.refresh()
	}
	p := &Plan{Before: s.balance()}
	for m, run := range [Modes]func(){s.emergency, s.drain, s.fill, s.level} {
		if s.mode = Mode(m); !s.cfg.Skip[m] {
			run()
		}
		if s.refreshed < len(s.steps) {
			s.refresh()
		}
	}
	p.After, p.Moved, p.Least = s.balance(), s.moved, s.least
	p.Impossible, p.Full = s.impossible, s.full
	p.Operators = s.operators()
	s.takeBack()
	return p
}
