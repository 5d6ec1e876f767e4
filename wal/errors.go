package wal

import (
	"errors"
	"fmt"

	"pando.dev/pando/partition"
)

// Sentinels for errors.Is, besides those of package partition.
var (
	// ErrPoisoned: a write or sync of the log has failed. What waited for it is
	// neither durable nor known to be lost (CodeUnknown); later appends are
	// refused (CodeUnavailable). The process must end.
	ErrPoisoned = errors.New("log is poisoned by a failed write")
	// ErrNoSpace: the disk is nearly full, so records are refused before
	// anything is written. Reads go on; it ends by itself when space returns.
	ErrNoSpace = partition.ErrNoSpace
	// ErrBusy: too much waits for the disk already; nothing was done.
	ErrBusy = partition.ErrBusy
	// ErrClosed: the log was closed.
	ErrClosed = partition.ErrClosed
	// ErrWrongNode: the directory holds the log of another node.
	ErrWrongNode = errors.New("log belongs to another node")
)

func invalid(format string, args ...any) error {
	return partition.Errorf(partition.CodeInvalid, format, args...)
}

func corrupt(format string, args ...any) error {
	return partition.Errorf(partition.CodeCorrupt, format, args...)
}

// poisoned is what an append that waited for a failed sync is answered.
func poisoned(cause error) error {
	return fmt.Errorf("%w: %w: %w", ErrPoisoned, &partition.Error{
		Code: partition.CodeUnknown,
		Why:  "the record may or may not be on disk",
		Next: "restart the node; the log is read anew from disk",
	}, cause)
}

// refusedPoisoned is what a later append is answered.
func refusedPoisoned(cause error) error {
	return fmt.Errorf("%w: %w: %w", ErrPoisoned, &partition.Error{
		Code: partition.CodeUnavailable, Why: "nothing was written", Next: "restart the node",
	}, cause)
}
