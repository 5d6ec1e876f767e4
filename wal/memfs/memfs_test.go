package memfs_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"pando.dev/pando/wal/memfs"
)

// TestCrashHere: a file system that crashes in place is what a crashed copy of it
// would be.
func TestCrashHere(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		m := memfs.New(seed)
		for i := range 40 {
			work(t, m, rng, i)
		}
		keep := []float64{0, 0.5, 1}[rng.IntN(3)]
		want := m.Crash(seed, keep)
		m.CrashHere(seed, keep)
		for range 2 { // the second time nothing is left to lose
			same(t, seed, m, want)
			m.CrashHere(seed+1, 0)
		}
	}
}

// work does something to a file system.
func work(t *testing.T, m *memfs.FS, rng *rand.Rand, i int) {
	name := fmt.Sprintf("d/%d", rng.IntN(4))
	switch rng.IntN(5) {
	case 0:
		if f, err := m.Create(name, 2000); err == nil {
			_ = f.Close()
		}
	case 1:
		_ = m.Rename(name, fmt.Sprintf("d/%d", rng.IntN(4)))
	case 2:
		if err := m.SyncDir("d"); err != nil {
			t.Fatal(err)
		}
	default:
		f, err := m.Open(name)
		if err != nil {
			return
		}
		if _, err := f.WriteAt(bytes.Repeat([]byte{byte(i + 1)}, 700), int64(rng.IntN(1300))); err != nil {
			t.Fatal(err)
		}
		if rng.IntN(2) == 0 {
			if err := f.Sync(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func same(t *testing.T, seed uint64, a, b *memfs.FS) {
	t.Helper()
	x, err := a.List("d")
	if err != nil {
		t.Fatal(err)
	}
	y, err := b.List("d")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(x, y) {
		t.Fatalf("seed %d: files %v and %v", seed, x, y)
	}
	for _, name := range x {
		p, _ := a.ReadFile("d/" + name)
		q, _ := b.ReadFile("d/" + name)
		if !bytes.Equal(p, q) {
			t.Fatalf("seed %d: %s differs", seed, name)
		}
	}
}
