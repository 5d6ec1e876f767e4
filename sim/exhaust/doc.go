// Package exhaust walks every state that a small configuration of the real protocol
// core can come to: three replicas, two commands, a crash, and all orders in which
// messages arrive, writes get to the disk, locks are granted and alarms go off.
//
// [Walk] goes breadth first, so a violation comes with one of the shortest paths to
// it. Nothing in it is drawn by chance. What a state is, what is abstracted, and what
// that means for what is proved is in DESIGN.md.
package exhaust
