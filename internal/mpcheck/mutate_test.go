package mpcheck

import (
	"testing"

	"github.com/vmihailenco/msgpack/v5"

	"pando.dev/pando/internal/mutate"
)

// TestSpoiledBodies: what passes the check is decoded, or not, without harm,
// however often. PANDO_MUTATE says how many inputs there are.
func TestSpoiledBodies(t *testing.T) {
	mutate.Run(t, [][]byte{encode(t, sample(3)), encode(t, outer{}), encode(t, sample(40))}, func(b []byte) {
		if Check(b) == nil {
			_ = msgpack.Unmarshal(b, new(outer)) // whether it fits is its own affair
		}
	})
}
