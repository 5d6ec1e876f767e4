package actors

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain fails if anything of a node outlives it.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
