package store

import (
	"context"
	"crypto/sha256"
	"encoding/binary"

	"pando.dev/pando/partition"
)

// digestChecks is after how many pairs Digest looks whether it should go on.
const digestChecks = 1024

// Digest sums up the state: two views have the same digest if they have the same
// applied index and the same pairs, whatever files those are in. It reads the
// whole state, at some 500 MB/s, and keeps it pinned as long; replicas are
// compared by it, and copies in tests.
func (v *View) Digest(ctx context.Context) (sum [sha256.Size]byte, err error) {
	at, err := v.Applied()
	if err != nil {
		return sum, err
	}
	h := sha256.New()
	head := binary.LittleEndian.AppendUint64(nil, uint64(at))
	h.Write(head)
	n := 0
	for p, err := range v.Scan(partition.KeyRange{}) {
		if err != nil {
			return sum, err
		}
		if n++; n%digestChecks == 0 && ctx.Err() != nil {
			return sum, ctx.Err()
		}
		head = binary.LittleEndian.AppendUint32(head[:0], uint32(len(p.Key)))
		head = binary.LittleEndian.AppendUint32(head, uint32(len(p.Value)))
		h.Write(head)
		h.Write(p.Key)
		h.Write(p.Value)
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}
