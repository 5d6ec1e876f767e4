package link

import (
	"bytes"
	"testing"

	"pando.dev/pando/internal/mutate"
)

// TestSpoiledMessages and those below walk the decoders' paths with far more
// inputs than the fuzz targets; PANDO_MUTATE says how many.
func TestSpoiledMessages(t *testing.T) {
	mutate.Run(t, replicaSeeds(), func(b []byte) {
		if len(b) >= 2 {
			checkReplica(t, b[0], b[1], b[2:])
		}
	})
}

// TestSpoiledFrames: a frame that was changed on its way is never taken.
func TestSpoiledFrames(t *testing.T) {
	var seeds [][]byte
	for _, x := range replicaSeeds() {
		seeds = append(seeds, (&Frame{Kind: Kind(x[0]), Flags: x[1], Group: 1, From: 1, To: 2, Body: x[2:]}).append(nil))
	}
	mutate.Run(t, seeds, func(b []byte) {
		if len(b) < HeaderBytes {
			return
		}
		f, n, err := parseHeader(b, classData)
		if err != nil || n > len(b)-HeaderBytes || checkFrame(b[:HeaderBytes+n]) != nil {
			return
		}
		f.Body = b[HeaderBytes : HeaderBytes+n]
		if again := f.append(nil); !bytes.Equal(again, b[:len(again)]) {
			t.Fatalf("%x was taken for %x", b, again)
		}
	})
}
