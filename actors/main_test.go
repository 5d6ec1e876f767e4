package actors

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain fails if anything of a node outlives it. When Serf cannot start, for
// want of a port, it leaves what it has started before.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreTopFunction("github.com/hashicorp/serf/serf.(*Snapshotter).stream"),
		goleak.IgnoreTopFunction("github.com/hashicorp/serf/serf.(*Snapshotter).teeStream"),
		goleak.IgnoreTopFunction("github.com/hashicorp/serf/serf.(*serfQueries).stream"),
	)
}
