package replica

import (
	"testing"
	"time"
)

// mutants are the known mistakes, each with the kind of schedule that shows it.
func mutants() []struct {
	name string
	mut  mutant
	p    profile
} {
	plain := profiles()["plain"]
	badLock := profiles()["bad-lock"]
	member := profiles()["membership"]
	sess := profiles()["sessions"]
	_ = time.Second
	return []struct {
		name string
		mut  mutant
		p    profile
	}{
		{"no fsync of the promise", noPromiseSync, profiles()["amnesia"]},
		{"promise not bound to one candidate", sharedPromise, badLock},
		{"newer by index only", newerByIndex, plain},
		{"no snip", noSnip, plain},
		{"truncation on a stale append", snipOnStale, plain},
		{"no own-epoch rule", anyEpochCommit, profiles()["figure-8"]},
		{"configuration not joint", notJoint, member},
		{"membership adopted from a losing log", losingMembership, member},
		{"no lease wait", noLeaseWait, plain},
		{"quorum read during the wait", readInWait, plain},
		{"grant that outlives a newer promise", grantOutlives, plain},
		{"restart that forgets its grants", forgetGrants, plain},
		{"learner counted", learnerCounts, member},
		{"acknowledged before the disk", ackUnsynced, plain},
		{"mastership resumed after a restart", resumeMastership, plain},
		{"quorum read that asks nobody", readUnconfirmed, plain},
		{"a retry executed again", executeTwice, sess},
		{"answered before applied and allowed", replyUnapplied, plain},
		{"any supporters suffice", alwaysFailover, badLock},
	}
}

// TestMutants plants each mistake and requires that the properties notice it.
func TestMutants(t *testing.T) {
	const limit = 3000
	for _, m := range mutants() {
		t.Run(m.name, func(t *testing.T) {
			m.p.mut = m.mut
			for seed := uint64(1); seed <= limit; seed++ {
				if _, err := play(seed, m.p); err != nil {
					t.Logf("caught: %v", err)
					return
				}
			}
			t.Errorf("not caught in %d schedules", limit)
		})
	}
}
