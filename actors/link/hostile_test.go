package link

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"pando.dev/pando/actors/mailbox"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
)

// hostileEnv marks the child process in which the hostile table runs.
const hostileEnv = "PANDO_LINK_HOSTILE"

// TestHostileTable (G21) sends everything in the table to a node, in a process that
// may hold 512 MiB of data (RLIMIT_DATA, which counts private writable memory;
// an address-space limit of that size would not even let the Go runtime start).
// Each row must end in an error and a counter and cost at most 1 MiB, and the
// process must live. That
// the limit bites is shown by a second child that allocates more.
func TestHostileTable(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs RLIMIT_DATA as Linux has it")
	}
	run := func(mode string) ([]byte, error) {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestHostileChild$", "-test.v")
		cmd.Env = append(os.Environ(), hostileEnv+"="+mode)
		return cmd.CombinedOutput()
	}
	out, err := run("table")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if n := bytes.Count(out, []byte("--- PASS: TestHostileChild/")); n < 60 {
		t.Errorf("only %d rows ran", n)
	} else {
		t.Logf("%d rows", n)
	}
	if out, err := run("exceed"); err == nil || bytes.Contains(out, []byte("allocated")) {
		t.Errorf("the limit does not bite: %v\n%s", err, out)
	}
}

// TestHostileChild is the child's part of TestHostileTable.
func TestHostileChild(t *testing.T) {
	mode := os.Getenv(hostileEnv)
	if mode == "" {
		t.Skip("runs as a child of TestHostileTable")
	}
	limitData(t, 512<<20)
	if mode == "exceed" {
		b := make([]byte, 600<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		t.Fatalf("allocated %d bytes", len(b))
	}
	v := newVictim(t)
	for _, table := range [][]attack{handshakeAttacks(), controlAttacks(), actorAttacks(), dataAttacks(), slowAttacks()} {
		for _, a := range table {
			t.Run(a.name, func(t *testing.T) { v.attack(t, a) })
		}
	}
}

// attack is one row: what is sent, and the counter that must notice.
type attack struct {
	name string
	// before says how far the attacker gets before it sends: "" not even a
	// hello, or a class.
	before string
	hello  func(*hello)
	send   []byte
	end    bool // close after sending
	open   bool // the connection stays: only the message is refused
	count  string
	// costs, if set, is how many bytes each byte sent may cost, of what is taken
	// until a limit is met; otherwise a row may cost rowBytes.
	costs uint64
}

// rowBytes is how much a row may make the process allocate (G21), the attacker's
// own part included.
const rowBytes = 1 << 20

// victim is the node under attack.
type victim struct {
	*node
	decodeErrors atomic.Uint64
	attacks      int
}

func newVictim(t *testing.T) *victim {
	v := &victim{}
	v.node = startNode(t, newBook(), "victim", 7, func(c *Config) {
		types(c)
		c.Silence = time.Second
		c.Heartbeat = 10 * time.Millisecond // a dead link is forgotten with the next
		c.MaxCalls = 8
		c.OnFrame = func(_ partition.NodeID, f Frame) {
			if _, err := DecodeReplica(f); err != nil {
				v.decodeErrors.Add(1)
			}
		}
		c.OnClient = func(conn net.Conn, _ Peer) { _, _ = io.Copy(conn, conn) }
		c.OnBulk = func(_ partition.NodeID, b *Bulk) { _, _ = io.Copy(io.Discard, b) }
	})
	box := mailbox.New[int](mailbox.Config{Items: 8})
	pid, err := v.system.Root.SpawnNamed(actor.PropsFromFunc(func(actor.Context) {}, actor.WithMailbox(box.Producer())), "open")
	if err != nil {
		t.Fatal(err)
	}
	v.Expose(pid, box)
	if _, err := v.system.Root.SpawnNamed(actor.PropsFromFunc(func(ctx actor.Context) {
		switch ctx.Message().(type) {
		case *actor.Started, *actor.Stopping, *actor.Stopped:
		default:
			t.Errorf("a hidden actor got %T", ctx.Message())
		}
	}), "hidden"); err != nil {
		t.Fatal(err)
	}
	return v
}

// counters names every counter that an attack may move.
func (v *victim) counters() map[string]uint64 {
	s := v.Stats()
	m := map[string]uint64{
		"handshake": s.HandshakeFailed, "silent": s.Silent, "magic": s.Bad.Magic, "version": s.Bad.Version, "kind": s.Bad.Kind,
		"length": s.Bad.Length, "checksum": s.Bad.Checksum, "body": s.Bad.Body, "unknown type": s.UnknownType, "bad message": s.BadMessage,
		"forbidden": s.Forbidden, "undelivered": s.Undelivered, "bad beats": s.BadBeats, "decode": v.decodeErrors.Load(), "calls refused": s.CallsRefused,
	}
	for r, n := range s.Refused {
		m["refused "+r.String()] = n
	}
	return m
}

func (v *victim) attack(t *testing.T, a attack) {
	before := v.counters()
	if before["panic"] != 0 {
		t.Fatal("something panicked")
	}
	v.attacks++
	runtime.GC()
	held := allocated()
	conns := v.reach(t, a)
	last := conns[len(conns)-1]
	// The victim may end the connection before everything is sent.
	_, _ = last.Write(a.send)
	if a.end {
		_ = last.(*net.TCPConn).CloseWrite()
	}
	if !a.open {
		_, _ = io.Copy(io.Discard, last) // until the victim ends it, within the deadline
	}
	eventually(t, "the counter "+a.count, func() bool { return v.counters()[a.count] > before[a.count] })
	if limit := max(rowBytes, a.costs*uint64(len(a.send))); allocated()-held > limit {
		t.Errorf("%d bytes allocated for %d that were sent, limit %d", allocated()-held, len(a.send), limit)
	}
	for _, c := range conns {
		c.Close()
	}
	eventually(t, "the link is forgotten", func() bool { return len(v.Peers()) == 0 })
	v.healthy(t)
}

// allocated is how many bytes the process has ever allocated.
func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// reach opens the connections up to where the attack begins.
func (v *victim) reach(t *testing.T, a attack) []net.Conn {
	t.Helper()
	var conns []net.Conn
	open := func(cl class) {
		c, err := net.Dial("tcp", v.Addr())
		if err != nil {
			t.Fatal(err)
		}
		if err := c.SetDeadline(time.Now().Add(wait)); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
		if cl == 0 {
			return
		}
		h := hello{class: cl, session: 77, cluster: "c", from: partition.NodeID(fmt.Sprint("evil", v.attacks)), boot: 5, to: "victim", toBoot: 7}
		if a.hello != nil {
			a.hello(&h)
		}
		if _, err := greet(c, h, wait); err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(wait))
	}
	switch a.before {
	case "":
		open(0)
	case "control":
		open(classControl)
	case "data":
		open(classControl)
		open(classData)
	case "bulk":
		open(classBulk)
	}
	return conns
}

