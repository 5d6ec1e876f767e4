package partition

import (
	"encoding/binary"
	"slices"
)

// Follow returns a copy of next with what follows from m about permits: who was
// left behind and counts in next is not any more.
func (m *Membership) Follow(next *Membership) *Membership {
	n := *next
	n.Alone, n.Permit, n.LeftBehind = 0, m.Permit, nil
	for _, r := range m.LeftBehind {
		if x, ok := n.Member(r); !ok || !x.counts() {
			n.LeftBehind = append(n.LeftBehind, r)
		}
	}
	return &n
}

// GoAlone returns next as the configuration that takes effect alone after these
// under the given number. It leaves behind all of their voters that do not count
// in it.
func (c Configurations) GoAlone(next *Membership, number uint64) *Membership {
	n, last := *next, c.Last()
	n.Version, n.Next, n.Alone, n.Permit, n.LeftBehind = last.Version+1, max(last.Next, next.Next), number, number, nil
	for _, m := range c {
		n.LeftBehind = append(n.LeftBehind, m.LeftBehind...)
		for i := range m.Members {
			if m.Members[i].counts() {
				n.LeftBehind = append(n.LeftBehind, m.Members[i].Replica)
			}
		}
	}
	n.LeftBehind = slices.DeleteFunc(n.LeftBehind, func(r ReplicaID) bool {
		x, ok := n.Member(r)
		return ok && x.counts()
	})
	slices.Sort(n.LeftBehind)
	n.LeftBehind = slices.Compact(n.LeftBehind)
	return &n
}

// MaxLeftBehind bounds the replicas that a group has ever gone on without.
const MaxLeftBehind = 255

// validateAlone refuses what does not fit together about permits.
func (m *Membership) validateAlone() error {
	if m.Alone != 0 && m.Alone != m.Permit || m.Permit == 0 && len(m.LeftBehind) > 0 || len(m.LeftBehind) > MaxLeftBehind {
		return Errorf(CodeInvalid, "alone under number %d, last permit %d, %d left behind", m.Alone, m.Permit, len(m.LeftBehind))
	}
	var last ReplicaID
	for _, r := range m.LeftBehind {
		if r <= last || r >= m.Next {
			return Errorf(CodeInvalid, "replica %d, left behind, is out of order or not below the next id %d", r, m.Next)
		}
		last = r
	}
	return nil
}

// appendPermit encodes what there is about permits:
//
//	permit u64 | alone u64 | count u8 | count times replica u16
func (m *Membership) appendPermit(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint64(le.AppendUint64(b, m.Permit), m.Alone)
	b = append(b, byte(len(m.LeftBehind)))
	for _, r := range m.LeftBehind {
		b = le.AppendUint16(b, uint16(r))
	}
	return b
}

// parsePermit decodes it and returns the rest.
func (m *Membership) parsePermit(b []byte) ([]byte, error) {
	const fixed = 17
	le := binary.LittleEndian
	if len(b) < fixed || le.Uint64(b) == 0 || len(b) < fixed+2*int(b[16]) {
		return nil, Errorf(CodeCorrupt, "membership with a permit that is cut short or has no number")
	}
	m.Permit, m.Alone = le.Uint64(b), le.Uint64(b[8:])
	n := int(b[16])
	for b = b[fixed:]; n > 0; n-- {
		m.LeftBehind, b = append(m.LeftBehind, ReplicaID(le.Uint16(b))), b[2:]
	}
	return b, nil
}
