package control

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"pando.dev/pando/partition"
)

// seatWorld is a set of nodes that try to found a control group, with a network
// that loses, repeats and reorders, crashes at any step, and views of gossip
// that need not agree.
type seatWorld struct {
	t      *rapid.T
	ids    []partition.NodeID
	expect int
	nodes  map[partition.NodeID]*seats
	disk   map[partition.NodeID]seatState
	sees   map[partition.NodeID][]partition.NodeID
	wire   []seatLetter
	next   uint64
	// founded are the proposals that some node has ever founded.
	founded map[uint64]proposal
	// accepted are the nodes that have ever accepted a proposal.
	accepted map[uint64]map[partition.NodeID]bool
	// rejected are the nodes that have ever said that they reject a proposal.
	rejected map[uint64]map[partition.NodeID]bool
	failDisk bool
}

type seatLetter struct {
	from, to partition.NodeID
	ask      *askSeat
	id       uint64
	answer   *seatAnswer
}

func newSeatWorld(t *rapid.T, nodes, expect int) *seatWorld {
	w := &seatWorld{
		t: t, expect: expect, nodes: map[partition.NodeID]*seats{}, disk: map[partition.NodeID]seatState{},
		sees: map[partition.NodeID][]partition.NodeID{}, founded: map[uint64]proposal{}, accepted: map[uint64]map[partition.NodeID]bool{},
		rejected: map[uint64]map[partition.NodeID]bool{},
	}
	for i := range nodes {
		id := partition.NodeID(fmt.Sprintf("n%d", i))
		w.ids = append(w.ids, id)
		w.boot(id)
	}
	return w
}

// boot starts a node from its disk.
func (w *seatWorld) boot(id partition.NodeID) {
	s := &seats{self: id, expect: w.expect, save: func(st seatState) error {
		if w.failDisk {
			return errors.New("disk")
		}
		w.disk[id] = st
		return nil
	}}
	s.resume(w.disk[id])
	w.nodes[id] = s
}

func (w *seatWorld) view(id partition.NodeID) view {
	var peers []PeerInfo
	for _, p := range w.sees[id] {
		peers = append(peers, PeerInfo{Node: p, Expect: w.expect, Seat: w.nodes[p].mine()})
	}
	return viewOf(id, w.expect, peers)
}

func (w *seatWorld) tick(id partition.NodeID) {
	w.next++
	asks, err := w.nodes[id].tick(w.view(id), w.next, true)
	if err == nil {
		for _, q := range asks {
			w.wire = append(w.wire, seatLetter{from: id, to: q.to, ask: &q.ask})
		}
	}
	// What a live node does beside: it asks a seat that gossip shows.
	for _, p := range w.sees[id] {
		if w.nodes[p].mine() && !w.failDisk {
			if err := w.nodes[id].learn(w.nodes[p].st.Proposal); err != nil {
				w.t.Fatal(err)
			}
		}
	}
	w.check()
}

func (w *seatWorld) deliver(l seatLetter) {
	to := w.nodes[l.to]
	if l.ask != nil {
		a, err := to.answer(l.ask, w.view(l.to))
		if err == nil {
			id := l.ask.Proposal.ID
			switch a.Stand {
			case standAccepted:
				if w.rejected[id][l.to] {
					w.t.Fatalf("%s accepts %x, which it had rejected", l.to, id)
				}
				w.accept(id, l.to)
			case standRejected:
				if w.rejected[id] == nil {
					w.rejected[id] = map[partition.NodeID]bool{}
				}
				w.rejected[id][l.to] = true
			}
			w.wire = append(w.wire, seatLetter{from: l.to, to: l.from, id: l.ask.Proposal.ID, answer: a})
		}
	} else if err := to.answered(l.from, l.id, l.answer); err != nil && !w.failDisk {
		w.t.Fatal(err)
	}
	w.check()
}

func (w *seatWorld) accept(id uint64, n partition.NodeID) {
	if w.accepted[id] == nil {
		w.accepted[id] = map[partition.NodeID]bool{}
	}
	w.accepted[id][n] = true
}

// check is the safety: what was founded was accepted by every seat of it, and no
// node has a seat in two control groups.
func (w *seatWorld) check() {
	for _, id := range w.ids {
		st := w.disk[id]
		if st.Phase == bound {
			w.accept(st.Proposal.ID, id)
		}
		if st.Phase == founded {
			w.accept(st.Proposal.ID, id)
			w.founded[st.Proposal.ID] = st.Proposal
		}
	}
	for a, p := range w.founded {
		for _, n := range p.Seats {
			if !w.accepted[a][n] {
				w.t.Fatalf("%x of %s was founded without %s", a, p.Seats, n)
			}
			for b, q := range w.founded {
				if a != b && slices.Contains(q.Seats, n) {
					w.t.Fatalf("two control groups with a seat of %s: %s and %s", n, p.Seats, q.Seats)
				}
			}
		}
	}
}

