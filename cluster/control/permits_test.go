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

// nodeOf is the node of a replica: a has 1.
func nodeOf(r partition.ReplicaID) partition.NodeID { return partition.NodeID(rune('a' + r - 1)) }

// wants is what replica r asks about group 1 as master by a lock number.
func wants(r partition.ReplicaID, lock, seq uint64, able ...partition.ReplicaID) permitBody {
	return permitBody{Node: nodeOf(r), Act: actPermit, Group: 1, Holder: nodeOf(r), Replica: r, Lock: lock, Seq: seq, Able: able}
}

func releases(from uint64) permitBody {
	return permitBody{Node: "z", Act: actRelease, Group: 1, From: from}
}

func decrees(from uint64, r partition.ReplicaID, able ...partition.ReplicaID) permitBody {
	return permitBody{Node: "z", Act: actDecree, Group: 1, From: from, Holder: nodeOf(r), Replica: r, Able: able}
}

func extends(from uint64, r partition.ReplicaID, able ...partition.ReplicaID) permitBody {
	return permitBody{Node: nodeOf(r), Act: actExtend, Group: 1, From: from, Holder: nodeOf(r), Replica: r, Able: able}
}

func passes(from uint64, able ...partition.ReplicaID) permitBody {
	return permitBody{Node: "z", Act: actPass, Group: 1, From: from, Able: able}
}

// permitCase is a request and what is to come of it.
type permitCase struct {
	what   string
	lock   partition.ReplicaID // that takes the lock before it; 0: nobody
	b      permitBody
	number uint64 // after it
	holder partition.NodeID
	code   partition.Code
	why    string
}

const (
	oldRequest = partition.CodeNewerEpoch
	refused    = partition.CodeRefused
	invalid    = partition.CodeInvalid
)

// permitCases follow one another in one group.
func permitCases() []permitCase {
	elsewhere, forged := wants(1, 1, 1, 1), wants(2, 2, 1, 2)
	elsewhere.Node, elsewhere.Holder, forged.Node = "d", "d", "c"
	return []permitCase{
		{"a release of what nobody ever held", 0, releases(0), 0, "", refused, "held by nobody"},
		{"without ever having had the lock", 0, wants(1, 1, 1, 1), 0, "", refused, "the last is 0"},
		{"a holder that may not be master", 1, wants(1, 1, 1, 2), 0, "", invalid, "not among"},
		{"nobody may be master", 0, wants(1, 1, 1), 0, "", invalid, ""},
		{"replicas twice", 0, wants(1, 1, 1, 1, 1), 0, "", invalid, "ascending"},
		{"without a lock", 0, wants(1, 0, 1, 1), 0, "", invalid, ""},
		{"without a number of the request", 0, wants(1, 1, 0, 1), 0, "", invalid, ""},
		{"by the lock of another", 0, wants(2, 1, 1, 2), 0, "", refused, "held by replica 1 on a"},
		{"by a lock to come", 0, wants(1, 2, 1, 1), 0, "", refused, "the last is 1"},
		{"the first", 0, wants(1, 1, 1, 1), 1, "a", 0, ""},
		{"the same again", 0, wants(1, 1, 1, 1), 1, "a", 0, ""},
		{"the same from another node", 0, elsewhere, 1, "a", oldRequest, "each"},
		{"the same with other replicas", 0, wants(1, 1, 1, 1, 2), 1, "a", oldRequest, "each"},
		{"the next request", 0, wants(1, 1, 2, 1), 2, "a", 0, ""},
		{"the first one late", 0, wants(1, 1, 1, 1), 2, "a", oldRequest, "last permit was for number 1, request 2"},
		{"another", 0, wants(2, 1, 1, 2), 2, "a", refused, "held by replica 1 on a"},
		{"a release of the one before", 0, releases(1), 2, "a", refused, "is 2, held by replica 1 on a"},
		{"a release", 0, releases(2), 3, "", 0, ""},
		{"the release again", 0, releases(2), 3, "", 0, ""},
		{"the last request late", 0, wants(1, 1, 2, 1), 3, "", oldRequest, ""},
		{"by a lock that went on", 2, wants(1, 1, 3, 1), 3, "", oldRequest, "the lock went on to number 2"},
		{"for another node", 0, forged, 3, "", partition.CodeUnauthorized, ""},
		{"by the new lock", 0, wants(2, 2, 1, 2, 3), 4, "b", 0, ""},
		{"a late release", 0, releases(2), 4, "b", refused, "is 4, held by replica 2 on b"},
		{"the same again, the lock gone on", 3, wants(2, 2, 1, 2, 3), 4, "b", 0, ""},
	}
}

