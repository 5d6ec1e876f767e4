package control

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"testing"
	"time"
)

const (
	// raftKinds is one more than the greatest kind of the library's requests.
	raftKinds = 5
	// hostileBytes is what a hostile request may make a seat allocate, beside what
	// goes on there anyway.
	hostileBytes = 1 << 20
)

// TestHostileRaft (G21): whatever bytes come through a link to the log of a seat,
// from a node that was let in, the process lives, allocates little, and the seat
// goes on.
func TestHostileRaft(t *testing.T) {
	n := newTestNet(t)
	a, evil := n.start("a", 1), n.start("evil", 0)
	ctx := deadline(t, 60*time.Second)
	if _, err := a.CreateTable(ctx, TableSpec{Name: "before", Kind: "kv", Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	rows := 0
	for name, requests := range hostileRaft() {
		rows += len(requests)
		t.Run(name, func(t *testing.T) {
			runtime.GC()
			before := totalAllocated()
			for _, b := range requests {
				conn, err := evil.link.Dial("a", time.Second)
				if err != nil {
					t.Fatal(err)
				}
				_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
				_, _ = conn.Write(b) // the seat may end it before everything is sent
				if c, ok := conn.(*testConn).Conn.(*net.TCPConn); ok {
					_ = c.CloseWrite()
				}
				_, _ = io.Copy(io.Discard, conn) // until the seat ends it
				conn.Close()
			}
			cost, limit := totalAllocated()-before, uint64(len(requests)+8)*hostileBytes
			t.Logf("%d bytes allocated for %d requests", cost, len(requests))
			if cost > limit {
				t.Errorf("%d bytes allocated for %d requests, limit %d", cost, len(requests), limit)
			}
		})
	}
	if rows < 200 {
		t.Errorf("only %d requests", rows)
	}
	if _, err := a.CreateTable(ctx, TableSpec{Name: "after", Kind: "kv", Replicas: 1}); err != nil {
		t.Fatalf("the seat does not go on: %v", err)
	}
	if len(a.Catalog().Tables()) != 2 {
		t.Errorf("%d tables", len(a.Catalog().Tables()))
	}
}

// hostileRaft are requests as no seat makes them, by the kind of their first byte.
func hostileRaft() map[string][][]byte {
	all := map[string][][]byte{
		"nothing": {{}},
		"garbage": {bytes.Repeat([]byte("garbage!"), 1000), make([]byte, 4096), []byte("GET / HTTP/1.1\r\n\r\n"), {0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3}},
	}
	field := func(name string, value ...byte) []byte {
		return append(append([]byte{0x81, 0xa0 + byte(len(name))}, name...), value...)
	}
	four := []byte{0xff, 0xff, 0xff, 0xff}
	for kind := range byte(raftKinds + 1) {
		var values [][]byte
		for _, code := range []byte{0xdd, 0xdf, 0xc6, 0xdb, 0xc9} {
			values = append(values, append([]byte{code}, four...))
			for _, name := range []string{"Entries", "Leader", "Addr", "ID", "Candidate", "Peers", "Configuration", "Size", "Term", "Unknown"} {
				values = append(values, field(name, append([]byte{code}, four...)...))
			}
		}
		// One entry whose data is longer than all there is.
		values = append(values, field("Entries", append(append([]byte{0x91}, field("Data", 0xc6)...), four...)...))
		values = append(values, []byte{0xc1}, bytes.Repeat([]byte{0x91}, 60_000), field("Unknown", bytes.Repeat([]byte{0x91}, 60_000)...))
		for _, v := range values {
			all[fmt.Sprintf("kind %d", kind)] = append(all[fmt.Sprintf("kind %d", kind)], append([]byte{kind}, v...))
		}
	}
	rng := rand.New(rand.NewPCG(3, 4))
	for range 100 {
		b := make([]byte, 1+rng.IntN(2000))
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		if rng.IntN(2) == 0 {
			b[0] = byte(rng.IntN(raftKinds))
		}
		all["random"] = append(all["random"], b)
	}
	return all
}

// totalAllocated is how many bytes the process has ever allocated.
func totalAllocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}
