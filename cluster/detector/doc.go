// Package detector finds nodes, links and groups that limp: those that still
// answer, so that no heartbeat is missed, and slow everybody down.
//
// Every node measures itself once a second, a [Sample], tells it to the nodes
// around it, and gives all that it has heard to its [Detector]. Each figure is
// compared with the median of the same figure of the other nodes in the same
// second. So what hits all at once, a wave of load or a slow network, is nobody's
// fault, and no figure needs a threshold for what is fast on some hardware. A link
// is compared with what it was itself, less what all links do at the moment:
// distances differ for good.
//
// The logarithms of the ratios are summed up (CUSUM, Page 1954): clipped, so that
// one pause however long counts for little, and less a drift, so that what is
// usual drains away. A sum above the limit is a claim:
//
//	sum of min(log(own / median of others), Clip) - Drift, at least 0
//
//	  limit |- - - - - - - - - - - - - x x x x x x - - - - - - - - - -  claim
//	        |                      x x             x x
//	limit/2 |- - - - - - - - - x x - - - - - - - - - - x x - - - - - -  from here on
//	        |      x x       x                             x            quiet; the
//	      0 |x x x x   x x x x                               x x x x x  claim ends
//
// A claim is one node's opinion, and that node may be the sick one. So claims
// travel with the samples, and a [Verdict] is confirmed when two nodes say the
// same. A node that finds itself late says nothing about others, and one that
// missed its own seconds does not count them. A link of which both ends complain
// is slow; a node most of whose links are slow is the one to blame, not the links.
//
// What is done about it is in [Relief]: how many masterships a node may hand over.
//
// The package is pure: no clock, no randomness, no map order.
package detector
