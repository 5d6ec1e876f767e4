package split

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// No state that can be reached within the bounds has a write that was
// acknowledged and is not in the survivor, or a source that serves what the survivor
// serves; and every end is reached.
func TestMergeModel(t *testing.T) {
	all := map[string]mbounds{
		"a write, a failover of the source":   {epochs: 2, writes: 1, masters: 1, tries: 1, records: 6},
		"a write, a failover of the survivor": {epochs: 1, writes: 1, masters: 2, tries: 1, records: 6},
		"two tries":                           {epochs: 1, writes: 1, masters: 1, tries: 2, records: 5},
	}
	if os.Getenv("PANDO_MODEL") != "" {
		all["a write, a failover of each"] = mbounds{epochs: 2, writes: 1, masters: 2, tries: 1, records: 8}
		all["two tries, a failover of the source"] = mbounds{epochs: 2, writes: 1, masters: 1, tries: 2, records: 8}
		all["two writes"] = mbounds{epochs: 2, writes: 2, masters: 1, tries: 1, records: 8}
	}
	states := 0
	for name, b := range all {
		e := newMergeExplorer(b)
		if wrong := e.run(8_000_000); wrong != "" {
			t.Errorf("%s: %s", name, wrong)
		}
		for _, end := range []string{"done", "aborted", "gone", "unsealed"} {
			if e.ends[end] == 0 {
				t.Errorf("%s: no merge was ever %s", name, end)
			}
		}
		states += len(e.queue)
		t.Logf("%s: %d states, %v", name, len(e.queue), e.ends)
	}
	t.Logf("%d states", states)
}

// Each of these mistakes is seen.
func TestMergeModelCatches(t *testing.T) {
	const (
		lost = "acknowledged is not in the survivor"
		both = "the source answers"
	)
	for name, c := range map[string]struct {
		b    mbounds
		want []string
	}{
		"the source unseals by its own clock":     {mbounds{epochs: 1, writes: 1, masters: 1, tries: 1, records: 6, ownClock: true}, []string{lost, both}},
		"abort and merge are not exclusive":       {mbounds{epochs: 1, writes: 1, masters: 1, tries: 1, records: 6, notExclusive: true}, []string{lost, both}},
		"who has not seen the intent answers":     {mbounds{epochs: 1, writes: 1, masters: 1, tries: 1, records: 6, unseen: true}, []string{lost, both}},
		"rows from before the seal":               {mbounds{epochs: 1, writes: 1, masters: 1, tries: 1, records: 6, unsealedCopy: true}, []string{lost}},
		"rows of a seal that is not committed":    {mbounds{epochs: 2, writes: 1, masters: 1, tries: 1, records: 6, receivedSeal: true, anyMember: true}, []string{lost, both}},
		"rows that are not written yet":           {mbounds{epochs: 1, writes: 1, masters: 1, tries: 1, records: 6, unwrittenCopy: true}, []string{lost}},
		"older leases of the source run":          {mbounds{epochs: 2, masters: 1, tries: 1, records: 6, leasesRun: true}, []string{both}},
		"a seal of another try":                   {mbounds{epochs: 1, writes: 1, masters: 1, tries: 2, records: 6, anyAttempt: true}, []string{lost, both}},
		"the survivor forgets early":              {mbounds{epochs: 1, writes: 1, masters: 1, tries: 1, records: 6, forgetful: true}, []string{lost, both}},
		"any member answers, and nothing is held": {mbounds{epochs: 2, masters: 1, tries: 1, records: 6, anyMember: true, unheld: true}, []string{both}},
	} {
		e := newMergeExplorer(c.b)
		wrong := e.run(2_000_000)
		what, _, _ := strings.Cut(wrong, ":")
		if !slices.ContainsFunc(c.want, func(w string) bool { return strings.Contains(what, w) }) {
			t.Errorf("%s: %q after %d states", name, what, len(e.queue))
		}
		t.Logf("%s: %s, after %d states", name, what, len(e.queue))
	}
}
