// Command pando is the one binary: it runs a node, shows how a cluster is,
// changes it, and moves data in and out.
//
// The commands are flags and printing. Those that ask or change something speak
// HTTP with any of the nodes in --addr; load and export use the binary client,
// which goes to each partition's master by itself.
//
// Exit codes: 0 done; 1 an error; 2 a command line that makes no sense; 10 the
// cluster is not healthy; 11 refused before anything was done; 12 the time ran
// out and what was begun may still take effect.
package main
