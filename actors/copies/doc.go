// Package copies brings the state of a replica from one node to another: the
// files of a checkpoint, over a bulk stream of their own, at a bounded rate.
//
// # A copy
//
// The source makes a checkpoint of the state (hard links, milliseconds), says
// what the log has at its index, and sends the files as they are; writes go on
// meanwhile, and reach the new replica as the log's tail. The fetcher checks each
// message, each file against the manifest, and puts them in its stage. What
// happens with a copy is up to the host:
//
//	p, err := c.Fetch(ctx, copies.Request{Group: g, From: source, MinIndex: i})
//	generation, err := engine.NextGeneration(g, summary.Generation)
//	err = engine.Install(p.Dir, g, generation)      // files in place; nothing counts yet
//	err = log.Append(wal.Write{Group: g, Replica: id, Install: p.Install(generation)}, done)
//	                                                // when done: the copy is the state
//	err = engine.Drop(g, summary.Generation)        // the old one goes
//
// A crash before done leaves the old state, and one generation that no log record
// names, which the node drops at the start; what is in the stage then, New
// removes.
//
// # The conversation
//
//	fetcher                                source
//	hello  group, least index, checkpoint?
//	                                       wait         every 2 s, until it is ready
//	                                       offer        checkpoint, base, configuration, manifest
//	want   file and offset, ...
//	                                       chunk, chunk, ..., end
//	want   what came damaged
//	                                       chunk, ..., end
//	done
//	                                       (refuse      instead of anything: code, why, what next)
//
// Every message has a length that its kind bounds and a CRC32C; DESIGN.md and
// message.go have the layout.
//
// # When it breaks
//
// A transfer that ends early, or brings nothing for Config.Stall, is opened
// again after a wait, and goes on at the byte where it was: the source keeps a
// checkpoint for Config.Hold after its last use. If it is gone there is a new
// one, of which only the files are sent that are not here already. A source that
// brings nothing is given up for another one (Request.Else), whose checkpoint is a
// copy of its own: what is not in its manifest goes. When no source brings anything
// in Config.Attempts attempts the fetch ends, and so it does with its context.
//
// The tables that a fetch has left are kept for the next one of the group for
// Config.Keep, also over a restart, and so a table is not sent that is in a state
// which the node has already (Request.Have). Their checksums tell that they are the
// same; nothing else is believed.
//
// A message that fails its checksum ends the transfer; a file that does is
// fetched again, three times at most. A source that finds its own file damaged
// says so (CodeCorrupt), and another must be asked.
//
// # Limits
//
// Config bounds the bytes per second that a node sends and receives; a Governor says
// how far below that they stay beside writers. It bounds the copies at once each way, those that wait, the checkpoints held, the size of a copy. A fetch leaves
// Config.MinFreeBytes of the disk free, counting what other fetches will still
// write. A manifest has at most 65,536 files, names of letters, digits, dots and
// dashes, at most 64 long; no name leads out of the stage, and the stage is opened
// as an os.Root besides. Of one group a node fetches one copy at a time.
//
// Copies owns Dir/stage. Serve and Fetch run on their caller's goroutine; a
// transfer served has one more, which reads, and one while it waits for its
// turn.
package copies
