package balance

import (
	"cmp"
	"container/heap"
	"fmt"
	"math"
	"slices"
	"time"

	"pando.dev/pando/cluster/placement"
	"pando.dev/pando/partition"
)

// world is a run under way.
type world struct {
	cfg    Config
	now    time.Duration
	layout *placement.Layout
	base   []float32 // of each group: its mean work
	heat   []float32 // of each group: how many times that it is now
	moves  []uint8   // of each group: how often a replica of it was moved when leveling
	sine   []float64 // of each phase, in this window
	failed []failure
	ends   ending // of what is running
	tick   uint64

	control control
	res     *Result
}

// failure is a node that is gone.
type failure struct {
	node  partition.NodeID
	since time.Duration
}

// end is when a running operator ends.
type end struct {
	at       time.Duration
	operator int
	fails    bool
}

// ending is a heap of ends, the next first.
type ending []end

func (h ending) Len() int { return len(h) }
func (h ending) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(h[i].at, h[j].at), cmp.Compare(h[i].operator, h[j].operator)) < 0
}
func (h ending) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push is for package heap.
func (h *ending) Push(x any) { *h = append(*h, x.(end)) }

// Pop is for package heap.
func (h *ending) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// Run simulates.
func Run(cfg Config) (*Result, error) {
	cfg = cfg.withDefaults()
	w := &world{cfg: cfg, res: &Result{}}
	if err := w.build(); err != nil {
		return nil, fmt.Errorf("build the cluster: %w", err)
	}
	w.control.watch = placement.NewWatch(cfg.Watch)
	slices.SortStableFunc(w.cfg.Events, func(a, b Event) int { return cmp.Compare(a.At, b.At) })
	for next := 0; w.now < cfg.Length; w.now += time.Second {
		for ; next < len(w.cfg.Events) && w.cfg.Events[next].At <= w.now; next++ {
			w.happen(&w.cfg.Events[next])
		}
		w.giveUpFailed()
		if w.now%cfg.Window == 0 {
			w.measure()
			w.window()
			w.res.sample(w)
		}
		w.execute()
	}
	w.res.finish(w)
	return w.res, nil
}

// hash is a number that depends on the seed and what it is asked for, and not on
// what was asked before.
func (w *world) hash(what, a, b uint64) uint64 {
	x := w.cfg.Seed*0x9e3779b97f4a7c15 + what
	for _, v := range [2]uint64{a, b} {
		x = (x ^ v) * 0xbf58476d1ce4e5b9
		x ^= x >> 29
		x *= 0x94d049bb133111eb
		x ^= x >> 32
	}
	return x
}

// normal is a number of mean 0 and deviation 1: the sum of four even ones.
func normal(h uint64) float64 {
	sum := float64(h&0xffff) + float64(h>>16&0xffff) + float64(h>>32&0xffff) + float64(h>>48)
	return (sum/65536 - 2) * 1.7320508
}

func nodeID(i int) partition.NodeID { return partition.NodeID(fmt.Sprintf("n-%d", i)) }

func (w *world) node(i int) placement.PlanNode {
	n := placement.PlanNode{Node: placement.Node{ID: nodeID(i), Zone: fmt.Sprintf("z%d", i%w.cfg.Zones)}}
	n.Capacity[placement.DimBytes] = w.cfg.Disk
	return n
}

func (w *world) build() error {
	c := &w.cfg
	nodes := make([]placement.PlanNode, c.Nodes)
	for i := range nodes {
		nodes[i] = w.node(i)
	}
	l, err := placement.NewLayout(nodes)
	if err != nil {
		return err
	}
	w.layout = l
	l.Reserve(c.Groups, c.Groups*c.Replicas)
	w.base, w.heat, w.moves = make([]float32, c.Groups), make([]float32, c.Groups), make([]uint8, c.Groups)
	w.rank()
	members := make([]placement.PlanMember, c.Replicas)
	used := make([]int, 0, c.Replicas)
	for g := range c.Groups {
		used = w.draw(g, used[:0])
		for o, n := range used {
			members[o] = placement.PlanMember{Replica: partition.ReplicaID(o + 1), Node: nodes[n].ID}
		}
		p := placement.PlanGroup{Group: partition.GroupID(g + 1), Range: 1, Membership: 1, Members: members}
		p.Bytes = c.Bytes/2 + int64(w.hash(1, uint64(g), 0)%uint64(c.Bytes))
		p.Master = partition.ReplicaID(1 + w.hash(2, uint64(g), 0)%uint64(c.Replicas))
		if c.OneMaster {
			p.Master = partition.ReplicaID(1 + max(0, slices.Index(used, 0)))
		}
		p.Lead, p.Follow, p.Written = split(float64(w.base[g]))
		if err := l.Add(p); err != nil {
			return err
		}
	}
	if !c.Placed && !c.OneMaster {
		w.levelOnce()
	}
	return nil
}

// split divides a group's work: its master has most of it, every replica an eighth of
// that, and half of it is bytes written.
func split(work float64) (lead, follow, written uint32) {
	return uint32(work), uint32(work / 8), uint32(work / 2)
}

