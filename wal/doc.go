// Package wal is the log of a node: one segmented file sequence that all
// replicas of the node append to, with one fdatasync for everything that
// arrived while the last one ran.
package wal
