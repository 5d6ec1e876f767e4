package store

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/kv/mem"
)

// TestTwin holds Writer, View and the key spaces under a prefix to an
// in-memory twin, through flushes, sleep and restarts.
func TestTwin(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) { twinStory(t, rt) })
}

func twinStory(tb testing.TB, t *rapid.T) {
	w := &twin{t: t, tb: tb, fs: vfs.NewMem()}
	w.start()
	defer w.stop()
	for range rapid.IntRange(200, 220).Draw(t, "steps") {
		switch rapid.IntRange(0, 9).Draw(t, "step") {
		case 0:
			if _, err := w.s.Flush(tb.Context()); err != nil {
				t.Fatal(err)
			}
		case 1:
			w.s.sp.hibernate()
		case 2:
			w.view()
		case 3:
			if rapid.IntRange(0, 9).Draw(t, "restart") == 0 {
				w.stop()
				w.start()
			}
		default:
			w.apply()
		}
	}
	w.view()
}

type twin struct {
	t     *rapid.T
	tb    testing.TB
	fs    vfs.FS
	e     *Engine
	s     *Store
	space [2]mem.Space // what is under prefixes 1 and 255
	index partition.Index
}

func twinPrefix(i int) byte { return []byte{1, 255}[i] }

func (w *twin) start() {
	w.e = newCrashEngine(w.tb, w.fs)
	s, err := w.e.Open(1, 1)
	if err != nil {
		w.t.Fatal(err)
	}
	w.s = s
	if i, err := s.Applied(); i != w.index || err != nil {
		w.t.Fatalf("applied %d, want %d: %v", i, w.index, err)
	}
}

func (w *twin) stop() {
	if err := w.e.Close(); err != nil {
		w.t.Fatal(err)
	}
}

var errUndo = errors.New("undo")

// apply runs random commands in one Apply, which now and then is given up.
func (w *twin) apply() {
	undo := rapid.IntRange(0, 9).Draw(w.t, "undo") == 0
	after := [2]mem.Space{*w.space[0].Clone(), *w.space[1].Clone()}
	err := w.s.Apply(w.index+1, func(wr partition.Writer) error {
		for range rapid.IntRange(0, 12).Draw(w.t, "commands") {
			i := rapid.IntRange(0, 1).Draw(w.t, "space")
			w.command(Under(twinPrefix(i), wr), &after[i])
		}
		if undo {
			return errUndo
		}
		return nil
	})
	if undo {
		if err != errUndo {
			w.t.Fatal(err)
		}
		return
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.index++
	w.space = after
}

func (w *twin) key() []byte {
	// 0 and 255 bytes are what prefixes and bounds might stumble over.
	return rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 'a', 255}), 1, 3).Draw(w.t, "key")
}

func (w *twin) keyRange() partition.KeyRange {
	r := partition.KeyRange{Lo: w.key(), Hi: w.key()}
	switch rapid.IntRange(0, 5).Draw(w.t, "open") {
	case 0:
		r.Lo = nil
	case 1:
		r.Hi = nil
	case 2:
		r = partition.KeyRange{}
	}
	return r
}

func (w *twin) command(a partition.Writer, b *mem.Space) {
	var errA, errB error
	switch rapid.IntRange(0, 9).Draw(w.t, "command") {
	case 0:
		r := w.keyRange()
		errA, errB = a.DeleteRange(r), b.DeleteRange(r)
	case 1:
		k := w.key()
		errA, errB = a.Delete(k), b.Delete(k)
	case 2, 3:
		sameGet(w.t, a, b, w.key())
	case 4:
		sameScan(w.t, a, b, w.keyRange(), rapid.IntRange(1, 5).Draw(w.t, "limit"))
	default:
		k, v := w.key(), rapid.SliceOfN(rapid.Byte(), 0, 8).Draw(w.t, "value")
		errA, errB = a.Set(k, v), b.Set(k, v)
	}
	if errA != nil || errB != nil {
		w.t.Fatal(errA, errB)
	}
}

