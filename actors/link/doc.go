// Package link connects nodes: one link per pair, over TCP, with mutual TLS
// beyond loopback.
//
// A link is a supervised actor with two connections. The control connection
// carries heartbeats with leases, calls and messages between actors; the data
// connection carries what replicas say to each other, in frames whose records
// are the bytes that lie in every log. Neither waits for the other, and bulk
// transfers have connections of their own. The one listener of a node also takes
// raft streams and clients.
//
// Every connection begins with a handshake that names the cluster, both nodes
// and both incarnations, and is refused with a reason if any is another's. A
// process that dies is noticed by its closed connections, one that is frozen or
// cut off by its heartbeats.
//
// Nothing blocks and nothing grows: a queue that is full refuses, lengths are
// checked before memory is taken, and everything a peer does wrong ends in an
// error and a counter. Nothing is promised either: a frame may be lost with its
// connection, and the protocols above send again.
//
// [Links] is the entry; [EncodeReplica] and [DecodeReplica] are the messages of
// replicas; [Links.Expose] makes an actor reachable by its PID from other nodes.
package link
