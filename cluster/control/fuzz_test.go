package control

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/hashicorp/raft"

	"pando.dev/pando/partition"
)

// seeded returns a state with something of everything.
func seeded(t testing.TB) *state {
	s := newState()
	create(t, s, "t", 2, [][]byte{[]byte("m")}, "a", "b", "c")
	create(t, s, "u", 1, nil, "a")
	applied(t, s, kindLocks, locksOf("a", 1, acquireItem{Group: 1, Replica: 1}, acquireItem{Group: 2, Replica: 2, Above: 7}))
	applied(t, s, kindDrop, &dropBody{Token: "drop", Name: "u"})
	permit := permitBody{Node: "a", Act: actDecree, Group: 2, Holder: "a", Replica: 1, Able: []partition.ReplicaID{1, 2}}
	applied(t, s, kindPermit, &permit)
	applied(t, s, kindAlter, &alterBody{Token: "alter", Name: "t", Replicas: 3})
	applied(t, s, kindSplits, &splitsBody{Token: "splits", Name: "t", Policy: splitsItem{Mode: SplitsAuto, Load: 100}})
	applied(t, s, kindSplit, splitOf(1, "b", "k"))
	applied(t, s, kindUpdate, &updateBody{Updates: []groupItem{childUpdate(t, s, 1, 1, 3)}})
	applied(t, s, kindSplit, splitOf(2, "q"))
	applied(t, s, kindActivate, activationOf(t, s, 2, 3))
	applied(t, s, kindSessions, &sessionsBody{Open: []sessionItem{{Node: "b", Boot: 3, Start: 77}}, Expire: []sessionItem{{Node: "a", Boot: 1}}})
	return s
}

// Whatever a command is: no panic, and a state that a snapshot can carry.
func FuzzCommand(f *testing.F) {
	s := seeded(f)
	g, _ := s.catalog.Group(1)
	for k, body := range map[kind]any{
		kindLocks:    &locksBody{Node: "a", Boot: 1, Acquire: []acquireItem{{Group: 1, Replica: 1}}, Release: []releaseItem{{Group: 1, Replica: 1, Number: 1}}},
		kindSessions: &sessionsBody{Open: []sessionItem{{Node: "x", Boot: 9}}},
		kindCreate:   &createBody{Table: tableBody{Token: "x", Name: "x", Kind: "kv", Replicas: 1, Rule: 1}, Nodes: []placeItem{{Node: "a"}}, First: s.nextGroup, Assign: []byte{0, 0}},
		kindDrop:     &dropBody{Token: "y", Name: "t"},
		kindAlter:    &alterBody{Token: "z", Name: "t", Rule: partition.Zones, Zones: 2},
		kindSplits:   &splitsBody{Token: "s", Name: "t", Policy: splitsItem{Mode: SplitsOff, Size: 1 << 20, RestMs: 1000, Partitions: 3}},
		kindPermit:   &permitBody{Node: "a", Act: actPermit, Group: 1, Holder: "a", Replica: 1, Lock: 1, Seq: 1, Able: []partition.ReplicaID{1}},

		kindLocksNoStart:    &locksNoStart{Node: "a", Boot: 1, Acquire: []acquireNoStart{{Group: 1, Replica: 1}}},
		kindSessionsNoStart: &sessionsNoStart{Open: []heldSession{{Node: "x", Boot: 9}}},
		kindUpdate:          &updateBody{Updates: []groupItem{updateOf(f, *g)}},
		kindSplit:           splitOf(5, "t"),
		kindActivate:        activationOf(f, s, 1, 3),
		kindReport:          &reportBody{Task: 2, Epoch: 1, Seq: 1, State: TaskDone},
		kindCancel:          &cancelBody{Task: 1, Why: "w"},
		kindPlan:            planOf("p", true, moveOf(5, "a", "b")),
		kindStart:           &startBody{Plan: 1},
		kindMerge:           mergeOf(5, 3),
	} {
		f.Add(command(f, k, body))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s := seeded(t)
		if _, err := s.apply(b); err != nil {
			return
		}
		if _, err := readState(bytes.NewReader(bytesOf(t, s))); err != nil {
			t.Fatalf("after %x the state cannot be restored: %v", b, err)
		}
	})
}

// Whatever a snapshot is: no panic, and what is accepted is written again as
// the same bytes.
func FuzzSnapshot(f *testing.F) {
	for _, s := range []*state{newState(), seeded(f)} {
		x := s.snapshot()
		p := s.catalog.page(cursor{}, true, pageBytes)
		locks := x.lockItems()
		starts, permits := x.startItems(), x.permitItems()
		f.Add(command(f, kindHead, x.head()), command(f, kindStartPage, &startPage{Of: len(starts), Starts: starts}),
			command(f, kindPermitPage, &permitPage{Of: len(permits), Permits: permits}),
			command(f, kindLockPage, &lockPage{Locks: locks}), p.encode(),
			command(f, kindTaskHead, &taskHead{Next: s.nextTask, Tasks: len(s.catalog.tasks)}),
			command(f, kindTail, &tailBody{Locks: len(locks), Tables: len(s.catalog.tables), Groups: len(s.catalog.groups)}))
	}
	f.Fuzz(func(t *testing.T, head, starts, permits, locks, page, tasks, tail []byte) {
		var b []byte
		// With the right checksums, so that what lies behind them is reached.
		for _, part := range [][]byte{head, starts, permits, locks, tasks, page, tail} {
			if len(part) == 0 {
				continue
			}
			b = binary.LittleEndian.AppendUint32(b, uint32(len(part)))
			b = append(binary.LittleEndian.AppendUint32(b, partition.Checksum(part)), part...)
		}
		s, err := readState(bytes.NewReader(b))
		if err != nil {
			return
		}
		again, err := readState(bytes.NewReader(bytesOf(t, s)))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(bytesOf(t, s), bytesOf(t, again)) {
			t.Fatal("a restored state differs from its own snapshot")
		}
	})
}