// decreeCases go on where permitCases end.
func decreeCases() []permitCase {
	return []permitCase{
		{"by who may lead beside it", 0, wants(3, 3, 1, 3), 5, "c", 0, ""},
		{"by who may not", 0, wants(2, 2, 2, 2), 5, "c", refused, "held by replica 3 on c"},
		{"a decree from an old number", 0, decrees(4, 1, 1), 5, "c", refused, "held by replica 3 on c"},
		{"a decree over the holder", 0, decrees(5, 1, 1), 6, "a", 0, ""},
		{"the decree again", 0, decrees(5, 1, 1), 6, "a", 0, ""},
		{"by its holder, as the master before it", 0, wants(1, 3, 9, 1), 6, "a", oldRequest, "only the newest"},
		{"by who held it before", 0, wants(3, 3, 2, 3), 6, "a", refused, "held by replica 1 on a"},
		{"a release by who held it before", 0, releases(5), 6, "a", refused, "is 6, held by replica 1 on a"},
		{"its release", 0, releases(6), 7, "", 0, ""},
		{"a decree where nobody holds it", 0, decrees(7, 1, 1, 2), 8, "a", 0, ""},
		{"more who may lead", 0, extends(8, 1, 2, 3), 8, "a", 0, ""},
		{"the same again", 0, extends(8, 1, 3), 8, "a", 0, ""},
		{"by one who may now", 0, extends(8, 3, 1), 8, "a", 0, ""},
		{"by one who may not", 0, extends(8, 4, 4), 8, "a", partition.CodeUnauthorized, ""},
		{"of another number", 0, extends(7, 1, 4), 8, "a", refused, "is 8, held by replica 1 on a"},
		{"it passes to the members", 0, passes(8, 2, 4), 8, "a", 0, ""},
		{"an older one, late", 0, passes(8, 2), 8, "a", 0, ""},
		{"of another number", 0, passes(7, 5), 8, "a", refused, "is 8, held by replica 1 on a"},
		{"an unknown act", 0, permitBody{Node: "a", Act: 9, Group: 1}, 8, "a", invalid, ""},
		{"a group that is not there", 0, permitBody{Node: "a", Act: actRelease, Group: 9}, 8, "a", partition.CodeNotFound, ""},
		{"the last number", 0, decrees(MaxLockNumber, 1, 1), 8, "a", refused, "limit"},
	}
}

