package control

import (
	"testing"
	"time"

	"pando.dev/pando/partition"
)

// The way of a request: from the known leader, which does not answer, over seats
// that still name it, to the new one.
func TestSearchLeavesASilentLeader(t *testing.T) {
	seats := []partition.NodeID{"a", "b", "c"}
	none := partition.Errorf(partition.CodeUnknown, "no answer")
	other := partition.Errorf(partition.CodeNotMaster, "not the leader")
	s := &search{wait: 200 * time.Millisecond, pause: askPauseMin, at: "b"}
	if got := s.next(seats); got != "b" {
		t.Fatalf("first %s, the known leader is b", got)
	}
	if s.learn(attempt{err: none, silent: true}) || !s.unknown || s.wait != 400*time.Millisecond {
		t.Fatalf("after silence: %+v", s)
	}
	again, relays := 0, 0
	for range 24 {
		x := s.next(seats)
		hot := false
		if x == "b" {
			again++
			hot = s.learn(attempt{err: none, silent: true})
		} else {
			hot = s.learn(attempt{err: other, leader: "b"})
		}
		if hot != (s.via != "") || hot && s.via != x {
			t.Fatalf("after %s: at once %v, over %q", x, hot, s.via)
		}
		if hot {
			relays++
		}
	}
	if again == 0 || again > 5 {
		t.Errorf("the silent leader was asked %d times in 24 attempts", again)
	}
	if relays < 6 {
		t.Errorf("others were asked %d times in 24 attempts to bring the request to it", relays)
	}
	for s.next(seats) != "a" {
		s.learn(attempt{err: other})
	}
	if !s.learn(attempt{err: other, leader: "c"}) {
		t.Error("the new leader is not asked at once")
	}
	if got := s.next(seats); got != "c" {
		t.Errorf("asked %s, named was c", got)
	}
	if s.learn(attempt{err: other, leader: "a"}); s.next(seats) != "a" {
		t.Error("the second name is not followed")
	}
	if s.learn(attempt{err: other, leader: "a"}) {
		t.Error("who names itself is followed without a pause")
	}
	for range 20 {
		if d := s.backOff(); d < askPauseMin/2 || d > 2*askPauseMax {
			t.Errorf("a pause of %v", d)
		}
	}
}

// With one seat there is nobody else to ask.
func TestSearchWithOneSeat(t *testing.T) {
	s := &search{pause: askPauseMin}
	if got := s.next(nil); got != "" {
		t.Fatalf("asked %q where no seat is known", got)
	}
	for range 8 {
		if got := s.next([]partition.NodeID{"a"}); got != "a" {
			t.Fatalf("asked %q", got)
		}
		s.learn(attempt{err: partition.ErrUnavailable, silent: true})
	}
}
