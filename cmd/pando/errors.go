package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"pando.dev/pando/actors/httpapi"
	"pando.dev/pando/partition"
)

// The exit codes. Scripts rely on them.
const (
	exitOK        = 0
	exitError     = 1
	exitUsage     = 2
	exitUnhealthy = 10
	exitRefused   = 11
	exitTimedOut  = 12
)

// usageError is a command line that makes no sense.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }

func (e *usageError) Unwrap() error { return e.err }

// unhealthyError ends status with its own exit code. What is wrong was printed
// already.
type unhealthyError struct{}

func (unhealthyError) Error() string { return "the cluster is not healthy" }

// exitCode is the exit code that err ends the process with.
func exitCode(err error) int {
	var usage *usageError
	var unhealthy unhealthyError
	switch {
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &unhealthy):
		return exitUnhealthy
	case partition.CodeOf(err) == partition.CodeRefused:
		return exitRefused
	case partition.CodeOf(err) == partition.CodeUnknown:
		return exitTimedOut
	}
	return exitError
}

// printError says what went wrong, why, and what to do next.
func (c *cli) printError(err error) {
	var unhealthy unhealthyError
	if errors.As(err, &unhealthy) {
		return
	}
	p := problemOf(err)
	if p.Code == "usage" && c.help != "" {
		p.Next = c.help
	}
	if c.output == "json" {
		if raw, err := json.Marshal(p); err == nil {
			fmt.Fprintf(c.err, "%s\n", raw)
			return
		}
	}
	fmt.Fprintf(c.err, "error: %s\n  why:  %s\n", p.Code, p.Why)
	if p.Next != "" {
		fmt.Fprintf(c.err, "  next: %s\n", p.Next)
	}
}

func problemOf(err error) httpapi.Problem {
	var usage *usageError
	switch {
	case errors.As(err, &usage):
		return httpapi.Problem{Code: "usage", Why: usage.Error(), Next: "see pando --help"}
	case errors.Is(err, context.Canceled) && partition.CodeOf(err) == partition.CodeInternal:
		return httpapi.Problem{Code: "interrupted", Why: "it was interrupted"}
	}
	var typed *partition.Error
	if errors.As(err, &typed) || errors.Is(err, context.DeadlineExceeded) {
		return httpapi.ProblemOf(err)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return httpapi.Problem{Code: "not_found", Why: err.Error(), Next: "check the path"}
	}
	return httpapi.Problem{Code: "failed", Why: err.Error()} // such as a file that may not be read
}

// invalid is an argument or input that makes no sense.
func invalid(next, format string, args ...any) error {
	return &partition.Error{Code: partition.CodeInvalid, Why: fmt.Sprintf(format, args...), Next: next}
}
