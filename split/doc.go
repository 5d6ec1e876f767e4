// Package split decides how a group is divided while it serves, and how two
// neighbours are merged. It is pure: what is seen goes in, the one next step comes
// out.
//
// A split is two records in the group's log. Seal says that nothing in the ranges
// that leave changes any more; when the members of each child that make a record
// durable hold the log through it, Activate gives the ranges away for ever. Before
// that, Unseal undoes the seal. The records are steps of partition.Extent, which is
// replicated state; so is everything that must survive a master.
//
// [Next] is asked by the master of a group whenever something may have changed: the
// task of the control group, the extent, what the members have. It keeps nothing
// between two calls, so a new master goes on where the state says that the old one
// was. Every wait has a reason in words and an end.
//
//	task --> learners --> Intent --> prepare --> hold, Seal --> Activate --> tell --> Done --> tell
//	                        |                      |   ^
//	                        +--> Abort --> tell    +---+ Unseal, at most Limits.Tries times
//
// A merge is decided in the log of the left neighbour, the survivor, and nowhere else.
// It takes the rows of the right one, the source, in by its own log; [NextMerge] is
// asked by the masters of both.
//
//	survivor  task --> MergeIntent --> Absorb ... --> ask for the seal --> Absorb ... --> Merging --> tell --> Done --> tell
//	                                      |                                      |
//	                                      +--------------- Abort ----------------+--> tell
//	source                             hold, SourceSeal --> ask for the decision, for ever --> SourceGone, or SourceUnseal
package split
