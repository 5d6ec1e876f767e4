package kv

import (
	"encoding/binary"

	"pando.dev/pando/partition"
)

const (
	resultApplied  = 1
	resultConflict = 2
	resultRefused  = 3
)

// Result is what a command came to.
type Result struct {
	// Applied says that every condition held and every write was made.
	Applied bool
	// Version is the version of all keys that were put, if Applied.
	Version Version
	// Condition is the place, in the order given, of the first condition that
	// did not hold, if not Applied; Current is its key's version, 0 if the key
	// is absent. The value is not sent along: it may be large, and a result is
	// kept with the client's session.
	Condition int
	Current   Version
}

// encodeRefusal tells the client that the command itself is bad.
func encodeRefusal(err error) []byte {
	e, ok := err.(*partition.Error)
	if !ok {
		e = partition.Errorf(partition.CodeInternal, "%v", err)
	}
	b := start(resultRefused, len(e.Why)+len(e.Next)+16)
	b = binary.AppendUvarint(b, uint64(e.Code))
	return appendBytes(appendBytes(b, []byte(e.Why)), []byte(e.Next))
}

func (r *Result) encode() []byte {
	if r.Applied {
		return binary.AppendUvarint(start(resultApplied, 10), uint64(r.Version))
	}
	b := binary.AppendUvarint(start(resultConflict, 16), uint64(r.Condition))
	return binary.AppendUvarint(b, uint64(r.Current))
}

// ParseResult decodes a result. A command that was refused for what it is (a
// key over the limit, say) gives the refusal as an error of type
// *partition.Error; a condition that did not hold is not an error.
func ParseResult(b []byte) (Result, error) {
	var r Result
	c := cursor{b: b}
	switch k := c.kind(); {
	case c.err != nil:
	case k == resultApplied:
		r.Applied = true
		r.Version = Version(c.number())
	case k == resultConflict:
		n := c.number()
		if n >= MaxBatchOps {
			c.fail("result names condition %d", n)
		}
		r.Condition, r.Current = int(n), Version(c.number())
	case k == resultRefused:
		code, why, next := c.number(), string(c.bytes()), string(c.bytes())
		if err := c.end(); err != nil {
			return Result{}, err
		}
		return Result{}, &partition.Error{Code: partition.Code(code), Why: why, Next: next}
	default:
		c.fail("result of kind %d", k)
	}
	if err := c.end(); err != nil {
		return Result{}, err
	}
	return r, nil
}
