package planted

// Bug is one known mistake. Its String is the name that plans and tables use.
type Bug uint8

// The mistakes of the protocol machine. Each says what goes wrong.
const (
	_                Bug = iota
	NoPromiseSync        // an answer does not wait for the promise's disk
	SharedPromise        // a promise does not name one candidate
	NewerByIndex         // the longer log is taken for the newer one
	NoSnip               // a differing suffix stays
	SnipOnStale          // a shorter append shortens the log
	AnyEpochCommit       // a record of an older epoch is committed by counting
	NotJoint             // a new configuration counts alone at once
	FailoverNotJoint     // a failover needs the newest configuration only
	LeaseNotJoint        // a lease counts by the newest configuration only
	LosingMembership     // membership is taken from a log that lost
	NoLeaseWait          // a new master does not wait for old leases
	ReadInWait           // quorum reads are answered during that wait
	GrantOutlives        // a promise forgets the grants made before it
	ForgetGrants         // a restart forgets the grants made before it
	LearnerCounts        // a learner is a voter
	IneligibleCounts     // a member in ineligible mode is a voter
	NoticeCounts         // who is reported down is not counted any more
	ZoneByNode           // one node of enough zones is a failover set
	AckUnsynced          // an acknowledgement does not wait for the disk
	ResumeMastership     // a restarted master goes on as one
	EpochAgain           // an epoch that was promised before is tried again
	StaleSupport         // an answer to an earlier attempt is support for this one
	KeepView             // a master that hands over goes on with its view
	ReleaseWaiting       // a master releases leases that it has still waited for
	SkipNewerLease       // an heir does not wait for leases of epochs after the released one
	ReadUnconfirmed      // a quorum read asks nobody
	ReadOldConfirm       // a quorum read counts answers to an earlier round
	ReadJoins            // a quorum read joins the round under way, and its index
	ReadUnapplied        // a quorum read does not wait for the state
	ServeUnapplied       // a new master serves before its state has what came before it
	ReplyUnapplied       // a write is answered before it is applied and allowed
	AlwaysFailover       // any supporters suffice
	ConfigureEarly       // the group is changed before an own record is committed
	ConfigureInWait      // it is changed while old leases run
	TwoInFlight          // it is changed while another change is undecided
	FullUnready          // a log replica becomes full without the log
	BackUnknowing        // who was left behind counts again as soon as it is reached, as if it had what it missed
	PromoteUnready       // whoever has not caught up counts
	SoloUnpermitted      // a master goes on alone without a permit
	ReleaseEarly         // a permit is given back while somebody is left behind
	PassUnknowing        // it passes to a member that has not got the configuration in force alone
	AloneUnsynced        // it commits what comes before it, while it is not on disk
	JointAlone           // a configuration that takes effect alone is taken for a joint one
	EverywhereAny        // a log replica lets go of what a full voter lacks
	RetireEarly          // a removed replica retires when it knows that it is removed
	SettledUnsynced      // it is told that a removal is committed before that is on disk
	PromiseRemoved       // members support whom they know to be removed
	StaleAppend          // an append below the promise is taken
	AppendUnchecked      // an append is taken without comparing what comes before it
	CompactedAgain       // an append that begins before the log does is taken from its beginning
	CommitUnmatched      // a peer takes the master's commit index for its own records
	ApplyUnsynced        // committed records are applied before the own disk has them
	CountSent            // what was sent to a peer counts as if it had it
	CountGathered        // what a supporter's log ends with counts as if its disk had it
	GoUndrained          // a mastership is handed over with records under way
	FailUnknown          // a write whose fate is unknown is told to have failed
	NoResend             // what was sent and not answered is not sent again
	GiveUp               // a failed attempt to become master is the last one

	// Mistakes of the executor.

	ExecuteTwice    // a retry is executed again
	SessionsLost    // a restart forgets the sessions
	WindowLost      // a restart forgets which commands a session has executed
	ExpiredExecutes // a command of an expired session is executed
	OldExecutes     // a command that left the session's window is executed
	OtherResult     // a retry is answered with the result of the command before it

	// Mistakes of the lease table.

	NoDrift            // a grant is held to its end, whatever the clocks do
	FromAnswer         // a grant is counted from its answer instead of its question
	RevocationLost     // an answer does not carry the revocations
	RevocationOnce     // a revocation is sent once, acknowledged or not
	RevocationLate     // a renewal counts before the revocations that came with it
	AckOfAnotherBoot   // what a holder acknowledged to a former incarnation counts for this one
	GrantOfAnotherBoot // a grant counts whatever incarnation gave it
	GrantsUntold       // a revocation does not tell what was granted before
	AnswerToAnother    // an answer extends from a beat that it does not answer

	// Mistakes of the log.

	DoneUnsynced          // a write is reported durable before its sync
	RotAsTorn             // rot is cut as if it were a torn tail
	TornTaken             // a torn batch is taken for a whole one
	WriteAhead            // a batch is written before the one before is synced
	ReplayUnsynced        // what a start has replayed counts as durable, though nobody has synced it
	TablePromiseLost      // the state table of a new segment forgets the promises
	ReuseNeeded           // a segment is used again that a state still needs
	InstallForgetsPromise // an install sets the promise back
	InstallKeepsAny       // an install keeps a tail that does not match
	SnipLost              // a snip is not written: its records come back
	DropLost              // a drop is not written: its replica comes back
	SyncSwallowed         // a failed sync is tried again, and then counts
	NameUnsynced          // the name of a new segment is not made durable
	ReadUnchecked         // a record is read back without its checksum

	// Mistakes of the host of a replica, which the simulator makes.

	PersistedWritten  // a change counts as durable when it is written
	StateUnindexed    // the state is flushed apart from its applied index
	TruncateUnflushed // the log is let go of up to what is applied instead of flushed
	RestartUntold     // a restarted replica is told that it is new

	// Mistakes of the host of a group that is split, which the simulator makes.

	ChildOnReceipt // a child is made of an activation that is not known to be committed
	SealUnheld     // a range is sealed while requests for it go on
	SessionsNow    // a child gets its parent's sessions as they are, not as they were
	UnmaskedHost   // a host lets requests for keys that have moved through
	ChildIDAgain   // the id of a child that was not made is given again
	DoneEarly      // a split is over before every member has made its child

	// Mistakes of the hosts of two groups that are merged, which the simulator makes.

	UnsealByClock  // a source unseals itself when it has waited for long
	RowsUnsealed   // rows of before the source's seal are taken for the last
	SourceSessions // a survivor does not take in the source's sessions
	NoLift         // a survivor goes on with its own indexes
	UnseenOutcome  // a replica that has not seen the attempt begin says that it was given up

	end
)

