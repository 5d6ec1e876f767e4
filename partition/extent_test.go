package partition

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// span parses "b-d", with nothing for an open bound.
func span(s string) KeyRange {
	lo, hi, _ := strings.Cut(s, "-")
	var r KeyRange
	if lo != "" {
		r.Lo = []byte(lo)
	}
	if hi != "" {
		r.Hi = []byte(hi)
	}
	return r
}

func childOf(g GroupID, r string) Child {
	return Child{Group: g, Range: span(r), Membership: as("majority", "a b c"), First: 2}
}

func intentOf(r string, v RangeVersion, children ...Child) *Intent {
	return &Intent{Task: 7, Range: span(r), Version: v, Children: children}
}

// payload encodes what a record of the test carries.
func payload(t testing.TB, x interface {
	AppendBinary(b []byte) ([]byte, error)
}) []byte {
	t.Helper()
	b, err := x.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// steps applies kinds in a row, each deciding about the split as it is.
func steps(t testing.TB, x Extent, in *Intent, kinds ...Kind) Extent {
	t.Helper()
	for i, k := range kinds {
		var b []byte
		if k == KindIntent {
			b = payload(t, in)
		} else {
			b = payload(t, x.Decision())
		}
		y, err := x.Next(k, b, Index(100+i))
		if err != nil {
			t.Fatalf("%s: %v", k, err)
		}
		x = y
	}
	return x
}

// Every way through a split, and what the group serves on it.
func TestExtentNext(t *testing.T) {
	in := intentOf("b-t", 5, childOf(18, "m-p"), childOf(19, "p-t"))
	for _, c := range []struct {
		kinds                []Kind
		want                 string
		serves, not          string
		version, since, from RangeVersion
	}{
		{[]Kind{16}, `keys ["b","t"), range version 5; task 7 will move ["m","p") to g18 and ["p","t") to g19; until then everything is served here`, "b-t", "a-c", 5, 5, 5},
		{[]Kind{16, 17}, `keys ["b","t"), range version 6; task 7 holds what it is about to move, ["m","p") to g18 and ["p","t") to g19: nothing of it is read or written for a moment`, "b-m", "l-n", 6, 5, 5},
		{[]Kind{16, 17, 18}, `keys ["b","t"), range version 7; task 7 will move ["m","p") to g18 and ["p","t") to g19; until then everything is served here`, "b-t", "s-u", 7, 5, 5},
		{[]Kind{16, 17, 18, 17, 19}, `keys ["b","m"), range version 9; task 7 has moved ["m","p") to g18 and ["p","t") to g19; they are still being made on some nodes, or nobody has said that they are not`, "b-m", "l-n", 9, 9, 9},
		{[]Kind{16, 17, 19}, `keys ["b","m"), range version 7; task 7 has moved ["m","p") to g18 and ["p","t") to g19; they are still being made on some nodes, or nobody has said that they are not`, "b-m", "m-n", 7, 7, 7},
		{[]Kind{16, 17, 19, 20}, `keys ["b","m"), range version 7`, "b-m", "p-q", 7, 7, 7},
		{[]Kind{16, 21}, `keys ["b","t"), range version 5`, "b-t", "a-b", 5, 5, 5},
		{[]Kind{16, 17, 18, 21}, `keys ["b","t"), range version 7`, "b-t", "t-", 7, 5, 5},
	} {
		x := steps(t, Extent{}, in, c.kinds...)
		if x.Describe() != c.want || x.Version != c.version || x.Since != c.since {
			t.Errorf("%v: %s, versions %d to %d", c.kinds, x.Describe(), x.Since, x.Version)
		}
		if !x.Serves(span(c.serves)) || x.Serves(span(c.not)) {
			t.Errorf("%v: serves %s %v, and %s %v", c.kinds, c.serves, x.Serves(span(c.serves)), c.not, x.Serves(span(c.not)))
		}
		if !x.Accepts(c.since) || !x.Accepts(c.version) || x.Accepts(c.since-1) || x.Accepts(c.version+1) {
			t.Errorf("%v: accepts other versions than %d to %d", c.kinds, c.since, c.version)
		}
		if x.Split == nil && (x.Ended != 7 || x.Done != (c.kinds[len(c.kinds)-1] == KindDone)) {
			t.Errorf("%v: task %d has ended, done %v", c.kinds, x.Ended, x.Done)
		}
		if x.Split != nil && x.Unseals() != strings.Count(fmt.Sprint(c.kinds), "unseal") {
			t.Errorf("%v: unsealed %d times", c.kinds, x.Unseals())
		}
		var y Extent
		if err := y.UnmarshalBinary(payload(t, &x)); err != nil || y.Describe() != x.Describe() || !bytes.Equal(payload(t, &y), payload(t, &x)) {
			t.Errorf("%v: comes back as %s, %v", c.kinds, y.Describe(), err)
		}
	}
}

// The second split of a group and the first of a child go by the extent that the
// one before has left.
func TestExtentAgain(t *testing.T) {
	x := steps(t, Extent{}, intentOf("b-t", 5, childOf(18, "m-t")), 16, 17, 19)
	c := x.OfChild(3, &x.Split.Children[0])
	if want := `keys ["m","t"), range version 7; split from g3 at record 102`; c.Describe() != want || c.Since != 7 {
		t.Errorf("the child has %s, since %d", c.Describe(), c.Since)
	}
	x = steps(t, x, nil, 20)
	x = steps(t, x, intentOf("b-m", 7, childOf(20, "b-c"), childOf(21, "d-m")), 16, 17, 19)
	if x.Range.String() != `["c","d")` || x.Version != 9 {
		t.Errorf("after the second split: %s", x.Describe())
	}
	c = steps(t, c, intentOf("m-t", 7, childOf(22, "n-t")), 16, 17, 19)
	if c.Range.String() != `["m","n")` || c.Parent != 3 || c.Base != 102 {
		t.Errorf("after the child's split: %s", c.Describe())
	}
	if !strings.Contains((&Extent{}).Describe(), "never split") {
		t.Error("the zero extent is described as another")
	}
}

// What does not fit is refused and changes nothing: a second split while one is on,
// among others (S6).
func TestExtentRefuses(t *testing.T) {
	in := intentOf("b-t", 5, childOf(18, "m-t"))
	at := map[string]Extent{"none": {}, "known": steps(t, Extent{}, in, 16, 21)}
	at["intended"] = steps(t, Extent{}, in, 16)
	at["sealed"] = steps(t, Extent{}, in, 16, 17)
	at["activated"] = steps(t, Extent{}, in, 16, 17, 19)
	fits := map[string][]Kind{
		"none": {16}, "known": {16}, "intended": {17, 21}, "sealed": {18, 19}, "activated": {20},
	}
	for name, x := range at {
		for k := KindIntent; k <= KindAbort+1; k++ {
			b := payload(t, in)
			if k != KindIntent {
				d := Decision{Task: 7, Intent: 100, Version: 5}
				if x.Split != nil {
					d = x.Decision()
				}
				b = payload(t, d)
			}
			y, err := x.Next(k, b, 200)
			if got := err == nil; got != slices.Contains(fits[name], k) {
				t.Errorf("%s in %s: %v", k, name, err)
			}
			if err != nil && y.Describe() != x.Describe() {
				t.Errorf("%s in %s is refused and leads to %s", k, name, y.Describe())
			}
		}
	}
	x := at["intended"]
	for name, d := range map[string]Decision{
		"another task":    {Task: 8, Intent: 100, Version: 5},
		"another try":     {Task: 7, Intent: 99, Version: 5},
		"another version": {Task: 7, Intent: 100, Version: 4},
	} {
		if _, err := x.Next(KindSeal, payload(t, d), 200); CodeOf(err) != CodeRefused {
			t.Errorf("seal of %s: %v", name, err)
		}
	}
	for name, c := range map[string]struct {
		in   *Intent
		code Code
	}{
		"an old version": {intentOf("b-t", 4, childOf(18, "m-t")), CodeRefused},
		"another range":  {intentOf("b-u", 5, childOf(18, "m-u")), CodeRefused},
	} {
		if _, err := at["known"].Next(KindIntent, payload(t, c.in), 200); CodeOf(err) != c.code {
			t.Errorf("intent of %s: %v", name, err)
		}
	}
	if _, err := x.Next(KindIntent, payload(t, in), 200); CodeOf(err) != CodeBusy {
		t.Errorf("a second intent: %v", err)
	}
	if _, err := x.Next(KindIntent, []byte{9}, 200); CodeOf(err) != CodeNewerFormat {
		t.Errorf("an intent of a newer program: %v", err)
	}
	if _, err := x.Next(KindSeal, []byte{9}, 200); CodeOf(err) != CodeNewerFormat {
		t.Errorf("a seal of a newer program: %v", err)
	}
}

// Next changes nothing of the extent that it was asked of.
func TestExtentIsShared(t *testing.T) {
	x := steps(t, Extent{}, intentOf("-", 1, childOf(18, "m-")), 16)
	was := payload(t, &x)
	steps(t, x, nil, 17, 18, 17, 19, 20)
	if !bytes.Equal(was, payload(t, &x)) {
		t.Error("an extent has changed in place")
	}
}

func TestIntentValidate(t *testing.T) {
	with := func(f func(c *Child)) Child {
		c := childOf(18, "m-t")
		f(&c)
		return c
	}
	member := func(f func(m *Membership)) Child { return with(func(c *Child) { f(c.Membership) }) }
	long := bytes.Repeat([]byte{'m'}, MaxBoundBytes+1)
	var many []Child
	for i := range MaxChildren + 1 {
		many = append(many, childOf(GroupID(20+i), fmt.Sprintf("c%c-c%c", 'a'+i, 'b'+i)))
	}
	if err := intentOf("ca-t", 5, many[:MaxChildren]...).Validate(); err != nil {
		t.Errorf("as many children as there may be: %v", err)
	}
	for name, in := range map[string]*Intent{
		"no child":              intentOf("b-t", 5),
		"too many":              intentOf("ca-t", 5, many...),
		"version 0":             intentOf("b-t", 0, childOf(18, "m-t")),
		"nothing to divide":     intentOf("b-b", 5, childOf(18, "b-b")),
		"an empty child":        intentOf("b-t", 5, childOf(18, "m-m")),
		"a child outside":       intentOf("b-t", 5, childOf(18, "m-u")),
		"a child without end":   intentOf("b-t", 5, childOf(18, "m-")),
		"all of it":             intentOf("b-t", 5, childOf(18, "b-t")),
		"all of everything":     intentOf("-", 5, childOf(18, "-")),
		"all in two":            intentOf("b-t", 5, childOf(18, "b-m"), childOf(19, "m-t")),
		"two pieces left":       intentOf("b-t", 5, childOf(18, "m-n")),
		"two pieces, one open":  intentOf("-", 5, childOf(18, "m-n")),
		"two pieces in between": intentOf("b-t", 5, childOf(18, "c-d"), childOf(19, "e-t")),
		"overlap":               intentOf("b-t", 5, childOf(18, "m-q"), childOf(19, "p-t")),
		"out of order":          intentOf("b-t", 5, childOf(18, "p-t"), childOf(19, "m-p")),
		"behind an open end":    intentOf("b-", 5, childOf(18, "m-"), childOf(19, "n-")),
		"named twice":           intentOf("b-t", 5, childOf(18, "m-p"), childOf(18, "p-t")),
		"no group":              intentOf("b-t", 5, childOf(0, "m-t")),
		"no task":               {Range: span("b-t"), Version: 5, Children: []Child{childOf(18, "m-t")}},
		"no members":            intentOf("b-t", 5, with(func(c *Child) { c.Membership = nil })),
		"nobody first":          intentOf("b-t", 5, with(func(c *Child) { c.First = 9 })),
		"an idle first":         intentOf("b-t", 5, member(func(m *Membership) { m.Members[1].Eligible = false })),
		"a second version":      intentOf("b-t", 5, member(func(m *Membership) { m.Version = 2 })),
		"a permit":              intentOf("b-t", 5, member(func(m *Membership) { m.Permit = 3 })),
		"a log replica":         intentOf("b-t", 5, member(func(m *Membership) { m.Members[2].Kind = LogReplica })),
		"a learner":             intentOf("b-t", 5, member(func(m *Membership) { m.Members[2].Kind = Learner })),
		"no quorum":             intentOf("b-t", 5, member(func(m *Membership) { m.Policy = Policy{Rule: Zones, Zones: 4} })),
		"a long child's bound":  intentOf("b-t", 5, with(func(c *Child) { c.Range.Lo = long })),
		"a long bound":          {Task: 7, Version: 5, Range: KeyRange{Lo: []byte("b"), Hi: long}, Children: []Child{childOf(18, "b-c")}},
	} {
		if err := in.Validate(); CodeOf(err) != CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
		if b, err := in.AppendBinary(nil); err == nil {
			t.Errorf("%s is encoded into %x", name, b)
		}
	}
}

// What is left of a range is checked against one letter at a time.
func TestRetained(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	letters := func(k KeyRange) (s string) {
		for c := 'a'; c < 'k'; c++ {
			if k.Contains([]byte(string(c))) {
				s += string(c)
			}
		}
		return s
	}
	for range 20_000 {
		cuts := r.Perm(9)[:2+r.IntN(6)]
		slices.Sort(cuts)
		key := func(i int) []byte {
			if i == 0 || i == 8 {
				return nil
			}
			return []byte{byte('a' + i)}
		}
		whole := KeyRange{Lo: key(cuts[0]), Hi: key(cuts[len(cuts)-1])}
		var children []Child
		pieces, left, kept := 0, "", true // kept: the part before goes to a child
		for i := 1; i < len(cuts); i++ {
			part := KeyRange{Lo: key(cuts[i-1]), Hi: key(cuts[i])}
			if r.IntN(2) == 0 {
				children, kept = append(children, Child{Range: part}), true
				continue
			}
			if kept {
				pieces++
			}
			left, kept = left+letters(part), false
		}
		if len(children) == 0 {
			continue
		}
		got := retained(whole, children)
		if got.Empty() != (pieces != 1) || pieces == 1 && letters(got) != left {
			t.Fatalf("%s without %v: %s, not %q", whole, children, got, left)
		}
		if pieces == 1 {
			x := Extent{Range: got, Split: &Split{Children: children}}
			if !x.whole().Equal(whole) {
				t.Fatalf("%s without %v was %s", whole, children, x.whole())
			}
		}
	}
}

func TestChildMadeBy(t *testing.T) {
	c := childOf(18, "m-t")
	if !c.MadeBy(2, "n2") || c.MadeBy(4, "n2") || c.MadeBy(2, "n1") || c.MadeBy(9, "n9") {
		t.Error("a child's replica is made by the parent's of the same id on the same node")
	}
	x := steps(t, Extent{}, intentOf("b-t", 5, c), 16)
	if got, ok := x.Leaves([]byte("n")); !ok || got.Group != 18 {
		t.Errorf("n leaves to %v", got)
	}
	if _, ok := x.Leaves([]byte("c")); ok {
		t.Error("c does not leave")
	}
	if _, ok := (&Extent{}).Leaves([]byte("c")); ok {
		t.Error("nothing leaves without a split")
	}
}

func TestFirstConfiguration(t *testing.T) {
	m := as("majority", "a b c")
	rec, err := FirstConfiguration(18, 102, m)
	if err != nil || rec.Group() != 18 || rec.Position() != (Position{Index: 102}) || rec.Kind() != KindMember || rec.Prev() != 0 {
		t.Fatalf("%s, %v", rec, err)
	}
	if !bytes.Equal(rec.Payload(), payload(t, m)) {
		t.Error("it carries another configuration")
	}
	one, _ := FirstConfiguration(18, 1, m)
	if genesis, err := Genesis(18, m); err != nil || !bytes.Equal(genesis, one) {
		t.Errorf("genesis is another record: %v", err)
	}
	if _, err := FirstConfiguration(18, 102, &Membership{}); CodeOf(err) != CodeInvalid {
		t.Errorf("nobody's configuration: %v", err)
	}
}

func TestWithin(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"b-d", "b-d", true}, {"b-d", "a-e", true}, {"b-d", "-", true}, {"b-", "-", true}, {"-", "-", true},
		{"b-d", "c-e", false}, {"b-e", "b-d", false}, {"b-", "b-d", false}, {"-d", "b-d", false}, {"c-c", "x-y", true},
	} {
		if got := span(c.a).Within(span(c.b)); got != c.want {
			t.Errorf("%s within %s: %v", c.a, c.b, got)
		}
	}
	if !span("b-").Equal(span("b-")) || span("b-").Equal(span("b-c")) || span("a-c").Equal(span("b-c")) {
		t.Error("wrong about what is equal")
	}
}
