package client

import (
	"errors"
	"time"

	"pando.dev/pando/partition"
)

// Backend is the node behind a server or a local client.
//
// Propose and Read must not block. They answer by calling reply exactly once,
// from any goroutine, possibly before they return; a second call is counted and
// ignored. The request must not be changed; its Key and Body are never written
// again by anybody, so the backend may keep them. The response belongs to the
// caller of reply again when reply returns.
//
// Three things may happen to a command: it was executed (Code 0, its result in
// Body and the index of its record), it was not and will not be (any other
// code), or nobody knows (CodeUnknown), for example because the master lost
// its mastership with the record in its log. A backend that answers another
// code than CodeUnknown after it has appended the command breaks exactly-once.
type Backend interface {
	// Propose serves OpPropose and OpOpenSession. The backend checks Group,
	// RangeVersion and Key, and answers CodeWrongGroup if they do not fit,
	// CodeNotFound if it has no replica of the group, CodeNotMaster with a hint
	// if another node is master, CodeUnavailable if nobody is.
	Propose(req *Request, reply func(*Response))
	// Read serves OpRead, with the same checks.
	Read(req *Request, reply func(*Response))
	// Route returns the node's copy of the catalog if its version is above
	// haveVersion, otherwise nil, and how long ago at most it was the newest;
	// negative: nobody knows. It must not block for long: it is called on the
	// connection's reader. The routes must not be changed afterwards.
	Route(haveVersion uint64) (r *Routes, age time.Duration, err error)
}

// asError finds the error to be sent in err's chain.
func asError(err error) *partition.Error {
	var e *partition.Error
	if errors.As(err, &e) {
		return e
	}
	return partition.Errorf(partition.CodeInternal, "%v", err)
}
