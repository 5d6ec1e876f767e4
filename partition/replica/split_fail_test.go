package replica

import (
	"errors"
	"iter"
	"testing"

	"pando.dev/pando/partition"
)

var errOnFire = errors.New("the disk is on fire")

// failing is a state of which one call fails: the one when left has come to 0.
type failing struct {
	*mapState
	left int
}

func (f *failing) fails() error {
	if f.left--; f.left == -1 {
		return errOnFire
	}
	return nil
}

func (f *failing) Get(key []byte) ([]byte, bool, error) {
	if err := f.fails(); err != nil {
		return nil, false, err
	}
	return f.mapState.Get(key)
}

func (f *failing) Set(key, value []byte) error {
	if err := f.fails(); err != nil {
		return err
	}
	return f.mapState.Set(key, value)
}

func (f *failing) Delete(key []byte) error {
	if err := f.fails(); err != nil {
		return err
	}
	return f.mapState.Delete(key)
}

func (f *failing) DeleteRange(k partition.KeyRange) error {
	if err := f.fails(); err != nil {
		return err
	}
	return f.mapState.DeleteRange(k)
}

func (f *failing) Scan(k partition.KeyRange) iter.Seq2[partition.Pair, error] {
	if err := f.fails(); err != nil {
		return func(yield func(partition.Pair, error) bool) { yield(partition.Pair{}, err) }
	}
	return f.mapState.Scan(k)
}

// A state that cannot be read or written stops the step at whatever call it is, and
// the step that is made again on the state from before is the one that it would
// have been.
func TestSplitOnFailingState(t *testing.T) {
	p := newPlace(t, 3)
	s := p.open()
	p.do(s, 1, "set b 1")
	p.intent(7, part(18, "f", ""))
	p.decide(partition.KindSeal)
	activate := p.state.clone()
	p.decide(partition.KindActivate)
	p.do(s, 2, "set b 2")
	later := p.state.clone()
	p.do(s, 65, "set b 2") // in the slot of 1, which is put aside
	p.open()
	all := p.state.clone()
	record := func(k partition.Kind, payload []byte) func(w partition.Writer) error {
		return func(w partition.Writer) error {
			e, err := NewExecutor(divisible{}, w)
			if err != nil {
				return err
			}
			if x := e.Extent(); k.Structural() {
				payload, _ = x.Decision().AppendBinary(nil)
			}
			res, err := e.Apply(w, partition.NewRecord(partition.Header{Group: 3, Index: 200, Kind: k}, payload))
			if res.Err != nil {
				return res.Err
			}
			return err
		}
	}
	adopt := func(w partition.Writer) error { _, err := AdoptChild(w, 3, 18); return err }
	for name, c := range map[string]struct {
		from *mapState
		step func(w partition.Writer) error
		most int // calls at least
	}{
		"activate": {activate, record(partition.KindActivate, nil), 4},
		"done":     {all, record(partition.KindDone, nil), 5},
		"command":  {later, record(partition.KindCommand, AppendCommand(nil, s, 65, []byte("del b"))), 6},
		"expire":   {later, record(partition.KindSession, AppendExpireSessions(nil, s)), 7},
		"adopt":    {all, adopt, 8},
		"read": {all, func(w partition.Writer) error {
			e := &Executor{p: bank{}}
			if _, err := e.Read(w, nil); err != nil {
				return err
			}
			_, err := e.ReadRouted(w, 3, nil)
			return err
		}, 2},
	} {
		want := c.from.clone()
		if err := c.step(want); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for n := 0; ; n++ {
			w := &failing{mapState: c.from.clone(), left: n}
			if err := c.step(w); w.left >= 0 {
				if n < c.most || err != nil || !same(w.rows, want.rows) {
					t.Errorf("%s makes %d calls, at least %d wanted: %v", name, n, c.most, err)
				}
				break
			} else if !errors.Is(err, errOnFire) && name != "read" {
				t.Errorf("%s goes on when call %d has failed: %v", name, n, err)
			}
		}
	}
}

// Rows of sessions that are none stop the step, whoever has written them.
func TestSplitOnSpoiledSessions(t *testing.T) {
	p := newPlace(t, 3)
	s := p.open()
	p.do(s, 1, "set b 1")
	p.intent(7, part(18, "f", ""))
	p.decide(partition.KindSeal, partition.KindActivate)
	key := string(p.exec.slotKey(s, 1))
	for name, spoil := range map[string]func(m *mapState){
		"a slot without its head":   func(m *mapState) { m.rows[key] = []byte("short") },
		"a key that is cut short":   func(m *mapState) { m.rows[key[:9]] = nil },
		"a staged one without head": func(m *mapState) { m.rows[key] = nil },
	} {
		m := p.state.clone()
		spoil(m)
		if _, err := AdoptChild(m, 3, 18); partition.CodeOf(err) != partition.CodeCorrupt {
			t.Errorf("%s: adopted, %v", name, err)
		}
		if name == "a key that is cut short" {
			continue // it belongs to no session that is used
		}
		rec := partition.NewRecord(partition.Header{Group: 3, Index: 200, Kind: partition.KindSession}, AppendExpireSessions(nil, s))
		if _, err := p.exec.Apply(m, rec); partition.CodeOf(err) != partition.CodeCorrupt {
			t.Errorf("%s: expired, %v", name, err)
		}
	}
}
