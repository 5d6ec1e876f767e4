// Package store keeps the state of a node's replicas: one Pebble store each,
// opened when it is used, and an [Engine] for what they share.
//
//	      replica actors                 reads on any goroutine
//	            | Apply                       | View
//	+-----------v-----------------------------v-----------+
//	| Store, Store, Store ...  a handle per replica       |
//	|   closed <-> open        at most MaxOpen are open   |
//	+--------------------------+--------------------------+
//	| flush controller | compaction scheduler | caches    |  one of each per node
//	+--------------------------+--------------------------+
//	| thin file system         back-off, counters, fatal  |
//	+-----------------------------------------------------+
//
// # What is promised
//
// [Store.Apply] writes the effects of any number of log records, and the index
// of the last of them, in one batch. Pebble's own log is off: nothing is
// durable when Apply returns, because the node's log has the records. What
// survives a crash is the state after some record, [Store.Applied] says which,
// and the replica executes the records behind it again. So everything is made
// durable once in the log and once in a table, never in between.
//
// [Store.Durable] is how far a crash cannot take the state back; each advance
// is told to [Options].Durable, and the log may let go of the records below.
//
// A [View] is one state, which later applies do not change. It costs no more
// than a read.
//
// # The key space
//
// Keys of 1 to [MaxKeyBytes] bytes, in byte order. Those beginning with a zero
// byte are the store's own. [Under] gives each of several users a space of
// their own below a first byte.
//
// # When a state is replaced
//
// A state that comes from elsewhere is the next generation of its store:
// [Engine.NextGeneration] names it, [Engine.Verify] opens the copy to see its
// index, [Engine.Install] puts it in place while the old one may be open. The
// record in the node's log decides which counts; when it is durable the old one
// is dropped. At the start the node drops every generation of [Engine.Generations]
// that the log does not name. [View.Digest] tells whether two states are the same.
//
// # When memory runs short
//
// What was applied and not flushed, of all stores together, has a budget. At
// 75 % the controller flushes the largest stores; at 100 %, or when one store
// has too much, or its flushes fail, [Store.NeedsRoom] holds. Then the caller
// keeps its records, which the log has anyway, and goes on after
// [Store.AwaitRoom] calls. It must ask before every Apply: Pebble would not
// refuse but block.
//
// # When something breaks
//
// A full disk passes by itself: flushes are tried every 100 ms, [Store.Health]
// says CodeNoSpace meanwhile, reads of open stores go on; to open one takes a
// few KiB of space. A damaged or missing file gives
// CodeCorrupt and its name; that replica must be rebuilt, the others go on. A
// sync that failed is the end of the process: [Options].Fatal.
//
// [Store.Scrub] reads all files of a state past every cache, so that damage is
// found while other replicas are whole.
//
// # On disk
//
//	<dir>/stores/g17/1/    group 17, generation 1: Pebble's files and STORE
//	<dir>/trash/           dropped stores on their way out
//
// STORE is written last when a store is made and says whose it is and in which
// layout; a newer layout or a newer Pebble format is refused with
// CodeNewerFormat. DESIGN.md has the reasons and the measurements.
package store