// known describes the bugs, by number.
var known = [...]struct{ layer, name, about string }{
	NoPromiseSync:         {"replica", "no-promise-sync", "an answer does not wait for the promise's disk"},
	SharedPromise:         {"replica", "shared-promise", "a promise does not name one candidate"},
	NewerByIndex:          {"replica", "newer-by-index", "the longer log is taken for the newer one"},
	NoSnip:                {"replica", "no-snip", "a differing suffix stays"},
	SnipOnStale:           {"replica", "snip-on-stale", "a shorter append shortens the log"},
	AnyEpochCommit:        {"replica", "any-epoch-commit", "a record of an older epoch is committed by counting"},
	NotJoint:              {"replica", "not-joint", "a new configuration counts alone at once"},
	FailoverNotJoint:      {"replica", "failover-not-joint", "a failover needs the newest configuration only"},
	LeaseNotJoint:         {"replica", "lease-not-joint", "a lease counts by the newest configuration only"},
	LosingMembership:      {"replica", "losing-membership", "membership is taken from a log that lost"},
	NoLeaseWait:           {"replica", "no-lease-wait", "a new master does not wait for old leases"},
	ReadInWait:            {"replica", "read-in-wait", "quorum reads are answered during that wait"},
	GrantOutlives:         {"replica", "grant-outlives", "a promise forgets the grants made before it"},
	ForgetGrants:          {"replica", "forget-grants", "a restart forgets the grants made before it"},
	LearnerCounts:         {"replica", "learner-counts", "a learner is a voter"},
	IneligibleCounts:      {"replica", "ineligible-counts", "a member in ineligible mode is a voter"},
	NoticeCounts:          {"replica", "notice-counts", "who is reported down is not counted any more"},
	ZoneByNode:            {"replica", "zone-by-node", "one node of enough zones is a failover set"},
	AckUnsynced:           {"replica", "ack-unsynced", "an acknowledgement does not wait for the disk"},
	ResumeMastership:      {"replica", "resume-mastership", "a restarted master goes on as one"},
	EpochAgain:            {"replica", "epoch-again", "an epoch that was promised before is tried again"},
	StaleSupport:          {"replica", "stale-support", "an answer to an earlier attempt is support for this one"},
	KeepView:              {"replica", "keep-view", "a master that hands over goes on with its view"},
	ReleaseWaiting:        {"replica", "release-waiting", "a master releases leases that it has still waited for"},
	SkipNewerLease:        {"replica", "skip-newer-lease", "an heir does not wait for leases of epochs after the released one"},
	ReadUnconfirmed:       {"replica", "read-unconfirmed", "a quorum read asks nobody"},
	ReadOldConfirm:        {"replica", "read-old-confirm", "a quorum read counts answers to an earlier round"},
	ReadJoins:             {"replica", "read-joins", "a quorum read joins the round under way, and its index"},
	ReadUnapplied:         {"replica", "read-unapplied", "a quorum read does not wait for the state"},
	ServeUnapplied:        {"replica", "serve-unapplied", "a new master serves before its state has what came before it"},
	ReplyUnapplied:        {"replica", "reply-unapplied", "a write is answered before it is applied and allowed"},
	AlwaysFailover:        {"replica", "always-failover", "any supporters suffice"},
	ConfigureEarly:        {"replica", "configure-early", "the group is changed before an own record is committed"},
	ConfigureInWait:       {"replica", "configure-in-wait", "it is changed while old leases run"},
	TwoInFlight:           {"replica", "two-in-flight", "it is changed while another change is undecided"},
	FullUnready:           {"replica", "full-unready", "a log replica becomes full without the log"},
	BackUnknowing:         {"replica", "back-unknowing", "who was left behind counts again as soon as it is reached, as if it had what it missed"},
	PromoteUnready:        {"replica", "promote-unready", "whoever has not caught up counts"},
	SoloUnpermitted:       {"replica", "solo-unpermitted", "a master goes on alone without a permit"},
	ReleaseEarly:          {"replica", "release-early", "a permit is given back while somebody is left behind"},
	PassUnknowing:         {"replica", "pass-unknowing", "it passes to a member that has not got the configuration in force alone"},
	AloneUnsynced:         {"replica", "alone-unsynced", "it commits what comes before it, while it is not on disk"},
	JointAlone:            {"replica", "joint-alone", "a configuration that takes effect alone is taken for a joint one"},
	EverywhereAny:         {"replica", "everywhere-any", "a log replica lets go of what a full voter lacks"},
	RetireEarly:           {"replica", "retire-early", "a removed replica retires when it knows that it is removed"},
	SettledUnsynced:       {"replica", "settled-unsynced", "it is told that a removal is committed before that is on disk"},
	PromiseRemoved:        {"replica", "promise-removed", "members support whom they know to be removed"},
	StaleAppend:           {"replica", "stale-append", "an append below the promise is taken"},
	AppendUnchecked:       {"replica", "append-unchecked", "an append is taken without comparing what comes before it"},
	CompactedAgain:        {"replica", "compacted-again", "an append that begins before the log does is taken from its beginning"},
	CommitUnmatched:       {"replica", "commit-unmatched", "a peer takes the master's commit index for its own records"},
	ApplyUnsynced:         {"replica", "apply-unsynced", "committed records are applied before the own disk has them"},
	CountSent:             {"replica", "count-sent", "what was sent to a peer counts as if it had it"},
	CountGathered:         {"replica", "count-gathered", "what a supporter's log ends with counts as if its disk had it"},
	GoUndrained:           {"replica", "go-undrained", "a mastership is handed over with records under way"},
	FailUnknown:           {"replica", "fail-unknown", "a write whose fate is unknown is told to have failed"},
	NoResend:              {"replica", "no-resend", "what was sent and not answered is not sent again"},
	GiveUp:                {"replica", "give-up", "a failed attempt to become master is the last one"},
	ExecuteTwice:          {"executor", "execute-twice", "a retry is executed again"},
	SessionsLost:          {"executor", "sessions-lost", "a restart forgets the sessions"},
	WindowLost:            {"executor", "window-lost", "a restart forgets which commands a session has executed"},
	ExpiredExecutes:       {"executor", "expired-executes", "a command of an expired session is executed"},
	OldExecutes:           {"executor", "old-executes", "a command that left the session's window is executed"},
	OtherResult:           {"executor", "other-result", "a retry is answered with the result of the command before it"},
	NoDrift:               {"lease", "no-drift", "a grant is held to its end, whatever the clocks do"},
	FromAnswer:            {"lease", "from-answer", "a grant is counted from its answer instead of its question"},
	RevocationLost:        {"lease", "revocation-lost", "an answer does not carry the revocations"},
	RevocationOnce:        {"lease", "revocation-once", "a revocation is sent once, acknowledged or not"},
	RevocationLate:        {"lease", "revocation-late", "a renewal counts before the revocations that came with it"},
	AckOfAnotherBoot:      {"lease", "ack-of-another-boot", "what a holder acknowledged to a former incarnation counts for this one"},
	GrantOfAnotherBoot:    {"lease", "grant-of-another-boot", "a grant counts whatever incarnation gave it"},
	GrantsUntold:          {"lease", "grants-untold", "a revocation does not tell what was granted before"},
	AnswerToAnother:       {"lease", "answer-to-another", "an answer extends from a beat that it does not answer"},
	DoneUnsynced:          {"wal", "done-unsynced", "a write is reported durable before its sync"},
	RotAsTorn:             {"wal", "rot-as-torn", "rot is cut as if it were a torn tail"},
	TornTaken:             {"wal", "torn-taken", "a torn batch is taken for a whole one"},
	WriteAhead:            {"wal", "write-ahead", "a batch is written before the one before is synced"},
	ReplayUnsynced:        {"wal", "replay-unsynced", "what a start has replayed counts as durable, though nobody has synced it"},
	TablePromiseLost:      {"wal", "table-promise-lost", "the state table of a new segment forgets the promises"},
	ReuseNeeded:           {"wal", "reuse-needed", "a segment is used again that a state still needs"},
	InstallForgetsPromise: {"wal", "install-forgets-promise", "an install sets the promise back"},
	InstallKeepsAny:       {"wal", "install-keeps-any", "an install keeps a tail that does not match"},
	SnipLost:              {"wal", "snip-lost", "a snip is not written: its records come back"},
	DropLost:              {"wal", "drop-lost", "a drop is not written: its replica comes back"},
	SyncSwallowed:         {"wal", "sync-swallowed", "a failed sync is tried again, and then counts"},
	NameUnsynced:          {"wal", "name-unsynced", "the name of a new segment is not made durable"},
	ReadUnchecked:         {"wal", "read-unchecked", "a record is read back without its checksum"},
	PersistedWritten:      {"host", "persisted-written", "a change counts as durable when it is written"},
	StateUnindexed:        {"host", "state-unindexed", "the state is flushed apart from its applied index"},
	TruncateUnflushed:     {"host", "truncate-unflushed", "the log is let go of up to what is applied instead of flushed"},
	RestartUntold:         {"host", "restart-untold", "a restarted replica is told that it is new"},
	ChildOnReceipt:        {"host", "child-on-receipt", "a child is made of an activation that is not known to be committed"},
	SealUnheld:            {"host", "seal-unheld", "a range is sealed while requests for it go on"},
	SessionsNow:           {"host", "sessions-now", "a child gets its parent's sessions as they are, not as they were"},
	UnmaskedHost:          {"host", "unmasked-host", "a host lets requests for keys that have moved through"},
	DoneEarly:             {"host", "done-early", "a split is over before every member has made its child"},
	UnsealByClock:         {"host", "unseal-by-clock", "a source unseals itself when it has waited for long"},
	RowsUnsealed:          {"host", "rows-unsealed", "rows of before the source's seal are taken for the last"},
	SourceSessions:        {"host", "source-sessions", "a survivor does not take in the source's sessions"},
	NoLift:                {"host", "no-lift", "a survivor goes on with its own indexes"},
	UnseenOutcome:         {"host", "unseen-outcome", "a replica that has not seen the attempt begin says that it was given up"},
	ChildIDAgain:          {"host", "child-id-again", "the id of a child that was not made is given again"},
}
