package client

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"pando.dev/pando/partition"
)

func sampleRequest() Request {
	return Request{
		ID: 7, Op: OpPropose, Level: Quorum, Group: 3, RangeVersion: 4, TimeoutMS: 1500, Seq: 9,
		Session: partition.SessionID{Group: 3, Index: 12}, Key: []byte("key"), Body: []byte("command"),
	}
}

func sampleResponse() Response {
	return Response{
		ID: 7, Code: partition.CodeNotMaster, Index: 5, Body: []byte("result"), Why: "not here", Next: "go there", Master: "n2",
	}
}

func sampleRoutes() *Routes {
	return &Routes{
		Version: 3,
		Nodes:   []Node{{"n1", "h1:1", "z1"}, {"n2", "h2:1", "z2"}, {"n3", "", ""}},
		Tables: []Table{
			{Name: "empty", Kind: "kv", Partitions: []Partition{}},
			{Name: "t", Kind: "kv", Partitions: []Partition{
				{Group: 1, Lo: []byte{}, Hi: []byte("m"), RangeVersion: 2, Members: []partition.NodeID{"n1", "n2"}, Master: "n2"},
				{Group: 2, Lo: []byte("m"), Hi: []byte{}, RangeVersion: 1, Members: []partition.NodeID{"n3"}, Resting: []partition.NodeID{"n1", "n2"}},
			}},
		},
	}
}

func bytesOf(t *rapid.T, limit int, name string) []byte {
	return rapid.SliceOfN(rapid.Byte(), 0, limit).Draw(t, name)
}

func TestRequestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := Request{
			ID: rapid.Uint64().Draw(t, "id"), Op: Op(rapid.Byte().Draw(t, "op")), Level: Level(rapid.Byte().Draw(t, "level")),
			Group: partition.GroupID(rapid.Uint64().Draw(t, "group")), RangeVersion: partition.RangeVersion(rapid.Uint64().Draw(t, "rv")),
			Session: partition.SessionID{Group: partition.GroupID(rapid.Uint64().Draw(t, "sg")), Index: partition.Index(rapid.Uint64().Draw(t, "si"))},
			Seq:     rapid.Uint64().Draw(t, "seq"), TimeoutMS: rapid.Uint32().Draw(t, "timeout"),
			Key: bytesOf(t, 40, "key"), Body: bytesOf(t, 40, "body"),
		}
		if in.Op == OpRead || rapid.Bool().Draw(t, "read") { // a read has bounds where a command has its session
			in.Op, in.Session, in.Seq = OpRead, partition.SessionID{}, 0
			in.MinIndex = partition.Index(rapid.Uint64().Draw(t, "min"))
			in.MaxAge = time.Duration(rapid.Uint32().Draw(t, "age")) * time.Microsecond
		}
		var out Request
		if err := parseRequest(appendRequest(nil, &in), &out); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(in, out) {
			t.Fatalf("%+v became %+v", in, out)
		}
	})
}

func TestResponseRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := Response{
			ID: rapid.Uint64().Draw(t, "id"), Code: partition.Code(rapid.Uint16().Draw(t, "code")),
			Index: partition.Index(rapid.Uint64().Draw(t, "index")), Body: bytesOf(t, 40, "body"),
			Why: string(bytesOf(t, 40, "why")), Next: string(bytesOf(t, 40, "next")), Master: partition.NodeID(bytesOf(t, 40, "master")),
		}
		if in.AgeKnown = rapid.Bool().Draw(t, "known"); in.AgeKnown {
			in.Age = time.Duration(rapid.Uint32().Draw(t, "age")) * time.Microsecond
		}
		var out Response
		if err := parseResponse(appendResponse(nil, &in), &out); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(in, out) {
			t.Fatalf("%+v became %+v", in, out)
		}
	})
}

