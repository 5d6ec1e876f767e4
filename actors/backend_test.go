package actors

import (
	"sync/atomic"
	"testing"

	"pando.dev/pando/actors/client"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/kv"
	"pando.dev/pando/partition/replica"
)

// interrupted is the kind kv, whose next query is interrupted by a call.
type interrupted struct {
	partition.Partition
	during *atomic.Pointer[func()]
}

func (p interrupted) Read(r partition.Reader, query []byte) ([]byte, error) {
	if f := p.during.Swap(nil); f != nil {
		(*f)()
	}
	return p.Partition.Read(r, query)
}

// TestLeaseOfAnotherMastership covers LEA-2: a mastership that ends between the
// taking of the view and that of the state, though another begins before the
// lease is checked, answers no read under its lease. A member that has since
// given its own promise away would count in the old view for ever, and a new
// mastership says nothing of a state that was taken before it.
func TestLeaseOfAnotherMastership(t *testing.T) {
	var during atomic.Pointer[func()]
	cfg := single(t, t.TempDir())
	cfg.Kinds = map[string]partition.Factory{"interrupted": func(s partition.Spec) (partition.Partition, error) {
		p, err := kv.New(s)
		return interrupted{p, &during}, err
	}}
	c := startSingle(t, cfg)
	c.table(TableSpec{Name: "t", Kind: "interrupted"})
	n := c.any()
	cell := n.cells.get(groupsOf(n)[0])
	v := cell.view.Load()
	for _, x := range []struct {
		name   string
		now    func(*replica.View)
		leased uint64
	}{
		{"nothing happens", func(*replica.View) {}, 1},
		{"it has stepped down", func(v *replica.View) { v.Serving = false }, 0},
		{"it is master anew", func(v *replica.View) { v.Epoch = partition.NewEpoch(v.Epoch.Number()+1, v.Self) }, 0},
	} {
		t.Run(x.name, func(t *testing.T) {
			after := *v
			x.now(&after)
			change := func() { cell.view.Store(&after) }
			during.Store(&change)
			before := n.counters.leaseReads.Load()
			r := ask(n, cell.group, "k", client.Lease)
			if got := n.counters.leaseReads.Load() - before; got != x.leased {
				t.Errorf("%d reads were answered under the lease, want %d; the answer was %+v", got, x.leased, r)
			}
			cell.view.Store(v)
		})
	}
}
