// Package client is Pando's Go client, the protocol that it speaks with a node,
// and the server side of that protocol.
//
// A table is divided into partitions by key. The client keeps a copy of the
// routes, sends each request to the master of the key's group, follows
// redirects, and retries by itself until the context ends. Commands are
// executed exactly once: every command has a place in a session of its group,
// and a retry carries the same place, so the group answers it with the first
// result. When the time ends before the answer is known the error has
// [partition.CodeUnknown]; it never says "failed" of what may have happened.
//
//	caller --> call --> group (session, number) --> peer (one connection per node) --> Serve --> Backend
//	            ^          |                          |
//	            `- retry <-+---- redirect, busy, lost connection, time-out
//
// A read says by [ReadOptions] what it must show: the newest state, which the
// master answers, or one that is not older than what the caller has seen
// ([Seen], [Token]) or than a bound, which any full replica may answer.
//
// Start with [Open] and [Client.Propose]; [Client.KV] wraps the built-in
// key-value kind. A node answers with [Serve] over a [Backend]. A client inside
// a node's own process takes [Config.Local] and skips the socket.
//
// Goroutines: two per connected node, one that watches deadlines, and one per
// refresh of the routes; none per call.
package client
