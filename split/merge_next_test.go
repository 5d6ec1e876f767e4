package split

import (
	"strings"
	"testing"
	"time"

	"pando.dev/pando/partition"
)

// absorber is a survivor that may begin: s in the tables changes it.
func absorber() MergeSituation {
	s := MergeSituation{
		Group: survivorGroup, Self: 1, Now: time.Hour, Since: time.Hour, Serving: true, Range: keys("b", "m"), Version: 5, Membership: group("n1", "n2"),
		Task:   &MergeTask{ID: 9, Version: 5, Source: sourceGroup, Range: keys("m", "t")},
		Source: &Source{},
	}
	for _, m := range s.Membership.Members {
		s.Peers = append(s.Peers, Peer{Replica: m.Replica, Up: true})
	}
	return s
}

// after applies records of a merge to the situation's group.
func after(t *testing.T, s *MergeSituation, kinds ...partition.Kind) {
	t.Helper()
	for i, k := range kinds {
		var b []byte
		switch k {
		case partition.KindMergeIntent:
			b, _ = (&partition.MergeIntent{Task: 9, Range: s.Range, Version: 5, Source: sourceGroup, SourceRange: keys("m", "t")}).AppendBinary(nil)
		case partition.KindSourceSeal:
			b, _ = (&partition.SourceSeal{Task: 9, Range: keys("m", "t"), Version: 7, Survivor: survivorGroup, Intent: 100}).AppendBinary(nil)
		case partition.KindMerging:
			b, _ = (&partition.Merging{Decision: s.Extent.MergeDecision(), SourceVersion: 8, Top: 600}).AppendBinary(nil)
		default:
			b, _ = s.Extent.MergeDecision().AppendBinary(nil)
		}
		x, err := s.Extent.Next(k, b, partition.Index(100+i))
		if err != nil {
			t.Fatal(err)
		}
		s.Extent = x
	}
}

// sealedSource is what the source's master says when it is sealed for the attempt.
func sealedSource(t *testing.T) *Source {
	s := MergeSituation{Range: keys("m", "t")}
	after(t, &s, partition.KindSourceSeal)
	return &Source{Extent: s.Extent, Top: 600}
}

