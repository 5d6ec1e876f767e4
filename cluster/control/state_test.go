package control

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"pando.dev/pando/partition"
)

// failing is a test or a property.
type failing interface {
	Helper()
	Fatal(...any)
}

// command encodes a body; the tests go through the same bytes as the log.
func command(t failing, k kind, body any) []byte {
	t.Helper()
	return encode(k, body)
}

func applied(t failing, s *state, k kind, body any) result {
	t.Helper()
	r, err := s.apply(command(t, k, body))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// create makes a table of one or more groups on the given nodes.
func create(t failing, s *state, name string, rf int, splits [][]byte, nodes ...partition.NodeID) result {
	t.Helper()
	ask := &askCreate{Table: tableBody{Token: "token-" + name, Name: name, Kind: "kv", Replicas: rf, Rule: partition.Majority, Splits: splits}}
	for _, n := range nodes {
		ask.Nodes = append(ask.Nodes, placeItem{Node: n, Zone: "z-" + string(n)})
	}
	b, err := prepareCreate(ask, s.nextGroup)
	if err != nil {
		t.Fatal(err)
	}
	return applied(t, s, kindCreate, b)
}

func locksOf(node partition.NodeID, boot uint64, items ...acquireItem) *locksBody {
	return &locksBody{Node: node, Boot: boot, Acquire: items}
}

func TestLockRules(t *testing.T) {
	s := newState()
	create(t, s, "t", 3, nil, "a", "b", "c")
	grant := func(node partition.NodeID, boot uint64, i acquireItem) grantItem {
		i.Group = 1
		r := applied(t, s, kindLocks, locksOf(node, boot, i))
		if r.err != nil {
			t.Fatal(r.err)
		}
		return r.locks.Grants[0]
	}
	for _, x := range []struct {
		what   string
		before func()
		node   partition.NodeID
		boot   uint64
		ask    acquireItem
		number uint64
		holder partition.NodeID
	}{
		{"a free lock", nil, "a", 1, acquireItem{Replica: 1}, 1, "a"},
		{"a held lock", nil, "b", 1, acquireItem{Replica: 2}, 0, "a"},
		{"the holder again", nil, "a", 1, acquireItem{Replica: 1}, 2, "a"},
		{"the holder's word that it failed", nil, "a", 1, acquireItem{Replica: 1, Failover: true}, 3, "a"},
		{"a failover quorum's word", nil, "b", 1, acquireItem{Replica: 2, Failover: true}, 4, "b"},
		{"above", nil, "b", 1, acquireItem{Replica: 2, Above: 100}, 101, "b"},
		{"a holder that started again", func() { applied(t, s, kindSessions, &sessionsBody{Open: []sessionItem{{Node: "b", Boot: 2}}}) },
			"c", 1, acquireItem{Replica: 3}, 102, "c"},
		{"an expired session", func() { applied(t, s, kindSessions, &sessionsBody{Expire: []sessionItem{{Node: "c", Boot: 1}}}) },
			"a", 1, acquireItem{Replica: 1}, 103, "a"},
		{"the expiry of an earlier boot", func() { applied(t, s, kindSessions, &sessionsBody{Expire: []sessionItem{{Node: "a", Boot: 9}}}) },
			"c", 1, acquireItem{Replica: 3}, 0, "a"},
		{"a session that came back", func() {
			applied(t, s, kindSessions, &sessionsBody{Expire: []sessionItem{{Node: "a", Boot: 1}}})
			applied(t, s, kindSessions, &sessionsBody{Open: []sessionItem{{Node: "a", Boot: 1}}})
		}, "c", 1, acquireItem{Replica: 3}, 0, "a"},
		{"a released lock", func() {
			applied(t, s, kindLocks, &locksBody{Node: "a", Boot: 1, Release: []releaseItem{{Group: 1, Replica: 1, Number: 103}}})
		}, "c", 1, acquireItem{Replica: 3}, 104, "c"},
		{"a release of an older number", func() {
			applied(t, s, kindLocks, &locksBody{Node: "c", Boot: 1, Release: []releaseItem{{Group: 1, Replica: 3, Number: 103}}})
		}, "a", 1, acquireItem{Replica: 1}, 0, "c"},
		{"a release by somebody else", func() {
			applied(t, s, kindLocks, &locksBody{Node: "a", Boot: 1, Release: []releaseItem{{Group: 1, Replica: 3, Number: 104}}})
		}, "a", 1, acquireItem{Replica: 1}, 0, "c"},
		{"the consent of another replica", nil, "a", 1, acquireItem{Replica: 1, Holder: 2, Consent: 104}, 0, "c"},
		{"the consent to an older number", nil, "a", 1, acquireItem{Replica: 1, Holder: 3, Consent: 103}, 0, "c"},
		{"the holder's consent", nil, "a", 1, acquireItem{Replica: 1, Holder: 3, Consent: 104}, 105, "a"},
		{"a consent used twice", nil, "b", 2, acquireItem{Replica: 2, Holder: 3, Consent: 104}, 0, "a"},
	} {
		if x.before != nil {
			x.before()
		}
		if g := grant(x.node, x.boot, x.ask); g.Number != x.number || g.Holder.Node != x.holder || g.Error != nil {
			t.Errorf("%s: number %d, holder %v, error %v; want %d, %s", x.what, g.Number, g.Holder, g.Error, x.number, x.holder)
		}
	}
}

func TestLockRefusals(t *testing.T) {
	s := newState()
	create(t, s, "t", 1, nil, "a")
	r := applied(t, s, kindLocks, locksOf("a", 1,
		acquireItem{Group: 2, Replica: 1}, acquireItem{Group: 1}, acquireItem{Group: 1, Replica: 1, Above: MaxLockNumber},
		acquireItem{Group: 1, Replica: 1, Above: MaxLockNumber - 1}, acquireItem{Group: 1, Replica: 1}))
	want := []partition.Code{partition.CodeNotFound, partition.CodeInvalid, partition.CodeRefused, 0, partition.CodeRefused}
	for i, g := range r.locks.Grants {
		if got := partition.CodeOf(asNil(fromItem(g.Error))); got != want[i] {
			t.Errorf("request %d: %v, want %v", i, got, want[i])
		}
	}
	if n := r.locks.Grants[3].Number; n != MaxLockNumber {
		t.Errorf("last number %d", n)
	}
	for what, b := range map[string]*locksBody{
		"too many":     {Node: "a", Boot: 1, Acquire: make([]acquireItem, MaxLockBatch+1)},
		"no node":      {Boot: 1},
		"no boot":      {Node: "a"},
		"an old boot":  {Node: "z", Boot: 1},
		"a long name":  {Node: partition.NodeID(bytes.Repeat([]byte("x"), 65)), Boot: 1},
		"too many out": {Node: "a", Boot: 1, Release: make([]releaseItem, MaxLockBatch+1)},
	} {
		applied(t, s, kindSessions, &sessionsBody{Open: []sessionItem{{Node: "z", Boot: 2}}})
		if r := applied(t, s, kindLocks, b); r.err == nil {
			t.Errorf("%s was accepted", what)
		}
	}
}

func TestTableRules(t *testing.T) {
	s := newState()
	long := make([][]byte, MaxSplitPoints+1)
	for i := range long {
		long[i] = fmt.Appendf(nil, "%05d", i)
	}
	for _, x := range []struct {
		what  string
		table tableBody
		code  partition.Code
	}{
		{"good", tableBody{Token: "1", Name: "good", Kind: "kv", Replicas: 1}, 0},
		{"the same again", tableBody{Token: "1", Name: "good", Kind: "kv", Replicas: 1}, 0},
		{"the token for another", tableBody{Token: "1", Name: "other", Kind: "kv", Replicas: 1}, partition.CodeInvalid},
		{"the name again", tableBody{Token: "2", Name: "good", Kind: "kv", Replicas: 1}, partition.CodeExists},
		{"no token", tableBody{Name: "a", Kind: "kv", Replicas: 1}, partition.CodeInvalid},
		{"no name", tableBody{Token: "3", Kind: "kv", Replicas: 1}, partition.CodeInvalid},
		{"a bad name", tableBody{Token: "3", Name: "a/b", Kind: "kv", Replicas: 1}, partition.CodeInvalid},
		{"a bad beginning", tableBody{Token: "3", Name: "-a", Kind: "kv", Replicas: 1}, partition.CodeInvalid},
		{"no kind", tableBody{Token: "3", Name: "a", Replicas: 1}, partition.CodeInvalid},
		{"no replicas", tableBody{Token: "3", Name: "a", Kind: "kv"}, partition.CodeInvalid},
		{"too many replicas", tableBody{Token: "3", Name: "a", Kind: "kv", Replicas: 17}, partition.CodeInvalid},
		{"an empty split point", tableBody{Token: "3", Name: "a", Kind: "kv", Replicas: 1, Splits: [][]byte{{}}}, partition.CodeInvalid},
		{"split points twice", tableBody{Token: "3", Name: "a", Kind: "kv", Replicas: 1, Splits: [][]byte{[]byte("m"), []byte("m")}}, partition.CodeInvalid},
		{"split points unordered", tableBody{Token: "3", Name: "a", Kind: "kv", Replicas: 1, Splits: [][]byte{[]byte("m"), []byte("a")}}, partition.CodeInvalid},
		{"too many split points", tableBody{Token: "3", Name: "a", Kind: "kv", Replicas: 1, Splits: long}, partition.CodeTooLarge},
		{"the most split points", tableBody{Token: "3", Name: "a", Kind: "kv", Replicas: 1, Splits: long[:MaxSplitPoints]}, 0},
		{"a long split point", tableBody{Token: "4", Name: "b", Kind: "kv", Replicas: 1, Splits: [][]byte{make([]byte, MaxKeyBytes+1)}}, partition.CodeTooLarge},
	} {
		x.table.Rule = partition.Majority
		b := &createBody{
			Table: x.table, Nodes: []placeItem{{Node: "a"}}, First: s.nextGroup,
			Assign: make([]byte, 2*max(x.table.Replicas, 0)*(len(x.table.Splits)+1)),
		}
		before := s.catalog
		r := applied(t, s, kindCreate, b)
		if got := partition.CodeOf(asNil(r.err)); got != x.code {
			t.Errorf("%s: %v, want code %v", x.what, r.err, x.code)
		}
		if r.err != nil && s.catalog != before {
			t.Errorf("%s: refused, but the catalog changed", x.what)
		}
	}
	if r := applied(t, s, kindDrop, &dropBody{Token: "5", Name: "nowhere"}); !errors.Is(r.err, partition.ErrNoSuchTable) {
		t.Error(r.err)
	}
	version, groups := s.catalog.Version, s.nextGroup
	drop := applied(t, s, kindDrop, &dropBody{Token: "6", Name: "good"})
	again := applied(t, s, kindDrop, &dropBody{Token: "6", Name: "good"})
	if drop.err != nil || again.err != nil || *drop.table != *again.table || s.catalog.Version != version+1 {
		t.Errorf("drop twice with one token: %+v, %+v", drop, again)
	}
	create(t, s, "good", 1, nil, "a")
	if g := s.catalog.Groups("good"); len(g) != 1 || g[0].ID != groups || g[0].Table == drop.table.Table {
		t.Errorf("an id was used again: %+v", g[0])
	}
}

// A create prepared for other ids changes nothing and asks to be prepared again.
func TestStaleCreate(t *testing.T) {
	s := newState()
	create(t, s, "t", 1, nil, "a")
	b := &createBody{Table: tableBody{Token: "x", Name: "u", Kind: "kv", Replicas: 1, Rule: partition.Majority}, Nodes: []placeItem{{Node: "a"}}, First: 1, Assign: []byte{0, 0}}
	if r := applied(t, s, kindCreate, b); !r.stale || len(s.catalog.tables) != 1 || len(s.tokens) != 1 {
		t.Fatalf("%+v, %d tables", r, len(s.catalog.tables))
	}
}

func updateOf(t testing.TB, g Group) groupItem {
	t.Helper()
	return itemOf(&g)
}

func TestUpdateKeepsTheNewest(t *testing.T) {
	s := newState()
	create(t, s, "t", 3, [][]byte{[]byte("m")}, "a", "b", "c")
	base, _ := s.catalog.Group(1)
	m2 := *base.Membership
	m2.Version = 2
	at := func(rv partition.RangeVersion, m *partition.Membership, number uint64, hi string) Group {
		g := *base
		g.RangeVersion, g.Membership, g.Epoch, g.Master = rv, m, partition.NewEpoch(number, 1), m.Members[0].Node
		g.Range.Hi = []byte(hi)
		return g
	}
	for _, x := range []struct {
		what string
		g    Group
		kept bool
		code partition.Code
	}{
		{"first master", at(1, base.Membership, 1, "m"), true, 0},
		{"the same again", at(1, base.Membership, 1, "m"), false, 0},
		{"newer epoch", at(1, base.Membership, 5, "m"), true, 0},
		{"older epoch", at(1, base.Membership, 3, "m"), false, 0},
		{"newer membership, older epoch", at(1, &m2, 2, "m"), true, 0},
		{"older membership, newer epoch", at(1, base.Membership, 9, "m"), false, 0},
		{"another range at the same version", at(1, &m2, 7, "g"), false, partition.CodeInvalid},
		{"newer range without a task", at(2, base.Membership, 1, "g"), false, partition.CodeInvalid},
		{"newer range version", at(2, base.Membership, 1, "m"), true, 0},
	} {
		version := s.catalog.Version
		r := applied(t, s, kindUpdate, &updateBody{Updates: []groupItem{updateOf(t, x.g)}})
		got, _ := s.catalog.Group(1)
		kept := got.Epoch == x.g.Epoch && got.RangeVersion == x.g.RangeVersion && s.catalog.Version == version+1
		if kept != x.kept || partition.CodeOf(asNil(r.err)) != x.code {
			t.Errorf("%s: kept %t, %v; want %t, %v", x.what, kept, r.err, x.kept, x.code)
		}
	}
	if r := applied(t, s, kindUpdate, &updateBody{Updates: []groupItem{updateOf(t, Group{ID: 99, RangeVersion: 1, Membership: base.Membership})}}); !errors.Is(r.err, partition.ErrNotFound) {
		t.Error(r.err)
	}
}

func TestLookup(t *testing.T) {
	s := newState()
	create(t, s, "t", 1, [][]byte{[]byte("g"), []byte("p")}, "a")
	create(t, s, "a", 1, nil, "a")
	for key, want := range map[string]partition.GroupID{"": 1, "a": 1, "fz": 1, "g": 2, "o": 2, "p": 3, "zz": 3} {
		if g, err := s.catalog.Lookup("t", []byte(key)); err != nil || g.ID != want {
			t.Errorf("%q: %v, %v; want group %d", key, g, err, want)
		}
	}
	if _, err := s.catalog.Lookup("u", nil); !errors.Is(err, partition.ErrNoSuchTable) {
		t.Error(err)
	}
	if names := s.catalog.Tables(); len(names) != 2 || names[0].Name != "a" {
		t.Error(names)
	}
	g, _ := s.catalog.Group(2)
	if tab, ok := s.catalog.TableOf(g); !ok || tab.Name != "t" {
		t.Error(tab)
	}
}

// draw makes a random command; the ranges are small, so that commands meet.
func drawCommand(t *rapid.T, s *state, n int) []byte {
	node := func() partition.NodeID {
		return partition.NodeID(rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "node"))
	}
	boot := func() uint64 { return rapid.Uint64Range(1, 3).Draw(t, "boot") }
	group := func() partition.GroupID { return partition.GroupID(rapid.Uint64Range(1, 14).Draw(t, "group")) }
	name := rapid.SampledFrom([]string{"t", "u", "v"}).Draw(t, "name")
	token := fmt.Sprintf("token-%d", rapid.IntRange(0, n).Draw(t, "token"))
	var k kind
	var body any
	switch rapid.IntRange(0, 25).Draw(t, "command") {
	case 20, 21, 22, 23, 24:
		k, body = drawPlan(t, s, token)
	case 13, 14, 15, 16, 17, 18, 19:
		k, body = drawTask(t, s, token)
	case 25:
		k, body = kindSplits, &splitsBody{Token: token, Name: name, Policy: splitsItem{
			Mode: SplitMode(rapid.IntRange(0, 4).Draw(t, "mode")), Load: uint64(rapid.IntRange(0, 2).Draw(t, "load")),
		}}
	case 10, 11:
		p := drawPermit(t, s, nil)
		k, body = kindPermit, &p
	case 12:
		k, body = kindAlter, &alterBody{
			Token: token, Name: name, Replicas: rapid.IntRange(0, 4).Draw(t, "replicas"),
			Rule: partition.Rule(rapid.IntRange(0, 3).Draw(t, "rule")), Zones: uint8(rapid.IntRange(0, 3).Draw(t, "zones")),
		}
	case 0:
		k = kindSessions
		body = &sessionsBody{Open: []sessionItem{{Node: node(), Boot: boot(), Start: rapid.Uint64Range(0, 2).Draw(t, "start")}}, Expire: []sessionItem{{Node: node(), Boot: boot()}}}
	case 1:
		ask := &askCreate{
			Table: tableBody{Token: token, Name: name, Kind: "kv", Replicas: 2, Rule: partition.Majority, Splits: [][]byte{[]byte("m")}},
			Nodes: []placeItem{{Node: "a"}, {Node: "b"}, {Node: "c"}},
		}
		c, err := prepareCreate(ask, s.nextGroup-partition.GroupID(rapid.IntRange(0, 1).Draw(t, "late")))
		if err != nil {
			t.Fatal(err)
		}
		k, body = kindCreate, c
	case 2:
		k, body = kindDrop, &dropBody{Token: token, Name: name}
	case 3, 4:
		k, body = kindUpdate, drawUpdate(t, s, group())
	default:
		b := &locksBody{Node: node(), Boot: boot()}
		for range rapid.IntRange(0, 3).Draw(t, "locks") {
			b.Acquire = append(b.Acquire, acquireItem{
				Group: group(), Replica: partition.ReplicaID(rapid.IntRange(0, 3).Draw(t, "replica")),
				Above: rapid.Uint64Range(0, 20).Draw(t, "above"), Failover: rapid.Bool().Draw(t, "failover"),
			})
			b.Release = append(b.Release, releaseItem{Group: group(), Replica: 1, Number: rapid.Uint64Range(0, 20).Draw(t, "number")})
		}
		if g := group(); rapid.Bool().Draw(t, "holder releases") && s.locks[g].holder.Number != 0 {
			h := s.locks[g].holder
			b.Node, b.Boot = h.Node, s.locks[g].boot
			b.Release = append(b.Release, releaseItem{Group: g, Replica: h.Replica, Number: h.Number})
		}
		k, body = kindLocks, b
	}
	return encode(k, body)
}

