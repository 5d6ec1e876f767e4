package cluster

import (
	"testing"

	"golang.org/x/sys/unix"
)

// limitData bounds the process's private writable memory from now on.
func limitData(t *testing.T, bytes uint64) {
	t.Helper()
	if err := unix.Setrlimit(unix.RLIMIT_DATA, &unix.Rlimit{Cur: bytes, Max: bytes}); err != nil {
		t.Fatal(err)
	}
}
