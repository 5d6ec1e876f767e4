package cluster

import (
	"bytes"
	"compress/lzw"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"
)

const (
	// hostileEnv marks the child process in which the hostile table runs.
	hostileEnv = "PANDO_GOSSIP_HOSTILE"
	// hostileData bounds the child's memory, messageBytes what a message may make
	// it allocate unless its row says more.
	hostileData  = 1 << 30
	messageBytes = 1 << 20
)

// TestHostileGossip (G21): whatever bytes come to the open gossip port, over UDP or
// TCP, the process lives, allocates little, and stays a member. The library has
// limits of its own for what a join may bring; the rows that come up to them say so.
func TestHostileGossip(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs RLIMIT_DATA as Linux has it")
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestHostileGossipChild$", "-test.v")
	cmd.Env = append(os.Environ(), hostileEnv+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if n := bytes.Count(out, []byte("--- PASS: TestHostileGossipChild/")); n < 100 {
		t.Errorf("only %d rows ran", n)
	} else {
		t.Logf("%d rows", n)
	}
}

// TestHostileGossipChild is the child's part of TestHostileGossip.
func TestHostileGossipChild(t *testing.T) {
	if os.Getenv(hostileEnv) == "" {
		t.Skip("runs as a child of TestHostileGossip")
	}
	limitData(t, hostileData)
	victim := gossipNode(t, "victim", nil)
	friend := gossipNode(t, "friend", func(c *GossipConfig) { c.Join = []string{victim.Address()} })
	waitFor(t, victim, "friend", func() bool { return alive(victim) == 2 })
	for _, a := range hostileGossip() {
		for _, network := range []string{"udp", "tcp"} {
			if a.only != "" && a.only != network {
				continue
			}
			t.Run(network+" "+a.name, func(t *testing.T) { a.attack(t, network, victim.Address()) })
		}
	}
	newcomer := gossipNode(t, "newcomer", func(c *GossipConfig) { c.Join = []string{victim.Address()} })
	waitFor(t, friend, "newcomer", func() bool {
		return friend.member("newcomer").Status == Alive && friend.member("victim").Status == Alive
	})
	waitFor(t, newcomer, "both", func() bool { return alive(newcomer) >= 3 })
}

// gossipAttack is one row: what is sent, and how much it may cost.
type gossipAttack struct {
	name  string
	only  string // network
	send  [][]byte
	bytes uint64 // a message; 0: messageBytes
}

func (a *gossipAttack) attack(t *testing.T, network, to string) {
	runtime.GC()
	before := allocated()
	var sent uint64
	for _, b := range a.send {
		conn, err := net.Dial(network, to)
		if err != nil {
			t.Fatalf("the victim no longer takes connections: %v", err)
		}
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		if network == "udp" {
			b = b[:min(len(b), 65507)]
		}
		_, _ = conn.Write(b) // the victim may end it before everything is sent
		sent += uint64(len(b))
		if c, ok := conn.(*net.TCPConn); ok {
			_ = c.CloseWrite()
			_, _ = io.Copy(io.Discard, c) // until the victim ends it
		}
		conn.Close()
	}
	answered(t, to)
	cost, limit := allocated()-before, max(a.bytes, messageBytes)*uint64(len(a.send))
	t.Logf("%d bytes allocated for %d", cost, sent)
	if cost > limit {
		t.Errorf("%d bytes allocated for %d that were sent, limit %d", cost, sent, limit)
	}
}

// answered waits until the victim has answered a ping over TCP.
func answered(t *testing.T, to string) {
	t.Helper()
	conn, err := net.Dial("tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	// A ping of number 7, for whoever is there.
	if _, err := conn.Write([]byte{0, 0x82, 0xa5, 'S', 'e', 'q', 'N', 'o', 7, 0xa4, 'N', 'o', 'd', 'e', 0xa0}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, 2)); err != nil {
		t.Fatalf("the victim does not answer a ping: %v", err)
	}
}

// allocated is how many bytes the process has ever allocated.
func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// Kinds of the library's messages, and the greatest of its and of Serf's.
const (
	gossipPing, gossipJoin, gossipMany, gossipUser                = 0, 6, 7, 8
	gossipPacked, gossipSecret, gossipSum, gossipLast, gossipName = 9, 10, 12, 14, 244
	serfLast                                                      = 11
)

func hostileGossip() []gossipAttack {
	rows := []gossipAttack{
		{name: "nothing", send: [][]byte{{}}},
		{name: "zeros", send: [][]byte{make([]byte, 60000)}},
		{name: "http", send: [][]byte{[]byte("GET / HTTP/1.1\r\n\r\n")}},
		{name: "tls", send: [][]byte{{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3}}},
		{name: "a name that is cut", send: [][]byte{{gossipName}, {gossipName, 255}, {gossipName, 0}, {gossipName, 5, 'x'}}},
		{name: "another name", send: [][]byte{append([]byte{gossipName, 1, 'x'}, gossipPing, 0x80)}},
		{name: "a secret where there is no key", send: [][]byte{append([]byte{gossipSecret, 255, 255, 255, 255, 1}, make([]byte, 100)...)}},
		{name: "a wrong sum", send: [][]byte{{gossipSum, 1, 2, 3, 4, gossipPing, 0x80}, {gossipSum}, {gossipSum, 1}}},
		{name: "many that are not there", send: [][]byte{{gossipMany, 255}, append([]byte{gossipMany, 255}, bytes.Repeat([]byte{255}, 510)...)}},
		{name: "many in many", send: [][]byte{nestedMany(200)}},
		{name: "packed bomb", send: [][]byte{packed(bytes.Repeat([]byte{gossipUser}, 30<<20))}, bytes: 200 << 20},
		{name: "packed bomb over the limit", send: [][]byte{packed(make([]byte, 100<<20))}, bytes: 200 << 20},
		{name: "packed garbage", send: [][]byte{append([]byte{gossipPacked}, "\x82\xa4Algo\x00\xa3Buf\xa4xxxx"...)}},
		{name: "packed nothing", send: [][]byte{packed(nil)}},
		{name: "packed in packed", send: [][]byte{packed(packed(packed([]byte{gossipPing, 0x80})))}},
		{name: "a join of many nodes", only: "tcp", send: [][]byte{joinOf(1<<20+1, 0), joinOf(1<<31, 0), joinOf(-1, 0)}},
		{name: "a join of as many nodes as may be", only: "tcp", send: [][]byte{joinOf(1<<20, 0)}, bytes: 300 << 20},
		{name: "a join with much state", only: "tcp", send: [][]byte{joinOf(0, 20<<20+1), joinOf(0, 1<<40), joinOf(0, -1)}},
		{name: "a join with as much state as may be", only: "tcp", send: [][]byte{joinOf(0, 20<<20)}, bytes: 32 << 20},
		{name: "a long message of a user", only: "tcp", send: [][]byte{userOf(20<<20 + 1), userOf(1 << 40), userOf(-1)}},
		{name: "as long a message of a user as may be", only: "tcp", send: [][]byte{userOf(20 << 20)}, bytes: 32 << 20},
	}
	for kind := range gossipLast {
		rows = append(rows, gossipAttack{name: fmt.Sprintf("bombs in kind %d", kind), send: bombs(byte(kind))})
	}
	for kind := range serfLast {
		rows = append(rows, gossipAttack{name: fmt.Sprintf("bombs in kind %d of Serf", kind), send: bombs(gossipUser, byte(kind))})
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 40 {
		a := gossipAttack{name: fmt.Sprintf("random bytes %d", i)}
		for range 25 {
			b := make([]byte, 1+rng.IntN(1400))
			for j := range b {
				b[j] = byte(rng.Uint32())
			}
			if rng.IntN(2) == 0 {
				b[0] = byte(rng.IntN(gossipLast))
			}
			a.send = append(a.send, b)
		}
		rows = append(rows, a)
	}
	return rows
}

// bombs are msgpack values behind a head that announce more than there is.
func bombs(head ...byte) (all [][]byte) {
	field := func(name string, value ...byte) []byte {
		return append(append([]byte{0x81, 0xa0 + byte(len(name))}, name...), value...)
	}
	four := []byte{0xff, 0xff, 0xff, 0xff}
	values := [][]byte{{}, {0xc1}, {0x80}, {0xc0}, append([]byte{0xdd}, four...), append([]byte{0xdf}, four...), append([]byte{0xc6}, four...),
		append([]byte{0xdb}, four...), append([]byte{0xc9}, four...), bytes.Repeat([]byte{0x91}, 60000), bytes.Repeat([]byte{0x81}, 60000)}
	for _, name := range []string{"Node", "Addr", "Meta", "Vsn", "Payload", "Target", "Name", "Buf", "LTime", "Filters", "StatusLTimes", "Events", "LeftMembers", "DestName", "Unknown"} {
		for _, code := range []byte{0xdd, 0xdf, 0xc6, 0xdb} {
			values = append(values, field(name, append([]byte{code}, four...)...))
		}
	}
	values = append(values, field("Unknown", bytes.Repeat([]byte{0x91}, 60000)...))
	for _, v := range values {
		all = append(all, append(bytes.Clone(head), v...))
	}
	return all
}

func nestedMany(depth int) []byte {
	b := []byte{gossipPing, 0x80}
	for range depth {
		b = append(binary.BigEndian.AppendUint16([]byte{gossipMany, 1}, uint16(len(b))), b...)
	}
	return b
}

// packed is a message that another one is packed in.
func packed(b []byte) []byte {
	var p bytes.Buffer
	w := lzw.NewWriter(&p, lzw.LSB, 8)
	_, _ = w.Write(b) // into memory
	_ = w.Close()
	out := append([]byte{gossipPacked}, "\x82\xa4Algo\x00\xa3Buf\xc6"...)
	return append(binary.BigEndian.AppendUint32(out, uint32(p.Len())), p.Bytes()...)
}

func integer(n int64) []byte { return binary.BigEndian.AppendUint64([]byte{0xd3}, uint64(n)) }

func joinOf(nodes, state int64) []byte {
	b := append([]byte{gossipJoin}, "\x83\xa5Nodes"...)
	b = append(append(b, integer(nodes)...), "\xacUserStateLen"...)
	return append(append(b, integer(state)...), "\xa4Join\xc3"...)
}

func userOf(n int64) []byte {
	return append(append([]byte{gossipUser}, "\x81\xaaUserMsgLen"...), integer(n)...)
}
