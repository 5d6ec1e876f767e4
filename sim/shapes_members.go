package sim

import (
	"slices"
	"time"

	"pando.dev/pando/partition"
	"pando.dev/pando/sim/fault"
)

// membership lets configurations follow each other while masters come and go.
func membership(d *drawer) {
	k := d.k
	k.Nodes = d.pick(3, 4, 5, 5, 6, 7)
	k.Replicas, k.Groups = min(k.Nodes, d.pick(1, 2, 3, 3, 4, 5)), d.pick(1, 1, 2)
	k.Zones, k.PolicyMix = d.between(1, min(3, k.Nodes)), PolicyMix(d.pick(int(MajorityOnly), int(MixedPolicies), int(MixedPolicies)))
	k.LogShare = []float64{0, 0, 0.3}[d.rng.IntN(3)]
	k.DurabilityWait = Calm().DurabilityWait
	k.RealLog, k.SegmentBytes = d.oneIn(3), 64<<10
	k.Length = d.time(5*time.Second, 40*time.Second)
	if d.half() {
		k.PointRate = d.rate(0.01, 0.3)
		k.PointNames = "replica.configuration,replica.configuration-taken,replica.configuration-committed,replica.lead,replica.commit-joint,replica.removed,replica.lease-wait"
		k.PointClasses = "kill,power-cut,isolate,isolate,cut,pause"
	}
	acts := []fault.Class{
		fault.AddMember, fault.AddMember, fault.RemoveMember, fault.RemoveMember, fault.ReplaceMember, fault.ChangeMember, fault.ChangeMember,
		fault.ChangeMember, fault.ChangeMember, fault.SetPolicy, fault.Drain,
	}
	d.classes = slices.Concat(acts, []fault.Class{
		fault.Kill, fault.KillFast, fault.PowerCut, fault.Isolate, fault.Cut, fault.Halves, fault.Pause, fault.TruncateLog, fault.Transfer, fault.LockForgets, fault.IsolateIn,
	})
	d.share, d.least, d.most = 0.75, 30*time.Millisecond, 500*time.Millisecond
}

// handOvers lets masters hand over all the time, and breaks links right when the
// old one has given up and the new one has not begun.
func handOvers(d *drawer) {
	k := d.k
	k.Nodes = d.pick(3, 3, 4, 5)
	k.Replicas, k.Groups = k.Nodes, 1
	k.Lease = d.time(200*time.Millisecond, 2*time.Second)
	k.ReadShare, k.Ops = 0.6, float64(d.pick(50, 100))
	k.PointRate = d.rate(0.05, 0.7)
	k.PointNames = "replica.gone,replica.go-taken,replica.heir-ready,replica.draining,replica.lease-released,replica.hand-over,replica.lease-wait"
	k.PointClasses = "isolate,isolate,cut,kill,pause,resign"
	k.Length = d.time(5*time.Second, 30*time.Second)
	d.classes = []fault.Class{
		fault.Transfer, fault.Transfer, fault.Transfer, fault.Resign, fault.Isolate, fault.IsolateOut, fault.Cut, fault.Pause, fault.Kill, fault.LockRefuses,
	}
	d.share, d.least, d.most = 0.8, 30*time.Millisecond, 500*time.Millisecond
}

// reads lets masters begin while their predecessors' leases run, and messages come
// so late that they belong to another time.
func reads(d *drawer) {
	k := d.k
	k.Nodes = d.pick(3, 3, 5)
	k.Replicas, k.Groups, k.LogShare = k.Nodes, 1, 0
	k.Lease = d.time(200*time.Millisecond, 2*time.Second)
	k.RetryMin, k.RetryMax = 5*time.Millisecond, d.time(50*time.Millisecond, 400*time.Millisecond)
	k.ReadShare, k.Ops, k.Clients = 0.8, float64(d.pick(100, 200)), 16
	k.Stream, k.Loss, k.Repeat = false, d.rate(0.01, 0.2), d.rate(0.05, 0.4)
	k.TailShare, k.TailMax, k.Replay = d.rate(0.02, 0.2), d.time(100*time.Millisecond, 2*time.Second), d.rate(0.01, 0.1)
	if d.half() {
		k.ApplyMax = d.time(5*time.Millisecond, 200*time.Millisecond)
	}
	k.PointRate = d.rate(0.05, 0.5)
	k.PointNames = "replica.lease-wait,replica.lead,replica.serve,replica.lease-reported,replica.noop-durable"
	k.PointClasses = "isolate,isolate,isolate-in,cut,resign,kill-fast"
	k.Length = d.time(5*time.Second, 20*time.Second)
	d.classes = []fault.Class{
		fault.Isolate, fault.Isolate, fault.IsolateOut, fault.IsolateIn, fault.Cut, fault.CutOneWay, fault.Halves, fault.Pause, fault.Clog, fault.Replay, fault.Delay, fault.Resign, fault.KillFast,
	}
	d.share, d.least, d.most = 0.6, 30*time.Millisecond, time.Second
}