// healthy: an honest client is still served.
func (v *victim) healthy(t *testing.T) {
	t.Helper()
	c, err := DialClient(t.Context(), v.Addr(), ClientConfig{Cluster: "c", Timeout: wait})
	if err != nil {
		t.Fatalf("the victim no longer takes clients: %v", err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}

func evilHello(change func(*hello)) []byte {
	h := hello{class: classControl, session: 1, cluster: "c", from: "evil", boot: 5, to: "victim", toBoot: 7}
	change(&h)
	return h.encode()
}

// patched returns a hello with bytes changed and the checksum made right again.
func patched(change func([]byte) []byte) []byte {
	b := change(evilHello(func(*hello) {}))
	if len(b) > 12 {
		binary.LittleEndian.PutUint32(b[len(b)-4:], partition.Checksum(b[:len(b)-4]))
	}
	return b
}

func handshakeAttacks() []attack {
	set := func(i int, x ...byte) func([]byte) []byte {
		return func(b []byte) []byte { copy(b[i:], x); return b }
	}
	whole := evilHello(func(*hello) {})
	wrongSum := bytes.Clone(whole)
	wrongSum[len(wrongSum)-1]++
	rows := []attack{
		{name: "nothing", end: true, count: "handshake"},
		{name: "garbage", send: bytes.Repeat([]byte("garbage!"), 100), count: "refused malformed"},
		{name: "zeros", send: make([]byte, 4096), count: "refused malformed"},
		{name: "http", send: []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), count: "refused malformed"},
		{name: "tls", send: []byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3}, count: "refused malformed"},
		{name: "magic alone", send: whole[:4], end: true, count: "handshake"},
		{name: "half a hello", send: whole[:len(whole)/2], end: true, count: "handshake"},
		{name: "all but a byte", send: whole[:len(whole)-1], end: true, count: "handshake"},
		{name: "length 0", send: patched(set(6, 0, 0)), count: "refused malformed"},
		{name: "length 3", send: patched(set(6, 3, 0)), count: "refused malformed"},
		{name: "length 65535", send: patched(set(6, 255, 255)), count: "refused malformed"},
		{name: "version 0", send: patched(set(4, 0, 0)), count: "refused version"},
		{name: "newer version", send: patched(set(4, 2, 0)), count: "refused version"},
		{name: "wrong checksum", send: wrongSum, count: "refused malformed"},
		{name: "name longer than the hello", send: patched(set(33, 255)), count: "refused malformed"},
		{name: "bytes too many", send: patched(func(b []byte) []byte {
			b = append(b, 1, 2, 3)
			binary.LittleEndian.PutUint16(b[6:], uint16(len(b)-helloHead))
			return b
		}), count: "refused malformed"},
		{name: "a welcome", send: (&welcome{node: "evil"}).encode(), count: "refused malformed"},
		{name: "a frame", send: (&Frame{Kind: kindBeat, Body: make([]byte, 32)}).append(nil), count: "refused malformed"},
	}
	for name, c := range map[string]struct {
		change func(*hello)
		count  string
	}{
		"other cluster":    {func(h *hello) { h.cluster = "d" }, "refused cluster"},
		"no cluster":       {func(h *hello) { h.cluster = "" }, "refused cluster"},
		"long cluster":     {func(h *hello) { h.cluster = strings.Repeat("c", 65) }, "refused malformed"},
		"long node":        {func(h *hello) { h.from = partition.NodeID(strings.Repeat("c", 65)) }, "refused malformed"},
		"other node":       {func(h *hello) { h.to = "other" }, "refused node"},
		"older boot":       {func(h *hello) { h.toBoot = 6 }, "refused boot"},
		"newer boot":       {func(h *hello) { h.toBoot = 8 }, "refused boot"},
		"class 0":          {func(h *hello) { h.class = 0 }, "refused class"},
		"class 6":          {func(h *hello) { h.class = 6 }, "refused class"},
		"class 255":        {func(h *hello) { h.class = 255 }, "refused class"},
		"no name":          {func(h *hello) { h.from = "" }, "refused malformed"},
		"no boot":          {func(h *hello) { h.boot = 0 }, "refused malformed"},
		"to nobody":        {func(h *hello) { h.to = "" }, "refused malformed"},
		"our name":         {func(h *hello) { h.from = "victim" }, "refused identity"},
		"data alone":       {func(h *hello) { h.class = classData }, "refused stale"},
		"stream w/o name":  {func(h *hello) { h.class, h.from = classStream, "" }, "refused malformed"},
		"bulk for another": {func(h *hello) { h.class, h.to = classBulk, "other" }, "refused node"},
		"client elsewhere": {func(h *hello) { h.class, h.cluster = classClient, "d" }, "refused cluster"},
	} {
		rows = append(rows, attack{name: name, send: evilHello(c.change), count: c.count})
	}
	return rows
}

