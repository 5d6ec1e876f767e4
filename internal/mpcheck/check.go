package mpcheck

import (
	"fmt"

	"pando.dev/pando/partition"
)

const (
	// DefaultDepth is how deep containers may nest; a scalar has depth 0.
	DefaultDepth = 16
	// DefaultElements is how many values a body may hold in all its containers
	// together; a map counts each key and each value.
	DefaultElements = 65_536
	// maxDepth bounds Limits.Depth, because the stack of open containers is an
	// array of that size.
	maxDepth = 64
)

// Limits bound a body. The zero value of a field means its default.
type Limits struct {
	Depth    int // default DefaultDepth, at most 64
	Elements int // default DefaultElements
}

// Reason says what is wrong with a body. Reasons are few, so that a caller can
// count by them.
type Reason uint8

const (
	// Short: a value is cut off, or a declared length or count exceeds what is
	// left of the body.
	Short Reason = 1
	// Deep: containers nest deeper than Limits.Depth.
	Deep Reason = 2
	// Many: the containers declare more than Limits.Elements values.
	Many Reason = 3
	// Extension: an extension type, timestamps included.
	Extension Reason = 4
	// Reserved: the code 0xc1, which msgpack never uses.
	Reserved Reason = 5
	// Trailing: bytes behind the value.
	Trailing Reason = 6
)

// String returns the reason as a metric label.
func (r Reason) String() string {
	switch r {
	case Short:
		return "short"
	case Deep:
		return "deep"
	case Many:
		return "many"
	case Extension:
		return "extension"
	case Reserved:
		return "reserved"
	case Trailing:
		return "trailing"
	}
	return fmt.Sprintf("reason(%d)", uint8(r))
}

// Error is a refused body. It is a [partition.ErrCorrupt] for errors.Is.
type Error struct {
	Reason Reason
	Offset int // of the byte at which the check gave up
	Bytes  int // of the whole body
}

// Error names the reason and the place.
func (e *Error) Error() string {
	return fmt.Sprintf("msgpack body of %d bytes refused at byte %d: %s", e.Bytes, e.Offset, e.Reason)
}

// Unwrap makes the error one of corruption.
func (e *Error) Unwrap() error { return partition.ErrCorrupt }

// Check is CheckLimits with the default limits.
func Check(b []byte) error { return CheckLimits(b, Limits{}) }

// CheckLimits reports whether b is exactly one well-formed msgpack value within
// the limits. It does not allocate unless it refuses, does not retain b, and
// takes time proportional to the number of values, whatever they declare.
func CheckLimits(b []byte, l Limits) error {
	if l.Depth <= 0 {
		l.Depth = DefaultDepth
	}
	if l.Elements <= 0 {
		l.Elements = DefaultElements
	}
	at, reason := walk(b, min(l.Depth, maxDepth), uint64(l.Elements))
	if reason != 0 {
		return &Error{Reason: reason, Offset: at, Bytes: len(b)}
	}
	return nil
}

// walk visits every value of b. Open holds, for each container around the
// current one, how many of its values are still to come.
func walk(b []byte, depth int, budget uint64) (int, Reason) {
	var open [maxDepth]uint64
	level, left := 0, uint64(1)
	i := 0
	for {
		for left == 0 {
			if level == 0 {
				if i != len(b) {
					return i, Trailing
				}
				return i, 0
			}
			level--
			left = open[level]
		}
		if i >= len(b) {
			return i, Short
		}
		c := b[i]
		left--
		if c <= 0x7f || c >= 0xe0 { // small integer
			i++
			continue
		}
		v, reason := head(b, i, c)
		if reason != 0 {
			return i, reason
		}
		// Neither sum overflows: skip and count are below 2^34.
		if i += v.skip; i > len(b) || v.count > uint64(len(b)-i) {
			return i - v.skip, Short
		}
		if v.count > budget {
			return i - v.skip, Many
		}
		if !v.container {
			continue
		}
		if level == depth {
			return i - v.skip, Deep
		}
		budget -= v.count
		open[level] = left
		level++
		left = v.count
	}
}

// value is what the head of one value says: the bytes to skip, and for a
// container the number of values that follow.
type value struct {
	skip      int
	count     uint64
	container bool
}

// head reads the code c at b[i] with its length.
func head(b []byte, i int, c byte) (value, Reason) {
	switch {
	case c <= 0x8f: // fixed map
		return value{skip: 1, count: 2 * uint64(c&0x0f), container: true}, 0
	case c <= 0x9f: // fixed array
		return value{skip: 1, count: uint64(c & 0x0f), container: true}, 0
	case c <= 0xbf: // fixed string
		return value{skip: 1 + int(c&0x1f)}, 0
	}
	switch c {
	case 0xc0, 0xc2, 0xc3: // nil, false, true
		return value{skip: 1}, 0
	case 0xcc, 0xd0: // 8-bit integers
		return value{skip: 2}, 0
	case 0xcd, 0xd1: // 16-bit integers
		return value{skip: 3}, 0
	case 0xca, 0xce, 0xd2: // 32-bit float and integers
		return value{skip: 5}, 0
	case 0xcb, 0xcf, 0xd3: // 64-bit float and integers
		return value{skip: 9}, 0
	case 0xc4, 0xd9: // bin8, str8
		return sized(b, i, 1)
	case 0xc5, 0xda: // bin16, str16
		return sized(b, i, 2)
	case 0xc6, 0xdb: // bin32, str32
		return sized(b, i, 4)
	case 0xdc: // array16
		return counted(b, i, 2, 1)
	case 0xdd: // array32
		return counted(b, i, 4, 1)
	case 0xde: // map16
		return counted(b, i, 2, 2)
	case 0xdf: // map32
		return counted(b, i, 4, 2)
	case 0xc1:
		return value{}, Reserved
	}
	return value{}, Extension // 0xc7-0xc9, 0xd4-0xd8
}

// sized is a string or a byte string whose length takes width bytes.
func sized(b []byte, i, width int) (value, Reason) {
	n, ok := number(b, i+1, width)
	if !ok {
		return value{}, Short
	}
	return value{skip: 1 + width + int(n)}, 0
}

// counted is a container whose count takes width bytes, with per values for
// each.
func counted(b []byte, i, width int, per uint64) (value, Reason) {
	n, ok := number(b, i+1, width)
	if !ok {
		return value{}, Short
	}
	return value{skip: 1 + width, count: n * per, container: true}, 0
}

// number reads a big-endian number of width bytes at i.
func number(b []byte, i, width int) (n uint64, ok bool) {
	if len(b)-i < width {
		return 0, false
	}
	for _, x := range b[i : i+width] {
		n = n<<8 | uint64(x)
	}
	return n, true
}
