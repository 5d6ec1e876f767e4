// Package replica is the protocol of one replica: how a group elects a master,
// appends, commits, fails over and serves linearizable reads.
//
// A Replica is a machine. Its owner feeds it one [Event] at a time through
// Step, then does the [Work] that Ready yields. It has no clock, no goroutine
// and no I/O, so the same code runs under real actors and under a simulator
// that owns time, network and disk.
package replica
