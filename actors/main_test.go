package actors

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain fails if anything of a node outlives it. When Serf cannot start, for
// want of a port, it leaves what it has started before. And the raft library does
// not answer a command that it has committed when it is shut down before it could
// apply it: who asked has long been told that the outcome is unknown, but the
// goroutine that waits for the library remains. The actor library counts letters to
// actors that have ended, in a goroutine that lives for a while after the first.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreTopFunction("github.com/hashicorp/serf/serf.(*Snapshotter).stream"),
		goleak.IgnoreTopFunction("github.com/hashicorp/serf/serf.(*Snapshotter).teeStream"),
		goleak.IgnoreTopFunction("github.com/hashicorp/serf/serf.(*serfQueries).stream"),
		goleak.IgnoreTopFunction("github.com/asynkron/protoactor-go/actor.NewDeadLetter.NewThrottle.func4.1"),
		goleak.IgnoreTopFunction("github.com/hashicorp/raft.(*deferError).Error"),
	)
}
