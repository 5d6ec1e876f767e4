package kv

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"iter"

	"pando.dev/pando/partition"
)

// storedVersion is the first byte of every stored value.
const storedVersion = 1

// scratchBytes is how much memory a partition keeps between commands.
const scratchBytes = 64 << 10

// table is the kind. Its only field is memory that it uses again; the state is
// in the key space and nowhere else.
type table struct {
	scratch []byte // only Apply uses it
}

var (
	_ partition.Partition = (*table)(nil)
	_ partition.Splitter  = (*table)(nil)
)

// New makes the partition of one replica. It is a partition.Factory.
func New(partition.Spec) (partition.Partition, error) { return &table{}, nil }

// Apply implements partition.Partition. A command that breaks a limit is
// refused as a result, with no write made.
func (t *table) Apply(w partition.Writer, c partition.Command) ([]byte, error) {
	cmd, err := parseCommand(c.Payload)
	if err != nil {
		return encodeRefusal(err), nil
	}
	in := cursor{b: cmd.conditions}
	for i := range cmd.nc {
		x := in.condition()
		current, ok, err := x.holds(w)
		if err != nil {
			return nil, err
		}
		if !ok {
			return (&Result{Condition: i, Current: current}).encode(), nil
		}
	}
	in = cursor{b: cmd.writes}
	for range cmd.nw {
		x := in.write()
		if err := t.write(w, &x, Version(c.Index)); err != nil {
			return nil, err
		}
	}
	return (&Result{Applied: true, Version: Version(c.Index)}).encode(), nil
}

// Span implements partition.Splitter.
func (t *table) Span(payload []byte) (partition.KeyRange, error) {
	cmd, err := parseCommand(payload)
	if err != nil {
		return partition.KeyRange{}, err
	}
	var s span
	in := cursor{b: cmd.conditions}
	for range cmd.nc {
		x := in.condition()
		s.add(x.key, successor(x.key))
	}
	in = cursor{b: cmd.writes}
	for range cmd.nw {
		x := in.write()
		s.write(&x)
	}
	if !s.some {
		return partition.KeyRange{Lo: []byte{0}, Hi: []byte{0}}, nil // a batch of nothing
	}
	return s.KeyRange, nil
}

func (t *table) write(w partition.Writer, x *write, v Version) error {
	switch x.kind {
	case writePut:
		t.scratch = appendStored(t.scratch[:0], v, x.value)
		err := w.Set(x.key, t.scratch)
		if cap(t.scratch) > scratchBytes {
			t.scratch = nil
		}
		return err
	case writeDelete:
		return w.Delete(x.key)
	}
	r := partition.KeyRange{Lo: x.key, Hi: x.value}
	if r.Empty() {
		return nil
	}
	return w.DeleteRange(r)
}

// holds reports whether a condition holds, and its key's version.
func (c *Condition) holds(r partition.Reader) (Version, bool, error) {
	v, value, err := lookup(r, c.key)
	if err != nil {
		return 0, false, err
	}
	switch c.kind {
	case ifAbsent:
		return v, v == 0, nil
	case ifPresent:
		return v, v != 0, nil
	case ifValue:
		return v, v != 0 && bytes.Equal(value, c.value), nil
	default:
		return v, v == c.version, nil
	}
}

// lookup reads a key. Version 0 says that it is absent. The value is valid
// until the next call on r.
func lookup(r partition.Reader, key []byte) (Version, []byte, error) {
	b, ok, err := r.Get(key)
	if err != nil {
		return 0, nil, fmt.Errorf("get key %q: %w", key, err)
	}
	if !ok {
		return 0, nil, nil
	}
	return parseStored(key, b)
}

// appendStored encodes a value as it is stored:
//
//	1 u8 | version uvarint | value
func appendStored(b []byte, v Version, value []byte) []byte {
	return append(binary.AppendUvarint(append(b, storedVersion), uint64(v)), value...)
}

func parseStored(key, b []byte) (Version, []byte, error) {
	if len(b) > 0 && b[0] > storedVersion {
		return 0, nil, partition.Errorf(partition.CodeNewerFormat, "key %q is stored in version %d, this program knows %d", key, b[0], storedVersion)
	}
	if len(b) > 0 && b[0] == storedVersion {
		if v, n := binary.Uvarint(b[1:]); n > 0 && v > 0 {
			return Version(v), b[1+n:], nil
		}
	}
	return 0, nil, partition.Errorf(partition.CodeCorrupt, "key %q has a stored value of %d bytes that is none of ours", key, len(b))
}

// Read implements partition.Partition.
func (t *table) Read(r partition.Reader, b []byte) ([]byte, error) {
	q, err := parseQuery(b)
	if err != nil {
		return nil, err
	}
	if q.get == nil {
		return scan(r, q.scan)
	}
	v, value, err := lookup(r, q.get)
	if err != nil {
		return nil, err
	}
	return encodeGet(v, value), nil
}

// scan answers a query whose limits are set.
func scan(r partition.Reader, q ScanQuery) ([]byte, error) {
	a := scanEncoder{q: q}
	for p, err := range q.walk(r) {
		if err != nil {
			return nil, fmt.Errorf("scan %s: %w", q.Range, err)
		}
		v, value, err := parseStored(p.Key, p.Value)
		if err != nil {
			return nil, err
		}
		if !a.add(p.Key, v, value) {
			break
		}
	}
	return a.encode(), nil
}

// walk is the pairs that the query is about.
func (q *ScanQuery) walk(r partition.Reader) iter.Seq2[partition.Pair, error] {
	switch {
	case q.Range.Empty():
		return func(func(partition.Pair, error) bool) {}
	case q.Back:
		return r.ScanBack(q.Range)
	}
	return r.Scan(q.Range)
}

// scanEncoder builds a scan's answer.
type scanEncoder struct {
	q     ScanQuery
	pairs []byte
	n     int
	more  byte // 1 if a pair had no room
}

// add reports whether there is room for the pair.
func (a *scanEncoder) add(key []byte, v Version, value []byte) bool {
	if a.q.KeysOnly {
		value = nil
	}
	size := len(key) + len(value) + pairOverhead
	if a.n == a.q.Limit || a.n > 0 && len(a.pairs)+size > a.q.Bytes {
		a.more = 1
		return false
	}
	a.pairs = appendBytes(a.pairs, key)
	a.pairs = binary.AppendUvarint(a.pairs, uint64(v))
	a.pairs = appendBytes(a.pairs, value)
	a.n++
	return true
}

func (a *scanEncoder) encode() []byte {
	b := append(start(queryScan, len(a.pairs)+8), a.more)
	b = binary.AppendUvarint(b, uint64(a.n))
	return append(b, a.pairs...)
}

// pairOverhead is the most that a pair takes beside its key and value.
const pairOverhead = 2*binary.MaxVarintLen32 + binary.MaxVarintLen64
