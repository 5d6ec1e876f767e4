package sim

import "pando.dev/pando/partition"

// act is a request of an operator that waits for its answer.
type act struct {
	transfer bool
	to       partition.ReplicaID
	epoch    partition.Epoch // of the mastership that is handed over
}

// operate does what an operator does to the members of a group. It reports false
// for what cannot be done as things are.
func (w *world) operate(*node, *Fault) bool { return false }
