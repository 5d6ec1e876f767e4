package client

import (
	"io"

	"pando.dev/pando/partition"
)

const (
	// chunkBytes is how much a reader asks the connection for at once.
	chunkBytes = 64 << 10
	// growBytes bounds how much room is made ahead of the bytes of a frame that
	// is larger than a chunk: a hostile length costs no memory, only sent bytes
	// do.
	growBytes = 256 << 10
)

// frameReader cuts a stream into frames. It reads large chunks, and a frame
// stays valid for ever if keep is set: memory that was handed out is never
// written again. Without keep a frame is valid until the next call.
type frameReader struct {
	src   io.Reader
	limit int // of a frame without its prefix
	keep  bool
	// before, if set, is called before each read of the source; within tells
	// that a part of a frame is already there.
	before func(within bool)

	buf        []byte // the current chunk
	start, end int    // buf[start:end] was read and not handed out
}

// next returns the next whole frame, prefix included. An error of type
// *partition.Error means that what came is not a frame; any other is the
// connection's. io.EOF comes only between frames.
func (r *frameReader) next() ([]byte, error) {
	need := prefixBytes
	for {
		if have := r.end - r.start; have >= need {
			if need > prefixBytes {
				break
			}
			n, bad := frameLength(r.buf[r.start:r.end], r.limit)
			if bad != nil {
				return nil, bad
			}
			if need = prefixBytes + n; have >= need {
				break
			}
		}
		if err := r.fill(need); err != nil {
			return nil, err
		}
	}
	f := r.buf[r.start : r.start+need : r.start+need]
	r.start += need
	return f, nil
}

// fill reads once, on the way to need bytes.
func (r *frameReader) fill(need int) error {
	r.makeRoom(need)
	if r.before != nil {
		r.before(r.end > r.start)
	}
	n, err := r.src.Read(r.buf[r.end:])
	r.end += n
	if n > 0 {
		return nil
	}
	if err == io.EOF && r.end > r.start {
		return io.ErrUnexpectedEOF
	}
	if err == nil {
		return io.ErrNoProgress
	}
	return err
}

// makeRoom sees to it that there is space behind end.
func (r *frameReader) makeRoom(need int) {
	have := r.end - r.start
	if have == 0 && !r.keep {
		r.start, r.end = 0, 0
	}
	// A rest too small to be worth a read is left unused, unless the frame
	// being read ends in it.
	if free := len(r.buf) - r.end; free > 0 && (free >= chunkBytes/8 || r.start+need <= len(r.buf)) {
		return
	}
	size := chunkBytes
	if need > chunkBytes {
		size = min(need, max(have*2, growBytes))
	}
	if !r.keep && size <= len(r.buf) {
		r.end, r.start = copy(r.buf, r.buf[r.start:r.end]), 0
		return
	}
	buf := make([]byte, size)
	r.end, r.start = copy(buf, r.buf[r.start:r.end]), 0
	r.buf = buf
}

// corrupt reports whether err says that the bytes, not the connection, are bad.
func corrupt(err error) (*partition.Error, bool) {
	e, ok := err.(*partition.Error)
	return e, ok
}
