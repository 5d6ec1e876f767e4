package stamp

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"pando.dev/pando/partition"
)

func TestWriteThenRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if _, err := Read(path, 1); !IsNotExist(err) {
		t.Fatal(err)
	}
	for _, content := range [][]byte{nil, []byte("one"), bytes.Repeat([]byte("x"), MaxBytes)} {
		if err := Write(path, 1, content); err != nil {
			t.Fatal(err)
		}
		if got, err := Read(path, 1); err != nil || !bytes.Equal(got, content) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
		if _, err := Read(path, 0); !errors.Is(err, partition.ErrNewerFormat) {
			t.Fatal(err)
		}
	}
	if err := Write(path, 1, make([]byte, MaxBytes+1)); !errors.Is(err, partition.ErrTooLarge) {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatal(info.Mode(), err)
	}
}

// A write that a crash interrupts leaves the old content.
func TestInterruptedWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := Write(path, 1, []byte("old")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".new", []byte("half of"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := Read(path, 1); err != nil || string(got) != "old" {
		t.Fatal(got, err)
	}
	if err := Write(path, 1, []byte("next")); err != nil {
		t.Fatal(err)
	}
	if got, err := Read(path, 1); err != nil || string(got) != "next" {
		t.Fatal(got, err)
	}
}

// One damaged byte is survived; the same one in both copies is told.
func TestDamage(t *testing.T) {
	one := encode(3, []byte("content"))
	two := append(bytes.Clone(one), one...)
	for i := range two {
		b := bytes.Clone(two)
		b[i] ^= 0x40
		if got, format, err := decode(b); err != nil || string(got) != "content" || format != 3 {
			t.Fatalf("byte %d: %q, %d, %v", i, got, format, err)
		}
	}
	for i := range one {
		b := bytes.Clone(two)
		b[i] ^= 0x40
		b[len(one)+i] ^= 0x40
		if got, _, err := decode(b); err == nil {
			t.Fatalf("byte %d of both copies: %q", i, got)
		}
	}
}

func FuzzDecode(f *testing.F) {
	one := encode(1, []byte("content"))
	f.Add(append(bytes.Clone(one), one...))
	f.Add(one)
	f.Fuzz(func(t *testing.T, b []byte) {
		content, format, err := decode(b)
		if err != nil {
			return
		}
		if !bytes.Contains(b, encode(format, content)) {
			t.Fatalf("%x reads as %x", b, content)
		}
	})
}
