package store

import (
	"bytes"
	"testing"

	"pando.dev/pando/partition"
)

// FuzzFiles: what a store reads of its own directory, the identity, the applied
// index and the markers, is read as it was written or refused with a code.
func FuzzFiles(f *testing.F) {
	f.Add(encodeIdentity(7))
	f.Add(encodeIdentity(8))
	f.Add(appliedValue(300))
	f.Add([]byte(markerPrefix + "000001.024"))
	f.Add([]byte(markerPrefix + "000001.999"))
	for i := range encodeIdentity(7) {
		b := encodeIdentity(7)
		b[i] ^= 0x20
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		err := parseIdentity(b, 7)
		if err == nil && !bytes.Equal(b, encodeIdentity(7)) {
			t.Fatalf("took %x for an identity", b)
		}
		at, errApplied := parseApplied(b)
		if errApplied == nil && !bytes.Equal(b, appliedValue(at)) {
			t.Fatalf("%x is not how %d is written", b, at)
		}
		for _, e := range []error{err, errApplied, checkMarkers([]string{"000001.sst", string(b)})} {
			if c := partition.CodeOf(e); e != nil && c != partition.CodeCorrupt && c != partition.CodeNewerFormat {
				t.Fatalf("%x: %v", b, e)
			}
		}
	})
}