// frame encodes one with a right checksum; raw changes its header first.
func frame(k Kind, body []byte) []byte {
	return (&Frame{Kind: k, Group: 1, From: 1, To: 1, Body: body}).append(nil)
}

func header(k Kind, change func([]byte)) []byte {
	b := frame(k, make([]byte, 32))
	change(b)
	binary.LittleEndian.PutUint32(b[24:], frameSum(b))
	return b
}

func body(parts ...any) []byte {
	e := encoder{}
	for _, p := range parts {
		switch p := p.(type) {
		case byte:
			e.b = append(e.b, p)
		case int:
			e.u64(uint64(p))
		case uint32:
			e.u32(p)
		case string:
			e.text(p)
		case []byte:
			e.b = append(e.b, p...)
		}
	}
	return e.b
}

func controlAttacks() []attack {
	sum := frame(kindBeat, make([]byte, 32))
	sum[24]++
	var many, flood []byte
	for id := range 10 {
		f := Frame{Kind: kindCall, Group: partition.GroupID(id), Body: body(uint32(1000), uint32(100), []byte("begun"))}
		many = f.append(many)
	}
	for id := range 3 {
		f := Frame{Kind: kindCall, Group: partition.GroupID(id), Body: body(uint32(1000), uint32(MaxCallBytes), make([]byte, 50_000))}
		flood = f.append(flood)
		for range 83 {
			f.Body = make([]byte, 50_000)
			flood = f.append(flood)
		}
	}
	return []attack{
		{name: "frame magic", before: "control", send: header(kindBeat, func(b []byte) { b[0]++ }), count: "magic"},
		{name: "frame version", before: "control", send: header(kindBeat, func(b []byte) { b[4] = 9 }), count: "version"},
		{name: "reserved byte", before: "control", send: header(kindBeat, func(b []byte) { b[7] = 1 }), count: "version"},
		{name: "kind 0", before: "control", send: header(0, func([]byte) {}), count: "kind"},
		{name: "kind 255", before: "control", send: header(255, func([]byte) {}), count: "kind"},
		{name: "data on control", before: "control", send: frame(KindGather, make([]byte, 8)), count: "kind"},
		{name: "chunk on control", before: "control", send: frame(kindChunk, make([]byte, 8)), count: "kind"},
		{name: "4 GiB announced", before: "control", send: header(kindCall, func(b []byte) { copy(b[8:], "\xff\xff\xff\xff") }), count: "length"},
		{name: "control over 64 KiB", before: "control", send: frame(kindCall, make([]byte, MaxControlBytes+1)), count: "length"},
		{name: "frame checksum", before: "control", send: sum, count: "checksum"},
		{name: "a second hello", before: "control", send: evilHello(func(*hello) {}), count: "magic"},
		{name: "garbage after the hello", before: "control", send: bytes.Repeat([]byte("x"), 10_000), count: "magic"},
		{name: "short beat", before: "control", send: frame(kindBeat, make([]byte, 31)), count: "body"},
		{name: "long beat", before: "control", send: frame(kindBeat, make([]byte, 33)), count: "length"},
		{name: "beat of another boot", before: "control", send: frame(kindBeat, body(1, 6, 7, 0)), count: "body"},
		{name: "answer of another boot", before: "control", send: frame(kindBeatAnswer, body(1, 6, 7, 0, 0, uint32(0))), count: "body"},
		{name: "answer with a count bomb", before: "control", send: frame(kindBeatAnswer, body(1, 5, 7, 0, 0, uint32(1<<31))), count: "body"},
		{name: "answer with a wrong count", before: "control", send: frame(kindBeatAnswer, body(1, 5, 7, 0, 0, uint32(2), 1, 1)), count: "body"},
		{name: "answer cut short", before: "control", send: frame(kindBeatAnswer, body(1, 5)), count: "body"},
		{name: "answer nobody asked for", before: "control", send: frame(kindBeatAnswer, body(1<<40, 5, 7, 0, 0, uint32(0))), open: true, count: "bad beats"},
		{name: "call without a head", before: "control", send: frame(kindCall, []byte{1, 2, 3}), count: "body"},
		{name: "call of 4 GiB", before: "control", send: frame(kindCall, body(uint32(1), uint32(1<<32-1))), count: "body"},
		{name: "call longer than announced", before: "control", send: frame(kindCall, body(uint32(1), uint32(1), []byte("abc"))), count: "body"},
		{name: "call that ends early", before: "control", send: header2(frame(kindCall, body(uint32(1), uint32(100), []byte("abc"))), flagLast), count: "body"},
		{name: "call that does not progress", before: "control", send: frame(kindCall, body(uint32(1), uint32(100))), count: "body"},
		{name: "many begun calls", before: "control", send: many, count: "body"},
		{name: "too much in begun calls", before: "control", send: flood, count: "body", costs: 4},
	}
}

