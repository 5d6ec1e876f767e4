package kv

import (
	"iter"
	"testing"

	"pgregory.net/rapid"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/kv/mem"
)

// touching reports what a command reads and writes.
type touching struct {
	mem.Space
	touch func(partition.KeyRange)
}

func (s *touching) key(k []byte) { s.touch(partition.KeyRange{Lo: k, Hi: successor(k)}) }

func (s *touching) Get(key []byte) ([]byte, bool, error) { s.key(key); return s.Space.Get(key) }

func (s *touching) Set(key, value []byte) error { s.key(key); return s.Space.Set(key, value) }

func (s *touching) Delete(key []byte) error { s.key(key); return s.Space.Delete(key) }

func (s *touching) DeleteRange(r partition.KeyRange) error { s.touch(r); return s.Space.DeleteRange(r) }

func (s *touching) Scan(r partition.KeyRange) iter.Seq2[partition.Pair, error] {
	s.touch(r)
	return s.Space.Scan(r)
}

// SPL-11: a command touches nothing outside its Span, whatever the state is; what
// is no command has none and touches nothing.
func TestSpanHoldsAll(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.SliceOfN(rapid.ByteRange('a', 'd'), 1, 2)
		var b Batch
		for range rapid.IntRange(0, 5).Draw(t, "ops") {
			k, l := key.Draw(t, "key"), key.Draw(t, "other")
			switch rapid.IntRange(0, 5).Draw(t, "op") {
			case 0:
				b.If(IfAbsent(k))
			case 1:
				b.If(IfValue(k, []byte("v")))
			case 2:
				b.DeleteRange(partition.KeyRange{Lo: k, Hi: l})
			case 3:
				b.DeleteRange(partition.KeyRange{Lo: k})
			case 4:
				b.Delete(k)
			default:
				b.Put(k, []byte("v"))
			}
		}
		cmd, err := b.Encode()
		if err != nil {
			t.Skip()
		}
		if rapid.IntRange(0, 3).Draw(t, "spoil") == 0 {
			cmd[rapid.IntRange(0, len(cmd)-1).Draw(t, "at")] ^= byte(1 << rapid.IntRange(0, 7).Draw(t, "bit"))
		}
		p := &table{}
		span, err := p.Span(cmd)
		s := &touching{touch: func(r partition.KeyRange) {
			if err != nil || !r.Within(span) {
				t.Fatalf("a command of span %s (%v) touches %s", span, err, r)
			}
		}}
		for _, k := range []string{"a", "b", "bb", "d"} {
			if err := s.Space.Set([]byte(k), appendStored(nil, 3, []byte("v"))); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := p.Apply(s, partition.Command{Index: 9, Payload: cmd}); err != nil {
			t.Fatal(err)
		}
	})
}