func TestRoutesRoundTrip(t *testing.T) {
	in := sampleRoutes()
	b, err := AppendRoutes([]byte("before"), in)
	if err != nil {
		t.Fatal(err)
	}
	out, err := ParseRoutes(b[len("before"):])
	if err != nil || !reflect.DeepEqual(in, out) {
		t.Fatalf("%+v became %+v, %v", in, out, err)
	}
	for i := range b[6:] {
		if _, err := ParseRoutes(b[6 : 6+i]); err == nil {
			t.Errorf("accepted when cut to %d bytes", i)
		}
	}
	table := out.Table("t")
	for key, want := range map[string]partition.GroupID{"": 1, "lzz": 1, "m": 2, "zz": 2} {
		if p := table.Partition([]byte(key)); p == nil || p.Group != want {
			t.Errorf("key %q: %+v", key, p)
		}
	}
	if out.Table("empty").Partition(nil) != nil || out.Table("none") != nil {
		t.Error("found what is not there")
	}
}

// Routes that would lead a client astray are refused by both sides.
func TestRoutesRefused(t *testing.T) {
	for name, spoil := range map[string]func(r *Routes){
		"gap":           func(r *Routes) { r.Tables[1].Partitions[1].Lo = []byte("n") },
		"overlap":       func(r *Routes) { r.Tables[1].Partitions[1].Lo = []byte("l") },
		"late begin":    func(r *Routes) { r.Tables[1].Partitions[0].Lo = []byte("a") },
		"early end":     func(r *Routes) { r.Tables[1].Partitions[1].Hi = []byte("z") },
		"endless first": func(r *Routes) { r.Tables[1].Partitions[0].Hi = nil },
		"no group":      func(r *Routes) { r.Tables[1].Partitions[0].Group = 0 },
		"table order":   func(r *Routes) { r.Tables[0].Name = "u" },
		"same table":    func(r *Routes) { r.Tables[0].Name = "t" },
		"no name":       func(r *Routes) { r.Tables[0].Name = "" },
		"long name":     func(r *Routes) { r.Tables[0].Name = "a" + strings.Repeat("x", maxNameBytes) },
		"strange node":  func(r *Routes) { r.Tables[1].Partitions[0].Members[0] = "n9" },
		"same node":     func(r *Routes) { r.Nodes[1].ID = "n1" },
		"long address":  func(r *Routes) { r.Nodes[1].Addr = strings.Repeat("x", maxAddrBytes+1) },
		"long key": func(r *Routes) {
			k := make([]byte, MaxKeyBytes+1)
			k[0] = 'm'
			r.Tables[1].Partitions[0].Hi, r.Tables[1].Partitions[1].Lo = k, k
		},
		"many members": func(r *Routes) { r.Tables[1].Partitions[0].Members = make([]partition.NodeID, maxMembers+1) },
		"long zone":    func(r *Routes) { r.Nodes[1].Zone = strings.Repeat("x", partition.MaxZoneBytes+1) },
		"strange rest": func(r *Routes) { r.Tables[1].Partitions[0].Resting = []partition.NodeID{"n9"} },
		"many nodes":   func(r *Routes) { r.Nodes = make([]Node, maxRouteNodes+1) },
		"many tables":  func(r *Routes) { r.Tables = make([]Table, maxTables+1) },
	} {
		r := sampleRoutes()
		spoil(r)
		if _, err := AppendRoutes(nil, r); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestAnswerLimits(t *testing.T) {
	var r Response
	long := strings.Repeat("x", 2*MaxReasonBytes)
	if err := parseResponse(appendResponse(nil, &Response{ID: 1, Code: 1, Why: long, Next: long, Master: partition.NodeID(long)}), &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Why) != MaxReasonBytes || len(r.Next) != MaxReasonBytes || len(r.Master) != partition.MaxNodeIDBytes {
		t.Errorf("texts of %d, %d and %d bytes", len(r.Why), len(r.Next), len(r.Master))
	}
	if err := parseResponse(appendResponse(nil, &Response{ID: 1, Body: make([]byte, MaxAnswerBytes+1)}), &r); err != nil || r.Code != partition.CodeTooLarge {
		t.Errorf("%v, %+v", err, r.Err())
	}
}

// Every flipped bit and every cut of a frame is noticed.
func TestDamagedFrames(t *testing.T) {
	req, resp := sampleRequest(), sampleResponse()
	for name, x := range map[string]struct {
		frame []byte
		parse func([]byte) *partition.Error
	}{
		"request":  {appendRequest(nil, &req), func(b []byte) *partition.Error { return parseRequest(b, new(Request)) }},
		"response": {appendResponse(nil, &resp), func(b []byte) *partition.Error { return parseResponse(b, new(Response)) }},
	} {
		if err := x.parse(x.frame); err != nil {
			t.Fatal(err)
		}
		for bit := range len(x.frame) * 8 {
			b := bytes.Clone(x.frame)
			b[bit/8] ^= 1 << (bit % 8)
			if x.parse(b) == nil {
				t.Errorf("%s: bit %d flipped and not noticed", name, bit)
			}
		}
	}
}

// resealed gives a spoiled frame a right checksum.
func resealed(frame []byte, spoil func(b []byte)) []byte {
	b := bytes.Clone(frame)
	spoil(b[prefixBytes:])
	binary.LittleEndian.PutUint32(b, partition.Checksum(b[4:]))
	return b
}

func FuzzParseRequest(f *testing.F) {
	req := sampleRequest()
	f.Add(appendRequest(nil, &req)[prefixBytes:])
	f.Fuzz(func(t *testing.T, body []byte) { checkRequest(t, body) })
}

// checkRequest: what is taken for a request is one. Its checksum is made right.
func checkRequest(t testing.TB, body []byte) {
	frame := seal(append(make([]byte, prefixBytes), body...), 0)
	if _, err := frameLength(frame, maxRequestFrame); err != nil {
		return
	}
	var r Request
	if parseRequest(frame, &r) != nil {
		return
	}
	again := appendRequest(nil, &r)
	if r.Op == OpRead { // it has no number of a command, and what stands there means nothing
		var s Request
		if err := parseRequest(again, &s); err != nil || !reflect.DeepEqual(r, s) {
			t.Fatalf("%+v became %+v, %v", r, s, err)
		}
		return
	}
	if r.check() == nil && !bytes.Equal(again, frame) && frame[prefixBytes] == Version {
		t.Fatalf("%x became %x", frame, again)
	}
}

func FuzzParseResponse(f *testing.F) {
	resp := sampleResponse()
	f.Add(appendResponse(nil, &resp)[prefixBytes:])
	f.Fuzz(func(t *testing.T, body []byte) { checkResponse(t, body) })
}

// checkResponse is checkRequest for an answer.
func checkResponse(t testing.TB, body []byte) {
	frame := seal(append(make([]byte, prefixBytes), body...), 0)
	if _, err := frameLength(frame, maxResponseFrame); err != nil {
		return
	}
	var r, s Response
	if parseResponse(frame, &r) != nil {
		return
	}
	if err := parseResponse(appendResponse(nil, &r), &s); err != nil || !reflect.DeepEqual(r, s) {
		t.Fatalf("%+v became %+v, %v", r, s, err)
	}
}

func FuzzParseRoutes(f *testing.F) {
	b, err := AppendRoutes(nil, sampleRoutes())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) { checkRoutes(t, b) })
}

