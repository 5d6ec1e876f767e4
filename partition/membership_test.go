package partition

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"
)

func group3() *Membership {
	return &Membership{
		Version: 4, Policy: Policy{Rule: Zones, Zones: 2}, Next: 9,
		Members: []Member{
			{Replica: 1, Node: "n1", Zone: "x", Kind: Full, Eligible: true, Weight: 2},
			{Replica: 3, Node: "n2", Zone: "y", Kind: LogReplica, Eligible: true},
			{Replica: 8, Node: "n3", Zone: "z", Kind: Full, Eligible: true},
		},
	}
}

func TestMembershipRoundTrip(t *testing.T) {
	m := group3()
	b, err := m.AppendBinary([]byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	const want = "010202030400000000000000090001000101020201" + "6e3178" + "03000201000201" + "6e3279" + "08000101000201" + "6e337a"
	if got := hex.EncodeToString(b[1:]); got != want {
		t.Errorf("encoded\n%s, not\n%s", got, want)
	}
	var d Membership
	if err := d.UnmarshalBinary(b[1:]); err != nil || !reflect.DeepEqual(&d, m) {
		t.Errorf("%v: %+v", err, d)
	}
}

// What a configuration has beyond the usual is in the format, and only then in
// the bytes.
func TestMembershipRoundTripOfMore(t *testing.T) {
	for _, alone := range []uint64{0, 7} {
		for _, asked := range []Asked{{}, {Replicas: 4, Instead: 3}} {
			m := group3()
			m.Alone, m.Permit, m.Asked = alone, alone, asked
			if alone != 0 {
				m.LeftBehind = []ReplicaID{2, 8}
			}
			b, err := m.AppendBinary(nil)
			if err != nil || len(b) > MaxMembershipBytes {
				t.Fatal(len(b), err)
			}
			var d Membership
			if err := d.UnmarshalBinary(b); err != nil || !reflect.DeepEqual(&d, m) {
				t.Errorf("%v: %+v", err, d)
			}
			if err := d.UnmarshalBinary(b[:15]); err == nil {
				t.Error("cut short is taken")
			}
		}
	}
	if m := group3(); m.SameButMode(func() *Membership { n := group3(); n.Asked.Replicas = 4; return n }()) {
		t.Error("another number of replicas is taken for a change of mode")
	}
}

func TestMembershipRefusesBytes(t *testing.T) {
	good, _ := group3().AppendBinary(nil)
	with := func(i int, x byte) []byte {
		b := bytes.Clone(good)
		b[i] = x
		return b
	}
	for _, c := range []struct {
		name string
		b    []byte
		want error
	}{
		{"nothing", nil, ErrCorrupt},
		{"a newer format", with(0, 5), ErrNewerFormat},
		{"asked for without a number", append(with(0, 3)[:14:14], 0, 0), ErrCorrupt},
		{"alone without a number", append(with(0, 2)[:14:14], make([]byte, 17)...), ErrCorrupt},
		{"alone, cut short", with(0, 2)[:17], ErrCorrupt},
		{"format 0", with(0, 0), ErrCorrupt},
		{"too many members", with(3, 17), ErrCorrupt},
		{"one member more than there is", with(3, 4), ErrCorrupt},
		{"one member less than there is", with(3, 2), ErrCorrupt},
		{"a cut head", good[:13], ErrCorrupt},
		{"a cut member", good[:20], ErrCorrupt},
		{"a cut name", good[:len(good)-1], ErrCorrupt},
		{"eligible 2", with(14+3, 2), ErrCorrupt},
		{"more bytes", append(bytes.Clone(good), 0), ErrCorrupt},
		{"an unknown rule", with(1, 9), ErrInvalid},
		{"an unknown kind", with(14+2, 9), ErrInvalid},
	} {
		m := Membership{Version: 77}
		if err := m.UnmarshalBinary(c.b); !errors.Is(err, c.want) || m.Version != 77 {
			t.Errorf("%s: %v, left behind %+v", c.name, err, m)
		}
	}
}

func TestMembershipValidate(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(*Membership)
		want string // part of the refusal, or "" if it is valid
	}{
		{"as it is", func(*Membership) {}, ""},
		{"nobody", func(m *Membership) { m.Members = nil }, "0 members"},
		{"a crowd", func(m *Membership) { m.Members = make([]Member, MaxMembers+1) }, "17 members"},
		{"replica 0", func(m *Membership) { m.Members[0].Replica = 0 }, "out of order"},
		{"out of order", func(m *Membership) { m.Members[1].Replica = 1 }, "out of order"},
		{"not below the next id", func(m *Membership) { m.Next = 8 }, "out of order"},
		{"no node", func(m *Membership) { m.Members[0].Node = "" }, "empty"},
		{"one node twice", func(m *Membership) { m.Members[0].Node = "n2" }, "twice"},
		{"a long node", func(m *Membership) { m.Members[0].Node = NodeID(strings.Repeat("n", 65)) }, "too long"},
		{"a long zone", func(m *Membership) { m.Members[0].Zone = strings.Repeat("z", 65) }, "zone name"},
		{"an unknown kind", func(m *Membership) { m.Members[0].Kind = 4 }, "unknown kind"},
		{"no rule", func(m *Membership) { m.Policy = Policy{} }, "policy"},
		{"zones without a number", func(m *Membership) { m.Policy = Policy{Rule: Zones} }, "policy"},
		{"a number without zones", func(m *Membership) { m.Policy = Policy{Rule: Majority, Zones: 1} }, "policy"},
		{"too many zones", func(m *Membership) { m.Policy.Zones = 4 }, "cannot be met"},
		{"nobody to be master", func(m *Membership) { m.Members[0].Eligible = false }, "no eligible full"},
		{"alone without a permit", func(m *Membership) { m.Alone = 3 }, "alone under number 3"},
		{"left behind without a permit", func(m *Membership) { m.LeftBehind = []ReplicaID{2} }, "1 left behind"},
		{"left behind out of order", func(m *Membership) { m.Permit, m.LeftBehind = 3, []ReplicaID{2, 2} }, "left behind, is out of order"},
		{"left behind that never was", func(m *Membership) { m.Permit, m.LeftBehind = 3, []ReplicaID{9} }, "left behind, is out of order"},
		{"nobody eligible", func(m *Membership) {
			for i := range m.Members {
				m.Members[i].Eligible = false
			}
		}, "cannot be met"},
	} {
		m := group3()
		c.do(m)
		err := m.Validate()
		if c.want == "" && err != nil || c.want != "" && (!errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v", c.name, err)
		}
		if _, err := Genesis(1, m); (err == nil) != (c.want == "") {
			t.Errorf("%s: genesis: %v", c.name, err)
		}
	}
}

