package replica

import (
	"strings"
	"testing"
	"time"

	"pando.dev/pando/partition"
)

func members(n int) *partition.Membership {
	m := &partition.Membership{Version: 1, Policy: partition.Policy{Rule: partition.Majority}, Next: partition.ReplicaID(n + 1)}
	for i := 1; i <= n; i++ {
		m.Members = append(m.Members, partition.Member{
			Replica: partition.ReplicaID(i), Node: partition.NodeID('a' + rune(i-1)), Zone: string('x' + rune(i%3)),
			Kind: partition.Full, Eligible: true,
		})
	}
	return m
}

func TestSmoke(t *testing.T) {
	w := newWorld(1, calm())
	var b strings.Builder
	w.out = &b
	defer func() { t.Log("\n" + b.String()) }()
	w.start(members(3))
	w.run(time.Second)
	m := w.master()
	if m == nil {
		t.Fatal("no master")
	}
	for i := range 3 {
		w.check.write(m, &op{id: uint64(i + 1)})
	}
	w.run(time.Second)
	m.crash()
	w.run(2 * time.Second)
	m2 := w.master()
	if m2 == nil {
		t.Fatal("no second master")
	}
	w.check.write(m2, &op{id: 10})
	w.run(100 * time.Millisecond)
	m.boots()
	w.run(1000 * time.Millisecond)
	for _, n := range w.nodes {
		t.Log(n.id, n.rep.Status())
	}
}
