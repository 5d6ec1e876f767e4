package main

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"pando.dev/pando/actors"
	"pando.dev/pando/partition"
)

// testGroup is the group of the logs made up here.
const testGroup = partition.GroupID(7)

// madeUp is a log of a node as its file holds it, with something else around.
type madeUp struct {
	file []byte
	sum  uint32
	last partition.Index
}

// add appends a record.
func (m *madeUp) add(epoch uint64, kind partition.Kind, payload []byte) {
	m.last++
	r := partition.NewRecord(partition.Header{Group: testGroup, Index: m.last, Epoch: partition.NewEpoch(epoch, 1), Prev: m.sum, Kind: kind}, payload)
	m.sum = r.Checksum()
	m.file = append(append(m.file, "\x00\x00\x00\x07"...), r...)
}

func (m *madeUp) commands(epoch uint64, n int) {
	for range n {
		m.add(epoch, partition.KindCommand, []byte("command"))
	}
}

// configure appends a configuration of replicas 1 to n.
func (m *madeUp) configure(t *testing.T, epoch, version uint64, n int) {
	t.Helper()
	x := partition.Membership{Version: partition.MembershipVersion(version), Policy: partition.Policy{Rule: partition.Majority}, Next: partition.ReplicaID(n + 1)}
	for i := range n {
		x.Members = append(x.Members, partition.Member{
			Replica: partition.ReplicaID(i + 1), Node: partition.NodeID(rune('a' + i)), Kind: partition.Full, Eligible: true,
		})
	}
	payload, err := x.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	m.add(epoch, partition.KindMember, payload)
}

// clone is a copy that goes on by itself, with the same past.
func (m *madeUp) clone() *madeUp {
	return &madeUp{file: bytes.Clone(m.file), sum: m.sum, last: m.last}
}

// looks reads files one look after the other, each committed to the end, and
// returns the first error.
func looks(l *ledger, files ...*madeUp) error {
	for _, f := range files {
		l.looks++
		l.add(f.file)
		if err := l.follow(l.wayFrom(l.newest()), f.last); err != nil {
			return err
		}
	}
	return nil
}

// TestLedgerReads: it finds every record among other bytes, and counts versions
// and masterships; what is not committed counts for nothing.
func TestLedgerReads(t *testing.T) {
	m := &madeUp{}
	m.configure(t, 1, 1, 3)
	m.commands(1, 5)
	m.configure(t, 2, 2, 4)
	l := newLedger(testGroup)
	if err := looks(l, m); err != nil {
		t.Fatal(err)
	}
	isolated := m.clone()
	isolated.configure(t, 2, 3, 3) // never committed
	m.commands(3, 2)
	m.configure(t, 3, 3, 5)
	l.add(isolated.file)
	if err := looks(l, m); err != nil {
		t.Fatal(err)
	}
	if len(l.configs) != 3 || len(l.configs[2].Members) != 5 || len(l.epochs) != 3 || l.broken != 0 || l.snipped != 1 {
		t.Errorf("%s: %v", l, l.configs)
	}
	if len(l.seen) != 1 {
		t.Errorf("%d records are kept that no look needs", len(l.seen))
	}
}

// TestLedgerFinds plants what must never be in a group's logs: MEM-1.
func TestLedgerFinds(t *testing.T) {
	base := func() *madeUp {
		m := &madeUp{}
		m.configure(t, 1, 1, 3)
		m.commands(1, 5)
		return m
	}
	for _, x := range []struct {
		name, want string
		second     func(first *madeUp) *madeUp
	}{
		{"a skipped version", "version 3 at 7@2.1 follows version 1", func(m *madeUp) *madeUp { m.configure(t, 2, 3, 4); return m }},
		{"a version twice", "version 1 at 7@2.1 follows version 1", func(m *madeUp) *madeUp { m.configure(t, 2, 1, 4); return m }},
		{"an id used again", "replica id 2 is used again", func(m *madeUp) *madeUp {
			x := partition.Membership{Version: 2, Policy: partition.Policy{Rule: partition.Majority}, Next: 4, Members: []partition.Member{
				{Replica: 1, Node: "a", Kind: partition.Full, Eligible: true},
			}}
			one, err := x.AppendBinary(nil)
			if err != nil {
				t.Fatal(err)
			}
			m.add(2, partition.KindMember, one)
			m.configure(t, 2, 3, 3)
			return m
		}},
		{"the next id falls", "falls from 4 to 3", func(m *madeUp) *madeUp { m.configure(t, 2, 2, 2); return m }},
		{"a committed record replaced", "forked", func(*madeUp) *madeUp {
			m := &madeUp{}
			m.configure(t, 1, 1, 3)
			m.commands(2, 9)
			return m
		}},
		{"nothing", "", func(m *madeUp) *madeUp { m.configure(t, 2, 2, 4); return m }},
	} {
		first := base()
		err := looks(newLedger(testGroup), first.clone(), x.second(first))
		if (err == nil) != (x.want == "") || err != nil && !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: %v, want %q", x.name, err, x.want)
		}
	}
}

