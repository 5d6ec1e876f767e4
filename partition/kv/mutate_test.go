package kv

import (
	"testing"

	"pando.dev/pando/internal/mutate"
	"pando.dev/pando/partition"
)

// TestSpoiledMessages walks the decoders' paths with far more inputs than the
// fuzz target; PANDO_MUTATE says how many.
func TestSpoiledMessages(t *testing.T) {
	b := &Batch{}
	b.If(IfVersion([]byte("a"), 300))
	b.Put([]byte("a"), []byte("value"))
	b.DeleteRange(partition.KeyRange{Lo: []byte("c"), Hi: []byte("d")})
	cmd, err := b.Encode()
	if err != nil {
		t.Fatal(err)
	}
	scan, _ := ScanQuery{Range: partition.KeyRange{Lo: []byte("a")}, Limit: 3, Bytes: 9}.Encode()
	var e scanEncoder
	e.q.Limit, e.q.Bytes = 3, 100
	e.add([]byte("a"), 7, []byte("v"))
	mutate.Run(t, [][]byte{cmd, scan, e.encode(), encodeGet(7, []byte("v")), (&Result{Applied: true, Version: 9}).encode()}, func(in []byte) {
		b, err := ParseBatch(in)
		_, errScan := ParseScan(in)
		_, errGet := ParseGet(in)
		_, errResult := ParseResult(in)
		_, errQuery := parseQuery(in)
		for _, err := range []error{err, errScan, errGet, errResult, errQuery} {
			if _, ours := err.(*partition.Error); err != nil && !ours {
				t.Fatalf("%x: %v", in, err)
			}
		}
		if err == nil {
			if _, err := b.Encode(); err != nil {
				t.Fatalf("%x is decoded, and not encoded: %v", in, err)
			}
		}
	})
}