func drawUpdate(t *rapid.T, s *state, id partition.GroupID) *updateBody {
	g, ok := s.catalog.Group(id)
	if !ok {
		return &updateBody{}
	}
	u := *g
	m := *g.Membership
	m.Version = partition.MembershipVersion(rapid.Uint64Range(1, 3).Draw(t, "mv"))
	u.Membership, u.Epoch, u.Master = &m, partition.Epoch(rapid.Uint64Range(0, 5).Draw(t, "epoch")), "a"
	u.RangeVersion = partition.RangeVersion(rapid.Uint64Range(1, 3).Draw(t, "rv"))
	return &updateBody{Updates: []groupItem{itemOf(&u)}}
}

func bytesOf(t interface{ Fatal(...any) }, s *state) []byte {
	var b bytes.Buffer
	if err := s.snapshot().write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Whatever happens: lock numbers, ids and versions only grow, also over
// snapshots; two seats that apply the same commands agree on every answer and
// every byte, one of them restored from snapshots in between; and a copy of the
// catalog that follows by pages equals it.
func TestStateProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, twin := newState(), newState()
		copied := &Catalog{}
		last := map[partition.GroupID]uint64{}
		dropped := map[partition.GroupID]bool{}
		var sent [][]byte
		for n := range rapid.IntRange(1, 300).Draw(t, "steps") {
			b := drawCommand(t, s, n/8)
			if len(sent) > 0 && rapid.IntRange(0, 5).Draw(t, "late") == 0 {
				b = rapid.SampledFrom(sent).Draw(t, "sent before")
			}
			sent = append(sent, b)
			before := s.snapshot()
			r, err := s.apply(b)
			if err != nil {
				t.Fatal(err)
			}
			q, err := twin.apply(b)
			if err != nil || fmt.Sprint(r) == "" || answerText(r) != answerText(q) {
				t.Fatalf("answers differ: %s, %s", answerText(r), answerText(q))
			}
			checkGrowth(t, before, s, last, dropped)
			checkCover(t, before.catalog, s)
			checkPlaces(t, s)
			if rapid.IntRange(0, 9).Draw(t, "snapshot") == 0 {
				image := bytesOf(t, s)
				if twin, err = readState(bytes.NewReader(image)); err != nil {
					t.Fatal(err)
				}
			}
			if rapid.IntRange(0, 4).Draw(t, "follow") == 0 {
				copied = followed(t, s.catalog, copied)
			}
		}
		if a, b := bytesOf(t, s), bytesOf(t, twin); !bytes.Equal(a, b) {
			t.Fatal("states differ after the same commands")
		}
	})
}

