package exhaust

import (
	"bytes"
	"fmt"
	"iter"
	"sort"

	"pando.dev/pando/internal/planted"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
)

// ledger is what the committed records have done to a state: how often each command
// was executed.
type ledger struct {
	runs    [8]int
	bad     string
	planted planted.Set
}

// ledger executes a log. Every replica's state follows from the log, so one stands
// for all; a state that is loaded again after any of the records has to end the
// same.
func (w *walk) ledger(recs []partition.Record) *ledger {
	key := recs[len(recs)-1].Checksum()
	if l, ok := w.ledgers[key]; ok {
		return l
	}
	l := new(ledger)
	w.ledgers[key] = l
	l.planted = w.cfg.Planted
	want, results := l.execute(recs, len(recs))
	for again := range recs {
		l.runs = [8]int{}
		rows, got := l.execute(recs, again)
		if l.bad == "" && (fmt.Sprint(got) != fmt.Sprint(results) || !rows.equal(want)) {
			l.bad = fmt.Sprintf("a state is loaded: behind %d it goes another way", again)
		}
	}
	return l
}

// execute runs the records, with a new executor behind the first again of them.
func (l *ledger) execute(recs []partition.Record, again int) (*rows, []string) {
	s := &rows{}
	var results []string
	load := func() (*replica.Executor, error) {
		e, err := replica.NewExecutor(l, s)
		if err == nil {
			e.Plant(l.planted)
		}
		return e, err
	}
	e, err := load()
	for i, r := range recs {
		if i == again && err == nil {
			e, err = load()
		}
		var res replica.Result
		if err == nil {
			res, err = e.Apply(s, r)
		}
		if err != nil {
			l.bad = fmt.Sprintf("records are executed: %s: %v", r, err)
			return s, nil
		}
		results = append(results, fmt.Sprintf("%x %v %v %v", res.Data, res.Session, res.Repeated, res.Err))
	}
	return s, results
}

// Apply implements partition.Partition: a command adds itself to a row.
func (l *ledger) Apply(w partition.Writer, c partition.Command) ([]byte, error) {
	l.runs[c.Payload[0]]++
	row, _, err := w.Get([]byte("row"))
	if err != nil {
		return nil, err
	}
	row = append(bytes.Clone(row), c.Payload...)
	return row, w.Set([]byte("row"), row)
}

// Read implements partition.Partition.
func (l *ledger) Read(r partition.Reader, _ []byte) ([]byte, error) {
	row, _, err := r.Get([]byte("row"))
	return row, err
}

// rows is a small state in memory, ordered by key.
type rows struct{ list []partition.Pair }

func (s *rows) find(key []byte) (int, bool) {
	i := sort.Search(len(s.list), func(i int) bool { return bytes.Compare(s.list[i].Key, key) >= 0 })
	return i, i < len(s.list) && bytes.Equal(s.list[i].Key, key)
}

// Get implements partition.Reader.
func (s *rows) Get(key []byte) ([]byte, bool, error) {
	if i, ok := s.find(key); ok {
		return s.list[i].Value, true, nil
	}
	return nil, false, nil
}

// Scan implements partition.Reader.
func (s *rows) Scan(k partition.KeyRange) iter.Seq2[partition.Pair, error] {
	return func(yield func(partition.Pair, error) bool) {
		for _, p := range append([]partition.Pair(nil), s.list...) {
			if k.Contains(p.Key) && !yield(p, nil) {
				return
			}
		}
	}
}

// ScanBack implements partition.Reader.
func (s *rows) ScanBack(k partition.KeyRange) iter.Seq2[partition.Pair, error] {
	return func(yield func(partition.Pair, error) bool) {
		for i := len(s.list) - 1; i >= 0; i-- {
			if p := s.list[i]; k.Contains(p.Key) && !yield(p, nil) {
				return
			}
		}
	}
}

// Set implements partition.Writer.
func (s *rows) Set(key, value []byte) error {
	i, ok := s.find(key)
	if !ok {
		s.list = append(s.list, partition.Pair{})
		copy(s.list[i+1:], s.list[i:])
	}
	s.list[i] = partition.Pair{Key: bytes.Clone(key), Value: bytes.Clone(value)}
	return nil
}

// Delete implements partition.Writer.
func (s *rows) Delete(key []byte) error {
	if i, ok := s.find(key); ok {
		s.list = append(s.list[:i], s.list[i+1:]...)
	}
	return nil
}

// DeleteRange implements partition.Writer.
func (s *rows) DeleteRange(k partition.KeyRange) error {
	kept := s.list[:0]
	for _, p := range s.list {
		if !k.Contains(p.Key) {
			kept = append(kept, p)
		}
	}
	s.list = kept
	return nil
}

func (s *rows) equal(o *rows) bool {
	if len(s.list) != len(o.list) {
		return false
	}
	for i, p := range s.list {
		if !bytes.Equal(p.Key, o.list[i].Key) || !bytes.Equal(p.Value, o.list[i].Value) {
			return false
		}
	}
	return true
}
