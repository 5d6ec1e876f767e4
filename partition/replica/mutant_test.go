package replica

import "testing"

// TestMutants plants each known mistake and requires that the properties notice
// it: a property counts only after it was seen to fail. first is near a seed
// that shows the mistake; when the code changes, the search goes on from there.
func TestMutants(t *testing.T) {
	if testing.Short() {
		t.Skip("properties are for the long mode")
	}
	const limit = 4000
	for _, m := range []struct {
		name    string
		mut     mutant
		profile string
		first   uint64
	}{
		{"no fsync of the promise", noPromiseSync, "amnesia", 220},
		{"promise not bound to one candidate", sharedPromise, "bad-lock", 1},
		{"newer by index only", newerByIndex, "plain", 1},
		{"no snip", noSnip, "plain", 1},
		{"truncation on a stale append", snipOnStale, "plain", 1},
		{"no own-epoch rule", anyEpochCommit, "figure-8", 180},
		{"configuration not joint", notJoint, "membership", 1},
		{"membership adopted from a losing log", losingMembership, "membership", 190},
		{"no lease wait", noLeaseWait, "plain", 1},
		{"quorum read during the wait", readInWait, "plain", 1},
		{"grant that outlives a newer promise", grantOutlives, "plain", 1},
		{"restart that forgets its grants", forgetGrants, "plain", 1},
		{"learner counted", learnerCounts, "membership", 1},
		{"acknowledged before the disk", ackUnsynced, "plain", 1},
		{"mastership resumed after a restart", resumeMastership, "plain", 1},
		{"quorum read that asks nobody", readUnconfirmed, "plain", 1},
		{"a retry executed again", executeTwice, "sessions", 1},
		{"answered before applied and allowed", replyUnapplied, "plain", 1},
		{"any supporters suffice", alwaysFailover, "bad-lock", 1},
	} {
		t.Run(m.name, func(t *testing.T) {
			p := profiles()[m.profile]
			p.mut = m.mut
			for seed := m.first; seed < m.first+limit; seed++ {
				if _, err := play(seed, p); err != nil {
					t.Logf("caught by %v", err)
					return
				}
			}
			t.Errorf("not caught in %d schedules", limit)
		})
	}
}