func answerText(r result) string {
	s := fmt.Sprintf("%v %v", r.stale, r.err)
	if r.locks != nil {
		for _, g := range r.locks.Grants {
			s += fmt.Sprintf(" %d %v %v", g.Number, g.Holder, fromItem(g.Error))
		}
	}
	if r.table != nil {
		s += fmt.Sprint(" ", *r.table)
	}
	if r.permits != nil {
		s += fmt.Sprint(" ", *r.permits)
	}
	return s
}

func checkGrowth(t *rapid.T, before *snapshot, s *state, last map[partition.GroupID]uint64, dropped map[partition.GroupID]bool) {
	if s.nextGroup < before.nextGroup || s.nextTable < before.nextTable || s.catalog.Version < before.catalog.Version {
		t.Fatalf("an id or a version went back")
	}
	if s.catalog != before.catalog && s.catalog.Version != before.catalog.Version+1 {
		t.Fatalf("catalog version %d follows %d", s.catalog.Version, before.catalog.Version)
	}
	for _, g := range s.catalog.groups {
		old, ok := before.catalog.Group(g.ID)
		if dropped[g.ID] || ok && compareGroups(g, old) < 0 {
			t.Fatalf("%s came back or went back", g.ID)
		}
	}
	for _, g := range before.catalog.groups {
		if _, ok := s.catalog.Group(g.ID); !ok {
			dropped[g.ID] = true
		}
	}
	for g, p := range s.permits {
		if was := before.permits[g]; p.number < was.number || p.number > was.number+1 {
			t.Fatalf("in-sync number %d of %s follows %d", p.number, g, was.number)
		}
	}
	for g, l := range s.locks {
		if was := before.locks[g]; l.last < last[g] || l.holder.Number > l.last || l.holder != was.holder && l.holder.Number != 0 && l.holder.Number <= last[g] {
			t.Fatalf("lock of %s: %+v after number %d", g, l, last[g])
		}
		last[g] = l.last
	}
}

