package partition

import (
	"bytes"
	"fmt"
)

// KeyRange is the set of keys from Lo, inclusive, to Hi, exclusive, in byte
// order. An empty Hi means no upper bound; the zero KeyRange holds every key.
type KeyRange struct {
	Lo, Hi []byte
}

// Contains reports whether key is in the range.
func (r KeyRange) Contains(key []byte) bool {
	return bytes.Compare(key, r.Lo) >= 0 && (len(r.Hi) == 0 || bytes.Compare(key, r.Hi) < 0)
}

// Empty reports whether no key is in the range.
func (r KeyRange) Empty() bool {
	return len(r.Hi) != 0 && bytes.Compare(r.Lo, r.Hi) >= 0
}

// Intersect returns the keys that are in both ranges.
func (r KeyRange) Intersect(o KeyRange) KeyRange {
	if bytes.Compare(o.Lo, r.Lo) > 0 {
		r.Lo = o.Lo
	}
	if len(r.Hi) == 0 || len(o.Hi) != 0 && bytes.Compare(o.Hi, r.Hi) < 0 {
		r.Hi = o.Hi
	}
	return r
}

// Within reports whether every key of the range is in o.
func (r KeyRange) Within(o KeyRange) bool {
	return r.Empty() || bytes.Compare(r.Lo, o.Lo) >= 0 && (len(o.Hi) == 0 || len(r.Hi) != 0 && bytes.Compare(r.Hi, o.Hi) <= 0)
}

// Equal reports whether both have the same bounds.
func (r KeyRange) Equal(o KeyRange) bool { return bytes.Equal(r.Lo, o.Lo) && bytes.Equal(r.Hi, o.Hi) }

// String returns the range as [lo,hi) with quoted keys and without a bound that
// is open.
func (r KeyRange) String() string {
	quote := func(k []byte) string {
		if len(k) == 0 {
			return ""
		}
		return fmt.Sprintf("%q", k)
	}
	return fmt.Sprintf("[%s,%s)", quote(r.Lo), quote(r.Hi))
}
