// Package partition holds the words every other package shares, and the
// contract a user implements to bring a partition kind of their own.
//
// A partition is what a user sees: a range of keys with a state. One group of
// replicas serves it. Each replica keeps the group's log, a gap-free sequence
// of records, and applies the committed ones to its own copy of the state.
//
// Start with [Partition] (two methods, and all that a kind must have), then
// [Record] (what a log is made of), then [Membership] and its one predicate,
// Durable, from which commit, failover and read lease all follow.
//
// The package imports nothing but the standard library and does no I/O.
package partition
