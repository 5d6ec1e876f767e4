package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"pando.dev/pando/partition"
)

// Problem is the JSON body of every answer that is not a success.
type Problem struct {
	Code string `json:"code"`           // name of a partition.Code
	Why  string `json:"why"`            // one sentence with the values that matter
	Next string `json:"next,omitempty"` // what to do about it
}

// ProblemOf describes err. An error without a code is ours: internal.
func ProblemOf(err error) Problem {
	var e *partition.Error
	if errors.As(err, &e) {
		return Problem{Code: e.Code.String(), Why: why(err, e), Next: next(e)}
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return Problem{Code: partition.CodeTimeout.String(), Why: err.Error(), Next: nextFor(partition.CodeTimeout)}
	}
	return Problem{Code: partition.CodeInternal.String(), Why: err.Error(), Next: nextFor(partition.CodeInternal)}
}

// why is the typed error's own reason behind what was being done around it.
func why(err error, e *partition.Error) string {
	whole, inner := err.Error(), e.Error()
	if n := len(whole) - len(inner); n > 0 && whole[n:] == inner {
		return whole[:n] + e.Why
	}
	return e.Why
}

func next(e *partition.Error) string {
	if e.Next != "" {
		return e.Next
	}
	return nextFor(e.Code)
}

// nextFor is the advice that follows from the code alone.
func nextFor(c partition.Code) string {
	switch c {
	case partition.CodeBusy:
		return "nothing was done; wait a moment and try again"
	case partition.CodeUnavailable, partition.CodeNotMaster, partition.CodeWrongGroup:
		return "nothing was done; try again, and see pando status if it stays"
	case partition.CodeUnknown:
		return "it may still take effect; read it back before trying again"
	case partition.CodeTimeout:
		return "try again with a longer --timeout, and see pando status"
	case partition.CodeNoSuchTable:
		return "list the tables with pando table ls"
	case partition.CodeNoSpace:
		return "free disk space on the node; writes go on by themselves then"
	case partition.CodeClosed:
		return "ask another node"
	case partition.CodeBehind:
		return "try again, allow an older state, or read at level lease"
	case partition.CodeInternal:
		return "this is a fault of pando; the node's log has more"
	}
	return ""
}

// err turns a Problem back into the typed error it was made from.
func (p Problem) err() *partition.Error {
	return &partition.Error{Code: codeByName(p.Code), Why: p.Why, Next: p.Next}
}

// maxCode bounds the search of codeByName; codes are small and append-only.
const maxCode = 64

func codeByName(name string) partition.Code {
	for c := partition.CodeInternal; c < maxCode; c++ {
		if c.String() == name {
			return c
		}
	}
	return partition.CodeInternal
}

// statusOf is the HTTP status that a code is answered with.
func statusOf(c partition.Code) int {
	switch c {
	case partition.CodeInvalid:
		return http.StatusBadRequest
	case partition.CodeUnauthorized:
		return http.StatusForbidden
	case partition.CodeNoSuchTable, partition.CodeNotFound:
		return http.StatusNotFound
	case partition.CodeExists:
		return http.StatusConflict
	case partition.CodeRefused:
		return http.StatusPreconditionFailed
	case partition.CodeTooLarge:
		return http.StatusRequestEntityTooLarge
	case partition.CodeBusy:
		return http.StatusTooManyRequests
	case partition.CodeNotMaster, partition.CodeWrongGroup, partition.CodeUnavailable, partition.CodeClosed, partition.CodeSessionExpired, partition.CodeBehind:
		return http.StatusServiceUnavailable
	case partition.CodeUnknown, partition.CodeTimeout:
		return http.StatusGatewayTimeout
	case partition.CodeNoSpace:
		return http.StatusInsufficientStorage
	}
	return http.StatusInternalServerError
}

// fail answers with err. Only code, why and next reach the client.
func fail(w http.ResponseWriter, err error) {
	p := ProblemOf(err)
	code := codeByName(p.Code)
	if code == partition.CodeBusy || code == partition.CodeUnavailable || code == partition.CodeBehind {
		w.Header().Set("Retry-After", "1")
	}
	answer(w, statusOf(code), p)
}

// answer writes v as JSON.
func answer(w http.ResponseWriter, status int, v any) {
	body, err := json.MarshalIndent(v, "", "  ")
	if err != nil { // only a type of ours that JSON cannot carry
		status, body = http.StatusInternalServerError, []byte(`{"code":"internal","why":"the answer cannot be encoded"}`)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // the client is gone if this fails
}

// invalid is the answer to a request that makes no sense.
func invalid(next, format string, args ...any) error {
	return &partition.Error{Code: partition.CodeInvalid, Why: fmt.Sprintf(format, args...), Next: next}
}
