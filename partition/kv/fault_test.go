package kv

import (
	"errors"
	"iter"
	"testing"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/kv/mem"
)

var errDisk = errors.New("the disk does not read")

// badDisk is a state of which the reads, or the writes, fail, or whose values are
// none of ours.
type badDisk struct {
	partition.Writer
	reads, writes bool
	value         []byte
}

func (b *badDisk) Get(key []byte) ([]byte, bool, error) {
	switch {
	case b.reads:
		return nil, false, errDisk
	case b.value != nil:
		return b.value, true, nil
	}
	return b.Writer.Get(key)
}

func (b *badDisk) Scan(r partition.KeyRange) iter.Seq2[partition.Pair, error] {
	return func(yield func(partition.Pair, error) bool) {
		if b.reads {
			yield(partition.Pair{}, errDisk)
			return
		}
		yield(partition.Pair{Key: []byte("k"), Value: b.value}, nil)
	}
}

func (b *badDisk) Set(key, value []byte) error {
	if b.writes {
		return errDisk
	}
	return b.Writer.Set(key, value)
}

// TestStateThatFails: an error of the state, or a value that is none, is an error of
// the command or the query, and never an answer.
func TestStateThatFails(t *testing.T) {
	p, err := New(partition.Spec{})
	if err != nil {
		t.Fatal(err)
	}
	get, err := Get([]byte("k"))
	if err != nil {
		t.Fatal(err)
	}
	list, err := ScanQuery{Limit: 5}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	var b Batch
	b.Put([]byte("k"), []byte("v"))
	put, err := b.Encode()
	if err != nil {
		t.Fatal(err)
	}
	b.If(IfAbsent([]byte("k")))
	guarded, err := b.Encode()
	if err != nil {
		t.Fatal(err)
	}
	apply := func(b *badDisk, payload []byte) error {
		_, err := p.Apply(b, partition.Command{Index: 7, Payload: payload})
		return err
	}
	read := func(b *badDisk, query []byte) error { _, err := p.Read(b, query); return err }
	for name, c := range map[string]struct {
		err  error
		want func(error) bool
	}{
		"a get":              {read(&badDisk{reads: true}, get), func(err error) bool { return errors.Is(err, errDisk) }},
		"a scan":             {read(&badDisk{reads: true}, list), func(err error) bool { return errors.Is(err, errDisk) }},
		"a condition":        {apply(&badDisk{reads: true}, guarded), func(err error) bool { return errors.Is(err, errDisk) }},
		"a write":            {apply(&badDisk{writes: true}, put), func(err error) bool { return errors.Is(err, errDisk) }},
		"a get of nonsense":  {read(&badDisk{value: []byte("x")}, get), func(err error) bool { return partition.CodeOf(err) != 0 }},
		"a scan of nonsense": {read(&badDisk{value: []byte("x")}, list), func(err error) bool { return partition.CodeOf(err) != 0 }},
	} {
		if !c.want(c.err) {
			t.Errorf("%s: %v", name, c.err)
		}
	}
	if err := apply(&badDisk{Writer: &mem.Space{}}, guarded); err != nil {
		t.Errorf("on a good disk: %v", err)
	}
}
