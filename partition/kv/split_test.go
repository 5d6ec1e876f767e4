package kv_test

import (
	"fmt"
	"strings"
	"testing"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/kv"
	"pando.dev/pando/partition/kv/mem"
	machine "pando.dev/pando/partition/replica"
)

// group is a group of the kind with its executor. Its state spoils what it has
// handed out, so whoever keeps that is noticed.
type group struct {
	t     *testing.T
	id    partition.GroupID
	exec  *machine.Executor
	space *mem.Space
	index partition.Index
}

func newGroup(t *testing.T, id partition.GroupID, space *mem.Space, index partition.Index) *group {
	t.Helper()
	p, _ := kv.New(partition.Spec{})
	exec, err := machine.NewExecutor(p, space)
	if err != nil {
		t.Fatal(err)
	}
	return &group{t: t, id: id, exec: exec, space: space, index: index}
}

func (g *group) apply(k partition.Kind, payload []byte) machine.Result {
	g.t.Helper()
	g.index++
	res, err := g.exec.Apply(g.space, partition.NewRecord(partition.Header{Group: g.id, Index: g.index, Kind: k}, payload))
	if err != nil {
		g.t.Fatal(err)
	}
	return res
}

func (g *group) do(s partition.SessionID, seq uint64, command []byte, err error) machine.Result {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
	return g.apply(partition.KindCommand, machine.AppendCommand(nil, s, seq, command))
}

func (g *group) decide(kinds ...partition.Kind) {
	g.t.Helper()
	for _, k := range kinds {
		x := g.exec.Extent()
		b, _ := x.Decision().AppendBinary(nil)
		if res := g.apply(k, b); res.Err != nil {
			g.t.Fatal(res.Err)
		}
	}
}

// shows is what a scan of everything gives, forward and backward.
func (g *group) shows() string {
	g.t.Helper()
	var keys [2][]string
	for i, back := range []bool{false, true} {
		q, err := kv.ScanQuery{Back: back}.Encode()
		if err != nil {
			g.t.Fatal(err)
		}
		b, err := g.exec.Read(g.space, q)
		if err != nil {
			g.t.Fatal(err)
		}
		a, err := kv.ParseScan(b)
		if err != nil || a.More {
			g.t.Fatalf("more %v, %v", a.More, err)
		}
		for _, p := range a.Pairs {
			keys[i] = append(keys[i], fmt.Sprintf("%s@%d", p.Key, p.Version))
		}
	}
	for i, k := range keys[0] {
		if keys[1][len(keys[1])-1-i] != k {
			g.t.Fatalf("forward %v, backward %v", keys[0], keys[1])
		}
	}
	return strings.Join(keys[0], " ")
}

// A split moves keys with their versions, which go on rising; nobody sees or
// deletes what is another's, and a batch over the boundary is refused as a whole.
func TestSplitOfTable(t *testing.T) {
	g := newGroup(t, 3, &mem.Space{}, 0)
	m := &partition.Membership{Version: 1, Policy: partition.Policy{Rule: partition.Majority}, Next: 1}
	m.Add(partition.Member{Node: "n1", Kind: partition.Full, Eligible: true})
	genesis, _ := partition.Genesis(3, m)
	g.apply(genesis.Kind(), genesis.Payload())
	none := partition.SessionID{}
	s := g.apply(partition.KindSession, machine.AppendOpenSession(nil)).Session
	put := func(key string) ([]byte, error) { return kv.Put([]byte(key), []byte("v")) }
	for i, key := range []string{"b", "d", "m", "p"} {
		command, err := put(key)
		g.do(s, uint64(i+1), command, err)
	}
	in := partition.Intent{Task: 7, Version: 1, Range: partition.KeyRange{Lo: []byte("a")}, Children: []partition.Child{
		{Group: 18, Range: partition.KeyRange{Lo: []byte("m")}, Membership: m, First: 1},
	}}
	payload, err := in.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	g.apply(partition.KindIntent, payload)
	g.decide(partition.KindSeal, partition.KindActivate)
	for i := range uint64(70) { // every slot of the session changes
		command, err := put("b")
		g.do(s, 5+i, command, err)
	}
	space := g.space.Clone()
	x, err := machine.AdoptChild(space, 3, 18)
	if err != nil {
		t.Fatal(err)
	}
	c := newGroup(t, 18, space, x.Base)
	if got := g.shows() + ", " + c.shows(); got != "b@79 d@4, m@5 p@6" {
		t.Errorf("the parts show %s", got)
	}
	command, err := put("m")
	if res := c.do(s, 3, command, err); !res.Repeated || res.Err != nil {
		t.Errorf("a put that the parent has executed gives %+v", res)
	}
	if res := c.do(s, 5, command, err); res.Repeated || res.Err != nil {
		t.Errorf("a new put gives %+v", res)
	}
	command, err = kv.CompareAndSet(kv.IfVersion([]byte("p"), 6), []byte("w"))
	if r, _ := kv.ParseResult(c.do(none, 0, command, err).Data); !r.Applied || r.Version != kv.Version(c.index) || c.index <= 9 {
		t.Errorf("a change of the version from before gives %+v at %d", r, c.index)
	}
	var both kv.Batch
	both.Put([]byte("d"), []byte("w"))
	both.Put([]byte("n"), []byte("w"))
	command, err = both.Encode()
	wide, wideErr := kv.DeleteRange(partition.KeyRange{Lo: []byte("c"), Hi: []byte("n")})
	for _, part := range []*group{g, c} {
		before := part.shows()
		for _, res := range []machine.Result{part.do(none, 0, command, err), part.do(none, 0, wide, wideErr)} {
			if res.Err == nil || res.Err.Code != partition.CodeWrongGroup || part.shows() != before {
				t.Errorf("%s takes a command over its boundary: %+v", part.id, res)
			}
		}
	}
	wide, err = kv.DeleteRange(partition.KeyRange{Lo: []byte("m")})
	if res := c.do(none, 0, wide, err); res.Err != nil || c.shows() != "" || g.shows() != "b@79 d@4" {
		t.Errorf("deleted, the parts show %q and %q", g.shows(), c.shows())
	}
}
