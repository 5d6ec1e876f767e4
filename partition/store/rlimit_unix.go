//go:build unix

package store

import "syscall"

// maxDescriptors is the process's limit on open descriptors, 0 if unknown.
func maxDescriptors() int {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return 0
	}
	return int(min(r.Cur, 1<<20))
}
