package wal_test

import (
	"encoding/binary"
	"hash/crc32"
	"testing"

	"pando.dev/pando/partition"
	"pando.dev/pando/wal"
	"pando.dev/pando/wal/memfs"
)

// FuzzOpen changes bytes of a whole log, and perhaps makes the checksum of the
// batch around them right again, as somebody could who knows the log's secret.
// Open and everything after it may refuse, but not panic.
//
// The input is a list of patches: file, place u16, bits, reseal.
func FuzzOpen(f *testing.F) {
	base, _ := filled(f, 1, 60)
	names := files(f, base)
	f.Add([]byte{0, 1, 0, 9, 0})
	f.Add([]byte{1, 40, 33, 1, 1, 0, 9, 16, 255, 1})
	f.Add([]byte{2, 32, 24, 16, 1})
	f.Add([]byte{1, 36, 16, 2, 1, 1, 100, 16, 7, 1})
	f.Fuzz(func(t *testing.T, patches []byte) {
		fs := base.Crash(1, 0)
		for ; len(patches) >= 5; patches = patches[5:] {
			name := names[int(patches[0])%len(names)]
			off := int64(binary.LittleEndian.Uint16(patches[1:]))
			if err := fs.Flip(name, off, patches[3]); err != nil {
				t.Fatal(err)
			}
			if patches[4]%2 == 1 {
				reseal(t, fs, name, off)
			}
		}
		l, _, err := wal.Open(fs, dir, options())
		if err != nil {
			return
		}
		for g := range l.Groups() {
			s, _ := l.Summary(g)
			_, _ = l.Read(g, s.First, s.Last, 1<<20)
			_ = l.Append(wal.Write{Group: g, Promise: 1 << 60}, nil)
			_ = l.Append(wal.Write{Group: g, Snip: true, After: s.Last / 2}, nil)
			l.SetFlushed(g, s.Last, 0)
		}
		turns(l)
		_ = l.Close()
		if _, _, err := wal.Open(fs, dir, options()); err != nil && partition.CodeOf(err) == partition.CodeInternal {
			t.Fatalf("open again: %v", err)
		}
	})
}

// reseal makes the checksum right of the batch that holds offset off.
func reseal(t *testing.T, fs *memfs.FS, name string, off int64) {
	b, err := fs.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	le := binary.LittleEndian
	for at := off &^ 4095; at >= 4096; at -= 4096 {
		if le.Uint32(b[at:]) != 0x4254_4e50 {
			continue
		}
		end := at + 32 + int64(le.Uint32(b[at+8:]))
		if end > int64(len(b)) {
			return
		}
		table := crc32.MakeTable(crc32.Castagnoli)
		seed := partition.Checksum([]byte{7, 7, 7, 7, 7, 7, 7, 7}) // the secret of the tests
		le.PutUint32(b[at+4:], crc32.Update(seed, table, b[at+8:end]))
		fs.WriteFile(name, b)
		return
	}
}
