package replica

import (
	"flag"
	"strings"
	"testing"
	"time"
)

var (
	seeds = flag.Int("replica.seeds", 150, "random schedules per profile")
	only  = flag.String("replica.profile", "", "print one schedule of this profile")
	first = flag.Uint64("replica.first", 1, "the first seed")
)

func profiles() map[string]profile {
	const d = 4 * time.Second
	return map[string]profile{
		// A promise is on the way to the disk when the node crashes, and the lock
		// hands out small numbers again.
		"amnesia": {length: 2 * d, badLock: true, forgets: true, nodes: 3, faults: faultCrash | faultCut,
			points: map[string]int{"promised": 3, "serves": 3}, tweak: func(k *knobs) {
				k.netMin, k.netMax, k.diskMin, k.diskMax = 0, 3*time.Millisecond, time.Millisecond, 10*time.Millisecond
				k.loss, k.stray = 0, 0
			}},
		// Masters that crash between their predecessors' records and their own.
		"figure-8": {length: 2 * d, nodes: 3, faults: faultCrash,
			points: map[string]int{"commits": 3, "leads": 3}, tweak: func(k *knobs) {
				k.cfg.MaxAppendBytes, k.netMax, k.diskMax = 1, 3*time.Millisecond, 3*time.Millisecond
				k.loss, k.stray, k.applyMax = 0.3, 0, 0
			}},
		"plain":      {length: d, reads: true},
		"bad-lock":   {length: d, badLock: true, reads: true},
		"membership": {length: d, membership: true, reads: true},
		"sessions":   {length: d, sessions: true},
		"all":        {length: d, sessions: true, membership: true, badLock: true, reads: true},
	}
}

func TestSchedules(t *testing.T) {
	for name, p := range profiles() {
		t.Run(name, func(t *testing.T) {
			var acked, elections, lease, quorum, snips, steps int
			for seed := *first; seed < *first+uint64(*seeds); seed++ {
				c, err := play(seed, p)
				if err != nil {
					t.Errorf("%v", err)
					continue
				}
				acked += c.acked
				elections += c.elections
				lease += c.leaseReads
				quorum += c.quorumReads
				snips += c.snips
				steps += c.w.steps
			}
			t.Logf("%d steps, %d acked, %d elections, %d lease reads, %d quorum reads, %d snips", steps, acked, elections, lease, quorum, snips)
		})
	}
}

// TestOneSchedule prints everything that happens in one schedule: run it with
// -replica.profile and -replica.first.
func TestOneSchedule(t *testing.T) {
	if *only == "" {
		t.Skip("set -replica.profile")
	}
	var b strings.Builder
	_, err := playInto(&b, *first, profiles()[*only])
	t.Logf("%s\n%v", b.String(), err)
}
