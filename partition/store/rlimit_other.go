//go:build !unix

package store

// maxDescriptors is the process's limit on open descriptors, 0 if unknown.
func maxDescriptors() int { return 0 }
