package replica

import (
	"errors"
	"iter"
	"testing"

	"pando.dev/pando/partition"
)

var errState = errors.New("the state cannot be had")

// badState is a state of which the n-th access fails, once.
type badState struct {
	*mapState
	at, n int
}

func (b *badState) next() error {
	if b.n++; b.n == b.at {
		return errState
	}
	return nil
}

func (b *badState) Get(key []byte) ([]byte, bool, error) {
	if err := b.next(); err != nil {
		return nil, false, err
	}
	return b.mapState.Get(key)
}

func (b *badState) Scan(r partition.KeyRange) iter.Seq2[partition.Pair, error] {
	return func(yield func(partition.Pair, error) bool) {
		for p, err := range b.mapState.Scan(r) {
			if bad := b.next(); bad != nil {
				yield(partition.Pair{}, bad)
				return
			}
			if !yield(p, err) {
				return
			}
		}
	}
}

func (b *badState) Set(key, value []byte) error {
	return errors.Join(b.next(), b.mapState.Set(key, value))
}

func (b *badState) Delete(key []byte) error {
	return errors.Join(b.next(), b.mapState.Delete(key))
}

func (b *badState) DeleteRange(r partition.KeyRange) error {
	return errors.Join(b.next(), b.mapState.DeleteRange(r))
}

// history is what an executor was given, with the states between.
type history struct {
	records []partition.Record
	states  []*mapState // before each record, and after the last
}

// fewSessions lets sessions expire.
const fewSessions = 2

// splitHistory opens and expires sessions, repeats commands, and goes through a
// split, with commands and expired sessions between its records.
func splitHistory(t *testing.T) *history {
	h := &history{}
	p := &place{t: t, group: 3, state: newMapState(), next: 1}
	p.reload()
	p.exec.LimitSessions(fewSessions)
	apply := func(k partition.Kind, payload []byte) Result {
		h.states = append(h.states, p.state.clone())
		h.records = append(h.records, partition.NewRecord(partition.Header{Group: p.group, Index: p.next, Kind: k}, payload))
		return p.apply(k, payload)
	}
	command := func(s partition.SessionID, seq uint64, cmd string) {
		apply(partition.KindCommand, AppendCommand(nil, s, seq, []byte(cmd)))
	}
	open := func() partition.SessionID { return apply(partition.KindSession, AppendOpenSession(nil)).Session }
	decide := func(k partition.Kind) {
		x := p.exec.Extent()
		b, err := x.Decision().AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		if res := apply(k, b); res.Err != nil {
			t.Fatalf("%s: %v", k, res.Err)
		}
	}
	rec, err := partition.Genesis(3, founding())
	if err != nil {
		t.Fatal(err)
	}
	apply(rec.Kind(), rec.Payload())
	a, b := open(), open()
	command(a, 1, "set b 1")
	command(b, 1, "set h 1")
	command(a, 1, "set b 1") // again
	x := p.exec.Extent()
	in := partition.Intent{Task: 7, Version: max(x.Version, 1), Range: x.Range, Children: []partition.Child{part(18, "f", "k"), part(19, "k", "")}}
	payload, err := in.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	if res := apply(partition.KindIntent, payload); res.Err != nil {
		t.Fatal(res.Err)
	}
	command(b, 2, "set m 1")
	decide(partition.KindSeal)
	decide(partition.KindActivate)
	command(a, 65, "set c 1") // into the slot of the first
	command(a, 2, "del b")
	open() // one expires
	apply(partition.KindSession, AppendExpireSessions(nil, a, b))
	decide(partition.KindDone)
	open()
	h.states = append(h.states, p.state.clone())
	return h
}

func executor(t *testing.T, state partition.Reader) *Executor {
	t.Helper()
	e, err := NewExecutor(divisible{}, state)
	if err != nil {
		t.Fatal(err)
	}
	e.LimitSessions(fewSessions)
	return e
}

