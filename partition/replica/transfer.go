package replica

import (
	"pando.dev/pando/partition"
)

// onTransfer answers at once that a planned hand-over is not possible here.
func (r *Replica) onTransfer(in Transfer) {
	if !r.isMaster() {
		r.refuse(in.ID, r.notMaster())
		return
	}
	r.refuse(in.ID, partition.Errorf(partition.CodeRefused, "replica %d cannot hand %s over", r.cfg.Self, r.cfg.Group))
}

// onResign ends a mastership that shall not go on.
func (r *Replica) onResign(why string) {
	if r.isMaster() {
		r.stepDown(why, true)
	}
}
