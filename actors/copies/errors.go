package copies

import (
	"errors"
	"hash/crc32"

	"pando.dev/pando/partition"
)

// castagnoli is the polynomial of all checksums; read-only.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// update continues the checksum of a file or a message.
func update(sum uint32, b []byte) uint32 { return crc32.Update(sum, castagnoli, b) }

// foulError is what another node sent and should not have: a broken or
// malicious program, or a damaged connection.
type foulError struct{ err *partition.Error }

func (e *foulError) Error() string { return e.err.Error() }
func (e *foulError) Unwrap() error { return e.err }

// foul says what the other node sent.
func foul(format string, args ...any) error {
	e := partition.Errorf(partition.CodeCorrupt, format, args...)
	e.Why = "the other node sent " + e.Why
	return &foulError{e}
}

// refusal is what a source answered instead of a copy.
type refusal struct{ err *partition.Error }

func (e *refusal) Error() string { return "the source refused: " + e.err.Error() }
func (e *refusal) Unwrap() error { return e.err }

// localError is a failure of this node's own disk, which another try would only
// repeat.
type localError struct{ err error }

func (e *localError) Error() string { return e.err.Error() }
func (e *localError) Unwrap() error { return e.err }

func partitionError(err error) (*partition.Error, bool) {
	var e *partition.Error
	ok := errors.As(err, &e)
	return e, ok
}

// refuses reports whether a source does not give a copy, now or ever again; another
// one may.
func refuses(err error) bool {
	var no *refusal
	return errors.As(err, &no) && lasting(err)
}

// lasting reports whether another try would end the same way.
func lasting(err error) bool {
	var mine *localError
	if errors.As(err, &mine) {
		return true
	}
	var no *refusal
	if !errors.As(err, &no) {
		return false
	}
	switch no.err.Code {
	case partition.CodeBusy, partition.CodeUnavailable, partition.CodeClosed, partition.CodeTimeout, partition.CodeInternal:
		return false
	}
	return true
}
