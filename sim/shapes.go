package sim

import (
	"slices"
	"time"

	"pando.dev/pando/sim/fault"
)

// DefaultShapes is the mix that a swarm has.
func DefaultShapes() []Shape {
	return []Shape{
		{"general", "anything may happen", 7, nil},
		{"crashes", "nodes end and come back right after they did what they must not forget", 7, crashes},
		{"small-batches", "one record a message, and masters that end between their predecessors' records and their own", 7, smallBatches},
		{"amnesia", "a lock service that knows nothing, slow disks, and power cuts right after promises", 5, amnesia},
		{"network", "little but the network is bad, and it is very bad", 6, networkHeavy},
		{"disks", "the real log, and disks that are full, slow, torn and failing", 7, diskHeavy},
		{"clocks", "clocks that jump and drift, pauses, short leases", 5, clockHeavy},
		{"groups", "many groups on many nodes", 2, manyGroups},
		{"quiet", "a long time in which little happens", 2, quiet},
		{"pairs", "two replicas, both in sync, of which one may go on alone", 5, pairs},
		{"churn", "an operator adds, removes, replaces and changes members all the time", 4, churn},
		{"damage", "disks that lose and spoil what they have, on few nodes at a time", 5, damage},
		{"membership", "short changes of a group one after the other, and faults where each begins and ends", 9, membership},
		{"hand-overs", "masterships that are handed over, and links that break in the middle of it", 3, handOvers},
		{"successions", "masters that follow each other, end and change the group while the lease of one before them runs", 4, successions},
		{"decrees", "an operator who gives up those that are down, and links that break while the others are led on", 3, decrees},
		{"splits", "groups that are divided again and again while masters come and go", 4, splits},
		{"merges", "groups that are divided and merged again, and faults at each step of it", 0, merges},
		{"reads", "many reads, long leases, old messages, and masters that come while leases run", 3, reads},
		{"late-answers", "masters that are replaced while they ask, and answers that come when they are back", 4, lateAnswers},
		{"grants", "nodes that restart though they have granted leases, masters cut off that hold some, old beats, fast and slow clocks", 4, grants},
		{"leavers", "a master that is cut off while the others remove each other", 4, leavers},
	}
}

// ShapeNamed is the default shape with a name.
func ShapeNamed(name string) (Shape, bool) {
	all := DefaultShapes()
	i := slices.IndexFunc(all, func(s Shape) bool { return s.Name == name })
	if i < 0 {
		return Shape{}, false
	}
	return all[i], true
}

func crashes(d *drawer) {
	d.k.PointRate = d.rate(0.003, 0.3)
	d.k.Length = d.time(5*time.Second, 80*time.Second)
	d.k.Ops = float64(d.pick(20, 50, 100))
	d.classes = slices.Concat(processFaults(), []fault.Class{fault.Cut, fault.Isolate, fault.TornWrite}, serviceFaults(), acts())
	d.least, d.most = 30*time.Millisecond, 2*time.Second
}

// smallBatches makes Raft's figure 8 likely: a new master has a predecessor's
// records to send one by one, and ends when some are counted.
func smallBatches(d *drawer) {
	k := d.k
	k.Nodes = d.pick(3, 3, 3, 5)
	k.Replicas = k.Nodes
	k.Groups, k.LogShare, k.PolicyMix = 1, 0, MajorityOnly
	k.MaxAppendBytes = 1
	k.DelayMin, k.DelayMax = 0, time.Duration(d.between(1, 3))*time.Millisecond
	k.SyncMin, k.SyncMax, k.ApplyMax = 0, time.Duration(d.between(1, 3))*time.Millisecond, 0
	k.TailShare, k.Replay, k.Stream, k.Loss = 0, 0, false, d.rate(0.03, 0.4)
	k.Ops, k.ReadShare = float64(d.pick(10, 20, 50, 100)), 0
	k.PointRate, k.PointClasses = d.rate(0.02, 0.5), "power-cut,kill"
	k.PointNames = "replica.commit,replica.commit-older,replica.lead,replica.noop-durable,replica.supported"
	k.Length = d.time(5*time.Second, 20*time.Second)
	d.classes = []fault.Class{fault.Kill, fault.PowerCut, fault.KillFast, fault.Isolate, fault.TruncateLog}
	d.least, d.most = 30*time.Millisecond, 2*time.Second
}

// amnesia makes a forgotten promise matter: it is on the way to the disk when
// the node loses its power, and the lock gives the same numbers again.
func amnesia(d *drawer) {
	k := d.k
	k.Nodes, k.Replicas, k.Groups = 3, 3, 1
	k.DelayMin, k.DelayMax = 0, 3*time.Millisecond
	k.SyncMin, k.SyncMax = time.Millisecond, 10*time.Millisecond
	k.Loss, k.TailShare, k.Replay = 0, 0, 0
	k.LockForgets, k.LockDoubles, k.LockRefuses = 1, 0, 0
	k.PointRate, k.PointNames, k.PointClasses = d.rate(0.05, 0.5), "replica.promise,replica.gather-answered,replica.serve", "power-cut"
	k.FastRestart = 1
	k.Length = d.time(5*time.Second, 20*time.Second)
	d.classes = []fault.Class{fault.PowerCut, fault.KillFast, fault.Cut, fault.CutOneWay, fault.Isolate}
	d.least, d.most = 30*time.Millisecond, 2*time.Second
}