// TestEachAccessToTheState: whichever access to the state fails while a record is
// applied, an executor loaded or a child made, that fails and nothing else is told;
// done again, from the state as it was, it comes to the same.
func TestEachAccessToTheState(t *testing.T) {
	h := splitHistory(t)
	walks := 0
	// each runs do with every access failing, until none does.
	each := func(rec partition.Record, what string, from *mapState, do func(*badState) error) {
		for at := 1; ; at++ {
			b := &badState{mapState: from.clone(), at: at}
			err := do(b)
			if b.n < at {
				if err != nil {
					t.Errorf("%s with all in order: %v", what, err)
				}
				return
			}
			walks++
			// The kind of these tests goes on without what it wanted to read.
			if kinds := rec.Kind() == partition.KindCommand && at == 1 || what == "read" && at > 1; !errors.Is(err, errState) && !kinds {
				t.Errorf("%s, access %d: %v", what, at, err)
			}
		}
	}
	for i, rec := range h.records {
		before, after := h.states[i], h.states[i+1]
		each(rec, rec.String(), before, func(b *badState) error {
			e := executor(t, b.mapState)
			_, err := e.Apply(b, rec)
			if err == nil && b.n < b.at && !same(b.rows, after.rows) {
				t.Errorf("%s: another state", rec)
			}
			return err
		})
		each(rec, "load", before, func(b *badState) error { _, err := NewExecutor(divisible{}, b); return err })
		each(rec, "read", before, func(b *badState) error {
			_, err := executor(t, b.mapState).Read(b, []byte("get b"))
			return err
		})
		each(rec, "read", before, func(b *badState) error {
			e := executor(t, b.mapState)
			_, err := e.ReadRouted(b, e.Extent().Version, []byte("get b"))
			return err
		})
		if s := executor(t, before).Extent().Split; s == nil || s.Phase != partition.Activated {
			continue
		}
		whole := before.clone()
		if _, err := AdoptChild(whole, 3, 18); err != nil {
			t.Fatal(err)
		}
		each(rec, "adopt", before, func(b *badState) error {
			_, err := AdoptChild(b, 3, 18)
			if err == nil && !same(b.rows, whole.rows) {
				t.Errorf("before %s: another child", rec)
			}
			return err
		})
	}
	t.Logf("%d records, %d accesses failed", len(h.records), walks)
	if walks < 100 {
		t.Errorf("only %d accesses failed", walks)
	}
}

// mergedHistory is what a survivor was given in a merge of which sessions of both
// sides are part, and of one that was given up.
func mergedHistory(t *testing.T) *history {
	p, s := two(t)
	both := partition.SessionID{Group: 3, Index: 1}
	for _, g := range []*place{p, s} {
		g.state.Set(g.exec.sessionKey(both), nil)
		g.reload()
	}
	own, theirs := p.open(), s.open()
	p.do(own, 1, "set b 1")
	s.do(both, 2, "set h 2")
	s.do(theirs, 1, "set h 1")
	s.apply(partition.KindSession, AppendExpireSessions(nil, s.open()))
	p.past = &history{}
	p.exec.LimitSessions(fewSessions)
	aborted, source := &merger{t: t, task: 8, p: p, s: s.copied(), page: 40}, s
	if res := aborted.intend(); res.Err != nil {
		t.Fatal(res.Err)
	}
	aborted.copy()
	aborted.s.do(both, 3, "set h 3")
	aborted.copy() // in the place of what was there
	p.decideMerge(partition.KindAbort)
	(&merger{t: t, task: 9, p: p, s: source, page: 40}).all()
	p.past.states = append(p.past.states, p.state.clone())
	return p.past
}

// TestEachAccessOfAMerge: whichever access to the state fails while a record of a
// merge is applied, or rows are read for one, that fails; done again, from the state
// as it was, it comes to the same.
func TestEachAccessOfAMerge(t *testing.T) {
	h := mergedHistory(t)
	walks := 0
	each := func(what string, from *mapState, do func(*badState) error) {
		for at := 1; ; at++ {
			b := &badState{mapState: from.clone(), at: at}
			err := do(b)
			if b.n < at {
				if err != nil {
					t.Errorf("%s with all in order: %v", what, err)
				}
				return
			}
			if walks++; !errors.Is(err, errState) {
				t.Errorf("%s, access %d: %v", what, at, err)
			}
		}
	}
	for i, rec := range h.records {
		before, after := h.states[i], h.states[i+1]
		each(rec.String(), before, func(b *badState) error {
			_, err := executor(t, b.mapState).Apply(b, rec)
			if err == nil && b.n < b.at && !same(b.rows, after.rows) {
				t.Errorf("%s: another state", rec)
			}
			return err
		})
		if rec.Kind() != partition.KindAbsorb {
			continue
		}
		a := new(partition.Absorb)
		if err := a.UnmarshalBinary(rec.Payload()); err != nil {
			t.Fatal(err)
		}
		each("what is there", after, func(b *badState) error { _, err := HasAbsorbed(b, a); return err })
	}
	_, source := two(t)
	keys := source.exec.Extent().Range
	each("rows of the source", source.state, func(b *badState) error {
		a, done, err := SourceRows(b, keys, nil, 1<<20)
		for err == nil && !done {
			a, done, err = SourceRows(b, keys, SourceNext(&a, keys), 1<<20)
		}
		return err
	})
	if walks < 50 {
		t.Errorf("only %d accesses failed", walks)
	}
}
