package partition

import (
	"testing"

	"pando.dev/pando/internal/mutate"
)

// TestSpoiledRecords and those below walk the decoders' paths with far more
// inputs than the fuzz targets; PANDO_MUTATE says how many.
func TestSpoiledRecords(t *testing.T) {
	mutate.Run(t, recordSeeds(), func(b []byte) { checkRecord(t, b) })
}

func TestSpoiledMemberships(t *testing.T) {
	plain, _ := group3().AppendBinary(nil)
	alone := group3()
	alone.Policy = Policy{Rule: AllInSync}
	alone.Permit, alone.Alone, alone.LeftBehind = 4, 4, []ReplicaID{1}
	other, _ := alone.AppendBinary(nil)
	mutate.Run(t, [][]byte{plain, other}, func(b []byte) { checkMembership(t, b) })
}
