package httpapi_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"pando.dev/pando/actors"
	"pando.dev/pando/actors/httpapi"
	"pando.dev/pando/partition"
)

// serve starts a server on a free port and returns a client of it.
func serve(t testing.TB, h http.Handler) (*httpapi.Client, *httpapi.Server) {
	t.Helper()
	s, err := httpapi.Listen(httpapi.ServerConfig{Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	})
	if h != nil {
		s.SetHandler(h)
	}
	return &httpapi.Client{Addrs: []string{s.Addr()}}, s
}

// TestRoundTrip: what the client stores comes back byte-equal, any byte in key
// or value included.
func TestRoundTrip(t *testing.T) {
	c, _ := serve(t, newHandler(t, newTwin(), nil))
	ctx := t.Context()
	if _, err := c.CreateTable(ctx, actors.TableSpec{Name: "t", SplitPoints: [][]byte{{0xff, 0}}}); err != nil {
		t.Fatal(err)
	}
	keys := []string{"plain", "a/b", "..", ".", "a//b", "ümlaut", "\x00\xff\xfe", "per%cent", "plus+ ", "?key64=x"}
	for _, k := range keys {
		value := []byte("v of " + k + "\x00\xff")
		v, err := c.Put(ctx, "t", []byte(k), value, httpapi.Condition{Absent: true})
		if err != nil || v.Version == "" {
			t.Fatalf("put %q: %v %q", k, err, v.Version)
		}
		got, err := c.Get(ctx, "t", []byte(k), httpapi.ReadOptions{Level: httpapi.LevelQuorum})
		if err != nil || string(got.Bytes) != string(value) || got.Version != v.Version {
			t.Fatalf("get %q: %q %q %v", k, got.Bytes, got.Version, err)
		}
	}
	seen := scanAll(t, c, "t", partition.KeyRange{}, 3)
	if len(seen) != len(keys) {
		t.Fatalf("scanned %d of %d keys", len(seen), len(keys))
	}
	for _, k := range keys {
		if seen[k] != "v of "+k+"\x00\xff" {
			t.Errorf("key %q came back as %q", k, seen[k])
		}
		if _, err := c.Delete(ctx, "t", []byte(k), httpapi.Condition{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Get(ctx, "t", []byte("plain"), httpapi.ReadOptions{}); partition.CodeOf(err) != partition.CodeNotFound {
		t.Fatalf("after delete: %v", err)
	}
	if err := c.DropTable(ctx, "t"); err != nil {
		t.Fatal(err)
	}
}

func scanAll(t testing.TB, c *httpapi.Client, table string, r partition.KeyRange, limit int) map[string]string {
	t.Helper()
	seen, cursor := map[string]string{}, ""
	for {
		page, err := c.Scan(t.Context(), table, r, limit, cursor, httpapi.ReadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range page.Pairs {
			if _, twice := seen[string(p.KeyBytes())]; twice {
				t.Fatalf("key %q came twice", p.KeyBytes())
			}
			seen[string(p.KeyBytes())] = string(p.ValueBytes())
		}
		if cursor = page.Cursor; cursor == "" {
			return seen
		}
	}
}

// TestQuestions: what nodes answer arrives whole.
func TestQuestions(t *testing.T) {
	c, _ := serve(t, newHandler(t, newTwin("t"), nil))
	if s, err := c.Status(t.Context()); err != nil || s.Cluster != "twin" || s.CanLose != 1 {
		t.Errorf("status %+v %v", s, err)
	}
	if m, err := c.Members(t.Context()); err != nil || len(m) != 1 || m[0].Node != "n1" {
		t.Errorf("members %+v %v", m, err)
	}
	if p, err := c.Partition(t.Context(), 17); err != nil || string(p.Lo) != "\xff" {
		t.Errorf("partition %+v %v", p, err)
	}
	if p, err := c.Partitions(t.Context(), "t"); err != nil || len(p) != 0 {
		t.Errorf("partitions %+v %v", p, err)
	}
	if x, err := c.Tables(t.Context()); err != nil || len(x) != 0 {
		t.Errorf("tables %+v %v", x, err)
	}
	_, err := c.Partitions(t.Context(), "a b")
	if partition.CodeOf(err) != partition.CodeNoSuchTable || !strings.Contains(err.Error(), "a b") {
		t.Errorf("partitions of a table that is not there: %v", err)
	}
}

// TestNextNode: a node that is down or starting is passed over, for changes too,
// because nothing was done there.
func TestNextNode(t *testing.T) {
	good, _ := serve(t, newHandler(t, newTwin("t"), nil))
	_, startingServer := serve(t, nil)
	c := &httpapi.Client{Addrs: []string{closedPort(t), startingServer.Addr(), good.Addrs[0]}}
	if _, err := c.Put(t.Context(), "t", []byte("k"), []byte("v"), httpapi.Condition{}); err != nil {
		t.Fatal(err)
	}
	if v, err := c.Get(t.Context(), "t", []byte("k"), httpapi.ReadOptions{}); err != nil || string(v.Bytes) != "v" {
		t.Fatalf("%q %v", v.Bytes, err)
	}
	none := &httpapi.Client{Addrs: []string{closedPort(t)}}
	if _, err := none.Status(t.Context()); partition.CodeOf(err) != partition.CodeUnavailable || !strings.Contains(err.Error(), "no node listens") {
		t.Fatalf("%v", err)
	}
	if _, err := (&httpapi.Client{}).Status(t.Context()); partition.CodeOf(err) != partition.CodeInvalid {
		t.Fatalf("%v", err)
	}
}

// TestWhatANodeSays: the reason that a node gives is not hidden by another one
// that is down.
func TestWhatANodeSays(t *testing.T) {
	_, starting := serve(t, nil)
	c := &httpapi.Client{Addrs: []string{closedPort(t), starting.Addr(), closedPort(t)}}
	_, err := c.Status(t.Context())
	if partition.CodeOf(err) != partition.CodeUnavailable || strings.Contains(err.Error(), "no node listens") {
		t.Fatalf("%v", err)
	}
}

func closedPort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// TestOutcomeUnknown: a change whose answer got lost is not called failed, and
// is not sent to another node.
func TestOutcomeUnknown(t *testing.T) {
	cut := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		panic(http.ErrAbortHandler)
	}))
	defer cut.Close()
	tw := newTwin("t")
	good, _ := serve(t, newHandler(t, tw, nil))
	c := &httpapi.Client{Addrs: []string{cut.Listener.Addr().String(), good.Addrs[0]}}
	if _, err := c.Put(t.Context(), "t", []byte("k"), []byte("v"), httpapi.Condition{}); partition.CodeOf(err) != partition.CodeUnknown {
		t.Fatalf("%v", err)
	}
	if tw.writes != 0 {
		t.Fatal("the change was sent twice")
	}
	if _, err := c.Tables(t.Context()); err != nil {
		t.Fatalf("a read goes on to the next node: %v", err)
	}
}

// TestHangingNode: a read leaves time for the next node.
func TestHangingNode(t *testing.T) {
	hang := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer hang.Close()
	good, _ := serve(t, newHandler(t, newTwin("t"), nil))
	c := &httpapi.Client{Addrs: []string{hang.Listener.Addr().String(), good.Addrs[0]}}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if _, err := c.Status(ctx); err != nil {
		t.Fatal(err)
	}
}

// TestNotAPandoNode: an answer of some other server is told as such.
func TestNotAPandoNode(t *testing.T) {
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	c := &httpapi.Client{Addrs: []string{other.Listener.Addr().String()}}
	if _, err := c.Status(t.Context()); partition.CodeOf(err) != partition.CodeInvalid {
		t.Fatalf("%v", err)
	}
}

// TestServerLife: it answers before the node is there, and ends in order.
func TestServerLife(t *testing.T) {
	c, s := serve(t, nil)
	if _, err := c.Status(t.Context()); partition.CodeOf(err) != partition.CodeUnavailable {
		t.Fatalf("before the node: %v", err)
	}
	resp, err := http.Get("http://" + s.Addr() + "/livez")
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("livez before the node: %v %v", resp, err)
	}
	resp.Body.Close()
	if _, err := httpapi.Listen(httpapi.ServerConfig{Addr: s.Addr()}); partition.CodeOf(err) != partition.CodeRefused {
		t.Fatalf("a port that is taken: %v", err)
	}
	for _, addr := range []string{"0.0.0.0:0", ":0", "192.0.2.1:1", "example.com:80"} {
		if _, err := httpapi.Listen(httpapi.ServerConfig{Addr: addr}); partition.CodeOf(err) != partition.CodeRefused || !strings.Contains(err.Error(), "certificates") {
			t.Errorf("%s without certificates: %v", addr, err)
		}
	}
	if _, err := httpapi.Listen(httpapi.ServerConfig{Addr: "7301"}); partition.CodeOf(err) != partition.CodeInvalid {
		t.Errorf("no port: %v", err)
	}
}

