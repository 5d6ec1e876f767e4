// Package sim runs a whole cluster in one goroutine, in virtual time, from one
// seed: the real replicas, the real lease table and the real log on simulated
// networks, disks, clocks, locks and operators, with faults in all of them and
// checkers that see everything.
//
// A [Plan] is everything that a run depends on. It is drawn from a seed ([Draw])
// or read from text ([ParsePlan]), and it prints as that text. The same plan
// gives the same run, byte for byte, whatever the machine and the number of
// processors. Every decision of a run is a hash of the seed and of what is
// decided, never the next number of a generator, so taking one fault out of a
// plan leaves the rest as it was; that is what makes a failing plan shrink.
//
//	seed ──Draw──▶ Plan ──Run──▶ Result ──(violation)──▶ Minimize ──▶ smaller Plan ──▶ testdata/*.plan
//
// README.md says how it is used and what it covers.
package sim
