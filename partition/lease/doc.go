// Package lease keeps what a node knows of its neighbours: who answers
// heartbeats, and which read leases run between it and them.
//
// A lease is a grant between two nodes, not between two replicas: a hundred
// thousand idle groups cost one heartbeat per pair. Each node beats to each
// other; the answer to a beat is the grant. The holder counts it from before it
// sent the beat and takes a margin for clock drift off, the grantor from when
// the beat came in, so the holder always stops first.
//
//	holder                          grantor
//	Beat(now)  --- beat, seq -----> OnBeat(now): grant until now + lease,
//	                                name the groups revoked and not acknowledged
//	OnAnswer  <--- answer, seq ---- first the revocations, then the renewal
//
// A replica about to promise a newer epoch calls [Table.Revoke]: from then on
// no grant counts for its group in an older epoch, except what was granted
// before, and how long that runs is what Revoke returns. The revocation goes
// with every answer until the holder has acknowledged it. Granting and revoking
// exclude each other, so a grant either is in what Revoke returned or carries
// the revocation.
//
// A revocation names the replica that made it. It stands whatever becomes of that
// replica, until the holder has acknowledged it; a later replica of the group on
// the same node has a greater id, which is what its grants count for. A grant
// counts only for the incarnation that gave it: the caller names the one in which
// the replica has confirmed the epoch. What an incarnation has revoked goes with it
// as well, since a promise may have been lost with it on its way to the disk.
//
// Grants are in memory only. A table that has just started has forgotten
// whom it revoked, so it grants nothing until [Table.Open]: before that the
// node revokes anew, for every replica on its disk, all epochs older than the
// stored promise.
//
// The package knows no sockets: beats and answers are values that the links
// carry.
package lease
