// Package cluster knows who is here. It holds the node's identity on disk and
// the gossip membership; the packages below it decide things.
//
// There are three layers of truth, and a wrong hint of a lower one may cost
// time, never data:
//
//  1. Gossip ([Gossip], on Serf) says who seems alive, at which address, in
//     which zone. It carries no decisions. What it delivers as events is only a
//     reason to look: the truth is [Gossip.Members], compared as a whole.
//  2. A group's own log says who its members are and what it holds.
//  3. The control group (package control) says the rest: the catalog, the node
//     sessions, and the locks from which masters get their epochs.
//
// # Identity
//
// A node is its data directory. [OpenIdentity] takes the directory for this
// process alone, reads who the node is, and counts the start: the boot number
// is on disk before anything else happens. The node id is minted at the first
// start and never changes, whatever address the node has later. Every peer sees
// the boot number, because gossip shows nothing of a process that dies and is
// back within the suspicion time.
//
// # Membership
//
// A node finds the others by addresses it was given, by a file of addresses
// that is read again at every attempt, and by the peers it remembers from its
// last run; one that answers is enough. It goes on trying, with a growing
// pause, until one does, and shows the last error meanwhile.
//
// A member of another cluster is refused at the first exchange of states; with
// another key it is not even understood. A node does not listen beyond loopback
// without a key.
//
// Failed is not removed: a member that does not answer stays in the list, as
// failed, for three days. Whether its replicas are given up is not decided here.
package cluster