// TestHostileRequests: what is too long is refused by its own limit, with and
// without a length said before, and the server goes on.
func TestHostileRequests(t *testing.T) {
	tw := newTwin("t")
	c, s := serve(t, newHandler(t, tw, nil))
	for name, want := range map[string]int{
		"body without a length":    http.StatusRequestEntityTooLarge,
		"header over the limit":    http.StatusRequestHeaderFieldsTooLarge,
		"path over the limit":      http.StatusRequestHeaderFieldsTooLarge,
		"escape that is cut short": http.StatusBadRequest,
	} {
		raw := map[string]string{
			"body without a length":    "PUT /api/v1/kv/t/k HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n80\r\n" + strings.Repeat("x", 128) + "\r\n0\r\n\r\n",
			"header over the limit":    "GET /livez HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 80<<10) + "\r\n\r\n",
			"path over the limit":      "GET /" + strings.Repeat("x", 80<<10) + " HTTP/1.1\r\nHost: x\r\n\r\n",
			"escape that is cut short": "GET /api/v1/kv/t/%f HTTP/1.1\r\nHost: x\r\n\r\n",
		}[name]
		conn, err := net.Dial("tcp", s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		go io.WriteString(conn, raw) // it may be cut off in the middle
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || resp.StatusCode != want {
			t.Errorf("%s: %v, %v, want %d", name, resp, err, want)
		}
		conn.Close()
	}
	if tw.writes != 0 {
		t.Error("something was written")
	}
	if _, err := c.Put(t.Context(), "t", []byte("k"), []byte("v"), httpapi.Condition{}); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// TestShutdownCutsWhatHangs: a request that does not end does not hold the
// process up.
func TestShutdownCutsWhatHangs(t *testing.T) {
	inside := make(chan struct{})
	s, err := httpapi.Listen(httpapi.ServerConfig{Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	s.SetHandler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(inside)
		<-r.Context().Done()
	}))
	done := make(chan error)
	go func() {
		_, err := http.Get("http://" + s.Addr() + "/")
		done <- err
	}()
	<-inside
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := s.Shutdown(ctx); err == nil {
		t.Error("the cut request is not reported")
	}
	if err := <-done; err == nil {
		t.Error("the request was not cut")
	}
}

// TestConnLimit: at the limit a further connection waits, and comes in when one
// has gone.
func TestConnLimit(t *testing.T) {
	s, err := httpapi.Listen(httpapi.ServerConfig{Addr: "127.0.0.1:0", MaxConns: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Shutdown(t.Context())
	first, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(first, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := first.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	go func() {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{}}}
		resp, err := client.Get("http://" + s.Addr() + "/livez")
		if err == nil {
			resp.Body.Close()
		}
		answered <- err
	}()
	select {
	case <-answered:
		t.Fatal("the second connection was served beside the first")
	case <-time.After(20 * time.Millisecond):
	}
	first.Close()
	if err := <-answered; err != nil {
		t.Fatal(err)
	}
}
