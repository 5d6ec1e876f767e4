package bulk

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"pando.dev/pando/partition"
)

// MaxRecordBytes bounds one record of an input, line end included. A value may
// have 1 MiB and a key 1 KiB, so a longer record could not be stored anyway.
const MaxRecordBytes = 4 << 20

// Item is one pair to be stored.
type Item struct {
	Key, Value []byte
	Line       int64 // of its first byte, from 1
	End        int64 // offset in the input behind the record
}

// BadRecordError is a record that gives no pair. Reading can go on behind it.
type BadRecordError struct {
	Line int64
	Why  string
}

// Error names the line and what is wrong with it.
func (e *BadRecordError) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Why) }

// Reader cuts an input into items. It is used by one goroutine.
type Reader struct {
	in     *bufio.Reader
	format Format
	cut    cutter
	line   int64 // of the next record's first byte
	offset int64 // of the next record's first byte
	begun  bool
}

// NewReader reads records of the given format from the input's start.
func NewReader(in io.Reader, f Format) (*Reader, error) {
	r := &Reader{in: bufio.NewReaderSize(in, readAhead), format: f, line: 1}
	var err error
	r.cut, err = f.cutter(nil)
	return r, err
}

const readAhead = 256 << 10

// Resume reads records from a mark on. The names of columns, if there are any,
// are read from the input's start.
func Resume(in io.ReadSeeker, f Format, m Mark) (*Reader, error) {
	r, err := NewReader(in, f)
	if err != nil || m.Offset == 0 {
		return r, err
	}
	if f.Header {
		header, err := r.record()
		if err != nil {
			return nil, fmt.Errorf("read the header: %w", err)
		}
		if r.cut, err = f.cutter(header); err != nil {
			return nil, err
		}
	}
	if _, err := in.Seek(m.Offset, io.SeekStart); err != nil {
		return nil, fmt.Errorf("go on at line %d: %w", m.Line, err)
	}
	r.in.Reset(in)
	r.offset, r.line, r.begun = m.Offset, m.Line, true
	return r, nil
}

// Next returns the next item. It returns io.EOF at the end, a *BadRecordError
// for a record that must be skipped or end the load, and any other error of the
// input.
func (r *Reader) Next() (Item, error) {
	for {
		line := r.line
		raw, err := r.record()
		if err != nil {
			return Item{}, err
		}
		if !r.begun {
			r.begun = true
			if r.format.Header {
				if r.cut, err = r.format.cutter(raw); err != nil {
					return Item{}, err
				}
				continue
			}
		}
		if len(raw) == 0 {
			continue // an empty line has no key
		}
		key, value, why := r.cut(raw)
		if why == "" && len(key) == 0 {
			why = "the key is empty"
		}
		if why != "" {
			return Item{}, &BadRecordError{Line: line, Why: why}
		}
		return Item{Key: key, Value: value, Line: line, End: r.offset}, nil
	}
}

// record reads the bytes of one record, without the line end, into memory of
// its own. A carriage return belongs to the record: what goes in comes out.
func (r *Reader) record() ([]byte, error) {
	var raw []byte
	first, open := r.line, quotes{delimiter: r.format.Delimiter}
	for {
		part, err := r.in.ReadSlice('\n')
		r.offset += int64(len(part))
		raw = append(raw, part...)
		goesOn := r.format.quotes() && open.feed(part)
		if len(raw) > MaxRecordBytes {
			return nil, &partition.Error{
				Code: partition.CodeTooLarge, Why: fmt.Sprintf("line %d is longer than %d bytes", first, MaxRecordBytes),
				Next: "check that the input has lines and that --format fits it",
			}
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF):
			if len(raw) == 0 {
				return nil, io.EOF
			}
		case err != nil:
			return nil, fmt.Errorf("read line %d: %w", r.line, err)
		}
		r.line++
		if err == nil && goesOn {
			continue // the record goes on in the next line
		}
		return bytes.TrimSuffix(raw, []byte("\n")), nil
	}
}

// quotes follows the quoting of a record through its parts.
type quotes struct {
	delimiter      byte
	within         bool // behind the first byte of a field
	quoted, inside bool // the field began with a quote; it is still open
}

// feed reads on and reports whether the record ends inside a quoted field.
func (q *quotes) feed(part []byte) bool {
	for _, c := range part {
		switch {
		case c == '"' && !q.within:
			q.quoted, q.inside = true, true
		case c == '"' && q.quoted: // a doubled one closes and opens again
			q.inside = !q.inside
		case c == q.delimiter && !q.inside:
			q.within, q.quoted = false, false
			continue
		}
		q.within = true
	}
	return q.inside
}