// header2 sets a frame's flags and makes the checksum right again.
func header2(b []byte, flags byte) []byte {
	b[6] = flags
	binary.LittleEndian.PutUint32(b[24:], frameSum(b))
	return b
}

func actorAttacks() []attack {
	to := func(name string, id byte, b ...byte) []byte {
		return frame(kindMessage, body(byte(toActor), name, "me", id, byte(0), b))
	}
	unknown := append([]byte{0x81, 0xa7}, "Unknown"...)
	rows := []attack{
		{name: "message of no kind", send: frame(kindMessage, body(byte(9), "open", "me", byte(1), byte(0))), count: "body"},
		{name: "message to no name", send: frame(kindMessage, body(byte(toActor), "", "me", byte(1), byte(0))), count: "body"},
		{name: "message cut in a name", send: frame(kindMessage, []byte{toActor, 200, 'x'}), count: "body"},
		{name: "message without a type", send: frame(kindMessage, body(byte(toActor), "open", "me")), count: "body"},
		{name: "unknown type", send: to("open", 99, 0x80), open: true, count: "unknown type"},
		{name: "msgpack array bomb", send: to("open", 1, 0xdd, 0xff, 0xff, 0xff, 0xff), open: true, count: "bad message"},
		{name: "msgpack map bomb", send: to("open", 1, 0xdf, 0xff, 0xff, 0xff, 0xff), open: true, count: "bad message"},
		{name: "msgpack bin bomb", send: to("open", 1, 0xc6, 0xff, 0xff, 0xff, 0xff), open: true, count: "bad message"},
		{name: "msgpack nested", send: to("open", 1, bytes.Repeat([]byte{0x91}, 60_000)...), open: true, count: "bad message"},
		{name: "msgpack nested in an unknown field", send: to("open", 1, append(unknown, bytes.Repeat([]byte{0x91}, 60_000)...)...), open: true, count: "bad message"},
		{name: "msgpack garbage", send: to("open", 1, 0xc1, 0xc1, 0xc1), open: true, count: "bad message"},
		{name: "msgpack nothing", send: to("open", 1), open: true, count: "bad message"},
		{name: "msgpack trailing", send: to("open", 1, 0x80, 0x80), open: true, count: "bad message"},
		{name: "msgpack extension", send: to("open", 1, 0x81, 0xa1, 'N', 0xd4, 1, 1), open: true, count: "bad message"},
		{name: "msgpack unknown field", send: to("open", 1, append(unknown, 1)...), open: true, count: "bad message"},
		{name: "msgpack wrong field type", send: to("open", 1, 0x81, 0xa1, 'N', 0x91, 1), open: true, count: "bad message"},
		{name: "to a hidden actor", send: to("hidden", 1, 0x80), open: true, count: "forbidden"},
		{name: "to the links' supervisor", send: to("links", 1, 0x80), open: true, count: "forbidden"},
		{name: "to the event stream", send: to("eventstream", 1, 0x80), open: true, count: "forbidden"},
		{name: "to nobody", send: to("nobody", 1, 0x80), open: true, count: "undelivered"},
		{name: "to a future that is gone", send: to("future$zz", 1, 0x80), open: true, count: "undelivered"},
		{name: "dead letter for a hidden actor", send: frame(kindMessage, body(byte(toNobody), "hidden", "x")), open: true, count: "forbidden"},
		{name: "watch of kind 0", send: frame(kindWatch, body(byte(0), byte(0), "a", "b")), count: "body"},
		{name: "watch of kind 9", send: frame(kindWatch, body(byte(9), byte(0), "a", "b")), count: "body"},
		{name: "watch without a watcher", send: frame(kindWatch, body(byte(doWatch), byte(0), "a", "")), count: "body"},
		{name: "watch with bytes too many", send: frame(kindWatch, body(byte(doWatch), byte(0), "a", "b", byte(1))), count: "body"},
		{name: "a death nobody asked about", send: frame(kindWatch, body(byte(doTerminated), byte(0), "x", "hidden")), open: true, count: "forbidden"},
	}
	for i := range rows {
		rows[i].before = "control"
	}
	return rows
}

