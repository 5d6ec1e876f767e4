package control

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" { // it leaves processes behind that ended, see TestFaultsChild
		os.Exit(m.Run())
	}
	goleak.VerifyTestMain(m)
}