func (w *twin) view() {
	v, err := w.s.View()
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = v.Close() }()
	if i, err := v.Applied(); i != w.index || err != nil {
		w.t.Fatalf("view at %d, want %d: %v", i, w.index, err)
	}
	n := 0
	for i := range w.space {
		r := ReadUnder(twinPrefix(i), v)
		sameGet(w.t, r, &w.space[i], w.key())
		sameScan(w.t, r, &w.space[i], w.keyRange(), 1000)
		sameScan(w.t, r, &w.space[i], partition.KeyRange{}, 1000)
		n += w.space[i].Len()
	}
	for _, err := range v.Scan(partition.KeyRange{}) {
		if n--; err != nil {
			w.t.Fatal(err)
		}
	}
	if n != 0 {
		w.t.Fatalf("the raw space has %d keys too few", n)
	}
}

func sameGet(t *rapid.T, a, b partition.Reader, key []byte) {
	va, oka, erra := a.Get(key)
	vb, okb, errb := b.Get(key)
	if !bytes.Equal(va, vb) || oka != okb || erra != nil || errb != nil {
		t.Fatalf("get %q: %q %v %v, twin %q %v %v", key, va, oka, erra, vb, okb, errb)
	}
}

func sameScan(t *rapid.T, a, b partition.Reader, r partition.KeyRange, limit int) {
	for _, s := range [][2]iter.Seq2[partition.Pair, error]{{a.Scan(r), b.Scan(r)}, {a.ScanBack(r), b.ScanBack(r)}} {
		if x, y := collect(s[0], limit), collect(s[1], limit); x != y {
			t.Fatalf("scan %s: %s, twin %s", r, x, y)
		}
	}
}

func collect(s iter.Seq2[partition.Pair, error], limit int) string {
	out := ""
	for p, err := range s {
		if out += fmt.Sprintf("%q=%q %v, ", p.Key, p.Value, err); limit <= 1 {
			break
		}
		limit--
	}
	return out
}

// TestWriterRefuses: keys of the store's own space and what is over a limit.
func TestWriterRefuses(t *testing.T) {
	e := newTestEngine(t, Options{})
	s := openStore(t, e, 1)
	set(t, s, 1, "\x01a", "1")
	var kept partition.Writer
	err := s.Apply(2, func(w partition.Writer) error {
		kept = w
		for _, c := range []struct {
			err  error
			want partition.Code
		}{
			{w.Set(nil, nil), partition.CodeInvalid},
			{w.Set(appliedKey(), nil), partition.CodeInvalid},
			{w.Delete([]byte{0}), partition.CodeInvalid},
			{w.Set(make([]byte, MaxKeyBytes+1), nil), partition.CodeInvalid},
			{w.Set(bytes.Repeat([]byte{1}, MaxKeyBytes+1), nil), partition.CodeTooLarge},
			{w.Set([]byte{1}, make([]byte, MaxApplyBytes)), partition.CodeTooLarge},
			{w.DeleteRange(partition.KeyRange{}), 0},
		} {
			if partition.CodeOf(c.err) != c.want {
				t.Errorf("got %v, want code %s", c.err, c.want)
			}
		}
		return w.Set(bytes.Repeat([]byte{255}, MaxKeyBytes), nil)
	})
	if err != nil {
		t.Fatal(err)
	}
	if m, i := state(t, s); i != 2 || len(m) != 1 {
		t.Fatalf("%d keys at %d: deleting everything went too far, or not far enough", len(m), i)
	}
	if err := kept.Set([]byte{1}, nil); !errors.Is(err, partition.ErrClosed) {
		t.Fatalf("a writer used after its apply: %v", err)
	}
	if _, _, err := kept.Get([]byte{1}); !errors.Is(err, partition.ErrClosed) {
		t.Fatalf("a writer read after its apply: %v", err)
	}
}
