// Package wal is the log of a node: one segmented file sequence that all
// replicas of the node append to, with one fdatasync for everything that
// arrived while the last one ran.
//
// # How a write travels
//
// A replica hands over a [Write]: a promise, a snip, records, or several of
// them, which take effect together. [Log.Append] checks it against what the log
// knows of the replica (no gap, no promise that goes back, no snip of committed
// records, an unbroken chain of checksums), copies it into the open batch,
// brings the index in memory up to date, and returns. It never waits for the
// disk.
//
//	Append ──copy──▶ open batch ──▶ committer: pad, seal, pwrite, fdatasync ──▶ done(nil), in order
//	   │                                 ▲
//	   └──▶ index in memory              └── gathers up to 50 us while the writers of the last batch come back
//
// The committer is one goroutine. It writes one batch at a time, and the next
// only after the sync of the one before has returned. Whatever arrives in the
// meantime is the next batch. So under load the cost of a sync is shared by all
// replicas, and when idle a write waits for nothing but its own sync.
//
// [Log.Summary] and [Log.Read] show a write as soon as Append has returned; done
// says when it, and all before it, are durable. A failed write or sync poisons
// the log: everything that waits fails with [ErrPoisoned], which means "outcome
// unknown", and Options.Fatal ends the process. Nothing is ever tried again;
// the next process reads from disk what the disk holds.
//
// # What is on disk
//
//	<dir>/0000000000000007.wal    a segment; the one with the greatest number is active
//	<dir>/spare-3                 written, empty, waiting for its number
//
//	segment   page 0    header, twice: magic, crc, version, segment, incarnation, secret, node
//	          page 1    state table: one row per replica, as of the start of the segment
//	          ...       batches, each on a 4 KiB boundary
//	          ...       footer: per replica, where its records are      (when sealed)
//	          last      trailer: where the footer is, the batch numbers (when sealed)
//
//	batch     magic u32 | crc u32 | payload u32 | items u32 | batch u64 | segment u64 | items
//	item      a record of a group, as it travels between nodes, or a record of a
//	          local kind: state, snip, install, drop, quarantine, progress, echo
//	record    crc u32 | length u32 | group u64 | index u64 | epoch u64 | prev u32 | kind u8 | flags u8 | 0 u16 | payload
//
// All integers are little-endian, all checksums CRC32C. That of a batch starts
// from a secret of the log, so that no value a client writes can pass for a
// batch. A snip is an item like any other: files are never truncated.
//
// # How it comes back
//
// [Open] takes, of each sealed segment, the footer, and of the next the state
// table; it scans only the last segment, and one whose footer is damaged. A
// damaged end is a torn write, and is cut: it was never acknowledged. Damage
// with a valid batch behind it is rot: that batch was only written because the
// damaged one had been synced. Rot is never cut. Each batch echoes which groups
// the one before held, and how much of each, so the loss is put down to the
// groups that were in it; they are quarantined, named in the [Report], and
// refuse appends with CodeCorrupt until they are dropped. The others go on. For
// the last batch the proof is an empty one that follows within 50 ms.
//
// Then the bytes of the last segment are written again and synced, before
// anything in them counts as durable: a process that was killed leaves batches
// that look valid but were never synced. The log goes on in a new segment.
//
// # How a state is replaced
//
// An [Install] is the one commit point of a copied state: the host puts the
// files in place first, then appends it, and drops the old files only when it is
// durable. Whatever the log has behind the copy's base is kept if it has the
// base itself; otherwise the log is void. So a log replica, which has a log and
// no state (generation 0), gets one by the same record, and a log that begins in
// the middle is made by one. [Log.BaseAt] describes a place in a log as an
// Install takes it. A damaged replica is dropped and comes back under a new id
// with its first Write.
//
// # How it stays small
//
// A segment becomes a spare when, for every replica, the state has flushed what
// it holds ([Log.SetFlushed]) and peers do not want it ([Log.Retain]); over the
// soft cap peers are not asked. [Stats] tells when the log passes half the cap,
// and [Log.Pins] which replicas the host must flush. The cap is never more than
// half of what the log has and what is free on its disk: no log fills its disk
// by itself. The next segment is written
// into a spare: its blocks exist, so that a sync changes no metadata.
//
// # Limits
//
// A Write fits into one segment beside the state table; the state table takes
// at most a quarter of a segment (about 40,000 replicas with 64 MiB); what waits
// for the disk is bounded by Options.QueueBytes, beyond which Append answers
// [ErrBusy]. Below Options.MinFreeBytes the log says that it is Full, and below
// half of that records are refused with [ErrNoSpace] before anything is written,
// but for those that may use the reserve (Write.Reserve); reads go on, and it
// ends by itself.
//
// DESIGN.md says why the format is as it is, and what was measured.
package wal