// Every step of a merge, by what is seen.
func TestNextMerge(t *testing.T) {
	const intent, merging = partition.KindMergeIntent, partition.KindMerging
	own := func(kinds ...partition.Kind) func(*MergeSituation) {
		return func(s *MergeSituation) { after(t, s, kinds...) }
	}
	checkSteps(t, map[string]mergeStep{
		"not the master":      {func(s *MergeSituation) { s.Serving = false }, "nothing"},
		"on its way":          {func(s *MergeSituation) { s.Proposed = merging }, "wait the merging record is on its way"},
		"no task":             {func(s *MergeSituation) { s.Task = nil }, "nothing"},
		"begins":              {func(*MergeSituation) {}, "propose merge-intent"},
		"source unheard":      {func(s *MergeSituation) { s.Source = nil }, "ask the master of g18"},
		"a member is down":    {func(s *MergeSituation) { s.Peers[1].Up = false }, "wait the replica on n2 does not answer"},
		"source too large":    {func(s *MergeSituation) { s.Source.Bytes = 65 << 20 }, "tell g18 has 68157440 bytes"},
		"source is busy":      {func(s *MergeSituation) { s.Source.Busy = "a split" }, "tell g18: a split"},
		"source has changed":  {func(s *MergeSituation) { s.Source.Extent = partition.Extent{Version: 8, Range: keys("m", "p")} }, "tell g18 had"},
		"changed itself":      {func(s *MergeSituation) { s.Version = 6 }, "tell it was planned for range version 5"},
		"a change is pending": {func(s *MergeSituation) { s.Pending = true }, "wait a change of the members"},
		"busy":                {func(s *MergeSituation) { s.Busy = "a move" }, "wait a move"},
		"no neighbours":       {func(s *MergeSituation) { s.Task.Range = keys("n", "t"); s.Source.Extent.Range = keys("n", "t") }, "tell invalid: a merge of"},
		"cancelled":           {func(s *MergeSituation) { s.Task.Cancel = "no" }, "tell no"},
		"absorbs":             {own(intent), "take-in what g18 has"},
		"seals":               {func(s *MergeSituation) { own(intent)(s); s.Copy.Looked = true }, "seal g18 has been taken in"},
		"takes the rest in":   {func(s *MergeSituation) { own(intent)(s); s.Copy.Looked, s.Source = true, sealedSource(t) }, "take-in what has changed"},
		"decides": {func(s *MergeSituation) {
			own(intent)(s)
			s.Copy, s.Source = Copy{Looked: true, Sealed: true}, sealedSource(t)
		}, "propose merging"},
		"another seal": {func(s *MergeSituation) {
			own(intent)(s)
			s.Copy, s.Source = Copy{Looked: true, Sealed: true}, sealedSource(t)
			s.Source.Extent.Merge.Intent++
		}, "seal"},
		"source is away":      {func(s *MergeSituation) { own(intent)(s); s.Source = nil }, "ask the master of g18"},
		"too many rows":       {func(s *MergeSituation) { own(intent)(s); s.Copy.Refused = "too many" }, "propose abort too many"},
		"sealed for too long": {func(s *MergeSituation) { own(intent)(s); s.Sealing = s.Now - 2*time.Second }, "propose abort g18 was held for 2s"},
		"found, sealed for too long": {func(s *MergeSituation) {
			own(intent)(s)
			s.Found, s.Source, s.Since = true, nil, s.Now-2*time.Second
		}, "propose abort g18 was held for 2s"},
		"found, source is away": {func(s *MergeSituation) { own(intent)(s); s.Found, s.Source = true, nil }, "ask the master of g18"},
		"found, and not sealed": {func(s *MergeSituation) { own(intent)(s); s.Source, s.Since = nil, s.Now-2*time.Second }, "ask the master of g18"},
		"not told": {func(s *MergeSituation) {
			own(intent, merging)(s)
			s.NotBefore, s.Failed = s.Now+1, "it is not there"
		}, "wait a pause before the next try: it is not there"},
		"cancelled later":    {func(s *MergeSituation) { own(intent)(s); s.Task.Cancel = "no" }, "propose abort no"},
		"past its deadline":  {func(s *MergeSituation) { own(intent)(s); s.Task.Deadline = s.Now }, "propose abort its deadline"},
		"the source is gone": {func(s *MergeSituation) { own(intent)(s); s.Left = true }, "propose abort there is no such"},
		"nobody knows it":    {func(s *MergeSituation) { own(intent)(s); s.Task = nil }, "wait the control group has not said"},
		"nobody for long":    {func(s *MergeSituation) { own(intent)(s); s.Task, s.Since = nil, s.Now-time.Minute }, "propose abort nobody"},
		"an orphan":          {func(s *MergeSituation) { own(intent)(s); s.Task, s.Gone = nil, true }, "propose abort the control group"},
		"was aborted":        {func(s *MergeSituation) { own(intent, partition.KindAbort)(s) }, "tell it was given up"},
		"was aborted here":   {func(s *MergeSituation) { own(intent, partition.KindAbort)(s); s.Aborted = "too many" }, "tell too many"},
		"decided":            {own(intent, merging), "tell the catalog has to lead here"},
		"decided, cancelled": {func(s *MergeSituation) { own(intent, merging)(s); s.Task.Cancel = "no" }, "tell the catalog has to lead here"},
		"told":               {func(s *MergeSituation) { own(intent, merging)(s); s.Told, s.Source = true, sealedSource(t) }, "ask g18 has not learned"},
		"never learned": {func(s *MergeSituation) {
			own(intent, merging)(s)
			s.Told, s.Source, s.Decided = true, nil, s.Now-time.Minute
		}, "propose done g18 has not learned"},
		"learned": {func(s *MergeSituation) {
			own(intent, merging)(s)
			s.Told, s.Source = true, sealedSource(t)
			s.Source.Extent.Merge.Phase = partition.Absorbed
		}, "propose done"},
		"nobody has to learn": {func(s *MergeSituation) { own(intent, merging)(s); s.Told, s.Source, s.Left = true, nil, true }, "propose done"},
		"done":                {own(intent, merging, partition.KindDone), "tell the partition serves"},
	})
}

// Every step of a source.
func TestNextMergeOfSource(t *testing.T) {
	const seal, gone = partition.KindSourceSeal, partition.KindSourceGone
	own := func(kinds ...partition.Kind) func(*MergeSituation) {
		return func(s *MergeSituation) { after(t, s, kinds...) }
	}
	source := func(f func(s *MergeSituation)) func(*MergeSituation) {
		return func(s *MergeSituation) { s.Group, s.Task, s.Source = sourceGroup, nil, nil; f(s) }
	}
	wanted := &partition.SourceSeal{Task: 9, Range: keys("m", "t"), Version: 7, Survivor: survivorGroup, Intent: 100}
	checkSteps(t, map[string]mergeStep{
		"wanted":             {source(func(s *MergeSituation) { s.Wanted = wanted }), "hold g3 is about to"},
		"wanted, held":       {source(func(s *MergeSituation) { s.Wanted, s.Held, s.HeldSince = wanted, true, s.Now }), "propose source-seal"},
		"wanted, held long":  {source(func(s *MergeSituation) { s.Wanted, s.Held = wanted, true }), "release the keys were held"},
		"wanted, busy":       {source(func(s *MergeSituation) { s.Wanted, s.Busy = wanted, "a move" }), "wait a move"},
		"wanted, held, busy": {source(func(s *MergeSituation) { s.Wanted, s.Held, s.Busy = wanted, true, "a move" }), "release a move"},
		"wanted no more":     {source(func(s *MergeSituation) { s.Held = true }), "release"},
		"sealed, new master": {source(own(seal)), "hold the keys are sealed"},
		"sealed":             {source(func(s *MergeSituation) { own(seal)(s); s.Held = true }), "ask g3 has not decided"},
		"sealed for ever":    {source(func(s *MergeSituation) { own(seal)(s); s.Held, s.Since, s.Gone = true, 0, true }), "ask g3 has not decided"},
		"sealed, merged":     {source(func(s *MergeSituation) { own(seal)(s); s.Held, s.Outcome = true, partition.Decided }), "propose source-gone"},
		"sealed, given up":   {source(func(s *MergeSituation) { own(seal)(s); s.Held, s.Outcome = true, partition.GivenUp }), "propose source-unseal"},
		"sealed, refused": {source(func(s *MergeSituation) {
			own(seal)(s)
			s.Held, s.Outcome, s.NotBefore = true, partition.Decided, s.Now+1
		}), "wait a pause"},
		"sealed, not heard": {source(func(s *MergeSituation) { own(seal)(s); s.Held, s.NotBefore = true, s.Now+1 }), "wait a pause"},
		"gone, held":        {source(func(s *MergeSituation) { own(seal, gone)(s); s.Held = true }), "release"},
		"gone":              {source(own(seal, gone)), "nothing"},
		"deposed":           {source(func(s *MergeSituation) { s.Serving, s.Held = false, true }), "release"},
	})
}

