package replica

import (
	"strings"
	"testing"
	"time"

	"pando.dev/pando/partition"
)

// TestStepBack: two logs that differ in as many epochs as there were masters
// without a committed record are compared in a logarithm of these many round
// trips. One for each is a livelock when a mastership that commits nothing ends
// earlier and leaves one epoch more.
func TestStepBack(t *testing.T) {
	const epochs = 300
	var out strings.Builder
	w := newWorld(1, calm())
	w.out = &out
	m := members(3)
	genesis, err := partition.Genesis(w.group, m)
	if err != nil {
		t.Fatal(err)
	}
	w.check.genesis(genesis, m)
	for _, x := range m.Members {
		log := image{first: 1, recs: []partition.Record{genesis}}
		pos, sum := genesis.Position(), genesis.Checksum()
		for i := range uint64(epochs) {
			by := partition.ReplicaID(1) // its masterships reached 1 and 2
			if x.Replica == 3 {
				by = 3
			}
			epoch := partition.NewEpoch(2*i+2-uint64(by)/3, by)
			next := partition.NewRecord(partition.Header{Group: w.group, Index: pos.Index + 1, Epoch: epoch, Prev: sum, Kind: partition.KindNoop}, nil)
			log.recs = append(log.recs, next)
			log.promise, pos, sum = next.Epoch(), next.Position(), next.Checksum()
		}
		w.addNode(x.Replica, log)
	}
	for _, n := range w.nodes {
		n.boots()
	}
	w.run(3 * time.Second)
	if w.master() == nil || w.node(3).rep.log.last != w.node(1).rep.log.last {
		t.Fatalf("not one log: %s, %s", w.node(1).rep.Status(), w.node(3).rep.Status())
	}
	wants := 0
	for line := range strings.Lines(out.String()) {
		if strings.Contains(line, "3 -> ") && strings.Contains(line, "want") {
			wants++
		}
	}
	if wants == 0 || wants > 12 {
		t.Errorf("%d round trips to find where logs that differ in %d epochs agree", wants, epochs)
	}
}
