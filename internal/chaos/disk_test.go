//go:build linux

package chaos

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// scratch makes a disk, or skips the test where there can be none.
func scratch(t *testing.T) *Disk {
	t.Helper()
	if missing := Missing(1); len(missing) > 0 {
		t.Skip(strings.Join(missing, "; "))
	}
	dir := t.TempDir()
	d, err := NewDisk(filepath.Join(dir, "disk"), filepath.Join(dir, "under"), 32<<20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// appended writes so many lines, with a sync after the given ones, and leaves the
// file open.
func appended(t *testing.T, path string, lines, synced int) *os.File {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	for i := range lines {
		if _, err := f.WriteString("one line\n"); err != nil {
			t.Fatal(err)
		}
		if i+1 == synced {
			if err := f.Sync(); err != nil {
				t.Fatal(err)
			}
		}
	}
	return f
}

// TestPowerCut wants exactly what was synced to be there after a power cut.
func TestPowerCut(t *testing.T) {
	d := scratch(t)
	path := filepath.Join(d.Dir, "file")
	f := appended(t, path, 1000, 900)
	if err := d.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("x"); err == nil {
		t.Error("a dead disk takes a write")
	}
	f.Close()
	if err := d.Revive(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if n := bytes.Count(b, []byte("\n")); err != nil || n != 900 {
		t.Errorf("%d lines are there, %v", n, err)
	}
}

func TestFull(t *testing.T) {
	d := scratch(t)
	if err := d.Fill(8 << 10); err != nil {
		t.Fatal(err)
	}
	big := filepath.Join(d.Dir, "big")
	if err := os.WriteFile(big, make([]byte, 1<<20), 0o600); err == nil {
		t.Error("a full disk takes a megabyte")
	}
	if err := d.Free(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(big, make([]byte, 1<<20), 0o600); err != nil {
		t.Error(err)
	}
}

// TestSyncFailsOnce wants a sync to fail and what it was for to be lost.
func TestSyncFailsOnce(t *testing.T) {
	d := scratch(t)
	f, err := os.Create(filepath.Join(d.Dir, "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := d.BreakSyncs(); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(bytes.Repeat([]byte("lost"), 1<<20)); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err == nil {
		t.Error("the sync does not fail")
	}
	f.Close()
	if err := d.MendSyncs(); err != nil {
		t.Fatal(err)
	}
	if err := d.Revive(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(d.Dir, "after"), []byte("x"), 0o600); err != nil {
		t.Error(err)
	}
}

// TestFreeze wants a sync to wait for the thaw.
func TestFreeze(t *testing.T) {
	d := scratch(t)
	f := appended(t, filepath.Join(d.Dir, "file"), 1, 1)
	if err := d.Freeze(); err != nil {
		t.Fatal(err)
	}
	order := make(chan string, 2)
	go func() {
		_, err := f.WriteString("x")
		if err == nil {
			err = f.Sync()
		}
		if err != nil {
			order <- err.Error()
		}
		order <- "synced"
	}()
	Settle()
	order <- "thawed"
	if err := d.Thaw(); err != nil {
		t.Fatal(err)
	}
	if first, second := <-order, <-order; first != "thawed" || second != "synced" {
		t.Errorf("first %s, then %s", first, second)
	}
}
