package sim

import (
	"time"

	"pando.dev/pando/partition"
	"pando.dev/pando/sim/fault"
)

// lateAnswers lets masters be replaced while they ask, and the answers reach them
// when they are back: what is for a node is held back, leases are so short that a
// successor serves meanwhile, and nobody asks again soon.
func lateAnswers(d *drawer) {
	k := d.k
	k.Nodes = d.pick(3, 3, 5)
	k.Replicas, k.Groups, k.LogShare = k.Nodes, 1, 0
	k.Lease = d.time(50*time.Millisecond, 300*time.Millisecond)
	k.AnswerWait, k.DurabilityWait = d.time(200*time.Millisecond, time.Second), Calm().DurabilityWait
	k.RetryMin, k.RetryMax = 5*time.Millisecond, max(k.AnswerWait, d.time(100*time.Millisecond, time.Second))
	k.ReadShare, k.Ops, k.Clients = round(1-d.upTo(0.2)), float64(d.pick(50, 100, 200, 400)), 16
	k.DelayMax = d.time(k.DelayMin, 5*time.Millisecond)
	k.Stream, k.Loss, k.Repeat = false, d.sometimes(0.05), d.upTo(0.6)
	k.TailShare, k.Replay = 0, d.sometimes(0.05)
	k.PointRate, k.FastRestart = d.rate(0.01, 0.2), 0
	k.PointNames, k.PointClasses = "replica.read-round,replica.read-confirmed", "clog,clog,isolate-in"
	k.Length = d.time(5*time.Second, 20*time.Second)
	d.classes = []fault.Class{fault.Clog, fault.Clog, fault.Isolate, fault.IsolateIn, fault.Cut, fault.CutOneWay, fault.Replay, fault.Delay, fault.GossipLies}
	d.share, d.least, d.most = 0.6, 100*time.Millisecond, 2*time.Second
	if d.oneIn(3) {
		d.lateSupport()
	}
}

// lateSupport lets candidates ask in vain and hear late of an earlier attempt, while
// the others have gone on without them: one master after the other is cut off, the
// one before it comes back at that moment, and what it asks then is lost.
func (d *drawer) lateSupport() {
	k := d.k
	k.Nodes, k.Replicas, k.ReadShare, k.Ops = 3, 3, 0.1, float64(d.pick(20, 50))
	k.Lease, k.RetryMax = d.time(50*time.Millisecond, 200*time.Millisecond), d.time(50*time.Millisecond, 200*time.Millisecond)
	k.DelayMin, k.DelayMax = 5*time.Millisecond, 8*time.Millisecond
	k.Loss, k.Repeat, k.Replay = 0, 0, d.rate(0.3, 1)
	k.PointRate, k.PointNames, k.PointClasses = d.rate(0.3, 1), "replica.gather", "isolate-out"
	d.classes, d.share = []fault.Class{fault.Isolate, fault.Kill, fault.Resign, fault.GossipLies}, 0.2
	for at, out := partition.Time(0), partition.Time(0); at < k.Length; at += out {
		out = d.time(300*time.Millisecond, 1500*time.Millisecond)
		d.plan.Faults = append(d.plan.Faults, Fault{
			At: readable(at), For: readable(out + d.time(time.Millisecond, 50*time.Millisecond)), Class: fault.Isolate, Node: fault.Aim(fault.Master, 0), Other: fault.None,
		})
	}
}