// A damaged snapshot is never taken for a whole one.
func TestDamagedSnapshot(t *testing.T) {
	good := bytesOf(t, seeded(t))
	if _, err := readState(bytes.NewReader(good)); err != nil {
		t.Fatal(err)
	}
	for i := range good {
		b := bytes.Clone(good)
		b[i] ^= 0x10
		if _, err := readState(bytes.NewReader(b)); err == nil {
			t.Fatalf("byte %d damaged: accepted", i)
		}
		if _, err := readState(bytes.NewReader(good[:i])); err == nil {
			t.Fatalf("cut after %d bytes: accepted", i)
		}
	}
	if _, err := readState(bytes.NewReader(append(bytes.Clone(good), 0))); err == nil {
		t.Fatal("a byte too many: accepted")
	}
}

// Whatever comes from another node: no panic in any decoder, and what is
// decoded is encoded again without an error.
func FuzzBodies(f *testing.F) {
	for k, body := range map[kind]any{
		kindRequest: &requestBody{Group: 1, TimeoutMs: 5, Body: []byte("body")}, kindAnswer: &answerBody{Error: &errorItem{Code: 3, Why: "w"}, Leader: "a"},
		kindAskSeat: &askSeat{Proposal: proposal{ID: 1, Seats: []partition.NodeID{"a", "b"}}}, kindSeatAnswer: &seatAnswer{Stand: standMember},
		kindLockAnswer: &lockAnswer{Grants: []grantItem{{Number: 1}}}, kindAskCreate: &askCreate{Nodes: []placeItem{{Node: "a"}}},
		kindPage: &pageBody{Tables: []tableItem{{ID: 1}}, Groups: []groupItem{{ID: 1}}}, kindSeatState: &seatState{Rejected: []uint64{1, 2}},
		kindAskCatalog: &askCatalog{}, kindRenewAnswer: &renewAnswer{Seats: []partition.NodeID{"a"}},
	} {
		f.Add(command(f, k, body))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, err := range []error{
			again[requestBody](kindRequest, b), again[answerBody](kindAnswer, b), again[askSeat](kindAskSeat, b), again[relayBody](kindAskRelay, b),
			again[seatAnswer](kindSeatAnswer, b), again[lockAnswer](kindLockAnswer, b), again[askCreate](kindAskCreate, b),
			again[askCatalog](kindAskCatalog, b), again[renewAnswer](kindRenewAnswer, b), again[seatState](kindSeatState, b),
			again[lockPage](kindLockPage, b), again[headBody](kindHead, b), again[tailBody](kindTail, b),
			again[tableAnswer](kindTableAnswer, b), again[pageBody](kindPage, b),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		if p, err := decodePage(b); err == nil {
			a := newAssembly(&Catalog{})
			if done, err := a.add(p); err == nil && done {
				if c, err := a.result(); err == nil {
					if _, err := c.Lookup("t", []byte("k")); err == nil {
						c.AllGroups()
					}
				}
			}
		}
	})
}

// again decodes what could be decoded and is encoded again.
func again[T any](k kind, b []byte) error {
	v, err := decode[T](k, b)
	if err != nil {
		return nil
	}
	_, err = decode[T](k, encode(k, v))
	return err
}

// What the store reads back is as untrusted as the rest.
func FuzzStored(f *testing.F) {
	f.Add(encodeEntry(entry(1, 2, "data")), numberKey(keyMeta, 1))
	f.Add(encodeMeta(&raft.SnapshotMeta{Version: 1, Configuration: configuration([]partition.NodeID{"a"})}, 3), numberKey(keyMeta, 1))
	f.Fuzz(func(t *testing.T, b, key []byte) {
		l := raft.Log{Index: 1}
		if err := decodeEntry(b, &l); err == nil && !bytes.Equal(encodeEntry(&l), b) {
			t.Fatalf("%x reads as %x", b, encodeEntry(&l))
		}
		// With the right checksum, so that what lies behind it is reached.
		if len(b) >= 4 {
			b = bytes.Clone(b)
			binary.BigEndian.PutUint32(b, partition.Checksum(b[4:]))
		}
		if d, err := decodeMeta(key, b); err == nil && (d.meta == nil || len(key) != 9) {
			t.Fatal("no description and no error")
		}
	})
}
