package replica

// mutant is a set of known mistakes. Only tests set any: they show that the
// properties notice each of them. Every bit names a rule of the protocol by its
// absence.
type mutant uint64

const (
	noPromiseSync      mutant = 1 << iota // an answer does not wait for the promise's disk
	sharedPromise                         // a promise does not name one candidate
	newerByIndex                          // the longer log is taken for the newer one
	noSnip                                // a differing suffix stays
	snipOnStale                           // a shorter append shortens the log
	anyEpochCommit                        // a record of an older epoch is committed by counting
	notJoint                              // a new configuration counts alone at once
	losingMembership                      // membership is taken from a log that lost
	noLeaseWait                           // a new master does not wait for old leases
	readInWait                            // quorum reads are answered during that wait
	grantOutlives                         // a promise forgets the grants made before it
	forgetGrants                          // a restart forgets the grants made before it
	learnerCounts                         // a learner is a voter
	ackUnsynced                           // an acknowledgement does not wait for the disk
	resumeMastership                      // a restarted master goes on as one
	grantOfAnotherBoot                    // a grant counts whatever incarnation gave it
	keepView                              // a master that hands over goes on with its view
	releaseWaiting                        // a master releases leases that it has still waited for
	skipNewerLease                        // an heir does not wait for leases of epochs after the released one
	readUnconfirmed                       // a quorum read asks nobody
	executeTwice                          // a retry is executed again
	replyUnapplied                        // a write is answered before it is applied and allowed
	alwaysFailover                        // any supporters suffice
	configureEarly                        // the group is changed before an own record is committed
	configureInWait                       // it is changed while old leases run
	twoInFlight                           // it is changed while another change is undecided
	fullUnready                           // a log replica becomes full without the log
	backUnknowing                         // who was left behind counts again, not having the record that did so
	promoteUnready                        // whoever has not caught up counts
	soloUnpermitted                       // a master goes on alone without a permit
	releaseEarly                          // a permit is given back while somebody is left behind
	passUnknowing                         // it passes to a member that has not got the configuration in force alone
	aloneUnsynced                         // it commits what comes before it, while it is not on disk
	jointAlone                            // a configuration that takes effect alone is taken for a joint one
	everywhereAny                         // a log replica lets go of what a full voter lacks
	retireEarly                           // a removed replica retires when it knows that it is removed
	promiseRemoved                        // members support whom they know to be removed
)

func (m mutant) has(x mutant) bool { return m&x != 0 }
