package control

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"pando.dev/pando/partition"
)

func ids(all ...partition.ReplicaID) []partition.ReplicaID { return all }

// asks is what replica r on the node of the same number (a is 1) asks about
// group 1.
func asks(act uint8, from uint64, r partition.ReplicaID, able ...partition.ReplicaID) permitBody {
	node := partition.NodeID(rune('a' + r - 1))
	b := permitBody{Node: node, Act: act, Group: 1, From: from}
	if act != actRelease {
		b.Holder, b.Replica, b.Able = node, r, able
	}
	return b
}

// CAT-4: the in-sync number is moved by one, by one holder, however often it is
// asked for.
func TestPermitRules(t *testing.T) {
	s := newState()
	create(t, s, "t", 3, nil, "a", "b", "c")
	withLock := func(b permitBody, number uint64) permitBody { b.Lock = number; return b }
	decree := func(from uint64, r partition.ReplicaID, able ...partition.ReplicaID) permitBody {
		b := asks(actDecree, from, r, able...)
		b.Node = "z" // whoever the operator asked
		return b
	}
	for _, x := range []struct {
		what   string
		b      permitBody
		number uint64 // after it
		holder partition.NodeID
		code   partition.Code
		why    string
	}{
		{"a release of what nobody ever held", asks(actRelease, 0, 1), 0, "", partition.CodeRefused, "nobody holds it"},
		{"from a number that never was", asks(actPermit, 3, 1, 1), 0, "", partition.CodeRefused, "is 0 and nobody holds it"},
		{"for another node", permitBody{Node: "b", Act: actPermit, Group: 1, Holder: "a", Replica: 1, Able: ids(1)}, 0, "", partition.CodeUnauthorized, ""},
		{"a holder that may not be master", asks(actPermit, 0, 1, 2), 0, "", partition.CodeInvalid, ""},
		{"nobody may be master", asks(actPermit, 0, 1), 0, "", partition.CodeInvalid, ""},
		{"without the lock that it claims", withLock(asks(actPermit, 0, 1, 1), 5), 0, "", partition.CodeRefused, "the lock is held by nobody"},
		{"the first", asks(actPermit, 0, 1, 1), 1, "a", 0, ""},
		{"the same again", asks(actPermit, 0, 1, 1), 1, "a", 0, ""},
		{"the same again, its lock lost meanwhile", withLock(asks(actPermit, 0, 1, 1), 5), 1, "a", 0, ""},
		{"the same from another node", permitBody{Node: "d", Act: actPermit, Group: 1, Holder: "d", Replica: 1, Able: ids(1)}, 1, "a", partition.CodeRefused, "held by replica 1 on a"},
		{"the same with other replicas", asks(actPermit, 0, 1, 1, 2), 1, "a", partition.CodeRefused, "held by replica 1 on a"},
		{"another from the same", asks(actPermit, 0, 2, 2), 1, "a", partition.CodeRefused, "held by replica 1 on a"},
		{"another from the next", asks(actPermit, 1, 2, 2), 1, "a", partition.CodeRefused, "held by replica 1 on a"},
		{"the holder once more", asks(actPermit, 1, 1, 1), 1, "a", partition.CodeRefused, "held by replica 1 on a"},
		{"a release of the one before", asks(actRelease, 0, 1), 1, "a", partition.CodeRefused, "is 1 and held"},
		{"a release", asks(actRelease, 1, 1), 2, "", 0, ""},
		{"the release again, by another", asks(actRelease, 1, 2), 2, "", 0, ""},
		{"the first request, late", asks(actPermit, 0, 1, 1), 2, "", partition.CodeRefused, "is 2 and nobody holds it"},
		{"the next one", asks(actPermit, 2, 2, 2, 3), 3, "b", 0, ""},
		{"a late release", asks(actRelease, 1, 1), 3, "b", partition.CodeRefused, "is 3 and held"},
		{"a decree from an old number", decree(2, 3, 3), 3, "b", partition.CodeRefused, "held by replica 2 on b"},
		{"a decree over the holder", decree(3, 3, 3), 4, "c", 0, ""},
		{"the decree again", decree(3, 3, 3), 4, "c", 0, ""},
		{"a request that looks like it", asks(actPermit, 3, 3, 3), 4, "c", partition.CodeRefused, "held by replica 3 on c"},
		{"a release by who held it before", asks(actRelease, 3, 2), 4, "c", partition.CodeRefused, "is 4 and held"},
		{"its release", asks(actRelease, 4, 3), 5, "", 0, ""},
		{"a decree where nobody holds it", decree(5, 1, 1, 2), 6, "a", 0, ""},
		{"an unknown act", permitBody{Node: "a", Act: 9, Group: 1}, 6, "a", partition.CodeInvalid, ""},
		{"a group that is not there", permitBody{Node: "a", Act: actRelease, Group: 9}, 6, "a", partition.CodeNotFound, ""},
		{"the last number", asks(actPermit, MaxLockNumber, 1, 1), 6, "a", partition.CodeInvalid, ""},
		{"replicas twice", asks(actPermit, 6, 1, 1, 1), 6, "a", partition.CodeInvalid, ""},
	} {
		r := applied(t, s, kindPermit, &x.b)
		if partition.CodeOf(asNil(r.err)) != x.code || r.err != nil && !strings.Contains(r.err.Why, x.why) {
			t.Errorf("%s: %v, want code %v and %q", x.what, r.err, x.code, x.why)
		}
		if r.err == nil && (r.permits == nil || r.permits.Permits[0].Number != x.number) {
			t.Errorf("%s: answer %+v", x.what, r.permits)
		}
		if r.err != nil && x.code == partition.CodeRefused && r.err.Next == "" {
			t.Errorf("%s: %v does not say what would do", x.what, r.err)
		}
		if p := s.permits[1]; p.number != x.number || p.holder != x.holder {
			t.Fatalf("%s: %+v, want %d held by %q", x.what, p, x.number, x.holder)
		}
	}
	applied(t, s, kindDrop, &dropBody{Token: "d", Name: "t"})
	if len(s.permits) != 0 {
		t.Errorf("in-sync numbers of a dropped table remain: %v", s.permits)
	}
}