type mergeStep struct {
	change func(s *MergeSituation)
	want   string
}

func checkSteps(t *testing.T, all map[string]mergeStep) {
	for name, c := range all {
		s := absorber()
		c.change(&s)
		step := NextMerge(s)
		got := step.Kind.String()
		if step.Record != 0 {
			got += " " + step.Record.String()
		}
		if got += " " + step.Why; !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %s, not %s", name, got, c.want)
		}
	}
}

// A new master that does not reach the source gives the merge up as soon as one that has
// sealed it: it asks again in time, and then it decides.
func TestFoundMergeEnds(t *testing.T) {
	s := absorber()
	after(t, &s, partition.KindMergeIntent)
	s.Found, s.Source = true, nil
	for tries := 0; ; tries++ {
		step := NextMerge(s)
		if step.Record == partition.KindAbort {
			break
		}
		if s.Now = max(s.Now+1, step.Again); step.Again == 0 || tries > 200 {
			t.Fatalf("%s after %s: %s, again at %s", step.Kind, s.Now-s.Since, step.Why, step.Again)
		}
	}
	if took := s.Now - s.Since; took != 2*time.Second {
		t.Errorf("given up after %s", took)
	}
}

// What a source concludes from what it hears and from the catalog: that it has its keys
// still only if nobody can have taken them.
func TestHeard(t *testing.T) {
	const undecided, decided, givenUp = partition.Undecided, partition.Decided, partition.GivenUp
	both := MergeCatalog{Survivor: true, Source: true}
	for name, c := range map[string]struct {
		h    Heard
		cat  MergeCatalog
		want partition.Outcome
	}{
		"survivor is gone":              {Heard{}, MergeCatalog{Source: true}, givenUp},
		"survivor is gone, with keys":   {Heard{}, MergeCatalog{Source: true, Absorbed: true}, undecided},
		"both are gone":                 {Heard{}, MergeCatalog{}, undecided},
		"undecided":                     {Heard{}, both, undecided},
		"given up":                      {Heard{Outcome: givenUp, Sure: true}, both, givenUp},
		"given up, as far as is known":  {Heard{Outcome: givenUp}, both, givenUp},
		"forgotten, it has the keys":    {Heard{Outcome: givenUp}, MergeCatalog{Survivor: true, Source: true, Absorbed: true}, undecided},
		"forgotten, the source is gone": {Heard{Outcome: givenUp}, MergeCatalog{Survivor: true}, undecided},
		"decided":                       {Heard{Outcome: decided}, both, decided},
	} {
		if got := c.h.With(&c.cat); got != c.want {
			t.Errorf("%s: %s, not %s", name, got, c.want)
		}
	}
	if (Heard{Outcome: givenUp, Sure: true}).Asks() || !(Heard{Outcome: givenUp}).Asks() || (Heard{Outcome: decided}).Asks() {
		t.Error("the catalog is asked for what is sure, or not for what is not")
	}
}

// A merge counts as told only if the catalog leads to the survivor.
func TestMergeCatalogActivated(t *testing.T) {
	wide := keys("b", "t")
	for name, c := range map[string]struct {
		cat  MergeCatalog
		want bool
	}{
		"it leads to the source":   {MergeCatalog{Survivor: true, Source: true, Range: keys("b", "m")}, false},
		"it leads to the survivor": {MergeCatalog{Survivor: true, Source: true, Range: wide}, true},
		"the source is gone":       {MergeCatalog{Survivor: true, Range: wide}, true},
		"both are gone":            {MergeCatalog{}, true},
		"the survivor is gone":     {MergeCatalog{Source: true}, false},
	} {
		if got := c.cat.Activated(wide); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
