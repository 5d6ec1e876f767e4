// Package tidy holds the rules of this repository that a program can check: who
// may import whom, what the pure packages leave alone, how long a file or a
// function may get. Its test runs them over the whole tree, so that a plain go
// test says what is wrong, where, and why it matters.
//
// The rules only parse and type-check; they build and run nothing. Each has a
// planted violation in the tests, so that it is known to see one.
package tidy
