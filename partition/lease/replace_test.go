package lease

import (
	"math"
	"slices"
	"testing"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
)

// TestReplacementGrantsAnew: what was revoked of a dropped or damaged replica
// stands, also before the holder has heard of it, and a replica that takes its
// place on the node, under a greater id, grants as if nothing had been.
func TestReplacementGrantsAnew(t *testing.T) {
	old, fresh := replica.Supporter{Replica: 3, Boot: 9}, replica.Supporter{Replica: 7, Boot: 9}
	p := newPair(Config{})
	p.round(t, ms)
	p.g.Revoke(1, 3, 6, "h")
	p.g.Revoke(1, 3, math.MaxUint64, "h") // it is dropped before anybody has heard of epoch 6
	p.g.Revoke(1, 7, 8, "h")              // the first promise of its successor
	a, _ := p.round(t, ms)
	if want := []Revocation{{1, 7, 8}}; !slices.Equal(a.Revoked, want) {
		t.Errorf("revoked %v", a.Revoked)
	}
	for _, x := range []struct {
		s      replica.Supporter
		epoch  partition.Epoch
		counts bool
	}{{old, 5, false}, {old, 6, false}, {old, 100, false}, {fresh, 7, false}, {fresh, 8, true}, {fresh, 9, true}} {
		if got := p.h.Granted(1, x.epoch, "g", x.s) != 0; got != x.counts {
			t.Errorf("the grant for replica %d in epoch %d counts: %t", x.s.Replica, x.epoch, got)
		}
	}
	// Nothing that is late or forged for the old one comes into force again.
	p.g.Revoke(1, 3, 9, "h")
	p.round(t, ms)
	if p.h.Granted(1, 9, "g", old) != 0 || p.h.Granted(1, 8, "g", fresh) == 0 {
		t.Error("a late word of the old replica was taken for the new one's")
	}
	// Damage of the new one takes its grants away, too, and all of other groups stay.
	p.g.Revoke(1, 7, math.MaxUint64, "")
	p.round(t, ms)
	if p.h.Granted(1, 9, "g", fresh) != 0 || p.h.Granted(2, 1, "g", fresh) == 0 {
		t.Error("after the damage of the new one")
	}
}

// TestNextReplicaBeforeItsFirstPromise: the successor of a distrusted replica
// counts where it supports, though it has never revoked anything.
func TestNextReplicaBeforeItsFirstPromise(t *testing.T) {
	p := newPair(Config{})
	p.g.Revoke(1, 3, math.MaxUint64, "")
	p.round(t, ms)
	p.round(t, ms)
	if p.h.Granted(1, 5, "g", replica.Supporter{Replica: 3, Boot: 9}) != 0 {
		t.Error("the distrusted one counts")
	}
	if p.h.Granted(1, 5, "g", replica.Supporter{Replica: 4, Boot: 9}) == 0 {
		t.Error("its successor does not count")
	}
}

// TestGrantOfAnotherBoot: a grant counts for whom it was given by, and for no
// earlier or later incarnation, nor for one that is not known.
func TestGrantOfAnotherBoot(t *testing.T) {
	p := newPair(Config{})
	p.round(t, ms)
	for boot, counts := range map[uint64]bool{0: false, 8: false, 9: true, 10: false} {
		if got := p.h.Granted(1, 5, "g", by(boot)) != 0; got != counts {
			t.Errorf("boot %d counts: %t", boot, got)
		}
	}
	if boot, ok := p.h.Alive("g"); !ok || boot != 9 {
		t.Errorf("alive in %d, %t", boot, ok)
	}
	p.h.Up("g", 10) // it has not answered yet
	if _, ok := p.h.Alive("g"); ok || p.h.Granted(1, 5, "g", by(9)) != 0 || p.h.Granted(1, 5, "g", by(10)) != 0 {
		t.Error("the grants of the incarnation before count on")
	}
	if _, ok := p.h.Alive("nobody"); ok {
		t.Error("nobody is alive")
	}
}