func dataAttacks() []attack {
	r1 := record(1, 1, "x")
	with := func(change func(*replica.Append), records ...partition.Record) []byte {
		m := &replica.Append{Epoch: 5, Records: records}
		if change != nil {
			change(m)
		}
		f := Frame{Group: 1, From: 1, To: 2}
		EncodeReplica(&f, m)
		return f.append(nil)
	}
	damaged := partition.Record(bytes.Clone(r1))
	damaged[len(damaged)-1]++
	raw := func(k Kind, b []byte) []byte { return (&Frame{Kind: k, Group: 1, From: 1, To: 2, Body: b}).append(nil) }
	made := func(h partition.Header) partition.Record { return partition.NewRecord(h, []byte("x")) }
	rows := []attack{
		{name: "append over 4 MiB", send: raw(KindAppend, make([]byte, MaxAppendBytes+1)), count: "length"},
		{name: "fat gather", send: raw(KindGather, make([]byte, maxSmallBytes+1)), count: "length"},
		{name: "ping with a body", send: raw(kindPing, []byte{1}), count: "length"},
		{name: "kind between the kinds", send: raw(30, nil), count: "kind"},
		{name: "control on data", send: raw(kindCall, make([]byte, 8)), count: "kind"},
		{name: "data checksum", send: func() []byte { b := with(nil, r1); b[len(b)-1]++; return b }(), count: "checksum"},
		{name: "garbage between frames", send: append(with(nil, r1), "garbage of some length, no frame"...), count: "magic"},
		{name: "damaged record", send: with(nil, damaged), open: true, count: "decode"},
		{name: "record of another group", send: with(nil, record(2, 1, "x")), open: true, count: "decode"},
		{name: "gap", send: with(nil, record(1, 2, "x")), open: true, count: "decode"},
		{name: "gap within", send: with(nil, r1, made(partition.Header{Group: 1, Index: 3, Epoch: 5, Kind: 2, Prev: r1.Checksum()})), open: true, count: "decode"},
		{name: "broken chain", send: with(nil, r1, record(1, 2, "x")), open: true, count: "decode"},
		{name: "epochs backwards", send: with(nil, r1, made(partition.Header{Group: 1, Index: 2, Epoch: 4, Kind: 2, Prev: r1.Checksum()})), open: true, count: "decode"},
		{name: "record newer than its sender", send: with(nil, made(partition.Header{Group: 1, Index: 1, Epoch: 6, Kind: 2})), open: true, count: "decode"},
		{name: "node-local record", send: with(nil, made(partition.Header{Group: 1, Index: 1, Epoch: 5, Kind: 200})), open: true, count: "decode"},
		{name: "record of kind 0", send: with(nil, made(partition.Header{Group: 1, Index: 1, Epoch: 5})), open: true, count: "decode"},
		{name: "record count bomb", send: raw(KindAppend, append(body(5, 0, 0, uint32(0), uint32(1<<32-1), 0), r1...)), open: true, count: "decode"},
		{name: "records without a count", send: raw(KindAppend, append(body(5, 0, 0, uint32(0), uint32(0), 0), r1...)), open: true, count: "decode"},
		{name: "append cut short", send: raw(KindAppend, make([]byte, appendHead-1)), open: true, count: "decode"},
		{name: "empty append", send: raw(KindAppend, nil), open: true, count: "decode"},
		{name: "ack with bytes too many", send: raw(KindAppendAck, make([]byte, 33)), open: true, count: "decode"},
		{name: "lease for ever", send: raw(KindGatherAnswer, body(5, 0, 0, uint32(0), 0, 1<<62, 0)), open: true, count: "decode"},
		{name: "negative lease", send: raw(KindGatherAnswer, body(5, 0, 0, uint32(0), 0, -1, 0)), open: true, count: "decode"},
		{name: "unknown flags", send: header2(raw(KindProbe, make([]byte, 24)), 0x80), open: true, count: "decode"},
		{name: "group 0", send: (&Frame{Kind: KindGather, From: 1, To: 2, Body: make([]byte, 8)}).append(nil), open: true, count: "decode"},
		{name: "replica 0", send: (&Frame{Kind: KindGather, Group: 1, To: 2, Body: make([]byte, 8)}).append(nil), open: true, count: "decode"},
	}
	for i := range rows {
		rows[i].before = "data"
	}
	return append(rows,
		attack{name: "chunk over 1 MiB", before: "bulk", send: raw(kindChunk, make([]byte, MaxChunkBytes+1)), count: "length"},
		attack{name: "credit beyond the window", before: "bulk", send: raw(kindCredit, body(uint32(1<<31))), count: "body"},
		attack{name: "short credit", before: "bulk", send: raw(kindCredit, []byte{1}), count: "body"},
		attack{name: "chunk after the end", before: "bulk", send: append(raw(kindEnd, nil), raw(kindChunk, []byte("x"))...), count: "body"},
		attack{name: "append on bulk", before: "bulk", send: with(nil, r1), count: "kind"},
	)
}

