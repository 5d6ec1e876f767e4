// Package kv is the built-in ordered key-value kind: keys and values are bytes,
// keys are kept in byte order, every key has a version.
//
// # Commands
//
// A command is executed by the master of one partition, recorded, and executed
// alike by every replica. Every command is a [Batch]: conditions first, then
// writes. If all conditions hold, all writes are made, in their order, and
// become visible at once; if one does not, nothing is written, and the
// [Result] names it and its key's present version. A condition looks at the
// state before the batch, never at the batch's own writes. [Put], [Delete],
// [DeleteRange], [CompareAndSet] and [CompareAndDelete] are batches of one
// write.
//
// The [Version] of a key is the index of the record that wrote it. It tells
// two writes of the same value apart, and survives a delete: a key that was
// deleted and written again has a greater version than ever before. So read a
// key, decide, and write with [IfVersion]: if the result is a conflict,
// somebody else was there first; read again.
//
// # Partitions
//
// A table's keys are divided among partitions, each a range of keys. One batch
// is executed by one partition: all its keys, those of its conditions
// included, must be in that partition's range, or the batch is refused by
// whoever routes it. Nothing is ever half done: a batch over a boundary is
// refused as a whole, not split. [Batch.Span] says which range a batch needs.
// A delete of a range that crosses a boundary is made of one command per
// partition, each atomic and the whole not.
//
// A scan is answered by one partition from one consistent state of it, up to a
// limit of pairs and of bytes; [ScanAnswer.More] says that the limit ended it,
// and [ScanQuery.Rest] is the query that goes on behind the last pair. Each
// answer shows its own moment: a scan that takes several, over one partition
// or over many, may miss or show writes made while it ran, but shows every key
// that was there all the time, once and in order. When the answer says that
// there is no more, the partition's part is done and the next partition's
// begins at the range's end.
//
// # Limits
//
// A key has 1 to [MaxKeyBytes] bytes, a value up to [MaxValueBytes], a batch
// up to [MaxBatchOps] conditions and writes and, encoded, [MaxCommandBytes].
// A scan answer has at most [MaxScanPairs] pairs and [MaxScanBytes] bytes, but
// always at least one pair. What is over a limit gives an error of type
// *partition.Error with CodeTooLarge that names the limit and the value, when
// the command is built and again when it is executed; in the second case it is
// the result, the same on every replica, and nothing is written.
//
// # Encodings
//
// Commands, results, queries, answers and stored values begin with a version
// byte. A program refuses what is newer than itself with CodeNewerFormat. A
// new command version must not be sent before every member of the group knows
// it, because a member that does not would refuse what the others execute.
package kv
