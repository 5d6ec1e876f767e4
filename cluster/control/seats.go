package control

import (
	"fmt"
	"slices"

	"pando.dev/pando/partition"
)

// phase is how far a node has come in finding or founding the control group.
//
//	neutral --accept--> bound --every seat accepted--> founded
//	   |  ^               |
//	   |  '--rejected by a seat
//	   '--a control group is met--> known
type phase uint8

const (
	neutral phase = 0 // bound to nothing
	bound   phase = 1 // accepted a proposal, which may or may not be founded
	founded phase = 2 // has a seat in a control group that exists
	known   phase = 3 // knows a control group and has no seat in it
)

// stand is where a node stands towards a proposal.
type stand uint8

const (
	standNone     stand = 0
	standAccepted stand = 1 // and bound to it for as long as it may be founded
	standRejected stand = 2 // for ever; it was never accepted before that
	standNotNow   stand = 3 // neither; ask again
	standMember   stand = 4 // knows a control group that exists
)

// calmTicks is how long a proposer waits after a rejection.
const calmTicks = 4

// maxRejected bounds the proposals that a node remembers to have rejected.
const maxRejected = 256

// seats is the machine that founds the control group exactly once among nodes
// that do not know each other yet. The package comment tells why it is safe. It
// is pure: what it must not forget goes through save before it is answered.
type seats struct {
	self   partition.NodeID
	expect int
	st     seatState
	save   func(seatState) error
	// accepted are the seats known to have accepted the proposal that this node
	// is bound to.
	accepted map[partition.NodeID]bool
	// met: there is a control group, so whatever this node is bound to should
	// be given up if it still can be.
	met *proposal
	// calm counts the ticks until this node proposes again: the seats of its last
	// proposal find out meanwhile that it is dead, and are free for the next.
	calm int
	why  string // what the founding waits for
}

// view is what gossip shows: the nodes that seem alive and could take a seat,
// this one included, in order, and whether somebody has a seat already.
type view struct {
	candidates []partition.NodeID
	seatTaken  bool
}

// seatQuestion asks a node where it stands, or with Kill set, to reject the
// proposal if it has not accepted it.
type seatQuestion struct {
	to  partition.NodeID
	ask askSeat
}

// viewOf reduces what gossip shows to what matters here.
func viewOf(self partition.NodeID, expect int, peers []PeerInfo) view {
	var v view
	if expect > 0 {
		v.candidates = append(v.candidates, self)
	}
	for _, p := range peers {
		if p.Seat && p.Node != self {
			v.seatTaken = true
		}
		if p.Node != self && p.Expect == expect && expect > 0 {
			v.candidates = append(v.candidates, p.Node)
		}
	}
	slices.Sort(v.candidates)
	v.candidates = slices.Compact(v.candidates)
	return v
}

func (s *seats) mine() bool { return s.st.Phase == founded }

// exists reports whether this node knows a control group that was founded.
func (s *seats) exists() bool { return s.st.Phase == founded || s.st.Phase == known }

// set changes the durable state; on an error nothing has changed.
func (s *seats) set(st seatState) error {
	if err := s.save(st); err != nil {
		return fmt.Errorf("save what is known of the seats: %w", err)
	}
	s.resume(st)
	return nil
}

// resume goes on from what is saved.
func (s *seats) resume(st seatState) {
	s.st = st
	s.accepted = map[partition.NodeID]bool{}
	if st.Phase == bound {
		// Whoever proposes has accepted before anybody is asked.
		s.accepted[s.self], s.accepted[st.Proposal.Seats[0]] = true, true
	}
}

// tick returns the questions to ask now. If this node is the first of enough
// candidates, it proposes them. Propose is false as long as this node may not
// found anything.
func (s *seats) tick(v view, id uint64, propose bool) ([]seatQuestion, error) {
	switch s.st.Phase {
	case neutral:
		if s.met != nil {
			return nil, s.learn(*s.met)
		}
		if err := s.propose(v, id, propose); err != nil || s.st.Phase != bound {
			return nil, err
		}
	case founded, known:
		return nil, nil
	}
	if s.complete() {
		return nil, s.found()
	}
	kill := s.met != nil || v.seatTaken || len(v.candidates) == 0 || v.candidates[0] != s.st.Proposal.Seats[0]
	var all []seatQuestion
	for _, n := range s.st.Proposal.Seats {
		if !s.accepted[n] {
			all = append(all, seatQuestion{to: n, ask: askSeat{Proposal: s.st.Proposal, Kill: kill}})
		}
	}
	return all, nil
}

func (s *seats) propose(v view, id uint64, propose bool) error {
	switch {
	case v.seatTaken:
		s.why = "a seat was seen but has not answered yet"
	case s.expect == 0:
		s.why = "this node takes no seat and has met none"
	case len(v.candidates) < s.expect:
		s.why = fmt.Sprintf("%d of %d nodes that expect %d seats are here", len(v.candidates), s.expect, s.expect)
	case !propose:
		s.why = "this node has not joined the others yet"
	case s.calm > 0:
		s.calm--
	case v.candidates[0] != s.self:
		s.why = fmt.Sprintf("node %s shall propose the seats", v.candidates[0])
	default:
		p := proposal{ID: id, Seats: slices.Clone(v.candidates[:s.expect])}
		return s.set(seatState{Phase: bound, Proposal: p, Rejected: s.st.Rejected})
	}
	return nil
}