// While a replica goes on alone nobody who may lack its records gets the lock,
// and who has it and may not is rid of it.
func TestPermitBarsLocks(t *testing.T) {
	s := newState()
	create(t, s, "t", 3, nil, "a", "b", "c")
	lock := func(node partition.NodeID, r partition.ReplicaID) grantItem {
		return applied(t, s, kindLocks, locksOf(node, 1, acquireItem{Group: 1, Replica: r, Failover: true})).locks.Grants[0]
	}
	if g := lock("b", 2); g.Number != 1 {
		t.Fatal(g)
	}
	permit := asks(actPermit, 0, 1, 1, 3)
	applied(t, s, kindPermit, &permit)
	if h := s.locks[1]; h.holder.Number != 0 || h.last != 1 {
		t.Fatalf("a replica that may not be master keeps the lock: %+v", h)
	}
	g := lock("b", 2)
	if e := fromItem(g.Error); g.Number != 0 || !errors.Is(e, partition.ErrRefused) || !strings.Contains(e.Why, "replica 1 on a went on alone (in-sync number 1)") || e.Next == "" {
		t.Fatalf("%+v, %v", g, e)
	}
	if g := lock("c", 3); g.Number != 2 {
		t.Fatalf("a replica of those that have everything: %+v", g)
	}
	release := asks(actRelease, 1, 1)
	applied(t, s, kindPermit, &release)
	if g := lock("b", 2); g.Number != 3 {
		t.Fatalf("after the release: %+v", g)
	}
	decree := asks(actDecree, 2, 1, 1)
	decree.Why = "site b is gone"
	applied(t, s, kindPermit, &decree)
	if e := fromItem(lock("b", 2).Error); e == nil || !strings.Contains(e.Why, "by an operator") {
		t.Fatalf("after a decree: %v", e)
	}
}

// permitModel is what must be true of one group's in-sync number, from the
// answers alone: it grows by one, and no number ever has two holders.
type permitModel struct {
	number  uint64
	held    bool
	holders map[uint64]string // of every number that was ever held
}

