package store

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/cockroachdb/pebble/v2"

	"pando.dev/pando/partition"
)

// sizeMismatch is how Pebble's check of a directory tells of a table that is
// shorter or longer than it was written. Unlike other damage it carries no mark
// of corruption.
const sizeMismatch = "object size mismatch"

// classify gives an error of Pebble or of the file system the code by which
// callers decide: is it the disk's space, damage, or a fault of ours.
func classify(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := err.(*partition.Error); ok {
		return err
	}
	switch {
	case pebble.IsCorruptionError(err):
		why := err.Error()
		if info := pebble.ExtractDataCorruptionInfo(err); info != nil {
			why = fmt.Sprintf("file %s: %v", info.Path, info.Details)
		}
		return &partition.Error{Code: partition.CodeCorrupt, Why: why, Next: "rebuild this replica from a peer"}
	case strings.Contains(err.Error(), sizeMismatch):
		return &partition.Error{Code: partition.CodeCorrupt, Why: err.Error(), Next: "rebuild this replica from a peer"}
	case isNoSpace(err):
		return &partition.Error{Code: partition.CodeNoSpace, Why: err.Error(), Next: "free space on the disk; the store then goes on by itself"}
	case isNotExist(err):
		return &partition.Error{Code: partition.CodeCorrupt, Why: "a state file is missing: " + err.Error(), Next: "rebuild this replica from a peer"}
	}
	return err
}

// inTime is classify for calls that a caller bounds by time.
func inTime(err error) error {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return partition.Errorf(partition.CodeTimeout, "%v", err)
	}
	return classify(err)
}

var (
	errClosed = partition.Errorf(partition.CodeClosed, "the store was closed")
	errBusy   = partition.Errorf(partition.CodeBusy, "every open store is in use; raise the limit of open stores")
)
