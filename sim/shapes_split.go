package sim

import (
	"time"

	"pando.dev/pando/sim/fault"
)

// splits lets groups be divided, and breaks what takes part right at each step.
func splits(d *drawer) {
	k := d.k
	k.Nodes = d.pick(3, 3, 4, 5, 5)
	k.Replicas, k.Groups = min(k.Nodes, d.pick(2, 3, 3, 3, 5)), d.pick(1, 1, 2)
	k.Splits, k.Keys = d.pick(2, 4, 8, 12), d.pick(8, 32)
	k.LogShare, k.PolicyMix, k.RealLog, k.SegmentBytes = 0, MajorityOnly, d.oneIn(4), segmentBytes
	k.Ops, k.Clients = float64(d.pick(50, 100, 200)), d.pick(4, 8, 16)
	k.DelayMax, k.SyncMax, k.ApplyMax = min(k.DelayMax, 10*time.Millisecond), min(k.SyncMax, 8*time.Millisecond), min(k.ApplyMax, 20*time.Millisecond)
	k.Length = d.time(8*time.Second, 40*time.Second)
	if d.half() {
		k.PointRate = d.rate(0.05, 0.6)
		k.PointNames = "replica.split-intent,replica.split-sealed,replica.split-unsealed,replica.split-activated,replica.split-done,replica.split-aborted,replica.adopted"
		k.PointClasses = "kill,power-cut,isolate,isolate,cut,pause,kill-fast"
	}
	lags := d.half()
	if lags { // masters follow each other that know different things of the tasks
		k.CatalogLag = d.time(200*time.Millisecond, 2*time.Second)
		k.Splits = d.pick(8, 12, 16)
	}
	d.classes = []fault.Class{
		fault.Kill, fault.KillFast, fault.PowerCut, fault.PowerCutMany, fault.Isolate, fault.IsolateIn, fault.Cut, fault.CutOneWay, fault.Halves, fault.Pause, fault.Freeze,
		fault.TruncateLog, fault.Transfer, fault.Resign, fault.LockForgets, fault.ControlDown, fault.Delay, fault.DiskStall, fault.GossipLies,
	}
	d.share, d.least, d.most = 0.6, 50*time.Millisecond, 2*time.Second
	if d.oneIn(3) {
		k.NewNodes = d.upTo(1)
	}
	if d.oneIn(3) { // members move meanwhile
		d.classes = append(d.classes, fault.AddMember, fault.RemoveMember, fault.ReplaceMember, fault.ChangeMember, fault.Drain)
	}
	if d.oneIn(6) {
		d.classes = append(d.classes, fault.TornWrite, fault.SyncFail, fault.DiskFull, fault.FlipState, fault.FlipLog, fault.Wipe)
	}
	if lags {
		d.classes = append(d.classes, fault.Resign, fault.Transfer, fault.Resign)
	}
}

// merges lets groups be divided and merged again, with faults right at each step.
func merges(d *drawer) {
	splits(d)
	k := d.k
	k.Splits, k.Merges = d.pick(2, 4, 8, 12), d.pick(8, 16, 32)
	k.Sessions = max(k.Sessions, 0.5)
	if k.PointRate > 0 {
		k.PointNames = "sim.merge-intent,sim.merged,sim.source-sealed,sim.source-unsealed,sim.source-gone,sim.absorbed,replica.split-activated,replica.split-done,replica.split-aborted"
	}
}