func (m *permitModel) saw(t *rapid.T, b *permitBody, a *permitAnswer, now permit) {
	if now.number != m.number && now.number != m.number+1 {
		t.Fatalf("number %d follows %d", now.number, m.number)
	}
	if now.number == m.number+1 && (a == nil || b.From != m.number) {
		t.Fatalf("number %d came from a request from %d, answer %v", now.number, b.From, a)
	}
	if m.held && now.number != m.number && b.Act == actPermit {
		t.Fatalf("number %d ended by a permit: %+v", m.number, b)
	}
	m.number, m.held = now.number, now.held()
	if a == nil {
		return
	}
	p := a.Permits[0]
	if p.Number != b.From+1 {
		t.Fatalf("a request from %d was answered with %d", b.From, p.Number)
	}
	holder := fmt.Sprintf("%s/%d/%v/%t", p.Holder, p.Replica, p.Able, p.Decreed)
	if old, ok := m.holders[p.Number]; ok && old != holder {
		t.Fatalf("number %d was held by %s and then by %s", p.Number, old, holder)
	}
	m.holders[p.Number] = holder
	if want := b.Act != actRelease; want != (p.Holder != "") || want && p.Holder != b.Holder {
		t.Fatalf("%+v was answered with %+v", b, p)
	}
}

// CAT-4: whatever is asked, in whatever order, twice or late, over snapshots: at
// most one holder per number, numbers by one, and no lock beside the permit.
func TestPermitModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newState()
		create(t, s, "t", 3, [][]byte{[]byte("m")}, "a", "b", "c")
		models := map[partition.GroupID]*permitModel{1: {holders: map[uint64]string{}}, 2: {holders: map[uint64]string{}}}
		var late []permitBody
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			case 0:
				var err error
				if s, err = readState(bytes.NewReader(bytesOf(t, s))); err != nil {
					t.Fatal(err)
				}
				continue
			case 1, 2, 3:
				barred(t, s)
				continue
			}
			b := drawPermit(t, s, late)
			late = append(late, b)
			r, err := s.apply(command(t, kindPermit, &b))
			if err != nil {
				t.Fatal(err)
			}
			if (r.err == nil) != (r.permits != nil) {
				t.Fatalf("%+v: %v and %v", b, r.permits, r.err)
			}
			models[b.Group].saw(t, &b, r.permits, s.permits[b.Group])
		}
	})
}

// drawPermit makes a request that is near the present number, or an old one
// again.
func drawPermit(t *rapid.T, s *state, late []permitBody) permitBody {
	if len(late) > 0 && rapid.IntRange(0, 2).Draw(t, "late") == 0 {
		return late[rapid.IntRange(max(0, len(late)-20), len(late)-1).Draw(t, "which")]
	}
	g := partition.GroupID(rapid.IntRange(1, 2).Draw(t, "group"))
	r := partition.ReplicaID(rapid.IntRange(1, 3).Draw(t, "replica"))
	able := []partition.ReplicaID{r}
	if o := partition.ReplicaID(rapid.IntRange(1, 3).Draw(t, "other")); o != r {
		able = append(able, o)
		slices.Sort(able)
	}
	at := s.permits[g].number
	from := at - min(at, rapid.SampledFrom([]uint64{0, 0, 0, 1, 2}).Draw(t, "back")) + rapid.SampledFrom([]uint64{0, 0, 0, 1}).Draw(t, "ahead")
	act := rapid.SampledFrom([]uint8{actPermit, actPermit, actPermit, actRelease, actRelease, actDecree}).Draw(t, "act")
	b := asks(act, from, r, able...)
	b.Group = g
	if act != actRelease && rapid.IntRange(0, 4).Draw(t, "moved") == 0 {
		b.Node, b.Holder = "d", "d"
	}
	if act == actPermit && rapid.Bool().Draw(t, "by lock") {
		b.Lock = s.locks[g].holder.Number
	}
	return b
}

