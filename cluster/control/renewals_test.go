package control

import (
	"testing"
	"time"

	"pando.dev/pando/partition"
)

// When a leader takes a session for ended, second by second, with a time to live
// of 2 s and a look every half second.
func TestRenewals(t *testing.T) {
	const ttl, period = 2 * time.Second, 500 * time.Millisecond
	ms := func(n int) partition.Time { return partition.Time(n) * time.Millisecond }
	r := renewals{last: map[partition.NodeID]renewal{}}
	sessions := map[partition.NodeID]session{"a": {boot: 1}, "gone": {boot: 1, expired: true}}
	look := func(what string, at int, term uint64, ended bool) {
		t.Helper()
		got := r.silent(ms(at), term, sessions, ttl, period)
		if ended != (len(got) == 1 && got[0].Node == "a") || !ended && len(got) > 0 {
			t.Errorf("%s, at %d ms: %v, want ended %t", what, at, got, ended)
		}
	}
	every := func(from, to int, term uint64) {
		t.Helper()
		for at := from; at <= to; at += 500 {
			look("in between", at, term, false)
		}
	}
	look("not the leader", 100_000, 0, false)
	look("a new leader", 100_500, 1, false)
	every(101_000, 102_500, 1)
	look("silent since the leader is new", 102_501, 1, true)

	r.renew(ms(103_000), "a", 1)
	every(103_000, 105_000, 1)
	look("after the last renewal", 105_001, 1, true)

	r.renew(ms(105_500), "a", 1)
	look("renewed", 105_500, 1, false)
	look("the leader stood still", 115_500, 1, false)
	look("it hears again", 116_000, 1, false)
	every(116_500, 116_500, 1)
	look("and nothing came", 117_000, 1, true)

	r.renew(ms(117_000), "a", 1)
	every(117_000, 118_500, 1)
	look("another leader in between", 119_000, 3, false)
	every(119_500, 121_000, 3)
	look("silent since then", 121_001, 3, true)

	r.renew(ms(121_500), "a", 1)
	look("renewed", 121_500, 3, false)
	sessions["a"] = session{boot: 2}
	every(122_000, 124_000, 3)
	look("a renewal of the boot before does not count for long", 124_001, 3, true)

	look("leadership lost", 124_500, 0, false)
	look("and won again", 125_000, 4, false)
}
