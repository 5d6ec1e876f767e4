// Command rivals measures the node's log against the logs of etcd and of
// hashicorp/raft in one run: N writers that each wait for their record to be
// durable before they write the next.
//
//	go run . -rounds 3 -time 400ms
//
// None of the rivals groups the writes of several callers, so each gets the
// same batching front: it hands over everything that waits in one call, with
// one sync, and waits up to 50 us for the writers to come back, as our log does.
// Our log is measured twice: as it is ("pando", one replica per writer, its own
// group commit) and behind the same front ("pando+front", one replica).
//
// The rounds are interleaved, so that a change of the machine's mood meets all
// alike; the table shows medians, and the ratios of the rows above them. Run it
// on an idle machine and on the disk that counts (-dir); -quiet 0.2 repeats each
// measurement during which others used more than a fifth of the processors.
//
// It is a module of its own, so that the rivals never become dependencies.
package main
