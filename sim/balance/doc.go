// Package balance simulates how a cluster's groups are placed over hours: nodes
// that join, leave and fail, loads that swing and jump, and the planner, the
// watch and the execution of cluster/placement, compiled in as they are, that keep
// the nodes even.
//
// There is no message and no actor in it: a group is a few numbers in flat arrays,
// a copy is bytes over a node's rate, and time goes on in steps of a second. That
// is enough to see whether plans come true, whether anything moves that need not,
// and whether moving ever ends, for 1,000 nodes and 1,000,000 groups on one core.
// What a single group does meanwhile is the business of the simulator above.
//
// One goroutine, no clock, no chance but the seed's: the same Config gives the
// same Result.
package balance
