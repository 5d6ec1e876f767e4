package client

import (
	"math/bits"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
)

// windowSize is how many of a session's last results the group remembers. A
// command whose number is that far behind the newest is refused, so a number
// is only given out while every outstanding one stays within the window.
const windowSize = replica.SessionWindow

// session is one session with a group, from the client's side. It is guarded by
// its group's lock.
type session struct {
	group *group
	id    partition.SessionID
	next  uint64 // the number of the next command; from 1
	// oldest is the lowest outstanding number, or next if there is none:
	// next-windowSize <= oldest <= next.
	oldest uint64
	// open has bit i set if the command oldest+i is outstanding. Bit 0 is set
	// unless oldest == next.
	open uint64
	// dead: the group has forgotten the session. No more numbers are given out.
	dead bool
}

func newSession(g *group, id partition.SessionID) *session {
	return &session{group: g, id: id, next: 1, oldest: 1}
}

// full reports whether the next number would push an outstanding one out of the
// window.
func (s *session) full() bool { return s.dead || s.next-s.oldest >= windowSize }

// take gives out the next number. The session must not be full.
func (s *session) take() uint64 {
	seq := s.next
	s.open |= 1 << (seq - s.oldest)
	s.next++
	return seq
}

// release says that nothing will be sent under the number any more.
func (s *session) release(seq uint64) {
	if seq < s.oldest || seq >= s.next {
		return
	}
	s.open &^= 1 << (seq - s.oldest)
	gone := min(uint64(bits.TrailingZeros64(s.open)), s.next-s.oldest)
	s.oldest += gone
	s.open >>= gone
}