// CAT-4: the in-sync number is moved by one, by one holder, however often it is
// asked for.
func TestPermitRules(t *testing.T) {
	s := newState()
	create(t, s, "t", 3, nil, "a", "b", "c")
	for _, x := range append(permitCases(), decreeCases()...) {
		if x.lock != 0 {
			applied(t, s, kindLocks, locksOf(nodeOf(x.lock), 1, acquireItem{Group: 1, Replica: x.lock, Failover: true}))
		}
		r := applied(t, s, kindPermit, &x.b)
		if partition.CodeOf(asNil(r.err)) != x.code || r.err != nil && !strings.Contains(r.err.Why, x.why) && !strings.Contains(r.err.Next, x.why) {
			t.Errorf("%s: %v, want code %v and %q", x.what, r.err, x.code, x.why)
		}
		if r.err == nil && (r.permits == nil || r.permits.Permits[0].Number != x.number) {
			t.Errorf("%s: answer %+v", x.what, r.permits)
		}
		if p := s.permits[1]; p.number != x.number || p.holder != x.holder {
			t.Fatalf("%s: %+v, want %d held by %q", x.what, p, x.number, x.holder)
		}
	}
	if able := s.permits[1].able; !slices.Equal(able, ids(1, 2, 3, 4)) {
		t.Errorf("able are %v", able)
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
	if g := lock("b", 2); g.Number != 1 || g.Permit != 0 {
		t.Fatal(g)
	}
	decree := decrees(0, 1, 1, 3)
	decree.Why, decree.Next = "site b is gone", 5
	applied(t, s, kindPermit, &decree)
	if h := s.locks[1]; h.holder.Number != 0 || h.last != 1 {
		t.Fatalf("a replica that may not be master keeps the lock: %+v", h)
	}
	g := lock("b", 2)
	if e := fromItem(g.Error); g.Number != 0 || !errors.Is(e, partition.ErrRefused) || !strings.Contains(e.Why, "replica 1 on a was made to go on alone by an operator (in-sync number 1)") || e.Next == "" {
		t.Fatalf("%+v, %v", g, e)
	}
	if g := lock("c", 3); g.Number != 2 || g.Permit != 0 {
		t.Fatalf("a replica of those that have everything: %+v", g)
	}
	if g := lock("d", 4); g.Number != 0 || g.Error == nil {
		t.Fatalf("a replica that was there before, and is not named: %+v", g)
	}
	if g := lock("e", 5); g.Number != 3 || g.Permit != 0 {
		t.Fatalf("a replica that joined later: %+v", g)
	}
	if g := lock("a", 1); g.Number != 4 || g.Permit != 1 {
		t.Fatalf("the holder: %+v", g)
	}
	pass := passes(1, 1, 3, 6)
	applied(t, s, kindPermit, &pass)
	if g := lock("b", 2); g.Number != 0 || len(s.permits[1].able) != 2 {
		t.Fatalf("a removed replica, after the permit went to the members: %+v", g)
	}
	release := releases(1)
	applied(t, s, kindPermit, &release)
	if g := lock("b", 2); g.Number != 5 || g.Permit != 0 {
		t.Fatalf("after the release: %+v", g)
	}
	permit := wants(2, 5, 1, 2)
	applied(t, s, kindPermit, &permit)
	if e := fromItem(lock("a", 1).Error); e == nil || !strings.Contains(e.Why, "replica 2 on b went on alone (in-sync number 3)") {
		t.Fatalf("beside a permit: %v", e)
	}
}

// permitModel is what must be true of one group's in-sync number, from the
// answers alone: it grows by one, no number is ever given to two requests, and
// none that somebody holds ends by the permit of another.
type permitModel struct {
	was   permit
	given map[uint64]string // what each number was given for
	got   map[string]uint64 // which number each request got
}

func newPermitModel() *permitModel {
	return &permitModel{given: map[uint64]string{}, got: map[string]uint64{}}
}

func (m *permitModel) saw(t *rapid.T, b *permitBody, a *permitAnswer, s *state) {
	was, now := m.was, s.permits[b.Group]
	m.was = now
	moved := now.number != was.number
	if moved && (now.number != was.number+1 || a == nil) {
		t.Fatalf("number %d follows %d, answer %v", now.number, was.number, a)
	}
	if moved && b.Act == actPermit {
		if mine := was.holder == b.Holder && was.replica == b.Replica; was.holder != "" && !mine && !was.mayLead(b.Replica) {
			t.Fatalf("number %d, held by %s, ended by a permit: %+v", was.number, was.holder, b)
		}
		if l := s.locks[b.Group]; l.last != b.Lock {
			t.Fatalf("a permit by lock number %d, the last is %d", b.Lock, l.last)
		}
	}
	if a == nil {
		return
	}
	p := a.Permits[0]
	if b.Act == actExtend {
		if moved || now.holder != was.holder || !now.held() {
			t.Fatalf("%+v became %+v", was, now)
		}
		return
	}
	if b.Act != actPermit && p.Number != b.From+1 {
		t.Fatalf("a step from %d was answered with %d", b.From, p.Number)
	}
	// A request is known without the list of who else may lead: that is extended
	// meanwhile, and a repetition must agree with the list as it is then.
	request := fmt.Sprintf("%d %s/%d %d/%d %d", b.Act, b.Holder, b.Replica, b.Lock, b.Seq, b.From)
	if b.Act != actRelease && p.Next != b.Next && moved {
		t.Fatalf("%+v was answered with %+v", b, p)
	}
	if old, ok := m.given[p.Number]; ok && old != request {
		t.Fatalf("number %d was given for %s and for %s", p.Number, old, request)
	}
	if old, ok := m.got[request]; ok && old != p.Number {
		t.Fatalf("%s got %d and %d", request, old, p.Number)
	}
	m.given[p.Number], m.got[request] = request, p.Number
	if held := b.Act != actRelease; held != (p.Holder != "") || held && (p.Holder != b.Holder || p.Replica != b.Replica) {
		t.Fatalf("%+v was answered with %+v", b, p)
	}
}

// CAT-4: whatever is asked, in whatever order, twice or late, over snapshots: at
// most one holder per number, numbers by one, and no lock beside the permit.
func TestPermitModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newState()
		create(t, s, "t", 3, [][]byte{[]byte("m")}, "a", "b", "c")
		models := map[partition.GroupID]*permitModel{1: newPermitModel(), 2: newPermitModel()}
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
			models[b.Group].saw(t, &b, r.permits, s)
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
	near := func(what string, at uint64) uint64 {
		return at - min(at, rapid.SampledFrom([]uint64{0, 0, 0, 1, 2}).Draw(t, what)) + rapid.SampledFrom([]uint64{0, 0, 0, 1}).Draw(t, what+" ahead")
	}
	var b permitBody
	switch p := s.permits[g]; rapid.IntRange(0, 6).Draw(t, "act") {
	case 0, 1:
		b = releases(near("from", p.number))
	case 6:
		if p.replica != 0 {
			r = p.replica
		}
		b = extends(near("from", p.number), r, able...)
	case 2:
		b = decrees(near("from", p.number), r, able...)
	default:
		if h := s.locks[g].holder; h.Number != 0 && rapid.IntRange(0, 3).Draw(t, "master") > 0 {
			r, able = h.Replica, []partition.ReplicaID{h.Replica}
		}
		b = wants(r, near("lock", s.locks[g].last), near("seq", p.seq), able...)
	}
	b.Group = g
	b.Next = rapid.SampledFrom([]partition.ReplicaID{0, 0, 2, 3, 4}).Draw(t, "next")
	if b.Act != actRelease && rapid.IntRange(0, 4).Draw(t, "moved") == 0 {
		b.Node, b.Holder = "d", "d"
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
	may := p.holder == "" || slices.Contains(p.able, r) || p.next > 0 && r >= p.next
	if may != (got.Number != 0) || may != (got.Error == nil) {
		t.Fatalf("replica %d, permit %+v: %+v", r, p, got)
	}
	if h := s.locks[g].holder; h.Number != 0 && p.holder != "" && !slices.Contains(p.able, h.Replica) && (p.next == 0 || h.Replica < p.next) {
		t.Fatalf("the lock is held by %+v beside the permit %+v", h, p)
	}
}

// Over real seats: of two nodes that ask at once the newest master gets the number, asking
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
	asked := make([]PermitRequest, 2)
	for i, id := range []partition.NodeID{"a", "b"} {
		r := partition.ReplicaID(i + 1)
		grants, err := n.nodes[id].AcquireLocks(ctx, []LockRequest{{Group: 1, Replica: r, Failover: true}})
		if err != nil || grants[0].Number == 0 {
			t.Fatal(grants, err)
		}
		asked[i] = PermitRequest{Group: 1, Replica: r, Lock: grants[0].Number, Seq: 1}
	}
	var wg sync.WaitGroup
	won := make([]error, 2)
	for i, id := range []partition.NodeID{"a", "b"} {
		wg.Go(func() { _, won[i] = n.nodes[id].Permit(ctx, asked[i]) })
	}
	wg.Wait()
	if won[1] != nil || !errors.Is(won[0], partition.ErrNewerEpoch) && !errors.Is(won[0], partition.ErrRefused) {
		t.Fatalf("two that asked at once, the second of which has the lock: %v", won)
	}
	const holder, replica = partition.NodeID("b"), partition.ReplicaID(2)
	// The leader goes, whoever it is; the holder's node stays the same one.
	n.stop(n.leader().id)
	if n.nodes[holder] == nil {
		n.start(holder, 3)
	}
	p, err := n.nodes[holder].Permit(ctx, asked[1])
	if err != nil || p.Number != 1 || p.Node != holder || !p.Held() {
		t.Fatalf("the same request at another leader: %v, %v", p, err)
	}
	if p, err = n.nodes[holder].Release(ctx, 1, 1); err != nil || p.Number != 2 || p.Held() {
		t.Fatalf("release: %v, %v", p, err)
	}
	p, err = n.nodes[holder].Decree(ctx, DecreeRequest{Group: 1, From: 2, Node: "c", Replica: 3, Able: ids(3, 2), Why: "tried"})
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
