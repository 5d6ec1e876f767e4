package lease

import (
	"errors"
	"flag"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
)

// TestMain makes the property test run deep by default; a flag given by hand
// wins.
func TestMain(m *testing.M) {
	if err := errors.Join(flag.Set("rapid.checks", "10000"), flag.Set("rapid.steps", "60")); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

const ms = time.Millisecond

// by is replica 1 as a supporter in an incarnation of its node.
func by(boot uint64) replica.Supporter { return replica.Supporter{Replica: 1, Boot: boot} }

// pair is a holder h and a grantor g whose clocks are one.
type pair struct {
	now  partition.Time
	h, g *Table
}

func newPair(limits Config) *pair {
	p := &pair{now: time.Hour}
	clock := func() partition.Time { return p.now }
	hc, gc := limits, limits
	hc.Self, hc.Boot, hc.Now = "h", 7, clock
	gc.Self, gc.Boot, gc.Now = "g", 9, clock
	p.h, p.g = New(hc), New(gc)
	p.g.Open()
	return p
}

// round sends one beat from h to g and back, each way taking delay.
func (p *pair) round(t *testing.T, delay time.Duration) (Answer, Renewal) {
	t.Helper()
	b, ok := p.h.Beat(p.now, "g")
	if !ok {
		t.Fatal("no beat")
	}
	p.now += delay
	a, ok := p.g.OnBeat(p.now, "h", b)
	if !ok {
		t.Fatal("no answer")
	}
	p.now += delay
	return a, p.h.OnAnswer(p.now, "g", a)
}

func TestGrantCountsFromBeforeTheBeat(t *testing.T) {
	p := newPair(Config{})
	start := p.now
	_, r := p.round(t, 5*ms)
	if !r.OK || r.RTT != 10*ms || r.Again || r.Restarted {
		t.Errorf("%+v", r)
	}
	held, granted := p.h.Granted(1, 5, "g", by(9)), p.g.Revoke(1, 1, 6, "h")
	if want := start + 300*ms - 300*time.Microsecond - 1; held != want {
		t.Errorf("held until %v, want %v", held-start, want-start)
	}
	if want := start + 305*ms; granted != want {
		t.Errorf("granted until %v, want %v", granted-start, want-start)
	}
	if p.h.Granted(1, 5, "nobody", by(9)) != 0 || p.g.Revoke(1, 1, 6, "g") != 0 {
		t.Error("a grant of nobody or to oneself")
	}
}

// TestRevocationTravelsWithTheRenewal: the renewal that names a group renews
// nothing for its older epochs, and goes on doing so until acknowledged.
func TestRevocationTravelsWithTheRenewal(t *testing.T) {
	p := newPair(Config{})
	p.round(t, ms)
	p.g.Revoke(1, 1, 6, "h")
	p.g.Revoke(1, 1, 5, "h") // older: changes nothing
	b, _ := p.h.Beat(p.now, "g")
	lost, _ := p.g.OnBeat(p.now, "h", b)
	if want := []Revocation{{1, 1, 6}}; !slices.Equal(lost.Revoked, want) {
		t.Fatalf("revoked %v", lost.Revoked)
	}
	a, _ := p.round(t, ms) // the answer before was lost; it comes again
	if want := []Revocation{{1, 1, 6}}; !slices.Equal(a.Revoked, want) || a.Lease == 0 {
		t.Fatalf("revoked %v, lease %v", a.Revoked, a.Lease)
	}
	if p.h.Granted(1, 5, "g", by(9)) != 0 || p.h.Granted(1, 6, "g", by(9)) == 0 || p.h.Granted(2, 5, "g", by(9)) == 0 {
		t.Error("the revocation is not of group 1 below epoch 6 alone")
	}
	if a, _ = p.round(t, ms); len(a.Revoked) != 0 {
		t.Errorf("%v again after it was acknowledged", a.Revoked)
	}
	if s, _ := p.g.Stats("h"); s.Revoked != 0 || s.Granted == 0 || s.Boot != 7 {
		t.Errorf("%+v", s)
	}
	if s, _ := p.h.Stats("g"); s.Floors != 1 || s.Held == 0 || !s.Reachable {
		t.Errorf("%+v", s)
	}
	p.h.Forget(1)
	p.h.Forget(99)
	if s, _ := p.h.Stats("g"); s.Floors != 0 || p.h.Granted(1, 5, "g", by(9)) == 0 {
		t.Errorf("after Forget %+v", s)
	}
}

// TestLateAcknowledgement: what was revoked anew since is not acknowledged.
func TestLateAcknowledgement(t *testing.T) {
	p := newPair(Config{})
	p.g.Revoke(1, 1, 6, "h")
	p.g.Revoke(2, 1, 6, "h")
	p.round(t, ms)
	p.g.Revoke(1, 1, 8, "h")
	a, _ := p.round(t, ms) // its beat acknowledges {1,6} and {2,6}
	if want := []Revocation{{1, 1, 8}}; !slices.Equal(a.Revoked, want) {
		t.Errorf("revoked %v", a.Revoked)
	}
}

// TestIncompleteListRenewsNothing: more revocations than fit into an answer.
func TestIncompleteListRenewsNothing(t *testing.T) {
	p := newPair(Config{})
	for g := range partition.GroupID(2*MaxRevokedPerAnswer + 1) {
		p.g.Revoke(g, 1, 6, "h")
	}
	for range 2 {
		a, r := p.round(t, ms)
		if len(a.Revoked) != MaxRevokedPerAnswer || a.Lease != 0 || !r.Again || p.h.Granted(1, 6, "g", by(9)) != 0 {
			t.Fatalf("%d revoked, lease %v, %+v", len(a.Revoked), a.Lease, r)
		}
		if !p.h.Reachable("g") {
			t.Error("answered, and not reachable")
		}
	}
	a, r := p.round(t, ms)
	if len(a.Revoked) != 1 || a.Lease == 0 || r.Again || p.h.Granted(1, 6, "g", by(9)) == 0 {
		t.Errorf("%d revoked, lease %v, %+v", len(a.Revoked), a.Lease, r)
	}
	for g := range partition.GroupID(2*MaxRevokedPerAnswer + 1) {
		if p.h.Granted(g, 5, "g", by(9)) != 0 {
			t.Fatalf("group %d is not excluded", g)
		}
	}
}

// TestGrowthIsBounded: past a limit nothing counts any more, and nothing grows.
func TestGrowthIsBounded(t *testing.T) {
	t.Run("grantor", func(t *testing.T) {
		p := newPair(Config{MaxRevoked: 10})
		for g := range partition.GroupID(1000) {
			p.g.Revoke(g, 1, 6, "h")
		}
		p.round(t, ms)
		a, _ := p.round(t, ms)
		if s, _ := p.g.Stats("h"); !s.Withheld || a.Lease != 0 {
			t.Errorf("%+v, lease %v", s, a.Lease)
		}
	})
	t.Run("holder", func(t *testing.T) {
		p := newPair(Config{})
		p.h.c.MaxRevoked = 10
		for g := range partition.GroupID(11) {
			p.g.Revoke(g, 1, 6, "h")
		}
		p.round(t, ms)
		if s, _ := p.h.Stats("g"); !s.Distrust || s.Floors > 10 || p.h.Granted(50, 6, "g", by(9)) != 0 {
			t.Errorf("%+v", s)
		}
	})
	t.Run("same group", func(t *testing.T) {
		p := newPair(Config{})
		for e := range partition.Epoch(100_000) {
			p.g.Revoke(1, 1, e+1, "h")
		}
		if n := len((*p.g.peers.Load())["h"].order); n > 128 {
			t.Errorf("%d entries for one group", n)
		}
	})
	t.Run("peers", func(t *testing.T) {
		p := newPair(Config{MaxPeers: 3})
		for i := range 10 {
			p.g.Revoke(1, 1, 6, partition.NodeID(fmt.Sprint("n", i)))
		}
		if _, ok := p.g.OnBeat(p.now, "h", Beat{Seq: 1, Boot: 7}); ok {
			t.Error("a full table answered")
		}
		if _, ok := p.g.Beat(p.now, "h"); ok {
			t.Error("a full table beat")
		}
		if _, ok := p.g.Stats("n9"); ok {
			t.Error("a full table grew")
		}
	})
}

// TestRestartVoidsBothDirections (LEA): a new incarnation holds and has granted
// nothing; its revocations stand.
func TestRestartVoidsBothDirections(t *testing.T) {
	p := newPair(Config{})
	p.round(t, ms)
	old := *p
	p.g = New(Config{Self: "g", Boot: 10, Now: func() partition.Time { return p.now }})
	p.g.Revoke(1, 1, 6, "h") // from its disk
	a, r := p.round(t, ms)
	if a.Lease != 0 || !r.Restarted || p.h.Granted(2, 5, "g", by(10)) != 0 {
		t.Errorf("before Open: lease %v, %+v, granted %v", a.Lease, r, p.h.Granted(2, 5, "g", by(10)))
	}
	if p.h.Granted(1, 5, "g", by(10)) != 0 {
		t.Error("the revocation of the new incarnation was not taken")
	}
	b, _ := p.h.Beat(p.now, "g")
	late, _ := old.g.OnBeat(p.now, "h", b)
	if r := p.h.OnAnswer(p.now, "g", late); r.OK {
		t.Error("an answer of the dead incarnation was taken")
	}
	p.g.Open()
	p.round(t, ms)
	if p.h.Granted(2, 5, "g", by(10)) == 0 || p.h.Granted(1, 5, "g", by(10)) != 0 {
		t.Error("after Open")
	}

	p.h = New(Config{Self: "h", Boot: 8, Now: func() partition.Time { return p.now }})
	p.g.Up("h", 8)
	if end := p.g.Revoke(3, 1, 9, "h"); end != 0 {
		t.Errorf("the dead holder's grant runs until %v", end)
	}
	if _, ok := p.g.OnBeat(p.now, "h", Beat{Seq: 1, Boot: 7}); ok {
		t.Error("a beat of the dead holder was answered")
	}
	a, _ = p.round(t, ms)
	if want := []Revocation{{1, 1, 6}, {3, 1, 9}}; !slices.Equal(a.Revoked, want[1:]) && !slices.Equal(a.Revoked, want) {
		t.Errorf("revoked %v", a.Revoked)
	}
}

// TestRevocationOfALostPromise: a promise was revoked for, and the power went before
// it was on disk. What the next incarnation revokes is what counts, or its grants
// would count for nothing until somebody promises more.
func TestRevocationOfALostPromise(t *testing.T) {
	p := newPair(Config{})
	p.g.Revoke(1, 1, 6, "h")
	p.round(t, ms)
	if p.h.Granted(1, 5, "g", by(9)) != 0 {
		t.Fatal("the revocation was not taken")
	}
	p.g = New(Config{Self: "g", Boot: 10, Now: func() partition.Time { return p.now }})
	p.g.Revoke(1, 1, 5, "h") // from its disk
	p.g.Open()
	p.round(t, ms)
	for epoch, counts := range map[partition.Epoch]bool{4: false, 5: true} {
		if got := p.h.Granted(1, epoch, "g", by(10)) != 0; got != counts {
			t.Errorf("counts in epoch %d: %t", epoch, got)
		}
	}
	if p.h.Granted(1, 5, "g", by(9)) != 0 {
		t.Error("it counts for the incarnation before")
	}
}

// TestAcknowledgementOfAnotherIncarnation must not drop revocations.
func TestAcknowledgementOfAnotherIncarnation(t *testing.T) {
	p := newPair(Config{})
	p.g.Revoke(1, 1, 6, "h")
	if a, _ := p.g.OnBeat(p.now, "h", Beat{Seq: 1, Boot: 7, PeerBoot: 8, Acked: 100}); len(a.Revoked) != 1 {
		t.Errorf("revoked %v", a.Revoked)
	}
}

func TestAnswersThatAreNotTaken(t *testing.T) {
	p := newPair(Config{})
	b, _ := p.h.Beat(p.now, "g")
	a, _ := p.g.OnBeat(p.now, "h", b)
	for name, change := range map[string]func(*Answer){
		"never sent":        func(a *Answer) { a.Seq = 5 },
		"zero":              func(a *Answer) { a.Seq = 0 },
		"other holder boot": func(a *Answer) { a.HolderBoot = 6 },
	} {
		x := a
		change(&x)
		if r := p.h.OnAnswer(p.now, "g", x); r.OK {
			t.Errorf("%s: taken", name)
		}
	}
	for range beatWindow {
		p.h.Beat(p.now, "g")
	}
	if r := p.h.OnAnswer(p.now, "g", a); r.OK {
		t.Error("an answer out of the window was taken")
	}
	if r := p.h.OnAnswer(p.now, "stranger", a); r.OK {
		t.Error("an answer of a stranger was taken")
	}
	if s, _ := p.h.Stats("g"); s.Refused != 4 {
		t.Errorf("%d counted", s.Refused)
	}
}

func TestReachable(t *testing.T) {
	p := newPair(Config{})
	if p.h.Reachable("g") || !p.h.Reachable("h") {
		t.Error("before the first answer")
	}
	p.round(t, ms)
	p.now += 300 * ms
	if !p.h.Reachable("g") {
		t.Error("not reachable within the lease")
	}
	p.now++
	if p.h.Reachable("g") {
		t.Error("reachable after the lease")
	}
	p.round(t, ms)
	p.h.Down("g", 8) // another incarnation's links
	if !p.h.Reachable("g") {
		t.Error("an old connection took the new one down")
	}
	p.h.Down("g", 9)
	if p.h.Reachable("g") {
		t.Error("reachable after Down")
	}
	if p.h.Granted(1, 5, "g", by(9)) == 0 {
		t.Error("a broken connection ended a grant")
	}
}

// TestConcurrentUse runs everything at once for the race detector.
func TestConcurrentUse(t *testing.T) {
	p := newPair(Config{})
	var mu sync.Mutex // carries messages, as a connection would
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range 500 {
			mu.Lock()
			b, _ := p.h.Beat(p.now, "g")
			a, _ := p.g.OnBeat(p.now, "h", b)
			p.h.OnAnswer(p.now, "g", a)
			mu.Unlock()
			p.h.Forget(partition.GroupID(i))
		}
	})
	for w := range 2 {
		wg.Go(func() {
			for i := range partition.GroupID(2000) {
				p.g.Revoke(i%100, 1, partition.Epoch(i+1), "h")
				p.h.Granted(i%100, partition.Epoch(w), "g", by(9))
				p.h.Reachable("g")
				p.g.Stats("h")
				p.h.Down("g", 9)
				p.g.Up("h", 7)
			}
		})
	}
	wg.Wait()
}