func networkHeavy(d *drawer) {
	d.classes = slices.Concat(networkFaults(), acts(), []fault.Class{fault.Pause, fault.Freeze, fault.Starve, fault.GossipLies, fault.GossipStorm})
	d.least, d.most = 30*time.Millisecond, 2*time.Second
	d.k.Length = d.time(10*time.Second, 2*time.Minute)
	d.k.Nodes = d.pick(3, 4, 5, 5, 7)
	d.k.Replicas = min(d.k.Nodes, d.pick(3, 3, 5, 5))
}

func diskHeavy(d *drawer) {
	k := d.k
	k.RealLog = !d.oneIn(4)
	k.Length = d.time(5*time.Second, 60*time.Second)
	k.Ops = float64(d.pick(20, 50, 100))
	k.Pad = d.pick(0, 600, 2000)
	k.PointRate = d.rate(0.003, 0.3)
	k.PointClasses = "power-cut,kill,torn-write,disk-stall"
	d.classes = slices.Concat(slowDisks(), []fault.Class{fault.Kill, fault.KillFast, fault.PowerCut, fault.PowerCutMany, fault.TruncateLog, fault.Isolate})
	d.share, d.least, d.most = 0.6, 50*time.Millisecond, 3*time.Second
}

func clockHeavy(d *drawer) {
	k := d.k
	k.Drift, k.Offset = d.rate(maxDrift, 300*maxDrift), d.time(time.Second, time.Hour)
	k.Lease = d.time(30*time.Millisecond, 400*time.Millisecond)
	k.ReadShare = 0.7
	k.Length = d.time(10*time.Second, 2*time.Minute)
	d.classes = slices.Concat(clockFaults(), []fault.Class{fault.Pause, fault.Freeze, fault.Starve, fault.Isolate, fault.IsolateIn, fault.CutOneWay, fault.Blink, fault.Transfer, fault.Delay})
	d.share, d.least, d.most = 0.6, 30*time.Millisecond, 2*time.Second
}

func manyGroups(d *drawer) {
	k := d.k
	k.Nodes = d.between(6, 15)
	k.Replicas = d.pick(3, 3, 5)
	k.Groups = d.between(8, 40)
	k.Zones = d.between(1, 5)
	k.Length = d.time(5*time.Second, 15*time.Second)
	d.least, d.most = 100*time.Millisecond, 3*time.Second
}

func quiet(d *drawer) {
	d.k.Length = d.time(3*time.Minute, 7*time.Minute)
	d.k.Ops = float64(d.pick(2, 5, 10))
	d.k.PointRate = 0
	d.share, d.least, d.most = 0.3, time.Second, 20*time.Second
}

func pairs(d *drawer) {
	k := d.k
	k.Nodes, k.Replicas, k.Groups = d.between(2, 4), 2, d.pick(1, 1, 2)
	k.LogShare, k.WeightShare, k.PolicyMix = 0, 0, AllInSyncOnly
	k.SoloAfter = d.time(50*time.Millisecond, time.Second)
	k.Length = d.time(10*time.Second, 100*time.Second)
	k.LockForgets, k.LockDoubles = 0, 0
	d.classes = slices.Concat(processFaults(), acts(), []fault.Class{fault.Cut, fault.CutOneWay, fault.Isolate, fault.Flap, fault.ControlDown, fault.LockRefuses, fault.LockSlow, fault.GossipLies, fault.DiskStall})
	d.shortest, d.least, d.most = 1, 200*time.Millisecond, 8*time.Second
	if d.oneIn(3) {
		d.classes, k.Tender = append(d.classes, changes()...), d.half()
	}
}

func churn(d *drawer) {
	k := d.k
	k.Nodes = d.pick(3, 4, 5, 5, 6, 7)
	k.Replicas = min(k.Nodes, d.pick(1, 2, 3, 3, 3, 4))
	k.Tender = d.half()
	k.LogAfter, k.ReplaceAfter = d.time(200*time.Millisecond, 10*time.Second), d.time(time.Second, 30*time.Second)
	k.Length = d.time(10*time.Second, 90*time.Second)
	few := []fault.Class{fault.Kill, fault.KillFast, fault.PowerCut, fault.Pause, fault.Cut, fault.CutOneWay, fault.Isolate, fault.Blink, fault.LockDoubles, fault.ControlDown, fault.GossipLies}
	d.classes = slices.Concat(changes(), changes(), acts(), few)
	d.share, d.least, d.most = 0.6, 50*time.Millisecond, 2*time.Second
}

func damage(d *drawer) {
	k := d.k
	k.Nodes = d.pick(3, 3, 4, 5)
	k.Replicas = min(k.Nodes, d.pick(3, 3, 5))
	k.RealLog = !d.oneIn(4)
	k.TailBytes = d.pick(1, 100, 1000) // so that what goes out is mostly read back
	if d.half() {
		k.PointRate, k.PointNames, k.PointClasses = d.rate(0.003, 0.3), "replica.read-back,replica.apply-read-back,replica.snip", "flip-log"
	}
	k.Tender = true
	k.LogAfter, k.ReplaceAfter = d.time(200*time.Millisecond, 5*time.Second), d.time(time.Second, 20*time.Second)
	k.Length = d.time(10*time.Second, 60*time.Second)
	d.classes = slices.Concat(badDisks(), badDisks(), slowDisks(), []fault.Class{fault.Kill, fault.PowerCut, fault.PowerCutMany, fault.Isolate, fault.TruncateLog})
	d.share, d.least, d.most = 0.4, 300*time.Millisecond, 5*time.Second
}
