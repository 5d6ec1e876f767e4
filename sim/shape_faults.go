package sim

import (
	"math"
	"slices"
	"time"

	"pando.dev/pando/partition"
	"pando.dev/pando/sim/fault"
)

// The classes by what they befall. A shape puts its own together of these.

func processFaults() []fault.Class {
	return []fault.Class{
		fault.Kill, fault.KillFast, fault.KillMany, fault.PowerCut, fault.PowerCutMany, fault.Pause, fault.Freeze,
		fault.Starve, fault.Restart, fault.Rolling, fault.Blink,
	}
}

func networkFaults() []fault.Class {
	return []fault.Class{
		fault.CutOneWay, fault.Cut, fault.Isolate, fault.IsolateIn, fault.IsolateOut, fault.Bridge, fault.Halves,
		fault.Ring, fault.Flap, fault.Clog, fault.Loss, fault.Delay, fault.Duplicate, fault.Reorder, fault.Replay,
		fault.Reset, fault.KindDrop, fault.Corrupt,
	}
}

// slowDisks are faults of disks that keep what they have.
func slowDisks() []fault.Class {
	return []fault.Class{fault.DiskSlow, fault.DiskStall, fault.DiskFull, fault.TornWrite, fault.SyncFail}
}

// badDisks lose or spoil what they have.
func badDisks() []fault.Class {
	return []fault.Class{
		fault.FlipLog, fault.FlipState, fault.FlipIdentity, fault.Misdirect, fault.LostWrite, fault.LyingSync,
		fault.CutFile, fault.RollBack, fault.Wipe, fault.SwapDisks, fault.ReadFail, fault.DiskReadOnly,
	}
}

func clockFaults() []fault.Class {
	return []fault.Class{fault.ClockStep, fault.ClockJump, fault.ClockDrift, fault.ClockStrobe}
}

func serviceFaults() []fault.Class {
	return []fault.Class{
		fault.LockForgets, fault.LockDoubles, fault.LockRefuses, fault.LockSlow, fault.ControlDown,
		fault.GossipLies, fault.GossipStorm,
	}
}

// acts are what an operator does that changes no membership.
func acts() []fault.Class {
	return []fault.Class{fault.Transfer, fault.Resign, fault.TruncateLog}
}

// changes are what an operator does to the members.
func changes() []fault.Class {
	return []fault.Class{fault.AddMember, fault.RemoveMember, fault.ReplaceMember, fault.ChangeMember, fault.SetPolicy, fault.Drain}
}

// general are the classes that any plan may have.
func general() []fault.Class {
	return slices.Concat(processFaults(), networkFaults(), slowDisks(), clockFaults(), serviceFaults(), acts())
}

// faults draws the list: each class is on or off, some come often and some
// seldom, and all together every so often.
func (d *drawer) faults() {
	every := d.time(d.least, d.most)
	d.span = partition.Time(float64(every) * d.rate(d.shortest, 5))
	weights, sum := make([]float64, len(d.classes)), 0.0
	for i := range d.classes {
		on := d.rng.Float64() < d.share
		weight := math.Pow(30, d.rng.Float64())
		if on {
			weights[i] = weight
			sum += weight
		}
	}
	for i, c := range d.classes {
		if weights[i] > 0 {
			d.series(c, partition.Time(float64(every)*sum/weights[i]))
		}
	}
	d.plan.sortFaults()
}

// series draws the faults of a class, which come every so often on average.
func (d *drawer) series(c fault.Class, every partition.Time) {
	at := partition.Time(0)
	for {
		at += partition.Time(-math.Log(1-d.rng.Float64()) * float64(every))
		if at >= d.k.Length {
			return
		}
		f := Fault{At: readable(at), Class: c, Node: fault.None, Other: fault.None}
		d.aim(&f)
		d.extent(&f)
		d.plan.Faults = append(d.plan.Faults, f)
	}
}

// aim draws whom a fault befalls: often somebody who has a role.
func (d *drawer) aim(f *Fault) {
	switch f.Class.On() {
	case fault.OnNode:
		f.Node = d.target()
	case fault.OnLink:
		f.Node, f.Other = d.target(), d.target()
		all := d.oneIn(6) && f.Class != fault.Transfer && f.Class != fault.SwapDisks
		if all || f.Other == f.Node {
			f.Other = fault.None
		}
	}
}

func (d *drawer) target() fault.Target {
	if d.rng.Float64() >= d.aimed {
		return fault.Target(d.rng.IntN(d.k.Nodes))
	}
	return fault.Aim(d.aims[d.rng.IntN(len(d.aims))], d.rng.IntN(d.k.Groups))
}

func anyRole() []fault.Role {
	return []fault.Role{
		fault.Master, fault.Master, fault.Master, fault.Supporter, fault.Peer, fault.Holder, fault.Candidate,
		fault.Learner, fault.Anyone,
	}
}

