package fault

import (
	"fmt"
	"strings"
)

// Class is one way to fail.
type Class uint8

// The classes. Their numbers may change, their names may not.
const (
	_ Class = iota

	// The process.
	Kill
	KillFast
	KillMany
	PowerCut
	PowerCutMany
	Pause
	Freeze
	Starve
	Restart
	Rolling
	Blink

	// The network.
	CutOneWay
	Cut
	Isolate
	IsolateIn
	IsolateOut
	Bridge
	Halves
	Ring
	Flap
	Clog
	Loss
	Delay
	Duplicate
	Reorder
	Replay
	Reset
	KindDrop
	Corrupt

	// The disk.
	DiskSlow
	DiskStall
	DiskFull
	DiskReadOnly
	SyncFail
	ReadFail
	TornWrite
	FlipLog
	FlipState
	FlipIdentity
	Misdirect
	LostWrite
	LyingSync
	CutFile
	RollBack
	Wipe
	SwapDisks

	// The clock.
	ClockStep
	ClockJump
	ClockDrift
	ClockStrobe

	// The lock service, the control group, and gossip.
	LockForgets
	LockDoubles
	LockRefuses
	LockSlow
	ControlDown
	GossipLies
	GossipStorm

	// The operator.
	Transfer
	Resign
	AddMember
	RemoveMember
	ReplaceMember
	ChangeMember
	SetPolicy
	Drain
	TruncateLog
	Recover

	// Classes is one more than the greatest.
	Classes
)

// Levels are where a class can be injected.
type Levels uint8

// The levels.
const (
	Simulator Levels = 1 << iota
	Processes
)

// Shape is what a class befalls, as the number of nodes that a fault names.
type Shape uint8

// The shapes.
const (
	OnWorld Shape = iota // nobody in particular
	OnNode               // Node
	OnLink               // Node and Other; Other may be None: all links of Node
)

func (c Class) entry() entry {
	if !c.Valid() {
		return table[0]
	}
	return table[c]
}

// Valid reports whether c is a class.
func (c Class) Valid() bool { return c > 0 && c < Classes }

// String is the name of the class.
func (c Class) String() string {
	if !c.Valid() {
		return fmt.Sprintf("fault-%d", uint8(c))
	}
	return c.entry().name
}

// About is the class in a line.
func (c Class) About() string { return c.entry().about }

// Arg is what the argument of a fault of this class is; empty if it has none.
func (c Class) Arg() string { return c.entry().arg }

// On is what the class befalls.
func (c Class) On() Shape { return c.entry().on }

// Levels are where the class can be injected.
func (c Class) Levels() Levels { return c.entry().levels }

// String is "simulator", "processes", or both.
func (l Levels) String() string {
	var names []string
	if l&Simulator != 0 {
		names = append(names, "simulator")
	}
	if l&Processes != 0 {
		names = append(names, "processes")
	}
	return strings.Join(names, ", ")
}

// Parse reads the name of a class.
func Parse(name string) (Class, error) {
	for c := range All() {
		if c.String() == name {
			return c, nil
		}
	}
	return 0, fmt.Errorf("no class of faults is called %q", name)
}

// All yields every class, in order.
func All() func(yield func(Class) bool) {
	return func(yield func(Class) bool) {
		for c := Class(1); c < Classes; c++ {
			if !yield(c) {
				return
			}
		}
	}
}
