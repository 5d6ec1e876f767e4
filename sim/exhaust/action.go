package exhaust

import (
	"fmt"
)

// action is one thing that may happen next: a kind, a node and an argument.
type action uint32

const (
	nodeShift = 24
	kindShift = 27
	argMask   = 1<<nodeShift - 1
)

// kind is what happens.
type kind uint32

const (
	deliver   kind = iota + 1 // a message arrives; the argument is its number
	repeat                    // it arrives, and will arrive again
	drop                      // it is lost
	sync                      // the oldest write under way is on the disk
	applied                   // the state reflects what was asked for
	locked                    // the lock service grants; which question
	refused                   // it refuses
	outdated                  // it grants under the number that the candidate names
	alarm                     // the time of the alarm has come
	down                      // a hint: that node cannot be reached
	up                        // a hint: it can
	anew                      // a hint: it is in a new incarnation
	crash                     // the node stops; which of the survivors is on the disk
	start                     // it starts again
	propose                   // a client asks for a command; which, and which try
	read                      // a client asks for a quorum read; which
	transfer                  // an operator moves the mastership; to whom
	resign                    // the node is to stop
	configure                 // an operator changes the group; how
	grant                     // another node's beat is answered: it is granted a lease
	hold                      // the other half of grant; never chosen
)

func (k kind) of(node, arg int) action {
	return action(uint32(k)<<kindShift | uint32(node)<<nodeShift | uint32(arg))
}

func (a action) kind() kind { return kind(a >> kindShift) }
func (a action) node() int  { return int(a>>nodeShift) & 7 }
func (a action) arg() int   { return int(a & argMask) }

// flushes, in the argument of a crash, says that the state was flushed just before.
const flushes = 1 << 12

// tell describes an action in words. No two that may happen in one world have the
// same.
func (w *walk) tell(a action) string {
	n, arg := a.node()+1, a.arg()
	switch a.kind() {
	case deliver, repeat, drop:
		x := w.letters.list[arg]
		verb := map[kind]string{deliver: "deliver", repeat: "deliver, and keep,", drop: "lose"}[a.kind()]
		return fmt.Sprintf("%s %d.%d>%d %s", verb, x.from+1, x.boot, x.to+1, describe(x.message))
	case sync:
		return fmt.Sprintf("sync %d", n)
	case applied:
		return fmt.Sprintf("applied %d", n)
	case locked:
		return fmt.Sprintf("lock to %d, question %d", n, arg)
	case refused:
		return fmt.Sprintf("no lock to %d, question %d", n, arg)
	case outdated:
		return fmt.Sprintf("old lock to %d, question %d", n, arg)
	case alarm:
		return fmt.Sprintf("alarm %d", n)
	case down:
		return fmt.Sprintf("hint %d: %d is down", n, arg+1)
	case up:
		return fmt.Sprintf("hint %d: %d is up", n, arg+1)
	case anew:
		return fmt.Sprintf("hint %d: %d has started again as %d", n, arg%maxReplicas+1, arg/maxReplicas)
	case crash:
		s := fmt.Sprintf("crash %d, survivor %d", n, arg&^flushes)
		if arg&flushes != 0 {
			s += ", state flushed"
		}
		return s
	case start:
		return fmt.Sprintf("start %d", n)
	case propose:
		return fmt.Sprintf("command %d to %d, try %d", arg&15+1, n, arg>>4)
	case read:
		return fmt.Sprintf("read %d at %d", arg+1, n)
	case transfer:
		return fmt.Sprintf("transfer from %d to %d", n, arg+1)
	case resign:
		return fmt.Sprintf("resign %d", n)
	case configure:
		c := changes[arg/maxReplicas]
		return fmt.Sprintf("configure at %d: %s %d", n, c, arg%maxReplicas+1)
	case grant:
		return fmt.Sprintf("grant by %d to %d", n, arg+1)
	}
	return fmt.Sprintf("action %08x", uint32(a))
}

// changes are the changes of the group that an operator may ask for, of a member.
var changes = [...]string{"remove", "ineligible", "eligible"}
