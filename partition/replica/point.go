package replica

import "pando.dev/pando/partition"

// Point is a moment at which a fault is interesting, or a rare state that was
// reached. Config.Point is told of it, if set, from within Step, Ready or Apply,
// and must not call the replica. Simulators put their faults there, and count
// which points they come by; nothing in the product sets it.
type Point uint8

// The points.
const (
	AtPromise                Point = iota // a promise is handed to the disk
	AtPromiseDurable                      // it is on disk
	AtProbe                               // the members are asked for a master
	AtHeldBack                            // an attempt ends since somebody reaches the master, or tries
	AtWait                                // better candidates go first
	AtLockAsked                           // the lock is asked for
	AtLockHeld                            // it is held
	AtLockRefused                         // it is refused, or lost
	AtLockOld                             // it was handed out under an old number
	AtGather                              // a candidate asks for support
	AtGatherAgain                         // it asks again who has not answered
	AtGatherAnswered                      // support is sent
	AtGatherRefused                       // a gather below the promise is refused
	AtLeaseReported                       // support is sent that tells of a lease which still runs
	AtSupported                           // a supporter is won
	AtNewerLog                            // a supporter has a newer log
	AtFetchServed                         // records are supplied to a candidate
	AtFetched                             // a candidate has taken records
	AtSourceLost                          // a supporter does not supply what it has
	AtAbandoned                           // an attempt ends without a mastership
	AtLead                                // a mastership begins: its Noop is in the log
	AtNoopDurable                         // the Noop is on the own disk
	AtCommit                              // records are committed by counting
	AtCommitOlder                         // with them some of an older epoch
	AtCommitJoint                         // by two configurations
	AtMaster                              // the Noop is committed
	AtLeaseWait                           // the new master waits for old leases
	AtServe                               // a master serves
	AtSteppedDown                         // a mastership ends
	AtNotDurable                          // since its records do not become durable
	AtMasterDown                          // the master's node was reported down
	AtConfiguration                       // a master appends a configuration
	AtConfigurationTaken                  // a peer takes one
	AtConfigurationCommitted              // one is known to be committed
	AtConfigurationSnipped                // one is snipped
	AtConfigurationRefused                // a change of the group is refused
	AtMemberAdded                         // a change adds a member
	AtMemberRemoved                       // a change removes one
	AtPromoted                            // a change lets a learner count
	AtIneligible                          // a change makes a member ineligible
	AtEligible                            // a change makes one eligible again
	AtRemoved                             // a replica learns that it was removed
	AtRetired                             // nobody needs it any more
	AtPermitAsked                         // a master asks to go on alone
	AtAlone                               // it goes on alone
	AtPermitUnused                        // a permit comes too late, and is given back
	AtPermitReleased                      // a permit is given back
	AtPermitPassed                        // it passes to those who have what it was for
	AtRecover                             // an operator's decree begins an attempt
	AtRecovered                           // it is proclaimed
	AtReadQueued                          // a quorum read comes before the master serves
	AtReadRound                           // a round of confirmations begins
	AtReadConfirmed                       // it is confirmed
	AtReadUnsupported                     // a read is not confirmed since an old lease runs
	AtHandOver                            // a planned change of master begins
	AtHeir                                // a replica is to be master next
	AtHeirReady                           // it holds the lock
	AtDraining                            // the old master takes nothing new
	AtGone                                // it has given its mastership up
	AtGoTaken                             // the heir goes on
	AtGoLost                              // the heir is not ready for it
	AtHandCalledOff                       // a hand-over ends with the old master
	AtLeaseReleased                       // a lease that would have been waited for was released
	AtSnip                                // a suffix that differs is removed
	AtSnipUnsynced                        // part of it was still on the way to the disk
	AtStaleAppend                         // an append below the promise is refused
	AtGap                                 // a peer asks for records before those that came
	AtResent                              // what was not answered is sent again
	AtReadBack                            // records for a peer are to be read from the log
	AtApplyReadBack                       // records to apply are
	AtBehind                              // a peer needs a copy: what it lacks is let go of
	AtTruncated                           // the log was let go of up to somewhere
	AtAckUnsettled                        // a commit is acknowledged later, since it is not on disk
	AtGrantsForgotten                     // a restarted replica assumes that its grants run
	AtSessionOpened                       // a session is opened
	AtSessionExpired                      // a session is expired
	AtSessionUnknown                      // a command names a session that is not open
	AtRepeated                            // a retry is answered from the table of sessions
	AtTooOld                              // a command has left its session's window
	AtIntent                              // a split begins
	AtSealed                              // ranges are sealed
	AtUnsealed                            // they are unsealed
	AtActivated                           // they are the children's
	AtSplitDone                           // a split is over
	AtSplitAborted                        // it is given up
	AtSplitRefused                        // a record of a split does not fit
	AtOutside                             // a command for keys that the group does not serve is refused
	AtStaged                              // a session's row is put aside for children
	AtAdopted                             // a child's replica is made; its host tells
	endOfPoints
)

