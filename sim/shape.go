package sim

import (
	"math"
	"math/rand/v2"
	"strconv"
	"time"

	"pando.dev/pando/partition"
	"pando.dev/pando/sim/fault"
)

// Shape is a family of plans. Faults and sizes that are drawn without regard to
// each other miss what needs several of them at once, so each shape makes some
// constellation frequent, and leaves the rest open.
type Shape struct {
	Name, About string
	// Weight is the share of the seeds of a swarm, relative to the others'.
	Weight int
	tune   func(*drawer)
}

// Draw is the plan that a seed gives in a shape.
func Draw(seed uint64, s Shape) *Plan {
	d := &drawer{
		rng:  rand.New(rand.NewPCG(seed, streamOf(s.Name))),
		plan: &Plan{Seed: seed, Shape: s.Name, Knobs: Calm()},
	}
	d.k = &d.plan.Knobs
	d.world()
	d.load()
	d.network()
	d.disk()
	d.protocol()
	d.services()
	d.classes = general()
	d.share, d.least, d.most = 0.5, 30*time.Millisecond, 3*time.Second
	d.shortest = 0.1
	d.aims, d.aimed = anyRole(), 0.5
	if s.tune != nil {
		s.tune(d)
	}
	d.settle()
	d.faults()
	return d.plan
}

// Pick is the shape that a seed has in a swarm.
func Pick(seed uint64, shapes []Shape) Shape {
	total := 0
	for i := range shapes {
		total += shapes[i].Weight
	}
	at := rand.New(rand.NewPCG(seed, streamOf("shape"))).IntN(max(1, total))
	for i := range shapes {
		if at -= shapes[i].Weight; at < 0 {
			return shapes[i]
		}
	}
	return shapes[0]
}

// streamOf makes a number of a name.
func streamOf(name string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(name) {
		h = (h ^ uint64(name[i])) * 1099511628211
	}
	return h
}

// drawer draws one plan.
type drawer struct {
	rng  *rand.Rand
	plan *Plan
	k    *Knobs

	// classes are those that may be on, share how likely each is; between least
	// and most is the mean time between two faults of whatever class.
	classes     []fault.Class
	share       float64
	least, most partition.Time
	// aims are the roles that faults befall, and aimed the share of the faults that
	// befall one; the others befall any node.
	aims  []fault.Role
	aimed float64
	// span is about how long faults last: between shortest times the time between
	// two of them, and five times that.
	span     partition.Time
	shortest float64
}

func (d *drawer) half() bool             { return d.rng.IntN(2) == 0 }
func (d *drawer) oneIn(n int) bool       { return d.rng.IntN(n) == 0 }
func (d *drawer) between(lo, hi int) int { return lo + d.rng.IntN(hi-lo+1) }
func (d *drawer) pick(of ...int) int     { return of[d.rng.IntN(len(of))] }
func (d *drawer) upTo(x float64) float64 { return round(x * d.rng.Float64()) }
func (d *drawer) sometimes(x float64) float64 {
	if d.half() {
		return 0
	}
	return d.upTo(x)
}

// rate is between lo and hi, such that each order of magnitude is as likely as the
// next.
func (d *drawer) rate(lo, hi float64) float64 {
	return round(lo * math.Pow(hi/lo, d.rng.Float64()))
}

// round keeps three digits, so that plans are readable.
func round(x float64) float64 {
	y, err := strconv.ParseFloat(strconv.FormatFloat(x, 'g', 3, 64), 64)
	if err != nil {
		return x
	}
	return y
}

// time is a time between lo and hi, such that each order of magnitude is as
// likely as the next.
func (d *drawer) time(lo, hi partition.Time) partition.Time {
	lo = max(lo, time.Microsecond)
	if hi <= lo {
		return lo
	}
	x := float64(lo) * math.Pow(float64(hi)/float64(lo), d.rng.Float64())
	return readable(partition.Time(x))
}

// readable keeps whole microseconds, and of longer times three digits or so.
func readable(t partition.Time) partition.Time {
	for unit := time.Second; unit > time.Microsecond; unit /= 10 {
		if t >= 1000*unit {
			return t.Round(unit)
		}
	}
	return t.Round(time.Microsecond)
}

// world draws who is there.
func (d *drawer) world() {
	k := d.k
	k.Nodes = d.pick(1, 2, 3, 3, 3, 3, 4, 5, 5, 6, 7)
	k.Replicas = min(k.Nodes, d.pick(1, 2, 3, 3, 3, 3, 4, 5, 5))
	k.Groups = d.pick(1, 1, 1, 1, 2, 3)
	k.Zones = d.between(1, min(3, k.Nodes))
	k.LogShare = float64(d.pick(0, 0, 1)) * d.upTo(0.4)
	k.WeightShare = float64(d.pick(0, 0, 1)) * d.upTo(0.4)
	k.PolicyMix = PolicyMix(d.pick(int(MajorityOnly), int(MajorityOnly), int(MixedPolicies)))
	k.Length = d.time(20*time.Second, 150*time.Second)
	k.SoloAfter = 0
}

