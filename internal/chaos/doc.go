// Package chaos is a laboratory for real processes on one Linux machine: each
// runs in a network namespace and on a disk of its own, and both can be harmed.
//
//	clients ── TUN ─┐            ┌─ TUN ── node 1 ── ext4 on a loop device, on a tmpfs
//	                hub (here) ──┼─ TUN ── node 2 ── ext4 on a loop device, on a tmpfs
//	                             └─ ...
//
// A Space is a network namespace. It holds one end of a TUN device, the Hub the
// other: every IP packet between two spaces goes through this process, which
// delivers, delays, loses, repeats or breaks it, for each pair of spaces and each
// direction as the pair's Way says, with the randomness of one seed.
//
// A Disk is an ext4 file system on a loop device whose image lies on a small
// tmpfs. A power cut is the file system's shutdown ioctl: what was not synced is
// gone after the next mount. A freeze of the file system stalls every sync. A
// full tmpfs under the sparse image makes syncs fail for real, once, after which
// the next one succeeds: what a disk does that has run out of spare sectors.
//
// Everything needs root and a few tools; Missing says what is not there. Inside a
// Sandbox, a process with mounts and process numbers of its own, nothing can
// outlive the program however it ends: no process, namespace, device or mount.
package chaos
