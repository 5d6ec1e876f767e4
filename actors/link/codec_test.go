package link

import (
	"bytes"
	"io"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/lease"
	"pando.dev/pando/partition/replica"
)

// chain makes records that follow each other.
func chain(g partition.GroupID, after partition.Position, sum uint32, epoch partition.Epoch, payloads ...[]byte) []partition.Record {
	var out []partition.Record
	for i, p := range payloads {
		r := partition.NewRecord(partition.Header{Group: g, Index: after.Index + 1 + partition.Index(i), Epoch: epoch, Prev: sum, Kind: partition.KindCommand}, p)
		sum = r.Checksum()
		out = append(out, r)
	}
	return out
}

// drawMessage draws any message of a replica.
func drawMessage(t *rapid.T, g partition.GroupID) replica.Message {
	u := func(name string) uint64 { return rapid.Uint64().Draw(t, name) }
	position := func() partition.Position {
		return partition.Position{Epoch: partition.Epoch(u("epoch")), Index: partition.Index(u("index"))}
	}
	epoch := partition.Epoch(u("own epoch"))
	prev := partition.Position{Epoch: partition.Epoch(rapid.Uint64Max(uint64(epoch)).Draw(t, "prev epoch")), Index: partition.Index(rapid.Uint64Max(1<<63).Draw(t, "prev"))}
	sum := rapid.Uint32().Draw(t, "sum")
	records := func() []partition.Record {
		return chain(g, prev, sum, epoch, rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 50), 0, 5).Draw(t, "payloads")...)
	}
	flag := func(name string) bool { return rapid.Bool().Draw(t, name) }
	switch rapid.IntRange(0, 10).Draw(t, "type") {
	case 0:
		return &replica.Append{Epoch: epoch, Prev: prev, PrevSum: sum, Commit: partition.Index(u("commit")), Everywhere: partition.Index(u("everywhere")), Records: records()}
	case 1:
		return &replica.AppendAck{Epoch: epoch, Match: partition.Index(u("match")), Want: partition.Index(u("want")), Commit: partition.Index(u("commit")), State: flag("state")}
	case 2:
		return &replica.Gather{Epoch: epoch, Released: partition.Epoch(u("released"))}
	case 3:
		return &replica.GatherAnswer{Epoch: epoch, End: position(), EndSum: sum, Commit: position(),
			LeaseRemaining: time.Duration(rapid.Int64Range(0, int64(maxLeaseRemaining)).Draw(t, "lease")), Membership: partition.MembershipVersion(u("membership"))}
	case 4:
		return &replica.Fetch{Epoch: epoch, After: partition.Index(u("after"))}
	case 5:
		return &replica.FetchAnswer{Epoch: epoch, Prev: prev, PrevSum: sum, Records: records(), End: position(), Commit: partition.Index(u("commit"))}
	case 6:
		return &replica.Probe{Epoch: epoch, Elect: flag("elect"), End: position()}
	case 7:
		return &replica.ProbeAnswer{Promised: epoch, Reachable: flag("reachable"), Master: flag("master"), Trying: flag("trying"), End: position(), Commit: position(),
			Settled: partition.MembershipVersion(u("settled")), Without: drawMembership(t)}
	case 8:
		return &replica.ReadCheck{Epoch: epoch, Seq: u("seq")}
	case 9:
		return &replica.HandOver{Epoch: epoch, Step: replica.HandStep(rapid.IntRange(1, 5).Draw(t, "step")), Number: u("number"), End: position(), EndSum: sum}
	}
	return &replica.ReadConfirm{Epoch: epoch, Seq: u("seq"), Waiting: flag("waiting")}
}

// drawMembership draws a configuration, or none.
func drawMembership(t *rapid.T) *partition.Membership {
	n := rapid.IntRange(0, 5).Draw(t, "members")
	if n == 0 {
		return nil
	}
	m := &partition.Membership{Policy: partition.Policy{Rule: partition.Majority}, Next: 1,
		Version: partition.MembershipVersion(rapid.Uint64().Draw(t, "version")), Permit: rapid.Uint64Max(3).Draw(t, "permit")}
	for i := range n {
		m.Add(partition.Member{Node: partition.NodeID("n" + string(rune('0'+i))), Zone: rapid.StringN(0, 9, partition.MaxZoneBytes).Draw(t, "zone"),
			Kind: partition.Full, Eligible: true, Weight: rapid.Uint8().Draw(t, "weight")})
	}
	if m.Permit > 1 {
		m.Alone, m.LeftBehind = m.Permit, []partition.ReplicaID{1}
	}
	return m
}

