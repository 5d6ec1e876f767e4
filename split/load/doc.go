// Package load decides whether a partition is to be divided because of what is
// asked of it, and where. It is pure: counts and keys go in, a [Decision] with its
// reason comes out, also when the reason is one against.
//
// A [Tracker] follows one partition on the node of its master. It is told once a
// [Window] how much was asked for since, and keeps averages, the greatest of the
// last minutes, and a state:
//
//	cold --a window above the limit--> watched --6 of 10 windows above--> engaged
//	  ^                                   |                                  |
//	  +------------- 30 s without a window above 0.8 of the limit -----------+
//
// A cold one costs its counters. From watched on a [Sampler] is told of the keys
// that are asked for: it keeps up to [Points] of them, one at a random place in each
// stratum of the load, so that equal shares of the points are equal shares of the
// load. A key's share of the points is its share of the load, which is why nothing else
// counts frequent keys.
//
// Load is counted in units: a request, and each 4 KiB that it brings or takes, are
// one. It is what was asked for, served or not: a partition that breaks down under
// its load must not look idle.
package load
