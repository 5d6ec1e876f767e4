// Package fault is the vocabulary of faults: one name for each way in which a
// machine, a network, a disk, a clock, a lock service or an operator fails. The
// simulator and the chaos on real processes speak it both, and print it.
package fault
