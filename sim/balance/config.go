package balance

import (
	"time"

	"pando.dev/pando/cluster/placement"
)

// Config is everything a run depends on. Zero fields have the defaults.
type Config struct {
	Seed   uint64
	Nodes  int // default 10
	Zones  int // default 5
	Groups int // default 1,000
	// Replicas (default 3) of every group.
	Replicas int
	// Bytes (default 32 MiB) is the mean state of a group; sizes are spread evenly
	// from half of it to one and a half.
	Bytes int64
	// Disk is every node's; 0: unknown.
	Disk int64
	// OneMaster starts with every mastership that can be on the first node there.
	OneMaster bool
	// Placed starts with what hashing gives; otherwise the start is leveled once,
	// as a cluster that has run for a while is.
	Placed bool

	Load Load

	// Length (default 30 min) of simulated time, Window (default 10 s) of a
	// measurement.
	Length, Window time.Duration
	// Keep (default 10): a measurement counts by 1/Keep in the smoothed load.
	Keep  uint32
	Watch placement.WatchConfig
	Exec  placement.ExecutionConfig
	Plan  placement.PlanConfig
	// Rate (default 128 MiB/s) is what a node's copies have together, Failing (in
	// 1,000) how many of them fail halfway.
	Rate    int64
	Failing int
	// ReplaceAfter (default 5 min) is how long a failed node is waited for.
	ReplaceAfter time.Duration
	Events       []Event
}

// Load is the work of the groups.
type Load struct {
	// Zipf (default 0.7) and Shift (default a hundredth of the groups): the group of
	// rank r has work in proportion to 1/(r+Shift)^Zipf.
	Zipf  float64
	Shift int
	// Noise is the standard deviation of a group's work in a window, as a part of it.
	Noise float64
	// Sine is the amplitude of a slow swing, as a part of the work, Period (default
	// 24 h) its length and Phases (default 8) in how many phases the groups are.
	Sine   float64
	Period time.Duration
	Phases int
}

// EventKind says what an Event is.
type EventKind uint8

// What happens to a cluster.
const (
	// Join: Count nodes are added.
	Join EventKind = iota + 1
	// Leave: a node is to become empty.
	Leave
	// Fail: a node is gone, without a word.
	Fail
	// Return: a failed node is back.
	Return
	// Heat: the work of the Count busiest masters of a node is Factor times as much.
	Heat
)

// Event is something that happens at a time.
type Event struct {
	At     time.Duration
	Kind   EventKind
	Node   int
	Count  int
	Factor float64
}

func (c Config) withDefaults() Config {
	num := func(x *int, v int) {
		if *x <= 0 {
			*x = v
		}
	}
	dur := func(x *time.Duration, v time.Duration) {
		if *x <= 0 {
			*x = v
		}
	}
	num(&c.Nodes, 10)
	num(&c.Zones, min(5, c.Nodes))
	num(&c.Groups, 1000)
	num(&c.Replicas, 3)
	num(&c.Load.Shift, max(1, c.Groups/100))
	num(&c.Load.Phases, 8)
	dur(&c.Load.Period, 24*time.Hour)
	dur(&c.Length, 30*time.Minute)
	dur(&c.Window, 10*time.Second)
	dur(&c.ReplaceAfter, 5*time.Minute)
	if c.Bytes <= 0 {
		c.Bytes = 32 << 20
	}
	if c.Rate <= 0 {
		c.Rate = 128 << 20
	}
	if c.Load.Zipf <= 0 {
		c.Load.Zipf = 0.7
	}
	if c.Keep == 0 {
		c.Keep = 10
	}
	return c
}
