package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"

	"pando.dev/pando/actors"
	"pando.dev/pando/partition"
)

// TestExitCodes: scripts rely on them.
func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{errors.New("anything"), 1},
		{&usageError{errors.New("x")}, 2},
		{unhealthyError{}, 10},
		{fmt.Errorf("create: %w", &partition.Error{Code: partition.CodeRefused}), 11},
		{&partition.Error{Code: partition.CodeUnknown}, 12},
		{&partition.Error{Code: partition.CodeTimeout}, 1}, // nothing was done
		{context.DeadlineExceeded, 1},
	} {
		if got := exitCode(c.err); got != c.want {
			t.Errorf("%v: %d, want %d", c.err, got, c.want)
		}
	}
}

// TestPrintError: each error says its code, why, and what to do.
func TestPrintError(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{errors.New("x may not be read"), "error: failed\n  why:  x may not be read\n"},
		{fmt.Errorf("open x: %w", fs.ErrNotExist), "error: not_found\n  why:  open x: file does not exist\n  next: check the path\n"},
		{partition.Errorf(partition.CodeBusy, "the queue is full"), "error: busy\n  why:  the queue is full\n  next: nothing was done; wait a moment and try again\n"},
		{fmt.Errorf("store line 7: %w", &partition.Error{Code: partition.CodeTooLarge, Why: "key of 9", Next: "cut it"}), "error: too_large\n  why:  store line 7: key of 9\n  next: cut it\n"},
		{context.Canceled, "error: interrupted\n  why:  it was interrupted\n"},
		{unhealthyError{}, ""},
	} {
		var out bytes.Buffer
		(&cli{err: &out}).printError(c.err)
		if out.String() != c.want {
			t.Errorf("%v: %q, want %q", c.err, out.String(), c.want)
		}
	}
}

// TestFirstLine: the first line of status answers the first question.
func TestFirstLine(t *testing.T) {
	for _, c := range []struct {
		s    actors.ClusterStatus
		want string
	}{
		{actors.ClusterStatus{CanLose: 2, Why: "majority"}, "2 more failures can be taken, limited by this: majority"},
		{actors.ClusterStatus{CanLose: 1}, "1 more failure can be taken"},
		{actors.ClusterStatus{CanLose: 0, Why: "n2 is down"}, "no more failure can be taken: n2 is down"},
		{actors.ClusterStatus{CanLose: -1, Why: "no leader"}, "NOT HEALTHY: no leader"},
		{actors.ClusterStatus{CanLose: 1, Partitions: 2, WithMaster: 1}, "NOT HEALTHY"},
	} {
		if got := firstLine(c.s); got != c.want {
			t.Errorf("%+v: %q, want %q", c.s, got, c.want)
		}
	}
}

// TestPrintable: what is plain stays plain, and nothing else reaches a terminal
// as it is.
func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"plain": "plain", "two words": "two words", "": `""`, " x": `" x"`, "a\tb": `"a\tb"`, "\xff": `"\xff"`, "\x1b[31m": `"\x1b[31m"`, `"q"`: `"\"q\""`, "élan": "élan",
	} {
		if got := printable([]byte(in)); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
	if got := rangeText(nil, nil); got != "all keys" {
		t.Error(got)
	}
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1536: "1.5 KiB", 3 << 20: "3.0 MiB", 5 << 30: "5.0 GiB"} {
		if got := byteText(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

// TestNoTerminal: files, pipes and the null device are nobody who looks.
func TestNoTerminal(t *testing.T) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if isTerminal(null) || isTerminal(file) || isTerminal(&strings.Builder{}) {
		t.Error("taken for a terminal")
	}
}