// barred asks for a lock and checks that only who may have it gets it.
func barred(t *rapid.T, s *state) {
	g := partition.GroupID(rapid.IntRange(1, 2).Draw(t, "group"))
	r := partition.ReplicaID(rapid.IntRange(1, 3).Draw(t, "replica"))
	node := partition.NodeID(rune('a' + r - 1))
	got := applied(t, s, kindLocks, locksOf(node, 1, acquireItem{Group: g, Replica: r, Failover: true})).locks.Grants[0]
	p := s.permits[g]
	may := p.holder == "" || slices.Contains(p.able, r)
	if may != (got.Number != 0) || may != (got.Error == nil) {
		t.Fatalf("replica %d, permit %+v: %+v", r, p, got)
	}
	if h := s.locks[g].holder; h.Number != 0 && p.holder != "" && !slices.Contains(p.able, h.Replica) {
		t.Fatalf("the lock is held by %+v beside the permit %+v", h, p)
	}
}

// Over real seats: of two nodes that ask at once one gets the number, asking
// again changes nothing, and it survives the leader's death and a restart.
func TestPermitOverSeats(t *testing.T) {
	n := newTestNet(t)
	for _, id := range []partition.NodeID{"a", "b", "c"} {
		n.start(id, 3)
	}
	n.leader()
	ctx := deadline(t, 20*time.Second)
	if _, err := n.nodes["a"].CreateTable(ctx, TableSpec{Name: "t", Kind: "kv", Replicas: 3}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	won := make([]error, 2)
	for i, id := range []partition.NodeID{"a", "b"} {
		r := partition.ReplicaID(i + 1)
		wg.Go(func() {
			_, won[i] = n.nodes[id].Permit(ctx, PermitRequest{Group: 1, Replica: r, Able: ids(r)})
		})
	}
	wg.Wait()
	if (won[0] == nil) == (won[1] == nil) || !errors.Is(errors.Join(won...), partition.ErrRefused) {
		t.Fatalf("two that asked at once: %v", won)
	}
	holder, replica := partition.NodeID("a"), partition.ReplicaID(1)
	if won[0] != nil {
		holder, replica = "b", 2
	}
	// The leader goes, whoever it is; the holder's node stays the same one.
	n.stop(n.leader().id)
	if n.nodes[holder] == nil {
		n.start(holder, 3)
	}
	p, err := n.nodes[holder].Permit(ctx, PermitRequest{Group: 1, Replica: replica, Able: ids(replica)})
	if err != nil || p.Number != 1 || p.Node != holder || !p.Held() {
		t.Fatalf("the same request at another leader: %v, %v", p, err)
	}
	if _, err := n.nodes[holder].Permit(ctx, PermitRequest{Group: 1, Node: "c", Replica: 3, Able: ids(3)}); !errors.Is(err, partition.ErrUnauthorized) {
		t.Fatalf("for another node: %v", err)
	}
	if p, err = n.nodes[holder].Release(ctx, 1, 1); err != nil || p.Number != 2 || p.Held() {
		t.Fatalf("release: %v, %v", p, err)
	}
	p, err = n.nodes[holder].Decree(ctx, PermitRequest{Group: 1, From: 2, Node: "c", Replica: 3, Able: ids(3, 2), Why: "tried"})
	if err != nil || p.Number != 3 || p.Node != "c" || !p.Decreed || !slices.Equal(p.Able, ids(2, 3)) {
		t.Fatalf("decree: %v, %v", p, err)
	}
	grants, err := n.nodes[holder].AcquireLocks(ctx, []LockRequest{{Group: 1, Replica: 1, Failover: true}})
	if err != nil || grants[0].Number != 0 || !errors.Is(grants[0].Err, partition.ErrRefused) {
		t.Fatalf("a lock beside the decree: %+v, %v", grants, err)
	}
	all, err := n.nodes[holder].Permits(ctx, []partition.GroupID{1, 7})
	if err != nil || len(all) != 2 || all[0].String() != "in-sync number 3, held by replica 3 on c by an operator's decree" || all[1].Held() {
		t.Fatalf("%v, %v", all, err)
	}
}
