package kv

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/kv/mem"
	"pando.dev/pando/partition/store"
)

// entry is what the dumb twin knows of a key.
type entry struct {
	version Version
	value   string
}

// model is the dumb twin: a map and the rules as the package comment has them.
type model map[string]entry

func (m model) holds(c Condition) bool {
	e, there := m[string(c.key)]
	switch c.kind {
	case ifAbsent:
		return !there
	case ifPresent:
		return there
	case ifValue:
		return there && e.value == string(c.value)
	}
	return e.version == c.version
}

func (m model) apply(b *Batch, v Version) Result {
	for i, c := range b.conditions {
		if !m.holds(c) {
			return Result{Condition: i, Current: m[string(c.key)].version}
		}
	}
	for _, w := range b.writes {
		switch w.kind {
		case writePut:
			m[string(w.key)] = entry{v, string(w.value)}
		case writeDelete:
			delete(m, string(w.key))
		default:
			for k := range m {
				if (partition.KeyRange{Lo: w.key, Hi: w.value}).Contains([]byte(k)) {
					delete(m, k)
				}
			}
		}
	}
	return Result{Applied: true, Version: v}
}

func (m model) scan(q ScanQuery) (out []Pair) {
	var keys []string
	for k := range m {
		if q.Range.Contains([]byte(k)) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	if q.Back {
		slices.Reverse(keys)
	}
	for _, k := range keys {
		p := Pair{Key: []byte(k), Version: m[k].version}
		if !q.KeysOnly {
			p.Value = []byte(m[k].value)
		}
		out = append(out, p)
	}
	return out
}

func drawKey(t *rapid.T) []byte {
	return rapid.SliceOfN(rapid.SampledFrom([]byte{0, 'a', 'b', 255}), 1, 3).Draw(t, "key")
}

func drawRange(t *rapid.T) partition.KeyRange {
	r := partition.KeyRange{}
	if rapid.Bool().Draw(t, "lo") {
		r.Lo = drawKey(t)
	}
	if rapid.Bool().Draw(t, "hi") {
		r.Hi = drawKey(t)
	}
	return r
}

func drawBatch(t *rapid.T, m model) *Batch {
	b := &Batch{}
	for range rapid.IntRange(0, 2).Draw(t, "conditions") {
		k := drawKey(t)
		switch e := m[string(k)]; rapid.IntRange(0, 5).Draw(t, "condition") {
		case 0:
			b.If(IfAbsent(k))
		case 1:
			b.If(IfPresent(k))
		case 2:
			b.If(IfValue(k, []byte(e.value)))
		case 3:
			b.If(IfValue(k, []byte("other")))
		case 4:
			b.If(IfVersion(k, Version(max(0, int(e.version)+rapid.IntRange(-1, 1).Draw(t, "off")))))
		default:
			b.If(IfVersion(k, e.version))
		}
	}
	for range rapid.IntRange(0, 4).Draw(t, "writes") {
		switch rapid.IntRange(0, 9).Draw(t, "write") {
		case 0:
			b.DeleteRange(drawRange(t))
		case 1, 2:
			b.Delete(drawKey(t))
		default:
			b.Put(drawKey(t), rapid.SliceOfN(rapid.Byte(), 0, 12).Draw(t, "value"))
		}
	}
	return b
}

// TestTwin: over hundreds of random commands the partition gives the results
// and the state of the dumb twin, and the same bytes on two replicas, one in
// memory and one on the real store.
func TestTwin(t *testing.T) {
	rapid.Check(t, twinStory)
}

func twinStory(t *rapid.T) {
	e, err := store.NewEngine(store.Options{Dir: "data", FS: vfs.NewMem(), CacheBytes: 1 << 20, MaxOpen: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = e.Close() }()
	s, err := e.Open(1, 1)
	if err != nil {
		t.Fatal(err)
	}
	one, two := &table{}, &table{}
	var space mem.Space
	m := make(model)
	for i := range partition.Index(rapid.IntRange(200, 230).Draw(t, "steps")) {
		b := drawBatch(t, m)
		cmd, err := b.Encode()
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range touched(b) {
			if !b.Span().Contains(k) {
				t.Fatalf("span %s without %q", b.Span(), k)
			}
		}
		c := partition.Command{Index: i + 1, Payload: cmd}
		x, err := one.Apply(&space, c)
		if err != nil {
			t.Fatal(err)
		}
		var y []byte
		err = s.Apply(i+1, func(w partition.Writer) (err error) {
			y, err = two.Apply(store.Under(1, w), c)
			return err
		})
		if err != nil || !bytes.Equal(x, y) {
			t.Fatalf("replicas differ: %x and %x, %v", x, y, err)
		}
		got, err := ParseResult(x)
		if want := m.apply(b, Version(i+1)); err != nil || got != want {
			t.Fatalf("record %d: %+v, want %+v: %v", i+1, got, want, err)
		}
		if rapid.IntRange(0, 3).Draw(t, "read") == 0 {
			checkReads(t, s, &space, m)
		}
	}
	checkReads(t, s, &space, m)
}

// touched lists the keys that a batch names.
func touched(b *Batch) (keys [][]byte) {
	for _, c := range b.conditions {
		keys = append(keys, c.key)
	}
	for _, w := range b.writes {
		if w.kind != writeDeleteRange {
			keys = append(keys, w.key)
		}
	}
	return keys
}

func checkReads(t *rapid.T, s *store.Store, space *mem.Space, m model) {
	v, err := s.View()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = v.Close() }()
	q := ScanQuery{
		Range: drawRange(t), Back: rapid.Bool().Draw(t, "back"), KeysOnly: rapid.Bool().Draw(t, "keys only"),
		Limit: rapid.IntRange(0, 5).Draw(t, "limit"), Bytes: rapid.SampledFrom([]int{0, 1, 40, 200}).Draw(t, "bytes"),
	}
	key := drawKey(t)
	for _, r := range []partition.Reader{space, store.ReadUnder(1, v)} {
		get, err := Get(key)
		if err != nil {
			t.Fatal(err)
		}
		a, err := ParseGet(read(t, r, get))
		want, there := m[string(key)]
		if err != nil || a.Found != there || a.Version != want.version || string(a.Value) != want.value {
			t.Fatalf("get %q: %+v, want %+v: %v", key, a, want, err)
		}
		pairs := scanAll(t, r, q)
		if got, want := fmt.Sprint(pairs), fmt.Sprint(m.scan(q)); got != want {
			t.Fatalf("scan %+v: %s, want %s", q, got, want)
		}
	}
}

func read(t *rapid.T, r partition.Reader, q []byte) []byte {
	b, err := (&table{}).Read(r, q)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// scanAll follows a scan to its end and holds each answer to its limits.
func scanAll(t *rapid.T, r partition.Reader, q ScanQuery) (all []Pair) {
	for n := 0; ; n++ {
		b, err := q.Encode()
		if err != nil {
			t.Fatal(err)
		}
		answer := read(t, r, b)
		a, err := ParseScan(answer)
		if err != nil {
			t.Fatal(err)
		}
		over := q.Bytes > 0 && len(answer) > q.Bytes+8 && len(a.Pairs) > 1
		if q.Limit > 0 && len(a.Pairs) > q.Limit || over || a.More && len(a.Pairs) == 0 || n > 200 {
			t.Fatalf("answer %d of %+v: %d pairs, %d bytes, more %v", n, q, len(a.Pairs), len(answer), a.More)
		}
		all = append(all, a.Pairs...)
		if !a.More {
			return all
		}
		q = q.Rest(a)
	}
}

// TestScanBytes: a scan of large values stops at the limit of bytes, and one
// pair comes whatever its size, in less than a record's payload.
func TestScanBytes(t *testing.T) {
	var space mem.Space
	p := &table{}
	for i := range partition.Index(4) {
		cmd, err := Put(bytes.Repeat([]byte{byte('a' + i)}, MaxKeyBytes), make([]byte, MaxValueBytes))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Apply(&space, partition.Command{Index: i + 1, Payload: cmd}); err != nil {
			t.Fatal(err)
		}
	}
	q, _ := ScanQuery{}.Encode()
	b, err := p.Read(&space, q)
	if err != nil {
		t.Fatal(err)
	}
	a, err := ParseScan(b)
	if err != nil || len(a.Pairs) != 1 || !a.More || len(b) > partition.MaxPayloadBytes {
		t.Fatalf("%d pairs in %d bytes, more %v: %v", len(a.Pairs), len(b), a.More, err)
	}
}

// TestLimits: what is over a limit is refused when it is built, and when it is
// executed although somebody built it otherwise; nothing is written then.
func TestLimits(t *testing.T) {
	key, value := make([]byte, MaxKeyBytes+1), make([]byte, MaxValueBytes+1)
	batch := func(fill func(b *Batch)) *Batch {
		b := &Batch{}
		b.Put([]byte("first"), nil)
		fill(b)
		return b
	}
	many := func(n int) func(*Batch) {
		return func(b *Batch) {
			for range n {
				b.Delete([]byte("k"))
			}
		}
	}
	for name, c := range map[string]struct {
		batch *Batch
		want  partition.Code
	}{
		"largest key":           {batch(func(b *Batch) { b.Put(key[1:], nil) }), 0},
		"key":                   {batch(func(b *Batch) { b.Put(key, nil) }), partition.CodeTooLarge},
		"empty key":             {batch(func(b *Batch) { b.Put(nil, nil) }), partition.CodeInvalid},
		"empty key deleted":     {batch(func(b *Batch) { b.Delete(nil) }), partition.CodeInvalid},
		"key of a condition":    {batch(func(b *Batch) { b.If(IfAbsent(key)) }), partition.CodeTooLarge},
		"no key to a condition": {batch(func(b *Batch) { b.If(IfPresent(nil)) }), partition.CodeInvalid},
		"value of a condition":  {batch(func(b *Batch) { b.If(IfValue(key[1:], value)) }), partition.CodeTooLarge},
		"no condition":          {batch(func(b *Batch) { b.If(Condition{}) }), partition.CodeInvalid},
		"largest value":         {batch(func(b *Batch) { b.Put([]byte("k"), value[1:]) }), 0},
		"value":                 {batch(func(b *Batch) { b.Put([]byte("k"), value) }), partition.CodeTooLarge},
		"largest bound":         {batch(func(b *Batch) { b.DeleteRange(partition.KeyRange{Lo: key, Hi: key}) }), 0},
		"bound":                 {batch(func(b *Batch) { b.DeleteRange(partition.KeyRange{Lo: append(key, 0)}) }), partition.CodeTooLarge},
		"upper bound":           {batch(func(b *Batch) { b.DeleteRange(partition.KeyRange{Hi: append(key, 0)}) }), partition.CodeTooLarge},
		"largest batch":         {batch(many(MaxBatchOps - 1)), 0},
		"batch":                 {batch(many(MaxBatchOps)), partition.CodeTooLarge},
		"bytes": {batch(func(b *Batch) {
			b.Put([]byte("a"), value[1:])
			b.Put([]byte("b"), value[1:])
		}), partition.CodeTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.batch.Encode()
			if partition.CodeOf(err) != c.want {
				t.Fatalf("encoding: %v, want code %v", err, c.want)
			}
			var space mem.Space
			b, err := (&table{}).Apply(&space, partition.Command{Index: 1, Payload: forced(c.batch)})
			if err != nil {
				t.Fatal(err)
			}
			if _, err = ParseResult(b); partition.CodeOf(err) != c.want {
				t.Fatalf("executing: %v, want code %v", err, c.want)
			}
			if (space.Len() > 0) != (c.want == 0) {
				t.Fatalf("%d keys written", space.Len())
			}
		})
	}
}

// forced encodes a batch without a look at any limit.
func forced(b *Batch) []byte {
	out := start(commandBatch, 0)
	out = appendCount(out, len(b.conditions))
	for i := range b.conditions {
		out = b.conditions[i].append(out)
	}
	out = appendCount(out, len(b.writes))
	for i := range b.writes {
		out = b.writes[i].append(out)
	}
	return out
}

func appendCount(b []byte, n int) []byte {
	for ; n >= 128; n >>= 7 {
		b = append(b, byte(n)|128)
	}
	return append(b, byte(n))
}

// TestNewer: what a newer program wrote is refused as such, wherever it is met.
func TestNewer(t *testing.T) {
	newer := []byte{codecVersion + 1, 1, 2, 3}
	_, scanned := ParseScan(newer)
	_, got := ParseGet(newer)
	_, result := ParseResult(newer)
	_, query := (&table{}).Read(&mem.Space{}, newer)
	for name, err := range map[string]error{
		"command": Check(newer), "scan": scanned, "get": got, "result": result, "query": query,
	} {
		if !errors.Is(err, partition.ErrNewerFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var space mem.Space
	_ = space.Set([]byte("a"), []byte{storedVersion + 1, 9, 9})
	_ = space.Set([]byte("b"), []byte{storedVersion})
	for key, want := range map[string]partition.Code{"a": partition.CodeNewerFormat, "b": partition.CodeCorrupt} {
		q, _ := Get([]byte(key))
		if _, err := (&table{}).Read(&space, q); partition.CodeOf(err) != want {
			t.Errorf("stored value: %v", err)
		}
		cmd, _ := CompareAndDelete(IfPresent([]byte(key)))
		if _, err := (&table{}).Apply(&space, partition.Command{Index: 1, Payload: cmd}); partition.CodeOf(err) != want {
			t.Errorf("stored value, in a condition: %v", err)
		}
	}
}