// slowAttacks wait for the victim's patience to end.
func slowAttacks() []attack {
	return []attack{
		{name: "silence instead of a hello", count: "handshake"},
		{name: "silence in the hello", send: evilHello(func(*hello) {})[:20], count: "handshake"},
		{name: "silence in a large frame", before: "data", send: (&Frame{Kind: KindAppend, Body: make([]byte, MaxAppendBytes)}).append(nil)[:100], count: "silent"},
		{name: "silence after the handshake", before: "data", count: "silent"},
	}
}

// TestTrickleGainsNoTime: a byte now and then does not keep a connection that
// completes no frame.
func TestTrickleGainsNoTime(t *testing.T) {
	client, server := pipe(t)
	f := frameReader{conn: server, class: classData, silence: 300 * time.Millisecond}
	ended := make(chan error, 1)
	go func() {
		_, err := f.next()
		ended <- err
	}()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	b := frame(KindAppend, make([]byte, 1<<20))
	for i := 0; ; i++ {
		select {
		case err := <-ended:
			if !timedOut(err) {
				t.Errorf("ended with %v", err)
			}
			return
		case <-tick.C:
			if i == 500 {
				t.Fatal("still open after 10 s")
			}
			_, _ = client.Write(b[i : i+1])
		}
	}
}

