package link

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

const (
	minChunk = 4 << 10
	maxChunk = 256 << 10
	// slowest is the rate that a large frame must keep, in bytes per second.
	slowest = 1 << 20
	// deadlineStep is how coarsely read deadlines are set: setting one costs as
	// much as parsing several frames.
	deadlineStep = 8
)

// frameReader cuts frames out of large reads without copying them: a frame's
// body is a slice of the chunk it was read into, and a chunk is never reused.
// Chunks are as large as the traffic makes sense of, because whoever keeps a
// record keeps its chunk.
type frameReader struct {
	conn    net.Conn
	class   class
	silence time.Duration // how long a frame may take to begin and end; 0: for ever

	chunk   []byte // bytes are read into its room between w and cap
	r, w    int    // unread bytes are chunk[r:w]
	largest int    // the largest single read into this chunk
	set     time.Time
}

// next returns the next frame. Its memory is the caller's. Bodies are allocated
// as bytes arrive, so a peer cannot make us allocate by announcing.
func (f *frameReader) next() (Frame, error) {
	if err := f.fill(HeaderBytes); err != nil {
		return Frame{}, err
	}
	frame, n, err := parseHeader(f.chunk[f.r:f.w], f.class)
	if err != nil {
		return Frame{}, err
	}
	size := HeaderBytes + n
	if n > maxChunk {
		if err := f.deadline(time.Duration(n/slowest+1) * time.Second); err != nil {
			return Frame{}, err
		}
	}
	if err := f.fill(size); err != nil {
		return Frame{}, err
	}
	b := f.chunk[f.r : f.r+size : f.r+size]
	if err := checkFrame(b); err != nil {
		return Frame{}, err
	}
	f.r += size
	frame.Body = b[HeaderBytes:]
	return frame, nil
}

// fill reads until n unread bytes are there.
func (f *frameReader) fill(n int) error {
	for f.w-f.r < n {
		f.room(n)
		if err := f.deadline(0); err != nil {
			return err
		}
		got, err := f.conn.Read(f.chunk[f.w:cap(f.chunk)])
		f.w += got
		f.largest = max(f.largest, got)
		f.chunk = f.chunk[:f.w]
		if err != nil && f.w-f.r < n {
			if f.w > f.r && err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("read frame: %w", err)
		}
	}
	return nil
}

// room makes space to read towards n unread bytes. A frame that does not fit
// into what is left of the chunk moves to a new one, as far as it has come.
func (f *frameReader) room(n int) {
	have := f.w - f.r
	if cap(f.chunk) > f.w && (n > maxChunk || cap(f.chunk)-f.r >= n) {
		return
	}
	size := minChunk
	for size < maxChunk && size < 2*f.largest {
		size *= 2
	}
	size = max(size, min(n, max(maxChunk, 8*have)))
	fresh := make([]byte, have, size)
	copy(fresh, f.chunk[f.r:f.w])
	f.chunk, f.r, f.w, f.largest = fresh, 0, have, 0
}

// deadline bounds the reads of one frame. It is moved only at the beginning of
// a frame, so a peer that trickles bytes does not gain time.
func (f *frameReader) deadline(extra time.Duration) error {
	if f.silence == 0 || (f.w > f.r && extra == 0) {
		return nil
	}
	now := time.Now()
	if extra == 0 && now.Sub(f.set) < f.silence/deadlineStep {
		return nil
	}
	f.set = now
	return f.conn.SetReadDeadline(now.Add(f.silence + extra))
}

// timedOut reports whether a read ended because nothing came.
func timedOut(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
