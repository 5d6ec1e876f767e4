package wal_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pando.dev/pando/partition"
	"pando.dev/pando/wal"
	"pando.dev/pando/wal/memfs"
)

var errBroken = errors.New("the disk is broken")

// badFS fails calls by what they do and to which file, as often as it is told.
type badFS struct {
	wal.FS
	call, name string
	times      int
}

func (b *badFS) fails(call, name string) error {
	if b.times > 0 && call == b.call && strings.Contains(name, b.name) {
		b.times--
		return errBroken
	}
	return nil
}

func (b *badFS) Open(name string) (wal.File, error) {
	f, err := b.FS.Open(name)
	if err = errors.Join(err, b.fails("open", name)); err != nil {
		return nil, err
	}
	return badFile{f, b, name}, nil
}

func (b *badFS) Remove(name string) error {
	if err := b.fails("remove", name); err != nil {
		return err
	}
	return b.FS.Remove(name)
}

func (b *badFS) List(dir string) ([]string, error) {
	if err := b.fails("list", dir); err != nil {
		return nil, err
	}
	return b.FS.List(dir)
}

// badFile is a file of a badFS.
type badFile struct {
	wal.File
	fs   *badFS
	name string
}

func (f badFile) Size() (int64, error) {
	n, err := f.File.Size()
	return n, errors.Join(err, f.fs.fails("size", f.name))
}

func (f badFile) Close() error { return errors.Join(f.File.Close(), f.fs.fails("close", f.name)) }

func (f badFile) Evict() error { return f.fs.fails("evict", f.name) }

func (f badFile) ReadAt(b []byte, off int64) (int, error) {
	if err := f.fs.fails("read", f.name); err != nil {
		return 0, err
	}
	return f.File.ReadAt(b, off)
}

// TestOpenOnABadDisk: whatever fails once while a log is opened, it is not opened, or
// says what it did without; the next time everything is there.
func TestOpenOnABadDisk(t *testing.T) {
	for _, c := range []struct {
		call, name string
		opens      bool
	}{
		{"list", "", false}, {"open", ".wal", false}, {"size", ".wal", false}, {"read", ".wal", false}, {"evict", ".wal", true},
		{"remove", ".new", false}, {"open", "spare", false}, {"size", "spare", false}, {"close", "spare", false},
	} {
		mem := memfs.New(1)
		fs := &badFS{FS: mem}
		l, _ := open(t, fs, options())
		ch := &chain{g: 7}
		mustAppend(t, l, wal.Write{Group: 7, Replica: 1, Records: ch.make(1, 20, 100)})
		turns(l)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		names, err := mem.List(dir)
		if err != nil {
			t.Fatal(err)
		}
		half, err := mem.Create(filepath.Join(dir, "half.new"), 4096)
		if err != nil {
			t.Fatal(err)
		}
		half.Close()
		*fs = badFS{FS: mem, call: c.call, name: nameOf(names, c.name), times: 1}
		l, r, err := wal.Open(fs, dir, options())
		if c.opens && (err != nil || len(r.Notes) == 0) || !c.opens && !errors.Is(err, errBroken) || fs.times > 0 {
			t.Errorf("%s of %q among %v: %v, %d left", c.call, fs.name, names, err, fs.times)
		}
		if err == nil {
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		}
		l, _ = open(t, fs, options())
		sameRecords(t, l, ch)
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}

// nameOf finds what the files of a log are called.
func nameOf(names []string, kind string) string {
	for _, n := range names {
		if spare := strings.Contains(n, "spare"); kind == "spare" && spare || kind == ".wal" && !spare {
			return n
		}
	}
	return kind
}

// TestLogWithoutWhatItNeeds: no randomness for its secret, nobody who tells the free
// space, and questions to a log that is closed.
func TestLogWithoutWhatItNeeds(t *testing.T) {
	o := options()
	o.Rand = strings.NewReader("short")
	if _, _, err := wal.Open(memfs.New(1), dir, o); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("without randomness: %v", err)
	}
	o = options()
	o.DiskFree = func() (int64, int64, error) { return 0, 0, errBroken }
	l, _ := open(t, memfs.New(1), o)
	ch := &chain{g: 7}
	mustAppend(t, l, wal.Write{Group: 7, Replica: 1, Records: ch.make(1, 3, 100)})
	turns(l)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	_, read := l.Read(7, 1, 3, 1<<20)
	for what, err := range map[string]error{
		"read": read, "drop": l.Drop(7, nil), "append": l.Append(wal.Write{Group: 7}, nil),
	} {
		if partition.CodeOf(err) != partition.CodeClosed {
			t.Errorf("%s of a closed log: %v", what, err)
		}
	}
}

// TestFilesOfTheSystem: each call of the real file system that cannot be done says so.
func TestFilesOfTheSystem(t *testing.T) {
	base := t.TempDir()
	file := filepath.Join(base, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var fs wal.OS
	for what, f := range map[string]func() error{
		"a file below a file":  func() error { _, err := fs.Create(filepath.Join(file, "x"), 4096); return err },
		"a file that is there": func() error { _, err := fs.Create(file, 4096); return err },
		"no room at all":       func() error { _, err := fs.Create(filepath.Join(base, "x"), -1); return err },
		"nothing":              func() error { _, err := fs.Open(filepath.Join(base, "none")); return err },
		"no directory":         func() error { return fs.SyncDir(filepath.Join(base, "none")) },
		"a file as directory":  func() error { _, err := fs.List(file); return err },
		"free space of none":   func() error { _, _, err := fs.FreeSpace(filepath.Join(base, "none")); return err },
	} {
		if err := f(); err == nil {
			t.Errorf("%s: it was done", what)
		}
	}
	f, err := fs.Create(filepath.Join(base, "y"), 4096)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := f.Size(); n != 4096 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Size(); err == nil {
		t.Error("the size of a closed file")
	}
}
