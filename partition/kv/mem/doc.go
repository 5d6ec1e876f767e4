// Package mem is a key space in memory: the twin of a replica's store, for
// trying a partition kind out and for tests. A [Space] behaves like the real
// thing in what the contract promises and in what it forbids: keys and values
// it hands out are overwritten as soon as they are no longer valid, so code
// that keeps one is caught.
package mem
