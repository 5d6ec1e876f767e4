package placement

import "pando.dev/pando/partition"

// CanDrain returns why the group's member on a node cannot be drained as things
// are, or "": whether somebody else can be master, and whether the others that
// answer could still commit. A node without a member of the group always can.
func CanDrain(s *Situation, node partition.NodeID) string {
	t := newTending(s)
	x, ok := t.m.OnNode(node)
	if !ok || x.Kind == partition.Learner || !x.Eligible {
		return ""
	}
	if x.Kind == partition.Full && !t.serviceWithout(&x) {
		return "no other full replica that counts is in service"
	}
	next := t.next()
	if x.Kind == partition.LogReplica {
		next.Remove(x.Replica)
	} else {
		next.At(x.Replica).Eligible = false
	}
	if err := next.Validate(); err != nil {
		return err.Error()
	}
	if !next.Durable(t.up) {
		return "nothing could be committed then among the members that answer"
	}
	if x.Replica == s.Self {
		if _, ok := t.transfer("its node is drained"); !ok {
			return "no other eligible full replica has caught up"
		}
	}
	return ""
}