// successions lets masters follow each other, end, and be asked for changes of the
// group, all while the lease of one before them runs, which not all have granted.
func successions(d *drawer) {
	k := d.k
	k.Nodes = d.pick(3, 4, 4, 5, 5)
	k.Replicas, k.Groups = min(k.Nodes, d.pick(3, 3, 3, 3, 5)), 1
	k.LogShare, k.WeightShare, k.PolicyMix = 0, float64(d.pick(0, 0, 1))*0.3, MajorityOnly
	k.Lease = d.time(500*time.Millisecond, 4*time.Second)
	k.RetryMin, k.RetryMax = 5*time.Millisecond, d.time(20*time.Millisecond, 200*time.Millisecond)
	k.DelayMin, k.DelayMax = 0, d.time(time.Millisecond, 5*time.Millisecond)
	k.AnswerWait, k.DurabilityWait = d.time(20*time.Millisecond, 80*time.Millisecond), d.time(200*time.Millisecond, 2*time.Second)
	k.SyncMin, k.SyncMax, k.ApplyMax = 0, d.time(time.Millisecond, 5*time.Millisecond), 0
	k.TailShare, k.Replay, k.Loss, k.Stream, k.Noticed = 0, 0, 0, d.half(), 1
	k.ReadShare, k.Ops = 0.4, float64(d.pick(50, 100))
	k.PointRate = d.rate(0.1, 1)
	k.PointNames = "replica.lease-wait,replica.configuration-committed"
	k.PointClasses = "remove-member,remove-member,remove-member,change-member,change-member,resign,resign,resign,kill-fast"
	k.FastRestart = 1
	k.Length = d.time(8*time.Second, 25*time.Second)
	d.classes = []fault.Class{
		fault.Isolate, fault.Isolate, fault.Cut, fault.Cut, fault.Halves, fault.AddMember, fault.AddMember, fault.ChangeMember, fault.ChangeMember, fault.GossipStorm, fault.Resign, fault.LockForgets,
	}
	d.share, d.least, d.most = 0.6, 200*time.Millisecond, 2*time.Second
	d.shortest = 1
	if d.oneIn(3) {
		return
	}
	// One link after the other is out for several leases.
	for at := partition.Time(0); at < k.Length; {
		f := Fault{At: readable(at), For: d.time(k.Lease, 4*k.Lease), Class: fault.Cut, Node: fault.Target(d.rng.IntN(k.Nodes))}
		f.Other = fault.Target((int(f.Node) + d.between(1, k.Nodes-1)) % k.Nodes)
		d.plan.Faults = append(d.plan.Faults, f)
		at += f.For + d.time(time.Millisecond, k.Lease)
	}
}

// decrees lets an operator give up who is down, and lead on with the others, while
// those come back one after the other and links break right when somebody has
// promised and not yet heard more.
func decrees(d *drawer) {
	k := d.k
	k.Nodes = d.between(3, 6)
	k.Replicas, k.Groups, k.LogShare, k.PolicyMix = k.Nodes, 1, 0, MajorityOnly
	k.MaxAppendBytes = d.pick(1, 1, 4000)
	k.DelayMin, k.DelayMax = 0, d.time(time.Millisecond, 10*time.Millisecond)
	k.SyncMin, k.SyncMax = 0, d.time(time.Millisecond, 40*time.Millisecond)
	k.RetryMin, k.RetryMax = 5*time.Millisecond, d.time(50*time.Millisecond, 400*time.Millisecond)
	k.AnswerWait, k.Lease = d.time(50*time.Millisecond, 150*time.Millisecond), d.time(50*time.Millisecond, 300*time.Millisecond)
	k.TailShare, k.Loss, k.LockForgets, k.LockDoubles = 0, d.sometimes(0.1), 0, 0
	k.Ops, k.FastRestart, k.RealLog = float64(d.pick(10, 50)), 0, false
	k.PointRate = d.rate(0.05, 0.5)
	k.PointNames = "replica.gather-answered,replica.recovered,replica.configuration-taken,replica.configuration-committed,replica.serve,replica.eligible"
	k.PointClasses = "isolate,isolate,power-cut,cut,change-member,change-member,change-member,remove-member"
	k.Length = d.time(5*time.Second, 25*time.Second)
	d.classes = []fault.Class{
		fault.Recover, fault.Recover, fault.Recover, fault.KillMany, fault.PowerCutMany, fault.KillMany, fault.Kill, fault.PowerCut,
		fault.Isolate, fault.Cut, fault.DiskSlow, fault.ChangeMember, fault.RemoveMember, fault.AddMember,
	}
	d.share, d.least, d.most = 0.8, 50*time.Millisecond, 500*time.Millisecond
	d.shortest = 1
	if d.oneIn(3) { // those who went on alone are brought back, and are no pair any more
		k.Replicas, k.PolicyMix, k.WeightShare = d.pick(2, 2, 3), AllInSyncOnly, 0.5
		k.SoloAfter = d.time(30*time.Millisecond, 200*time.Millisecond)
		d.classes = append(d.classes, fault.SetPolicy, fault.SetPolicy, fault.DiskStall)
	}
}
