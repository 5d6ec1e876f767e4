// Command splits measures what a split costs those who write meanwhile.
//
//	go run ./bench/splits pause -splits 40                      # PG1, PG2: the pause, phase by phase
//	go run ./bench/splits large -state 1024 -rate 20            # PG3, PG4, SPL-8: a large partition under a mixed load
//	go run ./bench/splits large -state 512 -rate 20 -new-nodes  # what leaves goes to other nodes
//
// The nodes are real ones in one process: each has its own log and stores on disk
// and its own sockets on the loopback; a client outside of them writes. One writer
// sends to the keys that leave and one to those that stay, each at a steady rate
// whatever comes back, so that a pause shows as long as it is. Every split is
// followed by as long a time without one, so both are measured in one run and a
// change of the machine's mood meets both.
//
// What is counted is the longest gap between two acknowledgements of a range
// within one such time, and the latency of each write from when it was due. The
// phases are read from what the nodes log.
//
// Nothing is left behind: the directory, below -dir, is removed at the end.
package main
