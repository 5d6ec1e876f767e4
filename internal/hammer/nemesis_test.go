//go:build linux

package main

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"pando.dev/pando/sim/fault"
)

// TestEveryClassIsInjected wants each class of faults that real processes can
// suffer to be here.
func TestEveryClassIsInjected(t *testing.T) {
	have := map[fault.Class]bool{}
	for _, i := range allInjuries() {
		have[i.class] = true
		if i.class.Levels()&fault.Processes == 0 {
			t.Errorf("%s is not for processes", i.class)
		}
		if i.weight <= 0 || i.group == "" || i.do == nil {
			t.Errorf("%s is never drawn, or does nothing", i.class)
		}
	}
	for c := range fault.All() {
		if c.Levels()&fault.Processes != 0 && !have[c] {
			t.Errorf("%s is not injected", c)
		}
	}
}

// TestDrawKeepsTheBudget wants nothing drawn that takes away more than may be, and
// damage only by itself.
func TestDrawKeepsTheBudget(t *testing.T) {
	n := &nemesis{rng: rand.New(rand.NewPCG(1, 2)), injuries: allInjuries()}
	drawn := map[fault.Class]bool{}
	for range 20_000 {
		room, alone := n.rng.IntN(labNodes+1), n.one(2)
		i, ok := n.draw(room, alone)
		if !ok {
			t.Fatal("nothing fits, but some faults take nobody away")
		}
		drawn[i.class] = true
		if i.takes > room || (i.damage || i.alone) && !alone {
			t.Fatalf("%s with room for %d, alone: %v", i.class, room, alone)
		}
	}
	for _, i := range n.injuries {
		if !drawn[i.class] {
			t.Errorf("%s was never drawn", i.class)
		}
	}
}

// TestTear wants each lost sector to be there or not, whole.
func TestTear(t *testing.T) {
	n := &nemesis{rng: rand.New(rand.NewPCG(1, 2))}
	path := filepath.Join(t.TempDir(), "log")
	synced := bytes.Repeat([]byte{1}, 100*sector)
	if err := os.WriteFile(path, synced, 0o600); err != nil {
		t.Fatal(err)
	}
	lost := bytes.Clone(synced)
	for i := 50 * sector; i < 90*sector; i++ {
		lost[i] = 2
	}
	if err := n.tear(map[string][]byte{path: lost, path + "-gone": lost}); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	survived := 0
	for at := 0; at < len(got); at += sector {
		switch one := got[at : at+sector]; {
		case bytes.Equal(one, lost[at:at+sector]):
			survived++
		case !bytes.Equal(one, synced[at:at+sector]):
			t.Fatalf("the sector at %d is neither the old nor the new one", at)
		}
	}
	if survived < 65 || survived > 85 {
		t.Errorf("%d of 100 sectors are as they were written, of which 60 were synced", survived)
	}
}

func TestScarIsUndone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("some state"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := flip(path, 5, 0x40)
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(path); string(b) != "some 3tate" {
		t.Errorf("%q", b)
	}
	if err := s.undo(); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(path); string(b) != "some state" {
		t.Errorf("%q", b)
	}
}
