package partition

import (
	"errors"
	"fmt"
	"io"
	"testing"
)

func TestEpoch(t *testing.T) {
	e := NewEpoch(7, 2)
	if e.Number() != 7 || e.Replica() != 2 || e.String() != "7.2" {
		t.Errorf("epoch %s of number %d and replica %d", e, e.Number(), e.Replica())
	}
	if !(NewEpoch(7, 1) < e && e < NewEpoch(8, 1)) {
		t.Error("epochs are ordered by number first and by replica second")
	}
	if GroupID(17).String() != "g17" {
		t.Error("g17 is not g17")
	}
}

func TestPosition(t *testing.T) {
	a, b := Position{Epoch: NewEpoch(1, 1), Index: 9}, Position{Epoch: NewEpoch(2, 1), Index: 3}
	if a.Compare(b) != -1 || b.Compare(a) != 1 || a.Compare(a) != 0 || (Position{Index: 1}).Compare(Position{Index: 2}) != -1 {
		t.Error("positions are ordered by epoch first and by index second")
	}
	if a.String() != "9@1.1" {
		t.Errorf("printed as %s", a)
	}
}

func TestKeyRange(t *testing.T) {
	k := func(lo, hi string) KeyRange { return KeyRange{Lo: []byte(lo), Hi: []byte(hi)} }
	all := KeyRange{}
	for _, c := range []struct {
		r    KeyRange
		key  string
		want bool
	}{
		{all, "", true}, {all, "\xff\xff", true}, {k("b", ""), "a", false}, {k("b", ""), "b", true},
		{k("b", "d"), "d", false}, {k("b", "d"), "c\xff", true}, {k("", "d"), "", true},
	} {
		if got := c.r.Contains([]byte(c.key)); got != c.want {
			t.Errorf("%s contains %q: %v", c.r, c.key, got)
		}
	}
	for _, c := range []struct{ a, b, want KeyRange }{
		{all, all, all}, {k("b", "d"), all, k("b", "d")}, {k("b", "d"), k("c", "e"), k("c", "d")},
		{k("b", ""), k("", "c"), k("b", "c")}, {k("b", "d"), k("a", "c"), k("b", "c")},
	} {
		if got := c.a.Intersect(c.b); got.String() != c.want.String() {
			t.Errorf("%s and %s share %s", c.a, c.b, got)
		}
		if got := c.b.Intersect(c.a); got.String() != c.want.String() {
			t.Errorf("%s and %s share %s", c.b, c.a, got)
		}
	}
	if all.Empty() || k("a", "b").Empty() || !k("b", "b").Empty() || !k("c", "b").Empty() || k("c", "").Empty() {
		t.Error("wrong about what is empty")
	}
	if s := k("a\x00", "").String(); s != `["a\x00",)` {
		t.Errorf("printed as %s", s)
	}
}

func TestErrors(t *testing.T) {
	e := Errorf(CodeBusy, "%d commands wait", 3)
	e.Next = "retry later"
	if e.Error() != "busy: 3 commands wait; retry later" || (&Error{Code: CodeClosed}).Error() != "closed" {
		t.Errorf("printed as %q", e)
	}
	wrapped := fmt.Errorf("propose: %w", e)
	if !errors.Is(wrapped, ErrBusy) || errors.Is(wrapped, ErrClosed) || errors.Is(e, io.EOF) {
		t.Error("errors.Is goes by the code")
	}
	if CodeOf(wrapped) != CodeBusy || CodeOf(io.EOF) != CodeInternal || CodeOf(nil) != 0 {
		t.Error("CodeOf finds the code in the chain")
	}
	if Code(999).String() != "code_999" {
		t.Error("an unknown code has no name")
	}
}

// Codes cross the wire: none may change its number or its name.
func TestCodes(t *testing.T) {
	names := []string{
		"internal", "not_master", "wrong_group", "busy", "unavailable", "outcome_unknown", "too_large", "no_such_table",
		"session_expired", "no_space", "invalid", "closed", "refused", "exists", "unauthorized", "newer_format",
		"newer_epoch", "corrupt", "timeout", "not_found", "behind",
	}
	for i, want := range names {
		if got := Code(i + 1).String(); got != want {
			t.Errorf("code %d is %s, not %s", i+1, got, want)
		}
	}
	for c, e := range map[Code]error{
		CodeNotMaster: ErrNotMaster, CodeWrongGroup: ErrWrongGroup, CodeBusy: ErrBusy, CodeUnavailable: ErrUnavailable,
		CodeUnknown: ErrUnknown, CodeTooLarge: ErrTooLarge, CodeNoSuchTable: ErrNoSuchTable, CodeSessionExpired: ErrSessionExpired,
		CodeNoSpace: ErrNoSpace, CodeInvalid: ErrInvalid, CodeClosed: ErrClosed, CodeRefused: ErrRefused, CodeExists: ErrExists,
		CodeUnauthorized: ErrUnauthorized, CodeNewerFormat: ErrNewerFormat, CodeNewerEpoch: ErrNewerEpoch, CodeCorrupt: ErrCorrupt,
		CodeTimeout: ErrTimeout, CodeNotFound: ErrNotFound, CodeBehind: ErrBehind,
	} {
		if CodeOf(e) != c {
			t.Errorf("the sentinel of %s has code %s", c, CodeOf(e))
		}
	}
}