// TestReplicaMessagesComeBackEqual: what is encoded, sent through frames and
// decoded is the same message, and its records alias what was read.
func TestReplicaMessagesComeBackEqual(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := Frame{Group: partition.GroupID(rapid.Uint64Min(1).Draw(t, "group")), From: 3, To: 4}
		m := drawMessage(t, f.Group)
		EncodeReplica(&f, m)
		wire := f.append(nil)
		if len(wire) != f.Bytes() {
			t.Fatalf("%d bytes, announced %d", len(wire), f.Bytes())
		}
		parsed, n, err := parseHeader(wire, classData)
		if err != nil || n != len(wire)-HeaderBytes {
			t.Fatal(err)
		}
		if err := checkFrame(wire); err != nil {
			t.Fatal(err)
		}
		parsed.Body = wire[HeaderBytes:]
		got, err := DecodeReplica(parsed)
		if err != nil || !reflect.DeepEqual(got, m) {
			t.Fatalf("%+v became %+v: %v", m, got, err)
		}
		if a, ok := got.(*replica.Append); ok && len(a.Records) > 0 && &a.Records[0][0] != &wire[HeaderBytes+appendHead] {
			t.Fatal("the records were copied")
		}
	})
}

// TestEveryFieldTravels sets every field of every message to something, so that
// one that is added to a message and forgotten here is noticed. Through is the
// host's and does not travel.
func TestEveryFieldTravels(t *testing.T) {
	next := int64(100)
	for _, m := range []replica.Message{&replica.Append{}, &replica.AppendAck{}, &replica.Gather{}, &replica.GatherAnswer{}, &replica.Fetch{},
		&replica.FetchAnswer{}, &replica.Probe{}, &replica.ProbeAnswer{}, &replica.ReadCheck{}, &replica.ReadConfirm{}, &replica.HandOver{}} {
		fillFields(t, reflect.ValueOf(m).Elem(), &next)
		f := Frame{Group: 9, From: 1, To: 2}
		EncodeReplica(&f, m)
		f.Body, f.Records = f.append(nil)[HeaderBytes:], nil
		if got, err := DecodeReplica(f); err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%+v became %+v: %v", m, got, err)
		}
	}
}

// fillFields gives each field another value than zero; records follow from the
// fields before them.
func fillFields(t *testing.T, v reflect.Value, next *int64) {
	t.Helper()
	for i := range v.NumField() {
		f := v.Field(i)
		switch name := v.Type().Field(i).Name; {
		case name == "Through":
		case name == "Step":
			f.SetUint(uint64(replica.HandGo))
		case name == "Records":
			prev := v.FieldByName("Prev").Interface().(partition.Position)
			epoch := max(prev.Epoch, partition.Epoch(v.FieldByName("Epoch").Uint()))
			v.FieldByName("Epoch").SetUint(uint64(epoch))
			f.Set(reflect.ValueOf(chain(9, prev, uint32(v.FieldByName("PrevSum").Uint()), epoch, []byte("a"), nil)))
		case f.Type() == reflect.TypeFor[*partition.Membership]():
			f.Set(reflect.ValueOf(&partition.Membership{Version: 3, Policy: partition.Policy{Rule: partition.Majority}, Next: 6, Alone: 8, Permit: 8, LeftBehind: []partition.ReplicaID{2, 3},
				Members: []partition.Member{{Replica: 5, Node: "n5", Kind: partition.Full, Eligible: true}}}))
		case f.Kind() == reflect.Struct:
			fillFields(t, f, next)
		case f.Kind() == reflect.Bool:
			f.SetBool(true)
		case f.CanUint():
			f.SetUint(uint64(*next))
		case f.CanInt():
			f.SetInt(*next)
		default:
			t.Fatalf("field %s of %s: how?", name, v.Type())
		}
		*next++
	}
}

// FuzzDecodeReplica: no body panics, allocates beyond its size or decodes into
// something that encodes differently.
func FuzzDecodeReplica(f *testing.F) {
	for _, x := range replicaSeeds() {
		f.Add(x[0], x[1], x[2:])
	}
	f.Fuzz(func(t *testing.T, kind, flags uint8, body []byte) { checkReplica(t, kind, flags, body) })
}

// replicaSeeds are bodies of frames behind their kind and flags.
func replicaSeeds() (all [][]byte) {
	add := func(m replica.Message) {
		x := Frame{Group: 1, From: 1, To: 2}
		EncodeReplica(&x, m)
		all = append(all, append([]byte{uint8(x.Kind), x.Flags}, x.append(nil)[HeaderBytes:]...))
	}
	add(&replica.Append{Epoch: 5, Records: chain(1, partition.Position{}, 0, 5, []byte("a"), nil, []byte("bc"))})
	add(&replica.FetchAnswer{Epoch: 5, Records: chain(1, partition.Position{}, 0, 5, []byte("a"))})
	add(&replica.AppendAck{Epoch: 5, Match: 7})
	add(&replica.GatherAnswer{Epoch: 5, LeaseRemaining: time.Second})
	add(&replica.ProbeAnswer{Promised: 5, Master: true})
	pair := &partition.Membership{Version: 2, Policy: partition.Policy{Rule: partition.AllInSync}, Next: 1}
	pair.Add(partition.Member{Node: "n1", Zone: "x", Kind: partition.Full, Eligible: true})
	add(&replica.ProbeAnswer{Promised: 5, Settled: 2, Without: pair})
	pair.Alone, pair.Permit, pair.LeftBehind = 4, 4, []partition.ReplicaID{1}
	add(&replica.ProbeAnswer{Promised: 5, Settled: 2, Without: pair})
	add(&replica.ReadConfirm{Epoch: 5, Waiting: true})
	add(&replica.Gather{})
	add(&replica.HandOver{Epoch: 5, Step: replica.HandPrepare, Number: 3})
	add(&replica.HandOver{Epoch: 5, Step: replica.HandGo, End: partition.Position{Epoch: 5, Index: 9}})
	return all
}