// rank gives every group its mean work, by Zipf's law over a mixed order.
func (w *world) rank() {
	order := make([]int, len(w.base))
	for i := range order {
		order[i] = i
	}
	for i := len(order) - 1; i > 0; i-- {
		j := int(w.hash(3, uint64(i), 0) % uint64(i+1))
		order[i], order[j] = order[j], order[i]
	}
	sum := 0.0
	for r := range order {
		sum += math.Pow(float64(r+w.cfg.Load.Shift), -w.cfg.Load.Zipf)
	}
	for r, g := range order {
		share := math.Pow(float64(r+w.cfg.Load.Shift), -w.cfg.Load.Zipf) / sum
		w.base[g], w.heat[g] = float32(1000*float64(len(order))*share), 1
	}
}

// draw chooses a group's first nodes: by chance, in distinct zones as far as there are.
func (w *world) draw(g int, used []int) []int {
	for o := range w.cfg.Replicas {
		for try := uint64(0); ; try++ {
			n := int(w.hash(4+uint64(o), uint64(g), try) % uint64(w.cfg.Nodes))
			clash := func(u int) bool {
				return u == n || o < w.cfg.Zones && u%w.cfg.Zones == n%w.cfg.Zones
			}
			if !slices.ContainsFunc(used, clash) {
				used = append(used, n)
				break
			}
		}
	}
	return used
}

func (w *world) levelOnce() {
	p := placement.MakePlan(w.layout, placement.PlanConfig{})
	for i := range p.Operators {
		w.layout.Apply(&p.Operators[i], 0)
	}
}

// measure brings a window's loads into the layout.
func (w *world) measure() {
	c := &w.cfg.Load
	w.tick++
	w.sine = w.sine[:0]
	for p := range c.Phases {
		angle := 2*math.Pi*w.now.Seconds()/c.Period.Seconds() + 2*math.Pi*float64(p)/float64(c.Phases)
		w.sine = append(w.sine, 1+c.Sine*math.Sin(angle))
	}
	for g := range w.base {
		h := w.hash(99, uint64(g), w.tick)
		work := float64(w.base[g]) * float64(w.heat[g]) * w.sine[g%c.Phases]
		if c.Noise > 0 {
			work *= max(0, 1+c.Noise*normal(h))
		}
		lead, follow, written := split(work)
		w.layout.Observe(g, lead, follow, written, w.cfg.Keep)
	}
}

func (w *world) happen(e *Event) {
	switch e.Kind {
	case Join:
		for range e.Count {
			n := w.node(len(w.layout.Nodes()))
			n.New = true
			if err := w.layout.AddNode(n); err != nil {
				w.res.violate("join: %v", err)
			}
		}
	case Leave:
		w.layout.Node(nodeID(e.Node)).Leaving = true
	case Fail:
		w.fail(nodeID(e.Node))
	case Return:
		w.failed = slices.DeleteFunc(w.failed, func(f failure) bool { return f.node == nodeID(e.Node) })
		w.layout.Node(nodeID(e.Node)).Closed = false
	case Heat:
		w.warm(nodeID(e.Node), e.Count, e.Factor)
	}
	w.control.urgent = true
}

// fail takes a node away: its groups' others elect a master among them.
func (w *world) fail(id partition.NodeID) {
	w.failed = append(w.failed, failure{id, w.now})
	w.layout.Node(id).Closed = true
	for g := range w.layout.Groups() {
		p := w.layout.Group(g)
		on := func(m placement.PlanMember) bool { return m.Node == id && m.Replica == p.Master }
		if !slices.ContainsFunc(p.Members, on) {
			continue
		}
		next := partition.ReplicaID(0)
		for _, m := range p.Members {
			if n := w.layout.Node(m.Node); !n.Closed && !n.Lost {
				next = m.Replica
			}
		}
		w.layout.SetMaster(g, next)
	}
}

// giveUpFailed marks nodes lost that were away for long.
func (w *world) giveUpFailed() {
	for _, f := range w.failed {
		if n := w.layout.Node(f.node); !n.Lost && w.now-f.since >= w.cfg.ReplaceAfter {
			n.Lost = true
			w.control.urgent = true
		}
	}
}

// warm makes the busiest masters on a node busier.
func (w *world) warm(id partition.NodeID, count int, factor float64) {
	var on []int
	for g := range w.layout.Groups() {
		p := w.layout.Group(g)
		for _, m := range p.Members {
			if m.Replica == p.Master && m.Node == id {
				on = append(on, g)
			}
		}
	}
	slices.SortFunc(on, func(a, b int) int { return cmp.Or(cmp.Compare(w.base[b], w.base[a]), cmp.Compare(a, b)) })
	for _, g := range on[:min(count, len(on))] {
		w.heat[g] = float32(factor)
	}
}

// quantum is the finest time at which something ends.
const quantum = 100 * time.Millisecond

// begins lets an operator run: a copy takes its bytes at half its nodes' rate,
// as two run at a time, and 200 ms for the changes of membership; a transfer a
// quantum.
func (w *world) begins(work *placement.ExecWork) {
	took := quantum
	fails := false
	if work.Op.Kind != placement.OpTransfer {
		took = 200*time.Millisecond + time.Duration(float64(work.Op.Bytes)/float64(w.cfg.Rate/2)*1e9)
		w.tick++
		if fails = int(w.hash(7, uint64(work.Op.Group), w.tick)%1000) < w.cfg.Failing; fails {
			took /= 2
		}
		w.res.Copied += work.Op.Bytes
		if fails {
			w.res.Copied -= work.Op.Bytes / 2
		}
	}
	took = (took + quantum - 1) / quantum * quantum
	heap.Push(&w.ends, end{at: w.now + took, operator: work.Operator, fails: fails})
}