// answer says where this node stands towards a proposal of somebody else.
func (s *seats) answer(a *askSeat, v view) (*seatAnswer, error) {
	p := a.Proposal
	if err := s.check(&p); err != nil {
		return nil, err
	}
	switch {
	case s.st.Phase == founded || s.st.Phase == known:
		return &seatAnswer{Stand: standMember, Founded: s.st.Proposal}, nil
	case slices.Contains(s.st.Rejected, p.ID):
		return &seatAnswer{Stand: standRejected}, nil
	case s.st.Phase == bound && s.st.Proposal.ID == p.ID:
		return &seatAnswer{Stand: standAccepted}, nil
	case s.st.Phase == bound || a.Kill:
		return s.reject(p.ID)
	case v.seatTaken || s.met != nil || len(p.Seats) != s.expect || v.candidates[0] < p.Seats[0]:
		return &seatAnswer{Stand: standNotNow}, nil
	}
	if err := s.set(seatState{Phase: bound, Proposal: p, Rejected: s.st.Rejected}); err != nil {
		return nil, err
	}
	return &seatAnswer{Stand: standAccepted}, nil
}

// reject makes sure that this node never accepts the proposal, which it has not
// accepted so far: from now on it cannot be founded.
func (s *seats) reject(id uint64) (*seatAnswer, error) {
	if len(s.st.Rejected) >= maxRejected {
		return &seatAnswer{Stand: standNotNow}, nil
	}
	st := s.st
	st.Rejected = append(slices.Clone(st.Rejected), id)
	if err := s.save(st); err != nil {
		return nil, fmt.Errorf("save what is known of the seats: %w", err)
	}
	s.st = st
	return &seatAnswer{Stand: standRejected}, nil
}

// answered takes a node's answer about the proposal with the given id.
func (s *seats) answered(from partition.NodeID, id uint64, a *seatAnswer) error {
	if s.st.Phase != bound || s.st.Proposal.ID != id || !slices.Contains(s.st.Proposal.Seats, from) {
		return nil
	}
	switch a.Stand {
	case standAccepted:
		s.accepted[from] = true
		if s.complete() {
			return s.found()
		}
	case standRejected:
		// The other's word is for ever, so the proposal is dead whatever this
		// node remembers; to remember it, too, only saves a round.
		rejected := slices.Clone(s.st.Rejected)
		if len(rejected) < maxRejected {
			rejected = append(rejected, id)
		}
		s.calm = calmTicks
		return s.set(seatState{Phase: neutral, Rejected: rejected})
	case standMember:
		if a.Founded.ID == id {
			return s.found()
		}
		// It will never accept this proposal, and if it ever has, it gave it up
		// because another seat had rejected it. So the proposal is dead.
		if err := validateProposal(&a.Founded); err != nil {
			return err
		}
		return s.set(seatState{Phase: known, Proposal: a.Founded})
	}
	s.why = fmt.Sprintf("node %s has not agreed to the seats %s yet", from, s.st.Proposal.Seats)
	return nil
}

// complete reports whether every seat has accepted.
func (s *seats) complete() bool {
	for _, n := range s.st.Proposal.Seats {
		if !s.accepted[n] {
			return false
		}
	}
	return true
}

func (s *seats) found() error {
	return s.set(seatState{Phase: founded, Proposal: s.st.Proposal})
}

// learn takes note of a control group that exists. A node that is bound finds
// out first whether its own was founded, too.
func (s *seats) learn(p proposal) error {
	if err := validateProposal(&p); err != nil {
		return err
	}
	s.met = &p
	if s.st.Phase != neutral {
		return nil
	}
	return s.set(seatState{Phase: known, Proposal: p})
}

func (s *seats) check(p *proposal) error {
	if err := validateProposal(p); err != nil {
		return err
	}
	if !slices.Contains(p.Seats, s.self) {
		return partition.Errorf(partition.CodeInvalid, "the seats %s are not about node %s", p.Seats, s.self)
	}
	return nil
}

func validateProposal(p *proposal) error {
	if p.ID == 0 || len(p.Seats) == 0 || len(p.Seats) > MaxSeats {
		return partition.Errorf(partition.CodeInvalid, "a proposal %x of %d seats, allowed are 1 to %d", p.ID, len(p.Seats), MaxSeats)
	}
	for i, n := range p.Seats {
		if n == "" || len(n) > partition.MaxNodeIDBytes || i > 0 && p.Seats[i-1] >= n {
			return partition.Errorf(partition.CodeInvalid, "the seats %q are not valid ids in order", p.Seats)
		}
	}
	return nil
}

// validateSeatState refuses what a node cannot have saved itself.
func validateSeatState(st *seatState, self partition.NodeID) error {
	switch {
	case st.Phase > known || len(st.Rejected) > maxRejected:
	case st.Phase == neutral:
		return nil
	default:
		if err := validateProposal(&st.Proposal); err != nil {
			return err
		}
		if st.Phase == known || slices.Contains(st.Proposal.Seats, self) {
			return nil
		}
	}
	return partition.Errorf(partition.CodeCorrupt, "the seats on disk (phase %d, %s, %d rejected) are not those of node %s",
		st.Phase, st.Proposal.Seats, len(st.Rejected), self)
}