// step does one thing that may happen.
func (w *seatWorld) step() {
	id := rapid.SampledFrom(w.ids).Draw(w.t, "node")
	switch rapid.IntRange(0, 9).Draw(w.t, "what") {
	case 0, 1, 2:
		w.tick(id)
	case 3:
		w.boot(id)
	case 4:
		w.failDisk = true
		w.tick(id)
		w.failDisk = false
	case 5:
		seen := rapid.SampledFrom(w.ids).Draw(w.t, "seen")
		if i := slices.Index(w.sees[id], seen); i >= 0 {
			w.sees[id] = slices.Delete(w.sees[id], i, i+1)
		} else {
			w.sees[id] = append(w.sees[id], seen)
		}
	default:
		if len(w.wire) == 0 {
			return
		}
		i := rapid.IntRange(0, len(w.wire)-1).Draw(w.t, "letter")
		l := w.wire[i]
		if rapid.IntRange(0, 3).Draw(w.t, "again") > 0 {
			w.wire = slices.Delete(w.wire, i, i+1)
		}
		if rapid.IntRange(0, 5).Draw(w.t, "lost") > 0 {
			w.deliver(l)
		}
	}
}

// settle lets everybody see everybody and loses nothing any more.
func (w *seatWorld) settle() {
	for _, id := range w.ids {
		w.sees[id] = slices.Clone(w.ids)
	}
	for range 40 {
		for _, id := range w.ids {
			w.tick(id)
		}
		for len(w.wire) > 0 {
			l := w.wire[0]
			w.wire = w.wire[1:]
			w.deliver(l)
		}
	}
}

// Two control groups never share a node, whatever races and crashes there were;
// and when the network and gossip have settled there is one, and every node
// knows one.
func TestSeatsFoundedOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		expect := rapid.SampledFrom([]int{1, 2, 3, 3, 3, 5}).Draw(t, "expect")
		w := newSeatWorld(t, rapid.IntRange(expect, 7).Draw(t, "nodes"), expect)
		for range rapid.IntRange(0, 400).Draw(t, "steps") {
			w.step()
		}
		w.settle()
		if len(w.founded) == 0 {
			t.Fatalf("nothing was founded: %+v", w.disk)
		}
		for _, id := range w.ids {
			if p := w.disk[id].Phase; p != founded && p != known {
				t.Fatalf("%s is in phase %d: %+v", id, p, w.disk)
			}
		}
	})
}

// When all see each other from the first moment, exactly one is founded, however
// letters are lost and nodes crash.
func TestSeatsOneGroupWithFullView(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newSeatWorld(t, 6, 3)
		for _, id := range w.ids {
			w.sees[id] = slices.Clone(w.ids)
		}
		for range rapid.IntRange(0, 200).Draw(t, "steps") {
			id := rapid.SampledFrom(w.ids).Draw(t, "node")
			if rapid.Bool().Draw(t, "crash") {
				w.boot(id)
			}
			w.tick(id)
			if n := len(w.wire); n > 0 {
				l := w.wire[rapid.IntRange(0, n-1).Draw(t, "letter")]
				w.deliver(l)
			}
		}
		w.settle()
		if len(w.founded) != 1 {
			t.Fatalf("%d control groups: %+v", len(w.founded), w.founded)
		}
	})
}

func TestSeatsRefuseNonsense(t *testing.T) {
	s := &seats{self: "b", expect: 3, save: func(seatState) error { return nil }}
	for name, p := range map[string]proposal{
		"no id":     {Seats: []partition.NodeID{"a", "b", "c"}},
		"no seats":  {ID: 1},
		"too many":  {ID: 1, Seats: []partition.NodeID{"a", "b", "c", "d", "e", "f", "g", "h"}},
		"unordered": {ID: 1, Seats: []partition.NodeID{"b", "a", "c"}},
		"twice":     {ID: 1, Seats: []partition.NodeID{"a", "b", "b"}},
		"not of us": {ID: 1, Seats: []partition.NodeID{"a", "c", "d"}},
	} {
		if _, err := s.answer(&askSeat{Proposal: p}, view{candidates: []partition.NodeID{"b"}}); !errors.Is(err, partition.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Another number of seats, or a smaller candidate in sight: not now, and
	// nothing is remembered.
	for name, x := range map[string]struct {
		p proposal
		v view
	}{
		"other number":      {proposal{ID: 1, Seats: []partition.NodeID{"a", "b"}}, view{candidates: []partition.NodeID{"a", "b"}}},
		"smaller candidate": {proposal{ID: 1, Seats: []partition.NodeID{"b", "c", "d"}}, view{candidates: []partition.NodeID{"a", "b"}}},
		"seat taken":        {proposal{ID: 1, Seats: []partition.NodeID{"a", "b", "c"}}, view{candidates: []partition.NodeID{"a", "b"}, seatTaken: true}},
	} {
		a, err := s.answer(&askSeat{Proposal: x.p}, x.v)
		if err != nil || a.Stand != standNotNow || s.st.Phase != neutral || len(s.st.Rejected) != 0 {
			t.Errorf("%s: %+v, %v, state %+v", name, a, err, s.st)
		}
	}
}
