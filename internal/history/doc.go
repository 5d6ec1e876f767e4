// Package history records what clients asked of a cluster and what they were
// told, and judges afterwards whether it can be true.
//
// Two promises are checked. Writes, reads and compare-and-sets of each key must
// be linearizable, by porcupine. Elements appended to a list or a counter must
// form a durable set: each acknowledged one is there, each is there once, and
// the sequence numbers that were handed out grow.
//
// A client records an operation around the call that makes it:
//
//	call := h.Invoke(client, history.Op{Kind: history.Write, Key: k, Value: v})
//	err := put(k, v)
//	switch {
//	case err == nil:
//		call.Return(history.Result{})
//	case outcomeUnknown(err):
//		call.Unknown()
//	default:
//		call.Refused()
//	}
//
// A retry that the client library makes by itself belongs to the same call. An
// unknown outcome is never a failure: such an operation may take effect at any
// later time, or never.
//
// The check wants three things of a workload: a key is absent when it is first
// used, a value is written at most once per key, and a key sees at most
// [MaxOperations] operations, because the search grows steeply with their
// number. [History.Window] hands out fresh keys so that the last holds. It grows
// with the operations that overlap as well: with 16 clients at once on one key
// it takes milliseconds, with 64 it may not end. Let 64 clients share 8 keys or
// more.
package history
