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