func TestMembershipLookups(t *testing.T) {
	m := group3()
	if x, ok := m.Member(3); !ok || x.Node != "n2" {
		t.Errorf("Member(3) = %v, %v", x, ok)
	}
	if x, ok := m.OnNode("n3"); !ok || x.Replica != 8 {
		t.Errorf("OnNode = %v, %v", x, ok)
	}
	if _, ok := m.Member(2); ok {
		t.Error("Member(2) is there")
	}
	if _, ok := m.OnNode("n9"); ok {
		t.Error("n9 is there")
	}
}

func TestGenesis(t *testing.T) {
	r, err := Genesis(5, group3())
	if err != nil {
		t.Fatal(err)
	}
	var m Membership
	if r.Index() != 1 || r.Epoch() != 0 || r.Group() != 5 || r.Kind() != KindMember || m.UnmarshalBinary(r.Payload()) != nil || m.Version != 4 {
		t.Errorf("genesis %s with %+v", r, m)
	}
	again, _ := Genesis(5, group3())
	if !bytes.Equal(again, r) {
		t.Error("two members would begin with different records")
	}
}

func TestNames(t *testing.T) {
	for want, got := range map[string]string{
		"full": Full.String(), "log": LogReplica.String(), "learner": Learner.String(), "member_kind(9)": MemberKind(9).String(),
		"majority": Policy{Rule: Majority}.String(), "zones:2": Policy{Rule: Zones, Zones: 2}.String(),
		"all-in-sync": Policy{Rule: AllInSync}.String(), "rule(7)": Policy{Rule: 7}.String(),
	} {
		if got != want {
			t.Errorf("%s is printed as %s", want, got)
		}
	}
	if (&Membership{Policy: Policy{Rule: 7}}).Durable(func(ReplicaID) bool { return true }) {
		t.Error("an unknown rule makes durable")
	}
}

func FuzzMembership(f *testing.F) {
	b, _ := group3().AppendBinary(nil)
	f.Add(b)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) { checkMembership(t, b) })
}

// checkMembership: what is taken for a configuration is a valid one, in its only
// form.
func checkMembership(t testing.TB, b []byte) {
	var m Membership
	if m.UnmarshalBinary(b) != nil {
		return
	}
	again, err := m.AppendBinary(nil)
	if err != nil || !bytes.Equal(again, b) {
		t.Fatalf("%x is not the canonical form, which is %x", b, again)
	}
	if err := m.Validate(); err != nil {
		t.Fatalf("%x decodes into what is invalid: %v", b, err)
	}
}
