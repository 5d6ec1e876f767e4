package wal_test

import (
	"strings"
	"testing"

	"pando.dev/pando/partition"
	"pando.dev/pando/wal"
	"pando.dev/pando/wal/memfs"
)

// TestCutFile: a segment that somebody cut short is damage, wherever the cut is,
// although what is left of the last one ends like a torn write (D5).
func TestCutFile(t *testing.T) {
	for seed := range uint64(2) {
		fs, w := filled(t, seed, 120)
		for _, name := range files(t, fs) {
			all, err := fs.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			for _, keep := range []int{0, 1000, 4096, 8192, 16384, len(all) / 2, len(all) - 4096, len(all) - 1} {
				cut := fs.Fork()
				cut.WriteFile(name, all[:keep])
				l, rep, err := wal.Open(cut, dir, options())
				if err != nil {
					if partition.CodeOf(err) != partition.CodeCorrupt {
						t.Fatalf("seed %d: %s cut to %d bytes: %v", seed, name, keep, err)
					}
					continue
				}
				_, complaint := honest(w, l, rep)
				if strings.Contains(complaint, "silently gone") && rep.Nameless {
					complaint = "" // made behind the cut: no table can have named it
				}
				if complaint != "" {
					t.Errorf("seed %d: %s cut from %d to %d bytes: %s", seed, name, len(all), keep, complaint)
				}
				if err := l.Close(); err != nil {
					t.Error(err)
				}
			}
		}
	}
}

// TestBehindDamage: what comes behind a damaged record that is not needed any more
// is said to be damaged, too, or to be gone; not that it was never there, which a
// host would take for a log that begins later and ask for ever.
func TestBehindDamage(t *testing.T) {
	for _, flushed := range []partition.Index{12, 30} {
		fs := memfs.New(1)
		l, _ := open(t, fs, options())
		c := &chain{g: 1}
		mustAppend(t, l, wal.Write{Group: 1, Replica: 4, Records: c.make(1<<16, 10, 100)})
		turns(l)
		name := files(t, fs)[0]
		before, err := fs.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		mustAppend(t, l, wal.Write{Group: 1, Records: c.make(1<<16, 20, 100), Commit: 30})
		turns(l)
		after, err := fs.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		second := 0 // where the second batch begins
		for second < len(after) && (after[second] == before[second]) {
			second++
		}
		if err := fs.Flip(name, int64(second&^4095), 0xff); err != nil {
			t.Fatal(err)
		}
		l.SetFlushed(1, flushed, 0)
		for i := partition.Index(11); i <= 30; i++ {
			_, err := l.Read(1, i, i, 1<<20)
			s, _ := l.Summary(1)
			if partition.CodeOf(err) == partition.CodeNotFound && i >= s.First && i <= s.Last {
				t.Errorf("flushed to %d: record %d is not found in a log of %d to %d", flushed, i, s.First, s.Last)
			}
			if err == nil {
				t.Errorf("flushed to %d: record %d can be read", flushed, i)
			}
		}
		if s, _ := l.Summary(1); (s.Damage == nil) != (flushed == 30) {
			t.Errorf("flushed to %d: damage %v", flushed, s.Damage)
		}
		_ = l.Close()
	}
}
