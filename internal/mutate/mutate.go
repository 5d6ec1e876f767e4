package mutate

import (
	"encoding/binary"
	"math/rand/v2"
	"os"
	"runtime/metrics"
	"strconv"
	"testing"
	"time"
)

const (
	// MostBytes is what one input may make a decoder allocate.
	MostBytes = 64 << 20
	// MostTime is what one input may take of the processor.
	MostTime = 100 * time.Millisecond
	// few is how many inputs Run makes by default.
	few = 30_000
	// batch is how many inputs are measured together.
	batch = 256
)

// Count is how many inputs Run makes: PANDO_MUTATE, or a share that fits the
// default run of the tests.
func Count(tb testing.TB) uint64 {
	v := os.Getenv("PANDO_MUTATE")
	if v == "" {
		return few
	}
	n, err := strconv.ParseUint(v, 10, 64)
	if err != nil {
		tb.Fatalf("PANDO_MUTATE=%q: the number of inputs for each decoder", v)
	}
	return n
}

// Run calls decode with spoiled seeds, and reports how many. decode fails the
// test itself if it takes something for what it is not.
func Run(tb testing.TB, seeds [][]byte, decode func(b []byte)) {
	tb.Helper()
	m := New(1, seeds)
	all := Count(tb)
	inputs := make([][]byte, batch)
	var slowest time.Duration
	var most uint64
	for done := uint64(0); done < all; done += batch {
		for i := range inputs {
			inputs[i] = m.Next(inputs[i][:0])
		}
		before, began := allocated(), time.Now()
		for _, b := range inputs {
			decode(b)
		}
		took, bytes := time.Since(began), allocated()-before
		slowest, most = max(slowest, took), max(most, bytes)
		if bytes > MostBytes || took > MostTime {
			one(tb, inputs, decode)
		}
	}
	tb.Logf("%d inputs; the slowest %d took %v, the greediest allocated %d bytes", all, batch, slowest, most)
}

// one looks for the input of a batch that is too dear. Time counts only if it
// repeats: on a busy machine a batch may just have waited.
func one(tb testing.TB, inputs [][]byte, decode func(b []byte)) {
	tb.Helper()
	for _, b := range inputs {
		fastest := time.Hour
		for range 5 {
			before, began := allocated(), time.Now()
			decode(b)
			fastest = min(fastest, time.Since(began))
			if n := allocated() - before; n > MostBytes {
				tb.Fatalf("%d bytes allocated for %x", n, b[:min(len(b), 512)])
			}
		}
		if fastest > MostTime {
			tb.Fatalf("%v for %x", fastest, b[:min(len(b), 512)])
		}
	}
}

// allocated is how many bytes were ever allocated. It does not stop the world.
func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// Mutator spoils seeds. Equal seeds give equal inputs.
type Mutator struct {
	seeds [][]byte
	rnd   *rand.Rand
}

// New makes a Mutator. There must be a seed.
func New(seed uint64, seeds [][]byte) *Mutator {
	return &Mutator{seeds: seeds, rnd: rand.New(rand.NewPCG(seed, 1))}
}

// Next appends the next input to dst.
func (m *Mutator) Next(dst []byte) []byte {
	b := append(dst, m.seeds[m.rnd.IntN(len(m.seeds))]...)
	for range 1 + m.rnd.IntN(4) {
		b = m.spoil(b, len(dst))
	}
	return b
}

// numbers are where lengths and counts go wrong.
func numbers() []uint64 {
	return []uint64{0, 1, 0x7f, 0x80, 0xff, 0x100, 0x7fff, 0x8000, 0xffff, 0x10000, 0x7fffffff, 0x80000000, 0xffffffff, 1 << 32, 1<<63 - 1, 1 << 63, 1<<64 - 1}
}

// spoil changes one thing behind the first keep bytes.
func (m *Mutator) spoil(b []byte, keep int) []byte {
	n := len(b) - keep
	if n == 0 {
		return append(b, byte(m.rnd.Uint32()))
	}
	at := keep + m.rnd.IntN(n)
	switch m.rnd.IntN(10) {
	case 0, 1: // a bit of the wire or the disk
		b[at] ^= 1 << m.rnd.IntN(8)
	case 2:
		b[at] = byte(m.rnd.Uint32())
	case 3: // cut short
		b = b[:at]
	case 4: // bytes too many
		b = append(b, m.seeds[m.rnd.IntN(len(m.seeds))]...)
	case 5: // a piece again
		end := at + m.rnd.IntN(min(len(b)-at, 64)+1)
		b = append(b[:end], append(append([]byte(nil), b[at:end]...), b[end:]...)...)
	case 6: // a piece missing
		end := at + m.rnd.IntN(min(len(b)-at, 64)+1)
		b = append(b[:at], b[end:]...)
	case 7: // a piece of another
		copy(b[at:], m.seeds[m.rnd.IntN(len(m.seeds))])
	default: // another number
		m.number(b[at:])
	}
	return b
}

// number overwrites what could be a length or a count, in either order of
// bytes.
func (m *Mutator) number(b []byte) {
	all := numbers()
	v := all[m.rnd.IntN(len(all))]
	var raw [8]byte
	size := 1 << m.rnd.IntN(4)
	if m.rnd.IntN(2) == 0 {
		binary.LittleEndian.PutUint64(raw[:], v)
		copy(b, raw[:size])
		return
	}
	binary.BigEndian.PutUint64(raw[:], v)
	copy(b, raw[8-size:])
}
