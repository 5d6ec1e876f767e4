package bulk

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"

	"pando.dev/pando/actors/httpapi"
	"pando.dev/pando/partition"
)

// room is a writer with room for so many bytes.
type room struct{ left int }

func (r *room) Write(b []byte) (int, error) {
	if len(b) > r.left {
		n := r.left
		r.left = 0
		return n, syscall.ENOSPC
	}
	r.left -= len(b)
	return len(b), nil
}

// TestExportEndsEarly: an export that cannot be written, or read on, ends there
// and says so, however much was done.
func TestExportEndsEarly(t *testing.T) {
	tb := &table{pairs: map[string]string{"a": "1", "b": "2", "c": "3"}}
	whole := len("1\n2\n3\n")
	for left := range whole + 1 {
		done, err := Export(t.Context(), ExportConfig{Scan: tb.scan, To: &room{left}, Raw: true, Page: 1})
		if left == whole && err != nil || left < whole && !errors.Is(err, syscall.ENOSPC) || done.Pairs != int64(left/2) {
			t.Errorf("with room for %d bytes: %+v, %v", left, done, err)
		}
	}
	for pages := range 3 {
		scan := func(ctx context.Context, r partition.KeyRange, limit int) ([]httpapi.KV, bool, error) {
			if pages--; pages < 0 {
				return nil, false, partition.Errorf(partition.CodeUnavailable, "no master")
			}
			return tb.scan(ctx, r, limit)
		}
		want := int64(pages)
		done, err := Export(t.Context(), ExportConfig{Scan: scan, To: io.Discard, Page: 1})
		if partition.CodeOf(err) != partition.CodeUnavailable || done.Pairs != want {
			t.Errorf("after %d pages: %+v, %v", want, done, err)
		}
	}
}

// TestInputThatCannotBeRead: a load ends at the very record that an input does not
// give any more, and an input that cannot be gone on in is refused.
func TestInputThatCannotBeRead(t *testing.T) {
	broken := errors.New("the disk is broken")
	in := io.MultiReader(strings.NewReader("a;1\nb;2\nc"), iotest.ErrReader(broken))
	r, err := NewReader(in, Format{Name: Delimited, Delimiter: ';', Key: "0"})
	if err != nil {
		t.Fatal(err)
	}
	tb := &table{}
	mark, err := Load(t.Context(), LoadConfig{Source: r, Put: tb.put})
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), "line 3") || mark.Loaded != 2 {
		t.Errorf("%+v, %v", mark, err)
	}
	csv := Format{Name: CSV, Key: "id", Header: true}
	for name, c := range map[string]struct {
		in   io.ReadSeeker
		f    Format
		mark Mark
		want string
	}{
		"no header any more":        {strings.NewReader(""), csv, Mark{Offset: 9, Line: 2}, "read the header"},
		"another header":            {strings.NewReader("name\nx\n"), csv, Mark{Offset: 5, Line: 2}, `no column "id"`},
		"another value":             {strings.NewReader("id\nx\n"), Format{Name: CSV, Key: "id", Value: []string{"no"}, Header: true}, Mark{Offset: 3, Line: 2}, `no column "no"`},
		"a position that is none":   {strings.NewReader("x\n"), Format{Name: Lines}, Mark{Offset: -1, Line: 2}, "go on at line 2"},
		"a column without a header": {strings.NewReader("x\n"), Format{Name: CSV, Key: "id"}, Mark{}, `no column "id"`},
	} {
		if _, err := Resume(c.in, c.f, c.mark); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestProgressThatCannotBeKept: it is said, and what was kept before stays.
func TestProgressThatCannotBeKept(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "progress")
	if err := (Progress{Table: "t", Group: 1}).Write(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path+".partial", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := (Progress{Table: "u", Group: 1}).Write(path); err == nil || !strings.Contains(err.Error(), "write the progress file") {
		t.Errorf("over a directory: %v", err)
	}
	if p, ok, err := ReadProgress(path); p.Table != "t" || !ok || err != nil {
		t.Errorf("%+v %v %v", p, ok, err)
	}
	if err := (Progress{}).Write(dir); err == nil {
		t.Error("a directory was replaced")
	}
	if _, _, err := ReadProgress(dir); err == nil || !strings.Contains(err.Error(), "read the progress file") {
		t.Errorf("a directory was read: %v", err)
	}
}
