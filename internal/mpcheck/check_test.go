package mpcheck

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"runtime"
	"strings"
	"testing"

	"github.com/vmihailenco/msgpack/v5"

	"pando.dev/pando/partition"
)

type inner struct {
	A, B, C uint64
	Name    string
	Raw     []byte
}

type outer struct {
	Version uint8
	Items   []inner
	Names   []string
	Sub     *inner
	Index   map[string]uint64
	F       float64
	N       int64
	OK      bool
}

func sample(items int) outer {
	o := outer{Version: 3, Names: []string{"a", strings.Repeat("b", 300)}, Sub: &inner{Name: "x"},
		Index: map[string]uint64{"one": 1, "two": math.MaxUint64}, F: 1.5, N: math.MinInt64, OK: true}
	for i := range items {
		o.Items = append(o.Items, inner{A: uint64(i), B: uint64(i) << 20, C: uint64(i) << 40, Name: "n", Raw: make([]byte, i%300)})
	}
	return o
}

func encode(t testing.TB, v any) []byte {
	t.Helper()
	b, err := msgpack.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func u32(c byte, n uint32) []byte { return binary.BigEndian.AppendUint32([]byte{c}, n) }

// TestFiveHostileBodies holds the five bodies of RELIABILITY.md 0.1: each kills
// or bloats a process whose decoder sees it, and none gets there.
func TestFiveHostileBodies(t *testing.T) {
	unknown := append([]byte{0x81, 0xa7}, "unknown"...)
	for name, c := range map[string]struct {
		body []byte
		want Reason
	}{
		"array32 into a slice of structs": {u32(0xdd, math.MaxUint32), Short},
		"array32 into any, with bytes":    {append(u32(0xdd, 1<<20), make([]byte, 1<<20)...), Many},
		"map32":                           {u32(0xdf, math.MaxUint32), Short},
		"bin32":                           {u32(0xc6, math.MaxUint32), Short},
		"nested arrays":                   {append(bytes.Repeat([]byte{0x91}, 2<<20), 0xc0), Deep},
		"skipped unknown field":           {append(append(unknown, bytes.Repeat([]byte{0x91}, 6<<20)...), 0xc0), Deep},
	} {
		t.Run(name, func(t *testing.T) { refused(t, c.body, c.want) })
	}
}

func refused(t *testing.T, body []byte, want Reason) {
	t.Helper()
	err := Check(body)
	var e *Error
	if !errors.As(err, &e) || e.Reason != want {
		t.Fatalf("got %v, want reason %s", err, want)
	}
	if !errors.Is(err, partition.ErrCorrupt) {
		t.Errorf("%v is no ErrCorrupt", err)
	}
}

func TestRefused(t *testing.T) {
	for name, c := range map[string]struct {
		body []byte
		want Reason
	}{
		"empty":                    {nil, Short},
		"reserved":                 {[]byte{0xc1}, Reserved},
		"fixext1":                  {[]byte{0xd4, 0, 0}, Extension},
		"fixext16":                 {append([]byte{0xd8}, make([]byte, 17)...), Extension},
		"ext8":                     {[]byte{0xc7, 0, 0}, Extension},
		"ext32":                    {[]byte{0xc9, 0xff, 0xff, 0xff, 0xff, 0}, Extension},
		"timestamp":                {[]byte{0xd6, 0xff, 0, 0, 0, 0}, Extension},
		"trailing":                 {[]byte{0xc0, 0xc0}, Trailing},
		"empty array, trailing":    {[]byte{0x90, 0x01}, Trailing},
		"str8 without length":      {[]byte{0xd9}, Short},
		"str16 with half a length": {[]byte{0xda, 0}, Short},
		"str32 one short":          {append(u32(0xdb, 3), 'a', 'b'), Short},
		"fixstr short":             {[]byte{0xa3, 'a', 'b'}, Short},
		"uint64 short":             {[]byte{0xcf, 1, 2, 3}, Short},
		"float32 short":            {[]byte{0xca, 1, 2, 3}, Short},
		"array16 one short":        {[]byte{0xdc, 0, 2, 1}, Short},
		"array16 without count":    {[]byte{0xdc, 0}, Short},
		"map with a lone key":      {[]byte{0x81, 0x01}, Short},
		"map16 half":               {[]byte{0xde, 0, 1, 0xa0}, Short},
		"map32 doubles":            {append(u32(0xdf, 40_000), make([]byte, 80_000)...), Many},
		"17 deep":                  {append(bytes.Repeat([]byte{0x91}, 17), 0xc0), Deep},
		"17 deep in map values":    {append(bytes.Repeat([]byte{0x81, 0xa0}, 17), 0xc0), Deep},
		"nils beyond the budget":   {append(u32(0xdd, 65_537), bytes.Repeat([]byte{0xc0}, 65_537)...), Many},
	} {
		t.Run(name, func(t *testing.T) { refused(t, c.body, c.want) })
	}
}

// TestManySmallContainers spends the budget over all containers together, not
// per container.
func TestManySmallContainers(t *testing.T) {
	const n = 5_000
	body := u32(0xdd, n)
	for range n {
		body = append(append(body, 0x9f), bytes.Repeat([]byte{0xc0}, 15)...)
	}
	refused(t, body, Many)
	if err := CheckLimits(body, Limits{Elements: 16 * n}); err != nil {
		t.Error(err)
	}
}

func TestAccepted(t *testing.T) {
	for name, body := range map[string][]byte{
		"nil":          {0xc0},
		"small int":    {0x7f},
		"negative":     {0xe0},
		"empty string": {0xa0},
		"empty map":    {0x80},
		"16 deep":      append(bytes.Repeat([]byte{0x91}, 16), 0xc0),
		"budget met":   append(u32(0xdd, 65_536), make([]byte, 65_536)...),
		"sample":       encode(t, sample(100)),
		"empty sample": encode(t, outer{}),
	} {
		if err := Check(body); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestEveryPrefixIsShort: no proper prefix of a body passes, whatever it cuts.
func TestEveryPrefixIsShort(t *testing.T) {
	body := encode(t, sample(20))
	for n := range body {
		if err := Check(body[:n]); err == nil {
			t.Fatalf("the first %d of %d bytes pass", n, len(body))
		}
	}
}

func TestDepthIsCapped(t *testing.T) {
	deep := append(bytes.Repeat([]byte{0x91}, 1_000), 0xc0)
	if err := CheckLimits(deep, Limits{Depth: 1 << 20}); err == nil {
		t.Fatal("a depth beyond the stack was accepted")
	}
}

func TestNoAllocation(t *testing.T) {
	body := encode(t, sample(100))
	if n := testing.AllocsPerRun(100, func() { _ = Check(body) }); n != 0 {
		t.Errorf("%v allocations per check", n)
	}
}

// allocBound is what decoding a checked body into outer may allocate: the
// elements times the largest of them, the bytes twice (strings are read through
// a buffer), and a constant for the decoder itself.
func allocBound(body []byte) uint64 { return 65_536*128 + 4*uint64(len(body)) + 1<<20 }

// FuzzCheckBoundsDecode is the differential: what passes the check decodes, or
// fails to, within bounded memory and without a panic; what msgpack encoded
// passes.
func FuzzCheckBoundsDecode(f *testing.F) {
	for _, b := range [][]byte{
		u32(0xdd, math.MaxUint32), u32(0xdf, math.MaxUint32), u32(0xc6, math.MaxUint32),
		bytes.Repeat([]byte{0x91}, 40), encode(f, sample(3)), encode(f, outer{}), {0xc1}, {0xd4, 1, 2},
		append(append([]byte{0x81, 0xa5}, "Items"...), append([]byte{0xdc, 0x01, 0x00}, bytes.Repeat([]byte{0xc0}, 256)...)...),
	} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) > 1<<20 || Check(body) != nil {
			return
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		var o outer
		if err := msgpack.Unmarshal(body, &o); err == nil {
			again := encode(t, o)
			if err := Check(again); err != nil {
				t.Fatalf("decoded and encoded again: %v", err)
			}
		}
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > allocBound(body) {
			t.Fatalf("%d bytes allocated for a body of %d", got, len(body))
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	body := encode(b, sample(60))
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if err := Check(body); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	body := encode(b, sample(60))
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		var o outer
		if err := msgpack.Unmarshal(body, &o); err != nil {
			b.Fatal(err)
		}
	}
}
