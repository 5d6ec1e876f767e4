// Package replica is the protocol of one replica: how a group elects a master,
// appends, commits, fails over and serves linearizable reads; and how committed
// records are executed exactly once.
//
// A [Replica] is a machine. Its owner, the host, feeds it one [Event] at a time
// through Step, then does the [Work] that Ready yields. It has no clock, no
// goroutine and no I/O, so the same code runs under real actors and under a
// simulator that owns time, network and disk. Many Steps may come before one
// Ready: their work is then consolidated, which is where batching comes from.
//
//	          NodeDown, or no master known
//	+------+ ------------------------------> +---------+  somebody reaches the master
//	| peer |                                 | probing | ------------------> peer
//	+------+ <-----------------------------+ +---------+
//	   ^      refused, lost, too few,      |      | nobody does; better candidates
//	   |      a newer epoch                |      v first (waiting)
//	   |                                   | +---------+  +-----------+  +-----------+
//	   |                                   +-| locking |->| promising |->| gathering |
//	   |                                     +---------+  +-----------+  +-----------+
//	   |                                      Locked       Persisted       |      ^
//	   |                                                          newer log v      | copied
//	   |                                                                 +----------+
//	   |                                                                 | fetching |
//	   |   a newer epoch, records not durable in time,                   +----------+
//	   |   no eligible full member any more                   failover set |
//	   |                                                                   v
//	+--------+   leases over   +------------+   committed  +----------+
//	| master | <-------------- | recovering | <----------- | leveling |
//	+--------+                 +------------+              +----------+
//
// A planned change of master goes another way: the old master hands over, and the
// heir goes from peer to promising at once; transfer.go shows the steps.
//
// # What a host must do
//
// Start with [New] and what is on disk, then Step a [Tick]: from it the replica
// learns the time. Give every event the node's monotonic time.
//
// Do the work of one Ready in its order. Of Persist only the hand-over to the
// log is waited for: from then on reads of the log must show it, though it is
// not yet on disk. [Persisted] follows when it is, in the order of Seq; a Persist
// without Sync needs no event. A record that a message or an Apply names by range
// is read before the next Persist of the same replica is handed over, since that
// one may snip it; if it cannot be read, drop the message.
//
// Publish the view before anything that comes after it. A reader looks at the
// view, takes the state, and then checks that its clock is before the LeaseEnd of
// the newest view, and that this is still of the first one's epoch: the view of
// an ended mastership counts a member that has promised itself elsewhere since,
// and a newer mastership does not speak for a state that was taken before it.
//
// Requests go to the replica while its view says Serving, or names the own node as
// Next: an heir keeps them until it serves, or refuses them. A host that stops, or
// has no disk any more, says [Resign] to its masters and waits a moment for their
// views to say that they serve no more.
//
// Every change of Neighbours.Reachable is followed by [NodeUp] or [NodeDown].
// The replica asks for alarms only while it waits for something, so that an idle
// group costs nothing: it relies on these hints to wake up.
//
// Bring up the replica of a member that was added only when the record is known to
// be committed, with the genesis record, with a copy of a state and the position
// it reflects, or, to keep the log only, at a base up to Status.Everywhere; then
// New with First behind it. A copy goes to a member, too, that Status.Behind names,
// also while the master is only leveling. Its promise stays, and so does its log
// where it continues the copy. A log that keeps no state lets go of nothing above
// Everywhere. On [Retire] delete the replica, and do not forget its id.
//
// Do what [Permit] and [ReleasePermit] ask strictly one after the other: a Permit
// leaves only when every ReleasePermit before it was answered.
//
// A replica whose state or log is damaged, or that panics, is thrown away and
// made anew from the log. It never goes on with a mastership.
//
// # Where to read
//
// The stories in testdata/golden first, in their order; then event.go, message.go
// and work.go; then replica.go, follow.go, failover.go, probe.go, master.go, peer.go,
// lease.go, read.go and transfer.go. Changes of the group are in configure.go,
// removed.go, solo.go and recover.go. session.go and execute.go stand for themselves.
// ready.go turns what has changed into work.
package replica