func BenchmarkGranted(b *testing.B) {
	for _, floors := range []int{0, 10_000} {
		b.Run(fmt.Sprintf("floors-%d", floors), func(b *testing.B) {
			p := newPair(Config{})
			for g := range partition.GroupID(floors) {
				p.g.Revoke(g, 1, 6, "h")
			}
			for range 10 {
				m, _ := p.h.Beat(p.now, "g")
				a, _ := p.g.OnBeat(p.now, "h", m)
				p.h.OnAnswer(p.now, "g", a)
			}
			b.ReportAllocs()
			for b.Loop() {
				if p.h.Granted(77, 6, "g", by(9)) == 0 {
					b.Fatal("not granted")
				}
			}
		})
	}
}

// TestRevokeForEverybody: if the node of the older epoch's master is not known,
// no grant to any node counts for it: not to one that has a grant, and not to one
// that is met later.
func TestRevokeForEverybody(t *testing.T) {
	p := newPair(Config{})
	p.round(t, 0)
	if p.h.Granted(1, 5, "g", by(9)) == 0 {
		t.Fatal("no grant")
	}
	before := p.now + DefaultLease
	if until := p.g.Revoke(1, 1, 6, ""); until != before {
		t.Errorf("the grants so far end at %v, want %v", until, before)
	}
	p.now += ms
	p.round(t, 0)
	if until := p.h.Granted(1, 5, "g", by(9)); until != 0 {
		t.Errorf("a grant for an older epoch until %v", until)
	}
	if p.h.Granted(1, 6, "g", by(9)) == 0 || p.h.Granted(2, 5, "g", by(9)) == 0 {
		t.Error("the newer epoch or another group lost its grant")
	}
	late := New(Config{Self: "i", Boot: 3, Now: func() partition.Time { return p.now }})
	b, _ := late.Beat(p.now, "g")
	a, _ := p.g.OnBeat(p.now, "i", b)
	late.OnAnswer(p.now, "g", a)
	if until := late.Granted(1, 5, "g", by(9)); until != 0 {
		t.Errorf("a node met later has a grant for an older epoch until %v", until)
	}
	if late.Granted(1, 6, "g", by(9)) == 0 {
		t.Error("a node met later has no grant for the newer epoch")
	}
}