// checkRoutes: what is taken for routes can be sent on.
func checkRoutes(t testing.TB, b []byte) {
	r, err := ParseRoutes(b)
	if err != nil {
		return
	}
	again, err := AppendRoutes(nil, r)
	if err != nil {
		t.Fatalf("accepted routes that cannot be sent: %v", err)
	}
	s, err := ParseRoutes(again)
	if err != nil || !reflect.DeepEqual(r, s) {
		t.Fatalf("%+v became %+v, %v", r, s, err)
	}
}

// chopped delivers a stream in pieces of any size.
type chopped struct {
	rest []byte
	rnd  *rand.Rand
}

func (c *chopped) Read(b []byte) (int, error) {
	if len(c.rest) == 0 {
		return 0, errEnd
	}
	n := min(len(b), len(c.rest), 1+c.rnd.IntN(1<<c.rnd.IntN(18)))
	copy(b, c.rest[:n])
	c.rest = c.rest[n:]
	return n, nil
}

var errEnd = partition.Errorf(partition.CodeClosed, "end of the test's stream")

// Frames come out of a stream as they were put in, however it is cut, and what
// was handed out to be kept is never written again.
func TestFrameReader(t *testing.T) {
	for seed := range uint64(24) {
		rnd, fill := rand.New(rand.NewPCG(seed, 1)), rand.NewChaCha8([32]byte{byte(seed)})
		var stream []byte
		var want [][]byte
		for range 1 + rnd.IntN(100) {
			r := Request{ID: rnd.Uint64(), Body: make([]byte, rnd.IntN(1<<rnd.IntN(19)))}
			_, _ = fill.Read(r.Body) // never fails
			f := appendRequest(nil, &r)
			want = append(want, f)
			stream = append(stream, f...)
		}
		keep := seed%2 == 0
		frames := frameReader{src: &chopped{stream, rnd}, limit: maxRequestFrame, keep: keep}
		var kept [][]byte
		for i := range want {
			f, err := frames.next()
			if err != nil || !bytes.Equal(f, want[i]) {
				t.Fatalf("seed %d, frame %d: %v", seed, i, err)
			}
			kept = append(kept, f)
		}
		if _, err := frames.next(); err != errEnd {
			t.Fatalf("seed %d: after the end: %v", seed, err)
		}
		if keep && !slices.EqualFunc(kept, want, bytes.Equal) {
			t.Fatalf("seed %d: a kept frame was changed", seed)
		}
	}
}

