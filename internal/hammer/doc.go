// Command hammer drives real pando processes through faults, as an operator and
// as many clients, and judges what the clients were told.
//
//	go run ./internal/hammer <scenario> [flags]
//
// Every scenario builds pando into a directory of its own, starts nodes on free
// ports of the loopback, does its harm, prints a small table of numbers, and
// ends with PASS or FAIL; the exit code is 0 only after PASS. Everything is
// bounded in time. It signals only processes that it started, each by its pid,
// and removes its directory at the end unless --keep is given.
//
// What is judged is package internal/history's business: reads, writes and
// compare-and-sets must be linearizable, and every acknowledged record must be
// there, once. Besides, no process may ever print a panic. A ledger reads the
// nodes' log files from outside: the way from record to record by their checksums
// is a group's one log, in which no committed record may be replaced, membership
// versions are consecutive and replica ids never used twice. A verifier reads
// values that never change in every way there is, and compares each. A network
// carries the links, and can be cut between any two nodes.
//
// Chaos is the scenario that does everything to everything: five nodes in network
// namespaces behind a hub (package internal/chaos), each on an ext4 of its own,
// three tables with a load each, and a bank. A nemesis draws faults by the names
// of package sim/fault from the seed, one in an episode, or several at once, or
// more than can be stood; it aims at masters, heals, and wants every partition to
// take a write again. Faults that must be stood are held until writes were seen to
// go on. Chapter by chapter everything is judged: the histories, the bank's sum at
// each audit and its receipts at the end, the replicas against each other, the
// logs; and at the very end everything is read once more.
//
//	make chaos                                  # 10 minutes of everything
//	make chaos CHAOS='--for 3m --seed 7 -v'     # told step by step
//	make chaos CHAOS='--only kill'              # kill -9 again and again
//	make chaos CHAOS='--only power-cut,network' # groups, or names of classes
//	make chaos CHAOS='--keep --dir /var/tmp'    # keep logs, histories and, of a failure, disks
//
// It wants root, /dev/net/tun, mkfs.ext4 (e2fsprogs) and five free loop devices,
// says what is missing, and then harms processes and files on the loopback only.
// It runs in mount and process namespaces of its own, so that nothing of it can
// outlive it. The seed fixes what is drawn, not what the machine makes of it: a
// run cannot be repeated exactly, but nemesis.txt says what was done when.
//
// Many failures of the same node within minutes are held against it by the
// cluster, which takes it back later each time; --node-flags "--replace-after 5s"
// bounds that in long trials of members.
//
// A trial is one execution of a scenario; a cluster is its nodes, each of which
// has one process at a time; a load is the clients; an ackLog is when they were
// acknowledged what they wrote.
package main
