package sim

import "pando.dev/pando/partition"

// stream separates decisions about different things.
type stream uint64

const (
	onDelay stream = iota + 1
	onTail
	onLoss
	onRepeat
	onReplay
	onSync
	onApply
	onFlush
	onTruncate
	onCrash
	onTorn
	onBoot
	onClock
	onPlace
	onPolicy
	onRand
	onClient
	onOp
	onPoint
	onPointWhat
	onPointWhen
	onLock
	onControl
	onHint
	onRestart
	onCore
	onPartial
	onCorrupt
	onDamage
	onOperator
	onSplit
	onNotice
)

// chances decides. A decision is a hash of the seed and of what it is about, so
// it stays when another one is taken out.
type chances uint64

// of returns the decision about the things named.
func (c chances) of(s stream, about ...uint64) uint64 {
	h := uint64(c) ^ uint64(s)*0x9e3779b97f4a7c15
	for _, x := range about {
		h = mix(h ^ x)
	}
	return mix(h)
}

// two is of for two things, without a slice.
func (c chances) two(s stream, a, b uint64) uint64 {
	return mix(mix(uint64(c)^uint64(s)*0x9e3779b97f4a7c15^a) ^ b)
}

// mix spreads every bit of x over the result.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// share reports whether a decision falls into the given share.
func share(h uint64, p float64) bool {
	return p > 0 && float64(h>>11) < p*(1<<53)
}

// between is a time from lo to hi.
func between(h uint64, lo, hi partition.Time) partition.Time {
	if hi <= lo {
		return lo
	}
	return lo + partition.Time(h%uint64(hi-lo+1))
}

// pick is a number below n.
func pick(h uint64, n int) int { return int(h % uint64(max(1, n))) }