// grants lets nodes restart that have granted leases, masters be cut off that hold
// some, and beats of before come again, while clocks run at very different speeds.
func grants(d *drawer) {
	k := d.k
	k.Nodes = d.pick(3, 3, 4, 5)
	k.Replicas, k.Groups, k.LogShare = k.Nodes, 1, 0
	k.Drift = d.rate(60*maxDrift, 400*maxDrift)
	k.Lease = d.time(100*time.Millisecond, 1500*time.Millisecond)
	k.RetryMin, k.RetryMax = 5*time.Millisecond, d.time(50*time.Millisecond, 300*time.Millisecond)
	k.ReadShare, k.Ops, k.Clients = round(0.6+d.upTo(0.35)), float64(d.pick(20, 50, 100, 200)), 16
	k.DelayMax = d.time(k.DelayMin, 5*time.Millisecond)
	k.SyncMax = d.time(k.SyncMin, 5*time.Millisecond)
	k.ApplyMax = 0
	k.Stream, k.Loss, k.Repeat = false, d.sometimes(0.1), d.sometimes(0.1)
	k.TailShare, k.Replay = 0, d.rate(0.03, 0.4)
	k.PointRate, k.FastRestart = d.rate(0.003, 0.1), []float64{0.5, 1}[d.rng.IntN(2)]
	k.PointNames, k.PointClasses = "lease.revoked,lease.peer-restarted,replica.lease-reported,replica.grants-forgotten,replica.serve", "kill-fast,kill-fast,isolate,isolate-in"
	k.Length = d.time(5*time.Second, 20*time.Second)
	d.classes = []fault.Class{
		fault.Blink, fault.Blink, fault.Blink, fault.KillFast, fault.KillFast, fault.Isolate, fault.Isolate, fault.IsolateIn, fault.IsolateIn, fault.IsolateIn, fault.Cut, fault.CutOneWay, fault.CutOneWay,
		fault.Transfer, fault.Transfer, fault.Resign, fault.GossipLies, fault.GossipStorm, fault.Pause, fault.ClockDrift, fault.ClockDrift, fault.Replay,
	}
	d.aims, d.aimed = []fault.Role{fault.Master, fault.Master, fault.Holder, fault.Supporter}, 0.8
	d.share, d.least, d.most = 0.6, 50*time.Millisecond, time.Second
}

// leavers cuts a master off, one link for longer than the next, while the others
// remove each other from the group: it finds nodes that have forgotten it.
func leavers(d *drawer) {
	k := d.k
	k.Nodes = d.pick(3, 3, 4)
	k.Replicas, k.Groups, k.LogShare, k.PolicyMix = 3, 1, 0, MajorityOnly
	k.Lease = d.time(50*time.Millisecond, 300*time.Millisecond)
	k.RetryMin, k.RetryMax = 5*time.Millisecond, d.time(50*time.Millisecond, 300*time.Millisecond)
	k.AnswerWait, k.DurabilityWait = d.time(50*time.Millisecond, 150*time.Millisecond), d.time(5*time.Second, 20*time.Second)
	k.DelayMax, k.SyncMax, k.ApplyMax = d.time(k.DelayMin, 5*time.Millisecond), d.time(k.SyncMin, 5*time.Millisecond), 0
	k.TailShare, k.Loss = 0, 0
	k.ReadShare, k.Ops = 0.8, float64(d.pick(20, 50))
	k.PointRate, k.PointNames, k.PointClasses, k.FastRestart = d.rate(0.2, 1), "replica.retired", "kill-fast,power-cut", 1
	k.Length = d.time(6*time.Second, 15*time.Second)
	d.classes = []fault.Class{
		fault.RemoveMember, fault.RemoveMember, fault.RemoveMember, fault.AddMember, fault.ChangeMember, fault.ChangeMember, fault.KillFast, fault.Transfer,
	}
	d.share, d.least, d.most = 0.7, 50*time.Millisecond, 400*time.Millisecond
	for at := d.time(200*time.Millisecond, 2*time.Second); at < k.Length; at += d.time(3*time.Second, 8*time.Second) {
		for n := range k.Nodes {
			d.plan.Faults = append(d.plan.Faults, Fault{
				At: at, For: d.time(500*time.Millisecond, 6*time.Second), Class: fault.Cut, Node: fault.Aim(fault.Master, 0), Other: fault.Target(n),
			})
		}
	}
}