// followed brings a copy to the catalog by pages of a few entries.
func followed(t *rapid.T, c, have *Catalog) *Catalog {
	a := newAssembly(have)
	for done := c.Version == have.Version; !done; {
		b := c.page(a.after, a.whole, rapid.IntRange(1, 400).Draw(t, "page")).encode()
		p, err := decodePage(b)
		if err != nil {
			t.Fatal(err)
		}
		if done, err = a.add(p); err != nil {
			t.Fatal(err)
		}
	}
	if c.Version == have.Version {
		return have
	}
	next, err := a.result()
	if err != nil {
		t.Fatal(err)
	}
	if x, y := describe(c), describe(next); !slices.Equal(x, y) {
		t.Fatalf("the copy differs:\n%s\n%s", x, y)
	}
	return next
}

// describe lists all that a reader of a catalog can see.
func describe(c *Catalog) []string {
	all := []string{fmt.Sprint(c.Version)}
	for _, tab := range c.Tables() {
		all = append(all, fmt.Sprintf("%+v", *tab))
		for _, g := range c.Groups(tab.Name) {
			all = append(all, fmt.Sprintf("%d %d %d %s %d %+v %s %s %d", g.ID, g.Table, g.Parent, g.Range, g.RangeVersion, *g.Membership, g.Master, g.Epoch, g.Changed))
		}
	}
	for _, x := range c.Tasks() {
		item, _ := itemOfTask(x)
		all = append(all, fmt.Sprintf("%s %x", x.ID, encode(kindTaskPage, &item)))
	}
	return all
}

