package exhaust

import (
	"encoding/binary"
	"math/bits"
)

// set is a set of hashes. Two states that share a hash are taken for one: among n
// states that happens with a probability of n²/2^65, which is 3 in 100 million for
// a million states, and 1 in 15,000 for fifty million.
type set struct {
	slots []uint64 // 0: free; at most half are not
	n     int
}

// add reports whether a hash was not in the set.
func (s *set) add(h uint64) bool {
	if h == 0 {
		h = 1
	}
	if 2*s.n >= len(s.slots) {
		s.grow()
	}
	if !s.put(h) {
		return false
	}
	s.n++
	return true
}

func (s *set) put(h uint64) bool {
	mask := uint64(len(s.slots) - 1)
	for i := h & mask; ; i = (i + 1) & mask {
		switch s.slots[i] {
		case 0:
			s.slots[i] = h
			return true
		case h:
			return false
		}
	}
}

func (s *set) grow() {
	old := s.slots
	s.slots = make([]uint64, max(1<<16, 2*len(old)))
	for _, h := range old {
		if h != 0 {
			s.put(h)
		}
	}
}

// hash mixes eight bytes at a time by multiplication; it is the same in every run.
func hash(b []byte) uint64 {
	const k0, k1 = 0x9e3779b97f4a7c15, 0xd6e8feb86659fd93
	h := uint64(len(b)) ^ k1
	mix := func(v uint64) {
		hi, lo := bits.Mul64(h^v, k0)
		h = bits.RotateLeft64(h, 29)*k1 ^ hi ^ lo
	}
	for ; len(b) >= 8; b = b[8:] {
		mix(binary.LittleEndian.Uint64(b))
	}
	var rest [8]byte
	copy(rest[:], b)
	mix(binary.LittleEndian.Uint64(rest[:]))
	hi, lo := bits.Mul64(h^h>>32, k1)
	return hi ^ lo
}
