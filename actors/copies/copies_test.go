package copies

import (
	"testing"

	"pando.dev/pando/partition"
)

// install puts a copy in place as the given generation and opens it.
func install(t *testing.T, n *node, p *Copy, generation uint32) (uint64, partition.Index) {
	t.Helper()
	g := p.Manifest.Group
	if err := n.engine.Install(p.Dir, g, generation); err != nil {
		t.Fatal(err)
	}
	return digest(t, n.store(t, g, generation))
}

func TestFetch(t *testing.T) {
	w := newWorld(t)
	a, b := w.add("a", nil), w.add("b", nil)
	s := a.store(t, 7, 1)
	fill(t, s, 1, 2000, 1000)
	p, err := w.fetch(b, Request{Group: 7, From: "a", MinIndex: 2000})
	if err != nil {
		t.Fatal(err)
	}
	want, at := digest(t, s)
	if got, i := install(t, b, p, 3); got != want || i != at || p.Base.Index != 2000 || p.BaseSum != 6000 {
		t.Fatalf("the copy is at %d (%x), base %+v; the source at %d (%x)", i, got, p.Base, at, want)
	}
}
