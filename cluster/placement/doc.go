// Package placement says where a group's replicas go: at first, and from then on.
//
// [Place] gives the first assignment. It is weighted rendezvous hashing: every node gets a score from a hash of its
// own id and the group's, the highest scores win. Nobody has to remember
// anything to compute it, and it is monotone: a node that is added only
// receives replicas, a node that is removed only gives its own away.
//
// Failure domains come first. [Place] takes the best node of each zone before
// it takes a second one from any, so a group is spread over as many zones as
// its replication factor allows.
//
// The result is a first assignment and a hint, never the truth: where a group
// lives is recorded in the catalog and decided by the group's own log. Hashing
// alone balances to some 10 % at a few hundred keys a node (see the tests); what
// has to be tighter is planned from real loads.
//
// [Tend] says what a group needs next, from what its table asks for, its members,
// and what has become of their nodes: learners that are to be brought up, a log
// replica that is to stand in, a member that is to go. It returns one step at a
// time, each with its reason, and nothing for a group that is as it shall be.
//
// [MakePlan] says what should move among all groups, from a [Layout]: what is lost
// is made again, leaving nodes are emptied, new ones filled, overfull ones brought
// down. A plan is data: operators with their reasons, what they copy, how even
// the nodes are then, and what is impossible. A [Watch] says when to level, and an
// [Execution] which operators may start now.
//
// The package is pure: no clock, no randomness, no map order. Equal input gives
// equal output on every node.
package placement
