package actors

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"pando.dev/pando/actors/mailbox"
	"pando.dev/pando/partition"
)

// TestReasonOf: an operator reads of damage what is damaged, and only of an
// error in the program where it is.
func TestReasonOf(t *testing.T) {
	damage := fmt.Errorf("group g1: %w", partition.Errorf(partition.CodeCorrupt, "record 7"))
	stack := []byte("goroutine 1 [running]:")
	for _, x := range []struct {
		reason     any
		why, stack string
	}{
		{&mailbox.Panic{Value: damage, Stack: stack}, damage.Error(), ""},
		{&mailbox.Panic{Value: errors.New("no code"), Stack: stack}, "panic: no code", string(stack)},
		{&mailbox.Panic{Value: "a wish", Stack: stack}, "panic: a wish", string(stack)},
		{damage, damage.Error(), ""},
		{"gone", "gone", ""},
	} {
		if at, why := reasonOf(x.reason); why.Error() != x.why || at != x.stack {
			t.Errorf("%v: told %q at %q, want %q at %q", x.reason, why, at, x.why, x.stack)
		}
	}
	if _, why := reasonOf(&mailbox.Panic{Value: damage}); !errors.Is(why, partition.ErrCorrupt) {
		t.Error("the code is lost")
	}
}

// TestDemoted: an operator sees the library's warnings and not its information,
// which tells of failed actors in its own words.
func TestDemoted(t *testing.T) {
	var out bytes.Buffer
	l := slog.New(demoted{slog.NewTextHandler(&out, nil)}).With("a", 1).WithGroup("g")
	l.Info("recovering")
	l.Error("dead")
	if s := out.String(); strings.Contains(s, "recovering") || !strings.Contains(s, "dead") || !strings.Contains(s, "a=1") {
		t.Errorf("logged %q", s)
	}
}
