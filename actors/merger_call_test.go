package actors

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"pando.dev/pando/partition"
	"pando.dev/pando/split"
)

// One that does not answer and one that is behind keep nobody from who knows.
func TestHearOutcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), mergeAsk)
		defer cancel()
		ask := func(ctx context.Context, id partition.NodeID) (mergeAnswer, error) {
			switch id {
			case "silent":
				<-ctx.Done()
				return mergeAnswer{}, ctx.Err()
			case "behind":
				return mergeAnswer{}, pauseFor(ctx, mergeWait)
			}
			return mergeAnswer{Outcome: partition.GivenUp, Sure: true}, nil
		}
		h, err := hearOutcome(ctx, []partition.NodeID{"silent", "behind", "knows"}, ask)
		if err != nil || h.Outcome != partition.GivenUp || !h.Sure {
			t.Errorf("%+v, %v", h, err)
		}
		if h, err = hearOutcome(ctx, []partition.NodeID{"behind", "silent"}, ask); err != nil || h.Outcome != partition.Undecided {
			t.Errorf("nobody knows: %+v, %v", h, err)
		}
		if _, err = hearOutcome(ctx, nil, ask); !errors.Is(err, partition.ErrUnavailable) {
			t.Errorf("nobody is there: %v", err)
		}
	})
}

// A new master takes the source for sealed until it has seen that it is not, and when it
// has seen a seal of before it does not begin to count again.
func TestMergingHeard(t *testing.T) {
	m := &partition.Merge{Intent: 100}
	sealed := partition.Extent{Merge: &partition.Merge{Intent: 100}}
	other := partition.Extent{Merge: &partition.Merge{Intent: 90}}
	const since, now = 10 * time.Second, 11 * time.Second
	for name, c := range map[string]struct {
		r     *merging
		x     partition.Extent
		end   partition.Time // less the limit
		holds bool
	}{
		"found, sealed":          {&merging{found: true}, sealed, since, true},
		"found, not sealed":      {&merging{found: true}, partition.Extent{}, 0, false},
		"found, sealed before":   {&merging{found: true}, other, 0, false},
		"begun, sealed":          {&merging{}, sealed, now, true},
		"begun, not sealed":      {&merging{}, partition.Extent{}, 0, false},
		"begun, asked, not yet":  {&merging{sealing: since}, partition.Extent{}, since, true},
		"begun, asked, and done": {&merging{sealing: since}, sealed, since, true},
	} {
		r := c.r
		r.heard(&split.Source{Extent: c.x}, m, now)
		s := split.MergeSituation{Since: since, Sealing: r.sealing, Found: r.found, Limits: split.MergeLimits{Seal: time.Second}}
		if end, ok := s.SealEnd(); ok != c.holds || ok && end != c.end+time.Second {
			t.Errorf("%s: until %s, %v", name, end, ok)
		}
	}
}

// Only a merge that is there when a mastership begins is found.
func TestMergingSees(t *testing.T) {
	first, second := &partition.Merge{Phase: partition.Absorbing, Intent: 100}, &partition.Merge{Phase: partition.Absorbing, Intent: 200}
	var r merging
	e := partition.Epoch(1)
	for i, c := range []struct {
		epoch partition.Epoch
		m     *partition.Merge
		found bool
	}{
		{e, nil, false}, {e, first, false}, {e + 1, first, true}, {e + 1, first, true}, {e + 1, nil, true}, {e + 1, second, false},
		{e + 2, &partition.Merge{Phase: partition.Merged, Intent: 200}, false},
	} {
		if r.see(c.epoch, c.m, 0); r.found != c.found {
			t.Errorf("look %d: %v", i, r.found)
		}
	}
}

// TestOutcomeWithoutSurvivor: a source whose survivor has been absorbed itself is not
// sealed for ever.
func TestOutcomeWithoutSurvivor(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1)
	c.table(TableSpec{Name: "t", Replicas: 1, SplitPoints: [][]byte{[]byte("g"), []byte("p")}})
	n := c.nodes[0]
	groups := n.control.Catalog().Groups("t")
	survivor, source := groups[1].ID, groups[2].ID
	c.merge("t")
	eventually(t, "the survivor leaves the catalog", func() error {
		if _, ok := n.control.Catalog().Group(survivor); ok {
			return errors.New("it is there")
		}
		return nil
	})
	r := &merging{node: n, cell: n.cells.get(source)}
	sealed := &partition.Merge{Task: 1, Phase: partition.SourceSealed, Other: survivor, Intent: 1}
	if err := r.askOutcome(t.Context(), sealed); err != nil || r.outcome != partition.GivenUp {
		t.Errorf("%s, %v", r.outcome, err)
	}
	// A merge whose task is forgotten is not activated while keys lead to the source.
	s := &split.MergeSituation{Group: groups[0].ID, Extent: partition.Extent{Merge: &partition.Merge{Other: source}}}
	rep := &split.Report{Task: 9999, Phase: partition.Activated, Version: 9, Range: partition.KeyRange{}}
	if err := r.tell(s, rep); !errors.Is(err, partition.ErrUnavailable) || r.activated != 0 {
		t.Errorf("told: %v", err)
	}
	s.Extent.Merge.Other = survivor
	if err := r.tell(s, rep); err != nil || r.activated != 9999 {
		t.Errorf("of one that is gone: %v", err)
	}
	// Nothing is given up for one that is not there itself.
	gone := &merging{node: n, cell: &cell{group: survivor}}
	sealed.Other = survivor + 1000
	if err := gone.askOutcome(t.Context(), sealed); !errors.Is(err, partition.ErrUnavailable) || gone.outcome != partition.Undecided {
		t.Errorf("%s, %v", gone.outcome, err)
	}
}

// The reports of a merging are behind those of another one under the same mastership.
func TestNextSeq(t *testing.T) {
	last := uint64(0)
	for _, now := range []partition.Time{time.Second, 2 * time.Second} {
		first := nextSeq(0, now)
		if first <= last {
			t.Errorf("%d is not behind %d", first, last)
		}
		last = nextSeq(nextSeq(first, now), now)
	}
}
