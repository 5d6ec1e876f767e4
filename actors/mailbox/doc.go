// Package mailbox is the queue in front of an actor, and the rule by which a
// failed actor is started again.
//
// A [Box] is bounded and batching: [Box.TryPost] refuses when the box is full,
// so that its caller decides what to do, and the actor gets everything that
// has queued up as one [Batch] per turn. Batching is where group commit and
// coalesced writes come from; a lone item is delivered at once, because a turn
// never waits for a batch to fill.
//
// [Backoff] is the supervisor's rule: restart with a growing delay, and past
// the limit stop and report. The library's own mailboxes and strategies are not
// used: its bounded ones spin or drop, and its back-off has neither cap nor end.
package mailbox
