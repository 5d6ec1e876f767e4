package stamp

import (
	"os"
	"path/filepath"
	"testing"

	"pando.dev/pando/partition"
)

// TestInTheWay: a file that cannot be written or read says so, and the old one
// is still there.
func TestInTheWay(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "F")
	if err := Write(path, 1, []byte("old")); err != nil {
		t.Fatal(err)
	}
	old := func(what string) {
		t.Helper()
		if b, err := Read(path, 1); err != nil || string(b) != "old" {
			t.Errorf("%s: %q, %v", what, b, err)
		}
	}
	if err := os.Mkdir(path+".new", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Write(path, 1, []byte("new")); err == nil {
		t.Error("written over a directory")
	}
	old("a directory in the way of the new file")
	if err := os.Remove(path + ".new"); err != nil {
		t.Fatal(err)
	}
	if err := Write(path, 1, make([]byte, MaxBytes+1)); partition.CodeOf(err) != partition.CodeTooLarge {
		t.Errorf("too much: %v", err)
	}
	old("too much")
	other := filepath.Join(dir, "D")
	if err := os.MkdirAll(filepath.Join(other, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Write(other, 1, nil); err == nil {
		t.Error("replaced a directory")
	}
	if _, err := Read(other, 1); err == nil {
		t.Error("read a directory")
	}
	if err := Write(filepath.Join(path, "below"), 1, nil); err == nil {
		t.Error("written below a file")
	}
	if err := SyncDir(filepath.Join(dir, "none")); err == nil {
		t.Error("synced what is not there")
	}
	if err := os.Symlink(path, filepath.Join(dir, "L")); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(filepath.Join(dir, "L"), 1); err == nil {
		t.Error("followed a link")
	}
}