// pointNames are the points as plans and coverage tables call them.
var pointNames = [...]string{
	AtPromise:                "promise",
	AtPromiseDurable:         "promise-durable",
	AtProbe:                  "probe",
	AtHeldBack:               "held-back",
	AtWait:                   "wait",
	AtLockAsked:              "lock-asked",
	AtLockHeld:               "lock-held",
	AtLockRefused:            "lock-refused",
	AtLockOld:                "lock-old",
	AtGather:                 "gather",
	AtGatherAgain:            "gather-again",
	AtGatherAnswered:         "gather-answered",
	AtGatherRefused:          "gather-refused",
	AtLeaseReported:          "lease-reported",
	AtSupported:              "supported",
	AtNewerLog:               "newer-log",
	AtFetchServed:            "fetch-served",
	AtFetched:                "fetched",
	AtSourceLost:             "source-lost",
	AtAbandoned:              "abandoned",
	AtLead:                   "lead",
	AtNoopDurable:            "noop-durable",
	AtCommit:                 "commit",
	AtCommitOlder:            "commit-older",
	AtCommitJoint:            "commit-joint",
	AtMaster:                 "master",
	AtLeaseWait:              "lease-wait",
	AtServe:                  "serve",
	AtSteppedDown:            "stepped-down",
	AtNotDurable:             "not-durable",
	AtMasterDown:             "master-down",
	AtConfiguration:          "configuration",
	AtConfigurationTaken:     "configuration-taken",
	AtConfigurationCommitted: "configuration-committed",
	AtConfigurationSnipped:   "configuration-snipped",
	AtConfigurationRefused:   "configuration-refused",
	AtMemberAdded:            "member-added",
	AtMemberRemoved:          "member-removed",
	AtPromoted:               "promoted",
	AtIneligible:             "ineligible",
	AtEligible:               "eligible",
	AtRemoved:                "removed",
	AtRetired:                "retired",
	AtPermitAsked:            "permit-asked",
	AtAlone:                  "alone",
	AtPermitUnused:           "permit-unused",
	AtPermitReleased:         "permit-released",
	AtPermitPassed:           "permit-passed",
	AtRecover:                "recover",
	AtRecovered:              "recovered",
	AtReadQueued:             "read-queued",
	AtReadRound:              "read-round",
	AtReadConfirmed:          "read-confirmed",
	AtReadUnsupported:        "read-unsupported",
	AtHandOver:               "hand-over",
	AtHeir:                   "heir",
	AtHeirReady:              "heir-ready",
	AtDraining:               "draining",
	AtGone:                   "gone",
	AtGoTaken:                "go-taken",
	AtGoLost:                 "go-lost",
	AtHandCalledOff:          "hand-called-off",
	AtLeaseReleased:          "lease-released",
	AtSnip:                   "snip",
	AtSnipUnsynced:           "snip-unsynced",
	AtStaleAppend:            "stale-append",
	AtGap:                    "gap",
	AtResent:                 "resent",
	AtReadBack:               "read-back",
	AtApplyReadBack:          "apply-read-back",
	AtBehind:                 "behind",
	AtTruncated:              "truncated",
	AtAckUnsettled:           "ack-unsettled",
	AtGrantsForgotten:        "grants-forgotten",
	AtSessionOpened:          "session-opened",
	AtSessionExpired:         "session-expired",
	AtSessionUnknown:         "session-unknown",
	AtRepeated:               "repeated",
	AtTooOld:                 "too-old",
	AtIntent:                 "split-intent",
	AtSealed:                 "split-sealed",
	AtUnsealed:               "split-unsealed",
	AtActivated:              "split-activated",
	AtSplitDone:              "split-done",
	AtSplitAborted:           "split-aborted",
	AtSplitRefused:           "split-refused",
	AtOutside:                "outside",
	AtStaged:                 "staged",
	AtAdopted:                "adopted",
}

// String is the name of the point.
func (p Point) String() string {
	if p >= endOfPoints {
		return "unknown"
	}
	return pointNames[p]
}

// Points lists every point, in order.
func Points() []Point {
	all := make([]Point, endOfPoints)
	for i := range all {
		all[i] = Point(i)
	}
	return all
}

// point tells of a point.
func (r *Replica) point(p Point) {
	if r.cfg.Point != nil {
		r.cfg.Point(p)
	}
}

// pointChange tells what a change of the group does.
func (r *Replica) pointChange(was, next *partition.Membership) {
	if r.cfg.Point == nil {
		return
	}
	for _, x := range next.Members {
		y, member := was.Member(x.Replica)
		switch {
		case !member:
			r.point(AtMemberAdded)
		case y.Kind == partition.Learner && x.Kind != partition.Learner:
			r.point(AtPromoted)
		case y.Eligible && !x.Eligible:
			r.point(AtIneligible)
		case !y.Eligible && x.Eligible:
			r.point(AtEligible)
		}
	}
	for _, y := range was.Members {
		if _, member := next.Member(y.Replica); !member {
			r.point(AtMemberRemoved)
		}
	}
}
