package partition

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
)

func TestRecord(t *testing.T) {
	h := Header{Group: 7, Index: 12, Epoch: NewEpoch(3, 2), Prev: 0xabcd, Kind: KindCommand, Flags: 5}
	r := NewRecord(h, []byte("ab"), nil, []byte("c"))
	got := Header{Group: r.Group(), Index: r.Index(), Epoch: r.Epoch(), Prev: r.Prev(), Kind: r.Kind(), Flags: r.Flags()}
	if got != h || string(r.Payload()) != "abc" || len(r) != RecordHeaderBytes+3 {
		t.Errorf("record %+v %q", got, r.Payload())
	}
	if r.Position() != (Position{Epoch: h.Epoch, Index: 12}) || r.String() != "12@3.2 command 3B" {
		t.Errorf("record prints as %s", r)
	}
	two := AppendRecord(append([]byte("x"), r...), Header{Group: 7, Index: 13, Prev: r.Checksum(), Kind: KindNoop})
	first, rest, err := ParseRecord(two[1:])
	if err != nil || !bytes.Equal(first, r) {
		t.Fatalf("parse: %v", err)
	}
	second, rest, err := ParseRecord(rest)
	if err != nil || len(rest) != 0 || second.Prev() != r.Checksum() || len(second.Payload()) != 0 {
		t.Errorf("second: %v, rest %d bytes", err, len(rest))
	}
	if cap(first) != len(first) {
		t.Error("appending to a parsed record would overwrite the next")
	}
}

// The encoding is for ever: these bytes are in logs and on wires.
func TestRecordFormat(t *testing.T) {
	r := NewRecord(Header{Group: 1, Index: 2, Epoch: NewEpoch(3, 4), Prev: 5, Kind: KindSession, Flags: 6}, []byte{7})
	const want = "ec9a9ca901000000010000000000000002000000000000000400030000000000050000000506000007"
	if got := hex.EncodeToString(r); got != want {
		t.Errorf("record\n%s, not\n%s", got, want)
	}
}

func TestParseRecordRefuses(t *testing.T) {
	good := NewRecord(Header{Group: 1, Index: 1, Kind: KindNoop}, []byte("payload"))
	sum := func(b []byte) []byte {
		s := Checksum(b[4:])
		b[0], b[1], b[2], b[3] = byte(s), byte(s>>8), byte(s>>16), byte(s>>24)
		return b
	}
	for _, c := range []struct {
		name string
		b    []byte
		want error
	}{
		{"nothing", nil, ErrShortRecord},
		{"half a head", good[:RecordHeaderBytes-1], ErrShortRecord},
		{"half a payload", good[:len(good)-1], ErrShortRecord},
		{"a flipped bit", flip(good, len(good)-1), ErrCorruptRecord},
		{"a flipped checksum", flip(good, 0), ErrCorruptRecord},
		{"an endless length", flip(flip(good, 7), 6), ErrCorruptRecord},
		{"reserved bits", sum(flip(good, 38)), ErrCorruptRecord},
		{"index 0", sum(flip(good, 16)), ErrCorruptRecord},
	} {
		if _, _, err := ParseRecord(c.b); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func flip(b []byte, i int) []byte {
	c := bytes.Clone(b)
	c[i] ^= 1
	return c
}

// Every single flipped bit is noticed.
func TestRecordBits(t *testing.T) {
	good := NewRecord(Header{Group: 1, Index: 1, Kind: KindNoop}, []byte("xy"))
	for i := range len(good) * 8 {
		b := bytes.Clone(good)
		b[i/8] ^= 1 << (i % 8)
		if _, _, err := ParseRecord(b); err == nil {
			t.Errorf("bit %d of byte %d is not noticed", i%8, i/8)
		}
	}
}

func TestKindString(t *testing.T) {
	for k, want := range map[Kind]string{
		KindNoop: "noop", KindCommand: "command", KindMember: "member", KindMode: "mode", KindSession: "session",
		16: "intent", 17: "seal", 18: "unseal", 19: "activate", 20: "done", 21: "abort", 22: "merge-intent", 23: "absorb", 24: "merging", 25: "source-seal", 26: "source-unseal", 27: "source-gone", 28: "kind(28)", 99: "kind(99)",
	} {
		if k.String() != want {
			t.Errorf("kind %d is %s", uint8(k), k)
		}
		if k.Structural() != (k >= 16 && k <= 27) {
			t.Errorf("kind %s is structural: %v", k, k.Structural())
		}
	}
}

func TestRecordAllocs(t *testing.T) {
	buf := make([]byte, 0, 1<<12)
	payload := []byte("payload")
	if n := testing.AllocsPerRun(100, func() { buf = AppendRecord(buf[:0], Header{Index: 1}, payload) }); n != 0 {
		t.Errorf("AppendRecord allocates %v times", n)
	}
}

func recordSeeds() [][]byte {
	return [][]byte{
		{}, NewRecord(Header{Group: 1, Index: 1, Kind: KindNoop}),
		NewRecord(Header{Group: 1, Index: 9, Epoch: 5, Prev: 3, Kind: KindCommand, Flags: 1}, []byte(strings.Repeat("x", 100))),
	}
}

// checkRecord: what is taken for a record is one.
func checkRecord(t testing.TB, b []byte) {
	r, rest, err := ParseRecord(b)
	if err != nil {
		if r != nil || rest != nil || !errors.Is(err, ErrShortRecord) && !errors.Is(err, ErrCorruptRecord) {
			t.Fatalf("%x: %v with a record", b, err)
		}
		return
	}
	h := Header{Group: r.Group(), Index: r.Index(), Epoch: r.Epoch(), Prev: r.Prev(), Kind: r.Kind(), Flags: r.Flags()}
	if again := NewRecord(h, r.Payload()); !bytes.Equal(again, r) || len(r)+len(rest) != len(b) {
		t.Fatalf("%x does not survive a round trip", b)
	}
}

func FuzzParseRecord(f *testing.F) {
	for _, b := range recordSeeds() {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) { checkRecord(t, b) })
}
