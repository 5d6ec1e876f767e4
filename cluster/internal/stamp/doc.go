// Package stamp keeps a small file that must never be half written: the node's
// identity, the peers of the last run, the seats of the control group.
//
// Write puts the content twice into a new file, each copy with magic, format
// version, length and checksum, syncs it, renames it over the old one and syncs
// the directory. So a crash leaves the old content or the new one, and rot in
// one copy is survived by the other. Read takes what it finds as untrusted.
package stamp
