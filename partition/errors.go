package partition

import (
	"errors"
	"fmt"
)

// Code classifies an error for programs. Codes cross the wire and are
// append-only: never renumber, never reuse.
type Code uint16

const (
	// CodeInternal is a fault of ours; the text says which.
	CodeInternal Code = 1
	// CodeNotMaster: this replica does not serve the request; Master is a hint.
	CodeNotMaster Code = 2
	// CodeWrongGroup: the key or the range version belongs to another group;
	// refresh the catalog and retry.
	CodeWrongGroup Code = 3
	// CodeBusy: a bounded queue is full; nothing was done; retry later.
	CodeBusy Code = 4
	// CodeUnavailable: the group has no master now; nothing was done; retry.
	CodeUnavailable Code = 5
	// CodeUnknown: the command may or may not have been executed. Retry in the
	// same session, which executes it at most once.
	CodeUnknown Code = 6
	// CodeTooLarge: a key, value, batch or record is over its limit.
	CodeTooLarge Code = 7
	// CodeNoSuchTable: the catalog has no table of that name.
	CodeNoSuchTable Code = 8
	// CodeSessionExpired: the session is gone, so whether an earlier try was
	// executed can no longer be told; it was not executed again.
	CodeSessionExpired Code = 9
	// CodeNoSpace: the disk is full; reads go on, writes do not.
	CodeNoSpace Code = 10
	// CodeInvalid: the request makes no sense; do not retry it.
	CodeInvalid Code = 11
	// CodeClosed: the node is shutting down.
	CodeClosed Code = 12
	// CodeRefused: a preflight check says no; nothing was done.
	CodeRefused Code = 13
	// CodeExists: what is to be created is there already.
	CodeExists Code = 14
	// CodeUnauthorized: the peer or client may not do this.
	CodeUnauthorized Code = 15
	// CodeNewerFormat: a file or a peer is newer than this program.
	CodeNewerFormat Code = 16
	// CodeNewerEpoch: the sender's epoch is older than one promised here.
	CodeNewerEpoch Code = 17
	// CodeCorrupt: bytes on disk or on the wire failed their checks.
	CodeCorrupt Code = 18
	// CodeTimeout: the deadline ran out before anything was done.
	CodeTimeout Code = 19
	// CodeNotFound: no such group, node or task.
	CodeNotFound Code = 20
	// CodeBehind: this replica's state is older than the read allows, or nobody
	// tells how old it is; ask another replica, or wait.
	CodeBehind Code = 21
)

var codeNames = map[Code]string{
	CodeInternal: "internal", CodeNotMaster: "not_master", CodeWrongGroup: "wrong_group",
	CodeBusy: "busy", CodeUnavailable: "unavailable", CodeUnknown: "outcome_unknown",
	CodeTooLarge: "too_large", CodeNoSuchTable: "no_such_table", CodeSessionExpired: "session_expired",
	CodeNoSpace: "no_space", CodeInvalid: "invalid", CodeClosed: "closed", CodeRefused: "refused",
	CodeExists: "exists", CodeUnauthorized: "unauthorized", CodeNewerFormat: "newer_format",
	CodeNewerEpoch: "newer_epoch", CodeCorrupt: "corrupt", CodeTimeout: "timeout", CodeNotFound: "not_found",
	CodeBehind: "behind",
}

// String returns the code's name as APIs and exit messages show it.
func (c Code) String() string {
	if s, ok := codeNames[c]; ok {
		return s
	}
	return fmt.Sprintf("code_%d", uint16(c))
}

// Error is an error that crosses the wire: what went wrong (Code), why, and
// what the caller can do next. Test with errors.Is against the sentinels below,
// or with errors.As for the fields.
type Error struct {
	Code   Code
	Why    string // one sentence with the values that matter
	Next   string // what to do about it; empty when the code says it all
	Master NodeID // with CodeNotMaster: who may be master, if known
}

// Error returns "code: why; next".
func (e *Error) Error() string {
	s := e.Code.String()
	if e.Why != "" {
		s += ": " + e.Why
	}
	if e.Next != "" {
		s += "; " + e.Next
	}
	return s
}

// Is reports whether target is an Error of the same code, so that
// errors.Is(err, ErrBusy) holds whatever the text says.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// Errorf returns an Error of the given code with a formatted reason.
func Errorf(c Code, format string, args ...any) *Error {
	return &Error{Code: c, Why: fmt.Sprintf(format, args...)}
}

// CodeOf returns the code of the first Error in err's chain, CodeInternal for
// any other error, and 0 for nil.
func CodeOf(err error) Code {
	if err == nil {
		return 0
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return CodeInternal
}

// Sentinels for errors.Is.
var (
	ErrNotMaster      = &Error{Code: CodeNotMaster}
	ErrWrongGroup     = &Error{Code: CodeWrongGroup}
	ErrBusy           = &Error{Code: CodeBusy}
	ErrUnavailable    = &Error{Code: CodeUnavailable}
	ErrUnknown        = &Error{Code: CodeUnknown}
	ErrTooLarge       = &Error{Code: CodeTooLarge}
	ErrNoSuchTable    = &Error{Code: CodeNoSuchTable}
	ErrSessionExpired = &Error{Code: CodeSessionExpired}
	ErrNoSpace        = &Error{Code: CodeNoSpace}
	ErrInvalid        = &Error{Code: CodeInvalid}
	ErrClosed         = &Error{Code: CodeClosed}
	ErrRefused        = &Error{Code: CodeRefused}
	ErrExists         = &Error{Code: CodeExists}
	ErrUnauthorized   = &Error{Code: CodeUnauthorized}
	ErrNewerFormat    = &Error{Code: CodeNewerFormat}
	ErrNewerEpoch     = &Error{Code: CodeNewerEpoch}
	ErrCorrupt        = &Error{Code: CodeCorrupt}
	ErrTimeout        = &Error{Code: CodeTimeout}
	ErrNotFound       = &Error{Code: CodeNotFound}
	ErrBehind         = &Error{Code: CodeBehind}
)

// Errors of ParseRecord. Both are corruption for a caller that expected a whole
// record; a reader at the end of a stream tells them apart.
var (
	ErrShortRecord   = errors.New("record is cut short")
	ErrCorruptRecord = errors.New("record is corrupt")
)