// A length costs no memory: only bytes that came do.
func TestFrameReaderHostileLength(t *testing.T) {
	for _, keep := range []bool{false, true} {
		prefix := make([]byte, prefixBytes, chunkBytes*2)
		binary.LittleEndian.PutUint32(prefix[4:], maxRequestFrame)
		frames := frameReader{src: &chopped{append(prefix, make([]byte, chunkBytes)...), rand.New(rand.NewPCG(1, 1))}, limit: maxRequestFrame, keep: keep}
		if _, err := frames.next(); err != errEnd {
			t.Fatal(err)
		}
		if n := cap(frames.buf); n > growBytes {
			t.Errorf("%d bytes of memory for %d bytes sent", n, chunkBytes)
		}
		binary.LittleEndian.PutUint32(prefix[4:], maxRequestFrame+1)
		frames = frameReader{src: &chopped{prefix, rand.New(rand.NewPCG(1, 1))}, limit: maxRequestFrame, keep: keep}
		if _, err := frames.next(); partition.CodeOf(err) != partition.CodeCorrupt || err == errEnd {
			t.Fatal(err)
		}
	}
}

// Numbers are given out in order, each once, and none is given out that would
// push an outstanding one out of the group's window.
func TestSessionWindow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newSession(nil, partition.SessionID{})
		out := map[uint64]bool{}
		next := uint64(1)
		oldest := func() uint64 {
			o := next
			for seq := range out {
				o = min(o, seq)
			}
			return o
		}
		for range 400 {
			if rapid.IntRange(0, 9).Draw(t, "take") < 6 {
				if full := next-oldest() >= windowSize; s.full() != full {
					t.Fatalf("full is %v with %d to %d outstanding", s.full(), oldest(), next)
				}
				if s.full() {
					continue
				}
				if seq := s.take(); seq != next || seq-oldest() >= windowSize {
					t.Fatalf("took %d, want %d, oldest %d", seq, next, oldest())
				}
				out[next] = true
				next++
				continue
			}
			seq := oldest() + uint64(rapid.IntRange(0, windowSize).Draw(t, "which"))
			s.release(seq) // also numbers that are not outstanding
			delete(out, seq)
		}
	})
}
