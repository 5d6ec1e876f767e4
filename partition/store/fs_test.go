package store

import (
	"io"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func newTestFS(tb testing.TB, base vfs.FS) *thinFS {
	return &thinFS{
		FS: base, count: new(fsCounters), quit: make(chan struct{}),
		fatal:  func(err error) { tb.Errorf("fatal: %v", err) },
		report: func(error) {},
	}
}

func create(tb testing.TB, fs vfs.FS, name string) vfs.File {
	tb.Helper()
	f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		tb.Fatal(err)
	}
	return f
}

// TestMarkerAfterManifest: whatever part of the directory a crash keeps, a
// marker is there whenever one was moved before, and names a MANIFEST that is
// there too.
func TestMarkerAfterManifest(t *testing.T) {
	for seed := range uint64(200) {
		mem := vfs.NewCrashableMem()
		fs := newTestFS(t, mem)
		r := rand.New(rand.NewPCG(seed, 2))
		crash := func() vfs.FS {
			return mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: r})
		}
		exists := func(fs vfs.FS, name string) bool {
			_, err := fs.Stat(name)
			return err == nil
		}
		for _, n := range []string{"1", "2"} {
			_ = create(t, fs, "MANIFEST-"+n).Close()
			_ = create(t, fs, "marker.manifest."+n+".MANIFEST-"+n).Close()
			if c := crash(); exists(c, "marker.manifest."+n+".MANIFEST-"+n) && !exists(c, "MANIFEST-"+n) {
				t.Fatalf("seed %d: a marker names MANIFEST-%s, which is lost", seed, n)
			}
		}
		if err := fs.Remove("marker.manifest.1.MANIFEST-1"); err != nil {
			t.Fatal(err)
		}
		c := crash()
		if !exists(c, "marker.manifest.1.MANIFEST-1") && !exists(c, "marker.manifest.2.MANIFEST-2") {
			t.Fatalf("seed %d: both markers are lost", seed)
		}
	}
}

// TestLogFilesGoNowhere: Pebble may create, write, sync, open, stat and remove
// its logs; none of it reaches the disk.
func TestLogFilesGoNowhere(t *testing.T) {
	mem := vfs.NewMem()
	fs := newTestFS(t, mem)
	f := create(t, fs, "000002.log")
	if n, err := f.Write([]byte("abc")); n != 3 || err != nil {
		t.Fatal(n, err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	r, err := fs.Open("000002.log")
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(r); len(b) != 0 || err != nil {
		t.Fatalf("read %q, %v", b, err)
	}
	if err := fs.Remove("000002.log"); err != nil {
		t.Fatal(err)
	}
	if names, _ := mem.List(""); len(names) != 0 {
		t.Fatalf("on disk: %q", names)
	}
}