// TestLedgerLost: a look that finds no way back to the one before is counted, and
// what lies between may skip versions.
func TestLedgerLost(t *testing.T) {
	m := &madeUp{}
	m.configure(t, 1, 1, 3)
	first := m.clone()
	m.configure(t, 1, 2, 4)
	m.commands(1, 3)
	m.file = nil // the segment was used again
	m.commands(1, 3)
	m.configure(t, 1, 3, 5)
	l := newLedger(testGroup)
	if err := looks(l, first, m); err != nil || l.broken != 1 || len(l.configs) != 2 {
		t.Errorf("%v, %s", err, l)
	}
}

// TestWhole: a partition that lacks anything is not whole.
func TestWhole(t *testing.T) {
	full := func() actors.PartitionInfo {
		p := actors.PartitionInfo{Master: "a"}
		for i, role := range []string{"master", "peer", "peer"} {
			p.Replicas = append(p.Replicas, actors.ReplicaInfo{Replica: partition.ReplicaID(i + 1), Kind: "full", Eligible: true, Role: role, Applied: 9})
		}
		return p
	}
	for name, spoil := range map[string]func(p *actors.PartitionInfo){
		"no master":     func(p *actors.PartitionInfo) { p.Master = "" },
		"ineligible":    func(p *actors.PartitionInfo) { p.Replicas[2].Eligible = false },
		"a log replica": func(p *actors.PartitionInfo) { p.Replicas[2].Kind = "log" },
		"behind":        func(p *actors.PartitionInfo) { p.Replicas[1].Applied = 8 },
		"unreachable":   func(p *actors.PartitionInfo) { p.Replicas[1].Role = "unreachable" },
		"one too few":   func(p *actors.PartitionInfo) { p.Replicas = p.Replicas[:2] },
		"a learner as well": func(p *actors.PartitionInfo) {
			p.Replicas = append(p.Replicas, actors.ReplicaInfo{Replica: 4, Kind: "learner", Role: "peer", Applied: 9})
		},
	} {
		p := full()
		if err := whole(p, 3, 9); err != nil {
			t.Fatal(err)
		}
		spoil(&p)
		if whole(p, 3, 9) == nil {
			t.Errorf("%s: it is called whole", name)
		}
	}
}

// TestAgrees: what nodes tell of a version must be what the logs have.
func TestAgrees(t *testing.T) {
	m := &madeUp{}
	m.configure(t, 1, 1, 3)
	l := newLedger(testGroup)
	if err := looks(l, m); err != nil {
		t.Fatal(err)
	}
	told := func() actors.PartitionInfo {
		p := actors.PartitionInfo{Version: 1}
		for i, n := range []partition.NodeID{"a", "b", "c"} {
			p.Replicas = append(p.Replicas, actors.ReplicaInfo{Replica: partition.ReplicaID(i + 1), Node: n, Kind: "full", Eligible: true})
		}
		return p
	}
	if err := l.agrees(told()); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(p *actors.PartitionInfo){
		"another version": func(p *actors.PartitionInfo) { p.Version = 2 },
		"another node":    func(p *actors.PartitionInfo) { p.Replicas[1].Node = "d" },
		"one too few":     func(p *actors.PartitionInfo) { p.Replicas = p.Replicas[1:] },
		"ineligible":      func(p *actors.PartitionInfo) { p.Replicas[0].Eligible = false },
	} {
		p := told()
		spoil(&p)
		if l.agrees(p) == nil {
			t.Errorf("%s: told otherwise than the log has it, and it agrees", name)
		}
	}
}

// TestVerifier: a value that is wrong once is found, and an error is none.
func TestVerifier(t *testing.T) {
	tr := &trial{out: new(bytes.Buffer)}
	v := &verifier{t: tr, written: []int{1}, value: func(int) string { return "right" }, right: map[string]int{}, errs: map[string]int{}}
	answers := []struct {
		got string
		err error
	}{{"right", nil}, {"", partition.ErrUnavailable}, {"wrong", nil}, {"", nil}}
	for _, a := range answers {
		v.read(way{"way", func(_ context.Context, _ string) (string, error) { return a.got, a.err }}, 1)
	}
	v.report()
	if v.right["way"] != 1 || v.wrong != 2 || len(tr.violations) != 2 || v.errs["unavailable"] != 1 {
		t.Errorf("%+v, %v, %v", v.right, v.errs, tr.violations)
	}
}

// TestNamesZone: a zone counts as named only where something is said of missing
// ones.
func TestNamesZone(t *testing.T) {
	for text, want := range map[string]bool{
		"":                false,
		"1  n-1  a  full": false,
		"it cannot commit: missing is zone a (n1); it has to come back": true,
		"why: missing are zone b (n2) and zone a (n1)\nnext: wait":      true,
		"missing is zone b (n2)":  false,
		"missing is zone ab (n2)": false,
		"a write is on disk in two of three zones; zone a is up\nnothing is missing": false,
	} {
		if got := namesZone(text, "a"); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}
