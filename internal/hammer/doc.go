// Command hammer drives real pando processes through faults, as an operator and
// as many clients, and judges what the clients were told.
//
//	go run ./internal/hammer <scenario> [flags]
//
// Every scenario builds pando into a directory of its own, starts nodes on free
// ports of the loopback, does its harm, prints a small table of numbers, and
// ends with PASS or FAIL; the exit code is 0 only after PASS. Everything is
// bounded in time. It signals only processes that it started, each by its pid,
// and removes its directory at the end unless --keep is given.
//
// What is judged is package internal/history's business: reads, writes and
// compare-and-sets must be linearizable, and every acknowledged record must be
// there, once. Besides, no process may ever print a panic. A ledger reads the
// nodes' log files from outside: the way from record to record by their checksums
// is a group's one log, in which no committed record may be replaced, membership
// versions are consecutive and replica ids never used twice. A verifier reads
// values that never change in every way there is, and compares each. A network
// carries the links, and can be cut between any two nodes.
//
// Many failures of the same node within minutes are held against it by the
// cluster, which takes it back later each time; --node-flags "--replace-after 5s"
// bounds that in long trials of members.
//
// A trial is one execution of a scenario; a cluster is its nodes, each of which
// has one process at a time; a load is the clients; an ackLog is when they were
// acknowledged what they wrote.
package main
