// Package control is the control group: the few decisions that belong to no
// group of their own. It keeps the catalog (tables and their groups), the nodes'
// sessions, and the locks from which masters get their numbers.
//
// # What it is not
//
// It is not on the way of a read or a write. Masters renew their leases with
// their peers, clients route by a copy of the catalog; when the control group is
// down they go on, and only failovers and changes of tables wait. And its locks
// carry no safety: one that is handed out twice costs a candidate an attempt,
// because replicas promise epochs and not lock holders. What it must get right
// for the sake of speed and order is that a lock's number only ever grows.
//
// The one exception is a permit to go on alone, by which a member of a pair
// commits without the other, or an operator gives lost members up: see below.
//
// # Seats and clients
//
// One, three or five nodes have a seat: a share of a log replicated by
// hashicorp/raft, with log, stable values and snapshots in one Pebble store that
// is synced before anything is answered. All nodes, with or without a seat, use
// the same [Control]. [Control.Catalog] returns an immutable catalog at once and
// without a message. Everything that decides something is brought to the leader,
// wherever it is, and tried until the caller's context ends:
//
//	CreateTable, AlterTable,
//	DropTable                carry a token: a retry gets the first answer
//	UpdateGroups             keeps the newest, so repetition does nothing
//	AcquireLocks             a repeated request gets a greater number
//	ReleaseLocks             names the number, so an old one releases nothing
//	BeginSplit, BeginPlan    carry a token
//	ActivateSplit,
//	StartPlan, CancelTask    do nothing the second time
//	ReportTask               keeps the newest; an end is final
//	Permit, Decree, Release,
//	Extend, Pass             name lock and request, or the number they start from
//
// So no request needs to know whether the try before was executed. If the
// context ends first, the error is CodeUnavailable when nothing was done, and
// CodeUnknown when something may have been.
//
// A node without a seat keeps its catalog by asking one seat for what has
// changed since its version; the seat holds the question until there is news. A
// version that somebody mentions ([Control.Hint]) makes it ask at once, and
// another seat if that one is behind. Entries carry the version that changed
// them last, so what is sent is the changes in order, in pages that fit one
// message, or the whole catalog for who is too far behind.
//
// # Sessions and locks
//
// A lock belongs to a replica on a node and lives as long as the node's session:
// one renewal per node, however many locks. Renewals stay in the leader's
// memory, by its own monotonic clock; only the beginning and the end of a
// session are commands of the log. A new leader gives every session its full
// time again, and a leader that stood still gives back the time it could not
// hear. Sessions carry the boot number: when a node starts again, what its
// last process held is free. They also carry a random number of the process, so
// that another process of the same boot, which runs on a copy of the disk, is told
// from the one that the session is of; [Control.Stale] has the rule and its window.
// The links between nodes notice less: a peer refuses a boot below the highest that
// it has met itself, in the life of its own process.
//
// A lock is granted if it is free, if the requester holds it, if the holder's
// session has ended, or if the requester has a failover quorum's word that the
// holder, another replica, cannot be reached. The number is one more than
// every number before it in the group, and than what the requester asks to
// exceed; the highest number outlives release, expiry and snapshots, and group
// ids are never used again. Locks that many replicas ask for at the same time
// travel in one request and are one entry of the log.
//
// # Permits
//
// Each group has an in-sync number, which moves by one and has at most one holder
// per number, whoever asks how often and in whatever order; permits.go has the
// moves. A permit is granted to the mastership with the newest lock, and while it
// is held the lock is refused to every replica that may lack what was committed
// alone. A decree is the same by an operator's word. It is part of the replicated
// state and of snapshots, but not of the catalog: who wants to know asks the leader
// ([Control.Permits]).
//
// # Tasks
//
// A task is the wish for one structural change: a split, a move, a plan. Tasks are
// part of the catalog, so the master of a group sees its task whoever it is, and a
// new one goes on. The control group does none of it; it refuses what cannot be,
// gives ids and places, and keeps the ranges of a table whole: tasks.go has the
// rules, taskplan.go those of plans. What a split makes is prepared, so that it can
// have locks, until its activation shows it in one command.
//
// # Founding
//
// Nobody configures the seats. With Expect = N, the node with the least id
// proposes itself and the N-1 next ones as soon as it sees N nodes that expect N.
// Gossip may show every node something else, so the seats must not depend on
// what anybody sees:
//
//   - A node is bound to at most one proposal at a time, and that is on its disk
//     before it answers. Whoever proposes is bound before it asks.
//   - A node that is bound and hears another proposal rejects that one, also on
//     its disk: it will never accept it.
//   - A proposal is founded when every one of its seats has accepted it.
//   - A node that knows a control group accepts nothing any more, and says so.
//   - A node gives a proposal up only when one of its seats has said that it will
//     never accept it, for one of these two reasons.
//
// Of two proposals with a common seat at most one is founded. The common seat
// would have to accept both, so it gave one of them up, because some seat was
// against that for ever; take the first seat that was. It turned against the
// proposal without having accepted it, for it had nobody yet to give it up for;
// so its acceptance, without which the proposal cannot be founded, is never
// given. What was answered is found again after a restart, because it was on
// disk before.
//
// A proposal whose proposer is no longer the first in sight, or that meets an
// existing control group, is not simply forgotten: its seats are asked to reject
// it. If one does, it is dead; if none can, all have accepted, and it is founded.
// A proposer that was rejected waits a few turns, so that the seats it had find
// out; as soon as gossip has settled there is one proposer only.
//
// What remains: if a node accepts and its disk is lost before the founding, the
// others wait for it, and say so in [Status]. And two sets without a common node
// that have never heard of each other found two control groups; their members
// refuse to merge when they meet (the gossip tag of the control group, and the
// number in every request), so it is seen at once and costs no data.
//
// # Bytes from elsewhere
//
// Commands, requests, answers, snapshots and the small files are all untrusted.
// One file, codec.go, holds their forms: version, kind, and a msgpack array that
// passes a structural check before it is decoded into fixed structs. A damaged
// command is refused by every seat alike. A command of a newer program stops
// this seat: others may understand it, so going on without it would fork the
// state.
//
// # Files
//
//	<dir>/SEATS   what this node is bound to, has rejected, or knows; doubled
//	<dir>/store   the seat's Pebble store
//
// # Order of reading
//
// api.go has the limits and types, catalog.go what readers see, state.go the
// rules of locks and tables, seats.go the founding. fsm.go, snapshot.go and
// store.go put the state under the log; control.go, serve.go, search.go,
// client.go, relay.go, locks.go and follow.go are the node around it.
package control