// extent draws how long a fault lasts and its argument.
func (d *drawer) extent(f *Fault) {
	f.For = d.lasts(f.Class)
	switch f.Class {
	case fault.KillMany, fault.PowerCutMany, fault.Bridge, fault.Halves:
		f.Arg = 1 + d.rng.Uint64N(1<<d.k.Nodes)
	case fault.Starve:
		f.Arg = uint64(d.time(50*time.Microsecond, 20*time.Millisecond).Microseconds())
	case fault.Flap:
		f.Arg = uint64(d.time(5*time.Millisecond, time.Second).Milliseconds())
	case fault.Loss, fault.Duplicate, fault.Corrupt:
		f.Arg = uint64(d.between(10, 900))
	case fault.Delay, fault.Reorder:
		f.Arg = uint64(d.time(time.Millisecond, time.Second).Microseconds())
	case fault.Replay:
		f.Arg = uint64(d.between(1, 20))
	case fault.KindDrop:
		f.Arg = d.rng.Uint64N(32)
	case fault.Clog:
		f.Arg = d.rng.Uint64N(3)
	case fault.DiskSlow:
		f.Arg = uint64(d.time(2*time.Millisecond, 500*time.Millisecond).Milliseconds())
	case fault.RollBack:
		f.Arg = uint64(d.time(5*time.Millisecond, 10*time.Second).Milliseconds())
	case fault.ClockStep:
		f.Arg = d.signed(d.time(time.Millisecond, time.Hour).Milliseconds())
	case fault.ClockJump:
		f.Arg = uint64(d.time(time.Millisecond, 10*time.Second).Milliseconds())
	case fault.ClockDrift:
		most := max(maxDrift*1e6, int(d.k.Drift*1e6))
		f.Arg = d.signed(int64(d.pick(most, d.between(1, most))))
	case fault.ClockStrobe:
		f.Arg = uint64(d.between(1, 1000))
	case fault.LockSlow:
		f.Arg = uint64(d.time(5*time.Millisecond, 2*time.Second).Milliseconds())
	case fault.GossipLies:
		f.Arg = d.rng.Uint64N(2)
	case fault.AddMember, fault.RemoveMember, fault.ReplaceMember, fault.ChangeMember, fault.SetPolicy, fault.Recover:
		f.Arg = d.rng.Uint64N(uint64(d.k.Groups))
	default:
		if f.Class.Arg() != "" {
			f.Arg = d.rng.Uint64N(1 << 32)
		}
	}
}

func (d *drawer) signed(n int64) uint64 {
	if d.half() {
		n = -n
	}
	return uint64(n)
}

// lasts draws how long a fault of a class lasts; 0 for what is a moment.
func (d *drawer) lasts(c fault.Class) partition.Time {
	switch c {
	case fault.KillFast:
		return d.time(100*time.Microsecond, 20*time.Millisecond)
	case fault.Blink: // long enough for an election among those who are back
		return d.time(d.k.Lease/4, 4*d.k.Lease)
	case fault.FlipLog:
		return d.down() * partition.Time(d.pick(0, 1)) // or under a process that goes on
	case fault.Kill, fault.KillMany, fault.PowerCut, fault.PowerCutMany, fault.TornWrite, fault.LyingSync, fault.Restart,
		fault.FlipState, fault.FlipIdentity, fault.Misdirect, fault.LostWrite, fault.CutFile,
		fault.RollBack, fault.Wipe, fault.SwapDisks, fault.SyncFail, fault.DiskReadOnly:
		return d.down()
	case fault.Pause:
		return d.long(time.Millisecond, 2*time.Second)
	case fault.Freeze:
		return d.long(d.k.Lease, 10*time.Second)
	case fault.DiskStall, fault.DiskFull, fault.ReadFail:
		return d.long(10*time.Millisecond, 8*time.Second)
	case fault.Drain:
		return d.time(100*time.Millisecond, 10*time.Second)
	case fault.Reset, fault.Replay, fault.ClockStep, fault.ClockJump, fault.Transfer, fault.Resign, fault.TruncateLog,
		fault.AddMember, fault.RemoveMember, fault.ReplaceMember, fault.ChangeMember, fault.SetPolicy, fault.Recover, fault.LockForgets:
		return 0
	}
	return d.long(5*time.Millisecond, 5*time.Second)
}

// down is how long a node stays away.
func (d *drawer) down() partition.Time {
	if d.rng.Float64() < d.k.FastRestart {
		return d.time(100*time.Microsecond, 20*time.Millisecond)
	}
	return d.long(20*time.Millisecond, 8*time.Second)
}

// long is a time between lo and hi that suits how often faults come: if they come
// often and last long, so much is broken at any time that nothing happens at all.
func (d *drawer) long(lo, hi partition.Time) partition.Time {
	within := func(t partition.Time) partition.Time { return max(lo, min(hi, t)) }
	return d.time(within(d.span/20), within(3*d.span))
}
