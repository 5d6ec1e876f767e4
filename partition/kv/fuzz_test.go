package kv

import (
	"bytes"
	"runtime"
	"testing"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/kv/mem"
)

// seeds are one of each encoding, and the beginnings of them.
func seeds(f *testing.F) {
	b := &Batch{}
	b.If(IfVersion([]byte("a"), 300))
	b.If(IfValue([]byte("b"), []byte("v")))
	b.If(IfAbsent([]byte("c")))
	b.Put([]byte("a"), []byte("value"))
	b.Delete([]byte("b"))
	b.DeleteRange(partition.KeyRange{Lo: []byte("c"), Hi: []byte("d")})
	cmd, err := b.Encode()
	if err != nil {
		f.Fatal(err)
	}
	get, _ := Get([]byte("a"))
	scanQuery, _ := ScanQuery{Range: partition.KeyRange{Lo: []byte("a")}, Back: true, Limit: 3, Bytes: 9}.Encode()
	var e scanEncoder
	e.q.Limit, e.q.Bytes = 3, 100
	e.add([]byte("a"), 7, []byte("v"))
	for _, x := range [][]byte{
		cmd, get, scanQuery, e.encode(), encodeGet(7, []byte("v")),
		(&Result{Applied: true, Version: 9}).encode(), (&Result{Condition: 2, Current: 5}).encode(),
		encodeRefusal(partition.ErrTooLarge),
		{codecVersion, commandBatch, 0xff, 0xff, 0xff, 0xff, 0x7f},
		{codecVersion, queryScan, 0, 0xff, 0xff, 0xff, 0xff, 0x0f, 'a'},
		{codecVersion, queryScan, 0, 0xff, 0xff, 0x03, 1, 'a', 1, 0},
	} {
		for n := range len(x) + 1 {
			f.Add(x[:n])
		}
	}
}

// FuzzDecode: hostile bytes give an error of ours or a message that encodes to
// the same meaning, never a panic, and never memory out of proportion.
func FuzzDecode(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, in []byte) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		b, err := ParseBatch(in)
		_, errScan := ParseScan(in)
		_, errGet := ParseGet(in)
		_, errResult := ParseResult(in)
		_, errQuery := parseQuery(in)
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > uint64(1<<16+100*len(in)) {
			t.Fatalf("%d bytes allocated for %d", n, len(in))
		}
		for _, e := range []error{err, errScan, errGet, errResult, errQuery} {
			if _, ours := e.(*partition.Error); e != nil && !ours {
				t.Fatalf("an error that no client understands: %v", e)
			}
		}
		if err == nil {
			again, err := b.Encode()
			if err != nil {
				t.Fatalf("decoded, but does not encode: %v", err)
			}
			c, err := ParseBatch(again)
			if err != nil {
				t.Fatal(err)
			}
			if twice, _ := c.Encode(); !bytes.Equal(again, twice) {
				t.Fatalf("%x became %x", again, twice)
			}
		}
	})
}

// FuzzExecute: whatever is executed or asked, a partition gives a result or an
// answer that can be read, or an error of ours, and a refusal writes nothing.
func FuzzExecute(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, in []byte) {
		var space mem.Space
		p := &table{}
		put, _ := Put([]byte("a"), []byte("v"))
		if _, err := p.Apply(&space, partition.Command{Index: 1, Payload: put}); err != nil {
			t.Fatal(err)
		}
		out, err := p.Apply(&space, partition.Command{Index: 2, Payload: in})
		if err != nil {
			t.Fatalf("a command gave the error %v, it must be a result", err)
		}
		if _, err := ParseResult(out); (err != nil) != (Check(in) != nil) {
			t.Fatalf("result %v, check %v", err, Check(in))
		} else if err != nil && space.Len() != 1 {
			t.Fatal("a refused command wrote")
		}
		answer, err := p.Read(&space, in)
		if err != nil {
			if _, ours := err.(*partition.Error); !ours {
				t.Fatal(err)
			}
			return
		}
		_, errGet := ParseGet(answer)
		_, errScan := ParseScan(answer)
		if errGet != nil && errScan != nil {
			t.Fatalf("answer %x: %v, %v", answer, errGet, errScan)
		}
	})
}
