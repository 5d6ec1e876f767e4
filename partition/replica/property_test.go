package replica

import (
	"flag"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// How deep the properties go. The defaults suit every run of the tests; for a
// long hunt: go test -run Schedules ./partition/replica -replica.seeds=20000
var (
	seeds = flag.Uint64("replica.seeds", 40, "random schedules per profile")
	first = flag.Uint64("replica.first", 1, "the first seed")
	only  = flag.String("replica.profile", "", "print the one schedule of this profile that -replica.first names")
)

// profiles are the kinds of random schedules.
func profiles() map[string]profile {
	const d = 4 * time.Second
	return map[string]profile{
		"plain":      {length: d, reads: true},
		"bad-lock":   {length: d, badLock: true, reads: true},
		"membership": {length: d, membership: true, reads: true},
		"churn":      {length: 2 * d, membership: true, churn: true, transfers: true, reads: true},
		"churn-all":  {length: 2 * d, membership: true, churn: true, transfers: true, reads: true, badLock: true, sessions: true},
		"churn-solo": {length: 2 * d, nodes: 2, solo: true, membership: true, churn: true, transfers: true, reads: true},
		"transfers":  {length: d, transfers: true, reads: true},
		"planned":    {length: 4 * d, transfers: true, sessions: true, membership: true, badLock: true, reads: true},
		"solo-moves": {length: 2 * d, nodes: 2, solo: true, membership: true, transfers: true, reads: true},
		"solo": {length: 2 * d, nodes: 2, solo: true, membership: true, reads: true,
			points: map[string]int{"asks to go on alone": 4, "goes on alone": 3, "promised": 20, "commits": 200}},
		"sessions": {length: d, sessions: true},
		// SPL-2, as far as a child's own life goes: its first master leads at once.
		"appointed": {length: d, appoints: true, reads: true, sessions: true, transfers: true,
			points: map[string]int{"leads": 4, "promised": 8}},
		"appointed-badly": {length: d, appoints: true, badLock: true, forgets: true, membership: true, reads: true,
			points: map[string]int{"leads": 4, "promised": 8}},
		"all": {length: d, sessions: true, membership: true, badLock: true, reads: true},
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
	}
}

// TestSchedules runs random schedules of some 200 faults and calls each, over
// thousands of events, and checks after every step: SMF-1 to SMF-8, SMF-10 and
// SMF-12, LEA-2 with skewed clocks, NOT-1 to NOT-4, MEM-7; and of RELIABILITY's
// scenarios R1, R2, R5, M1 to M10, M12, M14, L1, L2, L5, L6, X1, X3 and X4. After
// the faults it requires progress, equal states and silence.
func TestSchedules(t *testing.T) {
	if testing.Short() {
		t.Skip("properties are for the long mode")
	}
	for _, name := range slices.Sorted(maps.Keys(profiles())) {
		p := profiles()[name]
		t.Run(name, func(t *testing.T) {
			var acked, elections, lease, quorum, snips, steps, transfers, changes, retired, copies, permits int
			for seed := *first; seed < *first+*seeds; seed++ {
				c, err := play(seed, p)
				if err != nil {
					t.Errorf("%v", err)
					continue
				}
				acked, elections, steps = acked+c.acked, elections+c.elections, steps+c.w.steps
				lease, quorum, snips = lease+c.leaseReads, quorum+c.quorumReads, snips+c.snips
				transfers, permits = transfers+c.transfers, permits+c.w.lock.permit.granted
				changes, retired, copies = changes+c.changes, retired+c.retired, copies+c.copies
			}
			t.Logf("%d steps, %d acked, %d elections, %d lease reads, %d quorum reads, %d snips, %d transfers", steps, acked, elections, lease, quorum, snips, transfers)
			t.Logf("%d changes of the group, %d replicas retired, %d copied anew, %d permits", changes, retired, copies, permits)
			if p.membership && (changes < int(*seeds)/2 || retired == 0 || copies == 0 && !p.solo) || p.solo != (permits > 0) {
				t.Errorf("the schedules do not change the group")
			}
			if acked == 0 || elections < int(*seeds) || snips == 0 || lease == 0 || p.transfers != (transfers > 0) {
				t.Errorf("the schedules do not exercise the protocol")
			}
		})
	}
}

// TestRapid lets rapid choose what happens, so that a violation is shrunk to few
// actions.
func TestRapid(t *testing.T) {
	if testing.Short() {
		t.Skip("properties are for the long mode")
	}
	rapid.Check(t, func(t *rapid.T) {
		p := profiles()[rapid.SampledFrom(slices.Sorted(maps.Keys(profiles()))).Draw(t, "profile")]
		p.length = 6 * time.Second // some 300 actions
		p.pick = func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "pick") }
		if _, err := play(rapid.Uint64().Draw(t, "seed"), p); err != nil {
			t.Fatal(err)
		}
	})
}

// TestConvergence is the second half of SMF-8: whatever the schedule, candidates
// converge. The bound counts masterships, of which each crash costs one.
func TestConvergence(t *testing.T) {
	if testing.Short() {
		t.Skip("properties are for the long mode")
	}
	for seed := range uint64(200) {
		w := newWorld(seed, calm())
		w.knobs.netMax, w.knobs.diskMax = 10*time.Millisecond, 10*time.Millisecond
		w.start(members(5))
		w.run(2 * time.Second)
		if w.master() == nil || w.check.elections > 2 {
			t.Errorf("seed %d: %d elections, master %v", seed, w.check.elections, w.master() != nil)
		}
		m := w.master()
		m.crash()
		w.run(2 * time.Second)
		if w.master() == nil || w.check.elections > 4 {
			t.Errorf("seed %d: after a crash %d elections, master %v", seed, w.check.elections, w.master() != nil)
		}
	}
}

// TestDeterminism: the same seed gives the same story to the letter.
func TestDeterminism(t *testing.T) {
	if testing.Short() {
		t.Skip("properties are for the long mode")
	}
	for seed := range uint64(5) {
		var a, b strings.Builder
		_, errA := playInto(&a, seed, profiles()["all"])
		_, errB := playInto(&b, seed, profiles()["all"])
		if a.String() != b.String() || (errA == nil) != (errB == nil) || a.Len() < 1000 {
			t.Errorf("seed %d gives two stories of %d and %d bytes", seed, a.Len(), b.Len())
		}
	}
}

// TestOneSchedule prints everything that happens in one schedule.
func TestOneSchedule(t *testing.T) {
	if *only == "" {
		t.Skip("set -replica.profile and -replica.first")
	}
	var b strings.Builder
	_, err := playInto(&b, *first, profiles()[*only])
	t.Logf("%s\n%v", b.String(), err)
}
