package wal

import (
	"bytes"
	"runtime"
	"slices"
	"testing"

	"pando.dev/pando/partition"
)

// What is read from disk is as untrusted as what comes from the network: no
// bytes may make a decoder panic, or allocate much more than they are long.

// bounded runs f and checks what it allocates for an input of n bytes.
func bounded(t *testing.T, n int, f func()) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	if got, limit := after.TotalAlloc-before.TotalAlloc, uint64(256<<10+64*n); got > limit {
		t.Fatalf("%d bytes of input made it allocate %d, limit %d", n, got, limit)
	}
}

func FuzzHeader(f *testing.F) {
	h := header{segment: 3, incarnation: 2, secret: 5, first: 9, size: 1 << 20, node: "n1"}
	good := h.encode()
	f.Add(good)
	f.Add(good[:100])
	bad := slices.Clone(good)
	bad[20]++
	f.Add(bad)
	f.Fuzz(func(t *testing.T, b []byte) {
		bounded(t, len(b), func() {
			got, _, err := decodeHeader(b)
			if err == nil && !bytes.Equal(got.encode()[16:headerBytes], b[16:headerBytes]) && !bytes.Equal(got.encode()[16:headerBytes], b[headerCopyAt+16:headerCopyAt+headerBytes]) {
				t.Fatalf("%+v does not encode to what was read", got)
			}
		})
	})
}

// items returns the items of a small batch of every kind.
func items() []byte {
	rec := partition.NewRecord(partition.Header{Group: 1, Index: 1, Epoch: 1 << 16, Kind: partition.KindMember}, []byte("config"))
	b := appendState(nil, 1, HardState{Replica: 2, Promise: 1 << 16, Commit: 0, Generation: 1})
	b = append(b, rec...)
	b = append(b, partition.NewRecord(partition.Header{Group: 1, Index: 2, Epoch: 1 << 16, Prev: rec.Checksum(), Kind: partition.KindCommand}, []byte("x"))...)
	b = appendSnip(b, 1, partition.Position{Epoch: 1 << 16, Index: 1}, rec.Checksum())
	b = appendInstall(b, 1, 2, &Install{Base: partition.Position{Epoch: 1 << 16, Index: 1}, Generation: 2, Configuration: rec}, true)
	b = appendInstall(b, 1, 2, &Install{Base: partition.Position{Epoch: 2 << 16, Index: 7}, Configuration: rec}, false)
	b = appendItem(b, 0, kindProgress, make([]byte, progressBytes))
	b = appendQuarantine(b, 1, &Damage{From: 1, To: 2})
	e := echo{seq: 4, touched: []touch{{group: 1, last: 2, items: 9}}}
	b = appendItem(b, 0, kindEcho, e.append(nil))
	w := row{hard: HardState{Replica: 1}, end: partition.Position{Index: 4}, configs: []partition.Record{rec}}
	b = w.append(b, 1)
	return appendItem(b, 1, kindDrop)
}

// scratch is a recovery without files.
func scratch() *recovery {
	l := &Log{groups: map[partition.GroupID]*group{}}
	return &recovery{l: l, report: &Report{}, loss: map[partition.GroupID]*loss{}, next: 1}
}

func FuzzBatch(f *testing.F) {
	b := append(make([]byte, batchHeadBytes), items()...)
	sealBatch(b, 9, 1, 1, seedOf(5))
	f.Add(b)
	f.Add(b[:60])
	f.Add(pad(slices.Clone(b)))
	f.Fuzz(func(t *testing.T, b []byte) {
		bounded(t, len(b), func() {
			h, items, ok := checkBatch(b, 1, seedOf(5))
			if ok && (len(items) != h.payload || batchHeadBytes+h.payload > len(b)) {
				t.Fatalf("head %+v of %d bytes", h, len(b))
			}
			r := scratch()
			s := &segment{number: 1, size: 1 << 20}
			r.scan(&found{seg: s, tabled: true, tableEnd: pageBytes}, append(make([]byte, pageBytes), b...))
		})
	})
}

// FuzzItems feeds items that are under a valid checksum of their batch.
func FuzzItems(f *testing.F) {
	f.Add(items())
	f.Add(items()[:200])
	f.Add(items()[100:])
	f.Fuzz(func(t *testing.T, b []byte) {
		bounded(t, len(b), func() {
			r := scratch()
			r.lose(3, 5)
			s := &segment{number: 1, size: 1 << 20}
			r.l.segments = []*segment{s}
			r.found = []*found{{seg: s}}
			r.batch(s, pageBytes, b)
			r.salvage(s, pageBytes, b, batchHead{seq: 3, items: 10})
			if err := r.finish(); err != nil {
				t.Fatal(err)
			}
			for _, g := range r.l.groups {
				_ = g.summary()
				_, _ = g.section(1)
			}
		})
	})
}

func FuzzFooter(f *testing.F) {
	s := section{group: 3, before: 1, entries: []entry{{first: 1, epoch: 2, batch: pageBytes, off: pageBytes + 32, count: 2}, {first: 3, epoch: 2, batch: 2 * pageBytes, off: 2*pageBytes + 99, count: 1}}}
	t := trailer{segment: 1, footerAt: 8 * pageBytes, footerSize: 10, first: 1, last: 4, end: 8 * pageBytes}
	f.Add(s.append(nil), t.encode())
	f.Add(s.append(s.append(nil))[:90], t.encode()[:80])
	f.Fuzz(func(t *testing.T, b, last []byte) {
		bounded(t, len(b)+len(last), func() {
			if got, ok := decodeTrailer(last, 1, 64<<10); ok && (got.footerAt+got.footerSize > 64<<10 || got.end > got.footerAt) {
				t.Fatalf("%+v", got)
			}
			r := scratch()
			s := &segment{number: 1}
			for len(b) > 0 {
				sec, rest, ok := decodeSection(b, 1, 60<<10)
				if !ok {
					return
				}
				r.takeSection(s, &sec)
				b = rest
			}
		})
	})
}

func FuzzRow(f *testing.F) {
	rec := partition.NewRecord(partition.Header{Group: 1, Index: 1, Kind: partition.KindMember}, []byte("config"))
	w := row{hard: HardState{Replica: 1, Flushed: 3}, before: partition.Position{Index: 2}, end: partition.Position{Index: 4, Epoch: 9}, damage: &Damage{From: 1}, configs: []partition.Record{rec}}
	f.Add([]byte(w.append(nil, 1))[itemHead:])
	f.Add(make([]byte, rowBytes))
	f.Fuzz(func(t *testing.T, b []byte) {
		bounded(t, len(b), func() {
			item := partition.NewRecord(partition.Header{Group: 1, Index: 1, Kind: kindRow}, b)
			if len(b) > partition.MaxPayloadBytes {
				return
			}
			r := scratch()
			r.table(&found{seg: &segment{number: 2}, rows: []partition.Record{item}, tableSeq: 7}, true)
			r.table(&found{seg: &segment{number: 3}, rows: []partition.Record{item}, tableSeq: 9}, false)
			_, _ = decodeEchoes(b)
		})
	})
}
