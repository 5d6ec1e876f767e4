package split

import (
	"fmt"

	"pando.dev/pando/partition"
)

// StepKind says what a Step does.
type StepKind uint8

const (
	// Nothing: there is no split to do here.
	Nothing StepKind = iota
	// Wait: Why says for what, and Again when to ask again at the latest.
	Wait
	// Configure: the group's next configuration is Membership; a learner comes for
	// a child on a new node, or goes again.
	Configure
	// Propose: put a record of kind Record with Payload into the log.
	Propose
	// Prepare: let the members make ready what they can of their children.
	Prepare
	// Hold: from now on keep what comes for the leaving ranges out of the log.
	Hold
	// Release: put into the log what was held and is served here, and answer the
	// rest with where its range has gone.
	Release
	// Tell: report to the control group.
	Tell
	// Ask: hear from the other group of a merge how things are there.
	Ask
	// TakeIn: bring rows of the source of a merge, where they differ, into the log.
	TakeIn
	// Seal: ask the master of the source of a merge to seal it.
	Seal
)

// String returns the name used in logs and answers.
func (k StepKind) String() string {
	names := [...]string{"nothing", "wait", "configure", "propose", "prepare", "hold", "release", "tell", "ask", "take-in", "seal"}
	if int(k) < len(names) {
		return names[k]
	}
	return fmt.Sprintf("step(%d)", uint8(k))
}

// Step is what to do about a group's split next.
type Step struct {
	Kind StepKind
	// Why is the reason in words; empty with Nothing only.
	Why string
	// Again is when Next is to be asked again at the latest, if nothing has changed
	// before; 0: only then.
	Again partition.Time

	Record     partition.Kind        // Propose
	Payload    []byte                // Propose
	Membership *partition.Membership // Configure
	Report     Report                // Tell
	Sealed     bool                  // TakeIn: only from a replica that has applied the seal
}

// Report is what the control group is told of a task.
type Report struct {
	Task uint64
	// Phase is how far it has got; with Activated, Version is the group's range
	// version and Range what it keeps.
	Phase   partition.Phase
	Version partition.RangeVersion
	Range   partition.KeyRange
	// Ended: the task is to be closed, Done or given up, and Why says why.
	Ended, Done bool
	Why         string
}
