package kv

import (
	"encoding/binary"
	"fmt"

	"pando.dev/pando/partition"
)

// codecVersion is the first byte of every command, result, query and answer.
// A change of meaning takes the next number; all members of a group must know
// it before anyone sends it.
const codecVersion = 1

// start begins an encoding.
func start(kind byte, size int) []byte {
	b := make([]byte, 0, size+2)
	return append(b, codecVersion, kind)
}

// appendBytes appends a length and the bytes.
func appendBytes(b, p []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(p))), p...)
}

// cursor reads an encoding. Everything it returns aliases the input. After the
// first error it returns zeros, so a reader may check once at the end of a
// step; nothing is allocated from a length that was read.
type cursor struct {
	b   []byte
	err *partition.Error
}

func (c *cursor) fail(format string, args ...any) {
	if c.err == nil {
		c.err = partition.Errorf(partition.CodeInvalid, format, args...)
	}
	c.b = nil
}

// failWith is fail for an error that has its code.
func (c *cursor) failWith(err *partition.Error) {
	if err != nil && c.err == nil {
		c.err = err
		c.b = nil
	}
}

func (c *cursor) byte() byte {
	if len(c.b) == 0 {
		c.fail("message is cut short")
		return 0
	}
	v := c.b[0]
	c.b = c.b[1:]
	return v
}

func (c *cursor) number() uint64 {
	v, n := binary.Uvarint(c.b)
	if n <= 0 {
		c.fail("message has a bad number or is cut short")
		return 0
	}
	c.b = c.b[n:]
	return v
}

func (c *cursor) bytes() []byte {
	n := c.number()
	if n > uint64(len(c.b)) {
		c.fail("message is cut short: %d bytes announced, %d there", n, len(c.b))
		return nil
	}
	v := c.b[:n:n]
	c.b = c.b[n:]
	return v
}

// count reads how many things follow, of which each takes at least min bytes.
func (c *cursor) count(min int) int {
	n := c.number()
	if n > uint64(len(c.b)/min) {
		c.fail("message is cut short: %d entries announced in %d bytes", n, len(c.b))
		return 0
	}
	return int(n)
}

// kind checks the version and reads the kind.
func (c *cursor) kind() byte {
	switch v := c.byte(); {
	case c.err != nil || v == codecVersion:
	case v > codecVersion:
		c.failWith(&partition.Error{
			Code: partition.CodeNewerFormat,
			Why:  fmt.Sprintf("message in version %d, this program knows %d", v, codecVersion),
			Next: "use an older client, or upgrade the nodes",
		})
	default:
		c.fail("message in version %d", v)
	}
	return c.byte()
}

// end returns the first error, also if something is left over.
func (c *cursor) end() error {
	if c.err == nil && len(c.b) > 0 {
		c.fail("%d bytes follow the message", len(c.b))
	}
	if c.err != nil {
		return c.err
	}
	return nil
}