// load draws what clients do.
func (d *drawer) load() {
	k := d.k
	k.Ops = float64(d.pick(5, 20, 50, 50, 50, 100))
	k.ReadShare = []float64{0, 0.2, 0.4, 0.4, 0.8}[d.rng.IntN(5)]
	k.Clients = d.pick(1, 2, 4, 4, 8, 16)
	k.Keys = d.pick(1, 2, 8, 32)
	k.Sessions = []float64{0, 0, 0.5, 1}[d.rng.IntN(4)]
	k.SessionLimit = d.pick(0, 0, 2, 4)
	k.Pad = d.pick(0, 0, 0, 0, 100, 2000)
}

// network draws what messages go through all the time.
func (d *drawer) network() {
	k := d.k
	k.Stream = d.half()
	k.DelayMin = d.time(10*time.Microsecond, time.Millisecond)
	k.DelayMax = max(k.DelayMin, d.time(time.Millisecond, 20*time.Millisecond))
	k.Loss, k.Repeat = d.sometimes(0.2), d.sometimes(0.2)
	if k.TailShare = d.sometimes(0.1); k.TailShare > 0 {
		k.TailMax = d.time(20*time.Millisecond, 2*time.Second)
	}
	if d.oneIn(4) {
		k.Replay = d.upTo(0.05)
	}
	k.Noticed = []float64{0, 0, 0.5, 1}[d.rng.IntN(4)]
	if k.Stream { // a loss breaks the connection
		k.Loss, k.Replay = round(k.Loss/20), 0
	}
}

// disk draws how the disks are without faults, and the log's sizes.
func (d *drawer) disk() {
	k := d.k
	k.SyncMin = d.time(10*time.Microsecond, time.Millisecond)
	k.SyncMax = max(k.SyncMin, d.time(time.Millisecond, 15*time.Millisecond))
	k.ApplyMax = partition.Time(d.pick(0, 1)) * d.time(10*time.Microsecond, 5*time.Millisecond)
	if d.oneIn(8) {
		k.ApplyMax = d.time(5*time.Millisecond, 200*time.Millisecond)
	}
	k.Flush = []float64{0.003, 0.03, 0.3, 1}[d.rng.IntN(4)]
	k.Truncate = []float64{0, 0.1, 0.5, 1}[d.rng.IntN(4)]
	k.RealLog = d.oneIn(8)
	k.SegmentBytes = d.pick(64<<10, 64<<10, 256<<10)
}

// protocol draws the sizes and times of the replicas.
func (d *drawer) protocol() {
	k := d.k
	k.TailBytes = d.pick(1, 100, 1000, 1<<20)
	k.MaxAppendBytes = d.pick(1, 150, 4000, 1<<20)
	k.MaxInFlightBytes = d.pick(1, 400, 4<<20)
	if d.half() {
		k.MaxPending = d.between(2, 20)
	}
	k.Lease = d.time(50*time.Millisecond, 600*time.Millisecond)
	if d.half() {
		k.Lease = Calm().Lease
	}
	k.RetryMin = d.time(5*time.Millisecond, 50*time.Millisecond)
	k.RetryMax = d.time(100*time.Millisecond, time.Second)
	if d.oneIn(3) {
		k.DurabilityWait = 500 * time.Millisecond
	}
	k.AnswerWait = max(d.time(50*time.Millisecond, 300*time.Millisecond), 3*k.DelayMax)
	k.PointRate = 0
	if d.half() {
		k.PointRate = d.rate(0.001, 0.1)
	}
	k.FastRestart = []float64{0, 0.5, 0.5, 1}[d.rng.IntN(4)]
}

// services draws what the clocks, the lock service and the operator are like.
func (d *drawer) services() {
	k := d.k
	k.Drift = d.sometimes(maxDrift)
	k.Offset = partition.Time(d.pick(0, 1)) * d.time(time.Millisecond, time.Hour)
	if d.oneIn(3) {
		k.LockForgets, k.LockDoubles, k.LockRefuses = d.sometimes(0.5), d.sometimes(0.5), d.sometimes(0.3)
	}
}

// settle makes what was drawn fit together.
func (d *drawer) settle() {
	k := d.k
	k.Replicas = min(k.Replicas, k.Nodes)
	k.Zones = min(k.Zones, k.Nodes)
	k.DelayMin, k.SyncMin, k.RetryMin = min(k.DelayMin, k.DelayMax), min(k.SyncMin, k.SyncMax), min(k.RetryMin, k.RetryMax)
	k.SoloAfter = min(k.SoloAfter, k.DurabilityWait/2) // a master that commits nothing for that long is none any more
	switch {
	case !k.RealLog:
		k.SegmentBytes = 0
	case k.Pad > 0:
		k.MaxAppendBytes = min(k.MaxAppendBytes, 16_000) // what is written at once fits into a segment
	}
}

// maxDrift is the relative drift of a clock that leases are made for.
const maxDrift = 0.0005