// A copy that is older than the drops that are remembered gets everything.
func TestOldCopyGetsTheWholeCatalog(t *testing.T) {
	s := newState()
	create(t, s, "stays", 1, nil, "a")
	create(t, s, "goes", 1, nil, "a")
	old, err := DecodeCatalog(EncodeCatalog(s.catalog))
	if err != nil {
		t.Fatal(err)
	}
	applied(t, s, kindDrop, &dropBody{Token: "d", Name: "goes"})
	for i := range maxDrops + 1 {
		name := fmt.Sprintf("x%d", i)
		create(t, s, name, 1, nil, "a")
		applied(t, s, kindDrop, &dropBody{Token: "d" + name, Name: name})
	}
	p := s.catalog.page(since(old.Version), false, pageBytes)
	if !p.Whole {
		t.Fatalf("page %+v", p)
	}
	a := newAssembly(old)
	if done, err := a.add(p); err != nil || !done {
		t.Fatal(done, err)
	}
	next, err := a.result()
	if err != nil || !slices.Equal(describe(next), describe(s.catalog)) {
		t.Fatalf("%v, %v", describe(next), err)
	}
	if len(slices.Collect(maps.Keys(s.locks))) != 0 {
		t.Fatal("locks of dropped groups remain")
	}
}

// With the most sessions one that has expired makes room, and none that lives.
func TestSessionLimit(t *testing.T) {
	s := newState()
	for i := range MaxSessions {
		if err := s.openSession(partition.NodeID(fmt.Sprintf("n%04d", i)), 1, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.openSession("new", 1, 7); !errors.Is(err, partition.ErrTooLarge) {
		t.Fatal(err)
	}
	s.expireSession("n0007", 1)
	if err := s.openSession("new", 1, 7); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.sessions["n0007"]; ok || len(s.sessions) != MaxSessions {
		t.Fatal("the expired session is still there")
	}
}

// A command of a newer program stops the seat and changes nothing; a damaged one
// is refused by all seats alike.
func TestUnknownCommands(t *testing.T) {
	s := newState()
	create(t, s, "t", 1, nil, "a")
	image := bytesOf(t, s)
	for what, b := range map[string][]byte{"newer version": {codecVersion + 1, 1, 0x90}, "newer kind": {codecVersion, 200, 0x90}} {
		if _, err := s.apply(b); !errors.Is(err, partition.ErrNewerFormat) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, b := range map[string][]byte{
		"empty": {}, "no body": {codecVersion, 8}, "bomb": {codecVersion, 8, 0xdd, 0x7f, 0xff, 0xff, 0xff},
		"wrong shape": {codecVersion, 8, 0x91, 0x01}, "version 0": {0, 1, 0x90},
	} {
		r, err := s.apply(b)
		if err != nil || r.err == nil {
			t.Errorf("%s: %v, %v", what, r, err)
		}
	}
	if !bytes.Equal(image, bytesOf(t, s)) {
		t.Error("a refused command changed the state")
	}
}
