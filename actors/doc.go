// Package actors runs everything: it hosts the pure machines in supervised
// actors, links nodes to each other, routes requests to masters and answers
// clients. It is the one package that knows about goroutines, clocks and
// sockets, and the one that an embedder starts.
//
// # To embed a node
//
// [Start] it with a [Config]: a directory, where to listen, whom to join, and
// the partition kinds of one's own. Wait for [Node.Ready], make a table with
// [Node.CreateTable], and work with [Node.Client], which reaches every
// partition of the cluster wherever its master is. End with [Node.Stop]. The
// example below is a whole program; more nodes only add Join. Package httpapi
// serves a node over HTTP, package client connects from another process.
//
// # What runs where
//
//	node                   one per process or more; owns the data directory
//	 |- membership         gossip in; links and routes out
//	 |- tender             brings the groups whose master is here to what they shall be
//	 |- replicas           makes, starts and drops what the catalog places here
//	 |   `- g1, g2, ...    one actor per replica: mailbox -> machine -> log, store, links
//	 `- links              one actor per other node: heartbeats, leases, frames
//	log                    its committer: one sync for everything that arrived meanwhile
//	stores                 flushes and compactions in the background, shared by all replicas
//	control group          raft among 1, 3 or 5 nodes; the others are its clients
//	clients                two goroutines per connection
//
// A replica's actor owns its machine. All that happens to the replica comes
// through its mailbox: commands, messages of peers, what the log or the lock
// service has done, its timer. Everything that has come since the last turn is
// one turn of the machine, so it is one write to the log and one frame to each
// peer. An answer carries the incarnation that asked for it; one for an earlier
// incarnation is dropped.
//
// Reads under a lease do not go through the mailbox: the actor publishes a view
// and its state, and whoever asks reads on its own goroutine. The state is taken
// first and the lease checked after, so no pause in between makes an answer
// stale. Without a lease a read goes through the mailbox and asks the members.
//
// An idle replica costs memory only. It has no timer and sends nothing:
// liveness and leases are kept per pair of nodes.
//
// # When a group is split
//
// The control group has the wish as a task; the node of the group's master drives
// it, one goroutine per split, by asking split.Next for the one next step. It keeps
// nothing that a new master would need. What leaves is held from before the Seal
// until the outcome: commands and quorum reads in the order of the mailbox, 200 ms
// each at most, reads under a lease because they look before and after. A member
// that has applied Activate makes its children's replicas by hard links of its own
// state, writes their first position into the log and starts them; what a crash
// leaves the log does not name. Done is proposed when all members have theirs, and
// each then removes the keys of others in the background. A request for keys that
// have gone is answered with the partitions that have them.
//
// # When something fails
//
// A panic in a replica, or an error of its log, its store or its partition
// kind's Apply, ends one incarnation: it answers its callers at once, with
// [partition.CodeUnknown] where the command may be in the log; it tells its
// group if it was master, so that another takes over in milliseconds; and after
// a growing pause it is rebuilt from the log. After three restarts in a minute,
// or at once if the cause would only repeat itself (damage, a newer format), it
// is given up: it stays silent, is reported as broken, and its group goes on
// with the other members. Neither the node nor other groups notice. What passes
// by itself does not count: while the disk is full or the store has no room,
// commands are refused with the reason and reads go on.
//
// Messages of peers that make no sense are counted and dropped. Replicas that
// lost synced records stay silent, and no grant of this node counts for their
// groups. A failed sync of the log is final: [Config.Fatal] is called.
//
// Every refusal with another code than CodeUnknown says that the command was
// not executed and will not be.
//
// # Limits
//
// Each mailbox is bounded in messages ([Config.QueueMessages]) and bytes (64
// MiB); a full one answers busy. The log refuses when 64 MiB wait for the disk.
// A command is at most 2 MiB, and its record at most half of a segment of the
// log ([Config.WALSegmentBytes]). A node opens four replicas at a time, asks for
// all locks that it needs together, and has one message at a time under way to
// each actor that follows the catalog or the members. What bounds connections,
// frames and queues between nodes is in package link, what bounds clients in
// package client.
//
// # Files
//
// The directory has NODE and LOCK (who this is, and that it runs), wal/ (the
// log), stores/ and trash/ (the state of the replicas), control/ (the seat in
// the control group), CATALOG (the catalog as it was last known, for a start
// without the control group), DRAIN (whether the node is in service), SUSPECT
// (replicas that must stay silent) and what gossip remembers of other nodes. The log is the
// truth: a node whose log is lost while stores are left refuses to start, for it
// has forgotten what it promised.
package actors