// checkReplica: what is taken for a message is one, in its only form.
func checkReplica(t testing.TB, kind, flags uint8, body []byte) {
	x := Frame{Kind: Kind(kind), Flags: flags, Group: 1, From: 1, To: 2, Body: body}
	m, err := DecodeReplica(x)
	if err != nil {
		return
	}
	again := Frame{Group: 1, From: 1, To: 2}
	EncodeReplica(&again, m)
	if !bytes.Equal(again.append(nil), x.append(nil)) {
		t.Fatalf("%+v encodes differently", m)
	}
}

// bytesConn is a net.Conn that only reads, in pieces of any size.
type bytesConn struct {
	pipeEnd
	r    io.Reader
	step func() int
}

func (c *bytesConn) Read(p []byte) (int, error) { return c.r.Read(p[:min(len(p), c.step())]) }

// FuzzFrameReader: whatever comes in whatever pieces, frames are those that were
// written and everything else is an error.
func FuzzFrameReader(f *testing.F) {
	f.Add(uint64(1), frame(KindGather, make([]byte, 8)))
	f.Add(uint64(2), append(frame(KindAppend, make([]byte, 5000)), frame(kindPing, nil)...))
	f.Fuzz(func(t *testing.T, seed uint64, tail []byte) {
		src := rand.New(rand.NewPCG(seed, 1))
		var want []Frame
		var wire []byte
		for range src.IntN(20) {
			x := Frame{Kind: KindAppend, Flags: uint8(src.Uint32()), Group: partition.GroupID(src.Uint64()), Body: make([]byte, src.IntN(20_000))}
			if src.IntN(20) == 0 {
				x.Body = make([]byte, src.IntN(MaxAppendBytes/4))
			}
			for i := range min(len(x.Body), 64) {
				x.Body[i] = byte(src.Uint32())
			}
			want = append(want, x)
			wire = x.append(wire)
		}
		r := frameReader{class: classData, conn: &bytesConn{r: bytes.NewReader(append(wire, tail...)), step: func() int { return 1 + src.IntN(100_000) }}}
		var got []Frame
		for {
			x, err := r.next()
			if err != nil {
				break
			}
			got = append(got, x)
		}
		if len(got) < len(want) {
			t.Fatalf("%d of %d frames", len(got), len(want))
		}
		for i, x := range want {
			if !bytes.Equal(got[i].Body, x.Body) || got[i].Group != x.Group || got[i].Flags != x.Flags {
				t.Fatalf("frame %d is another", i)
			}
		}
	})
}

// FuzzHandshake: hello and welcome from any bytes.
func FuzzHandshake(f *testing.F) {
	f.Add((&hello{class: classControl, cluster: "c", from: "a", boot: 1, to: "b"}).encode())
	f.Add((&welcome{refusal: RefusedBoot, boot: 1, node: "a", why: "because"}).encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if body, err := readSealed(bytes.NewReader(b), helloMagic); err == nil {
			var h hello
			if err := h.decode(body); err == nil && !bytes.Equal(h.encode(), b[:len(body)+helloHead+4]) {
				t.Fatalf("%+v encodes differently", h)
			}
		}
		if body, err := readSealed(bytes.NewReader(b), welcomeMagic); err == nil {
			var w welcome
			if err := w.decode(body); err == nil && !bytes.Equal(w.encode(), b[:len(body)+helloHead+4]) {
				t.Fatalf("%+v encodes differently", w)
			}
		}
	})
}

// FuzzControlBodies: what control frames carry.
func FuzzControlBodies(f *testing.F) {
	answer, _ := encodeAnswer(lease.Answer{Seq: 1, Boot: 2, Lease: time.Second, Revoked: []lease.Revocation{{Group: 1, Replica: 3, Epoch: 2}}})
	f.Add(uint8(0), answer)
	f.Add(uint8(1), body(uint32(1), uint32(3), []byte("abc")))
	registry, err := newRegistry([]Type{{1, func() any { return new(ping) }}})
	if err != nil {
		f.Fatal(err)
	}
	_, encoded, err := registry.encode(&ping{N: 7, Text: "x"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint8(0), encoded)
	f.Fuzz(func(t *testing.T, flags uint8, b []byte) {
		x := Frame{Kind: kindBeatAnswer, Flags: flags, Body: b}
		if a, err := decodeAnswer(x); err == nil {
			if again, _ := encodeAnswer(a); !bytes.Equal(again, b) {
				t.Fatal("an answer encodes differently")
			}
		}
		var p part
		if done, err := p.add(x); err == nil && done && len(p.body) != p.size {
			t.Fatal("an incomplete call was taken")
		}
		_, _, _ = registry.decode(1, b)
		if bt, err := decodeBeat(b); err == nil && !bytes.Equal(encodeBeat(bt), b) {
			t.Fatal("a beat encodes differently")
		}
	})
}