// TestHandshakeFlood: connections that say nothing fill their places and no
// more; when they have gone, an honest one is served.
func TestHandshakeFlood(t *testing.T) {
	n := startNode(t, newBook(), "n", 1, func(c *Config) {
		c.MaxHandshakes = 10
		c.OnClient = func(conn net.Conn, _ Peer) { _, _ = io.Copy(conn, conn) }
	})
	var conns []net.Conn
	for range 50 {
		c, err := net.Dial("tcp", n.Addr())
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	eventually(t, "the flood is refused", func() bool { return n.Stats().Refused[RefusedBusy] == 40 && n.Stats().Handshakes == 10 })
	for _, c := range conns {
		c.Close()
	}
	eventually(t, "the places are free again", func() bool { return n.Stats().Handshakes == 0 })
	c, err := DialClient(t.Context(), n.Addr(), ClientConfig{Cluster: "c", Timeout: wait})
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

// TestLinksAreBounded: no more links than the limit, whoever says to be there.
func TestLinksAreBounded(t *testing.T) {
	n := startNode(t, newBook(), "n", 1, func(c *Config) { c.MaxPeers = 3 })
	for i := range 5 {
		c, _, err := dialTo(t.Context(), n.Addr(), hello{class: classControl, cluster: "c", from: partition.NodeID(fmt.Sprint("p", i)), boot: 1, to: "n"}, nil, wait)
		if (err == nil) != (i < 3) {
			t.Errorf("link %d: %v", i, err)
		}
		if err == nil {
			defer c.Close()
		}
	}
	if s := n.Stats(); s.Refused[RefusedBusy] != 2 || len(n.Peers()) != 3 {
		t.Errorf("%+v", s)
	}
}
