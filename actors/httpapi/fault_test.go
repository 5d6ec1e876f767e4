package httpapi_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pando.dev/pando/actors"
	"pando.dev/pando/actors/cert"
	"pando.dev/pando/actors/client"
	"pando.dev/pando/actors/httpapi"
	"pando.dev/pando/partition"
)

// broken is a node of which nothing works.
type broken struct {
	*twin
	why error
}

func (b broken) Status(context.Context) (actors.ClusterStatus, error) {
	return actors.ClusterStatus{}, b.why
}

func (b broken) Partitions(context.Context, string) ([]actors.PartitionInfo, error) {
	return nil, b.why
}

func (b broken) RecoverPlan(context.Context, actors.RecoverAsk) (actors.RecoverPlan, error) {
	return actors.RecoverPlan{}, b.why
}

func (b broken) Counters() []actors.Counter {
	return []actors.Counter{{Name: "no\xffname", Help: "x"}}
}

// TestWhatTheNodeCannotSay: its error reaches the client as it is, and what is said
// is none of it.
func TestWhatTheNodeCannotSay(t *testing.T) {
	b := broken{newTwin("t"), partition.Errorf(partition.CodeUnavailable, "the node is alone")}
	h := newHandler(t, b.twin, func(c *httpapi.Config) { c.Cluster, c.Recovery, c.Meter = b, b, b })
	for _, path := range []string{"/api/v1/status", "/api/v1/partitions", "/api/v1/recover"} {
		w := ask(h, "GET", path, "")
		if p := problemOf(t, w); w.Code != http.StatusServiceUnavailable || p.Code != "unavailable" || p.Why != "the node is alone" || p.Next == "" {
			t.Errorf("%s: %d, %+v", path, w.Code, p)
		}
	}
	if w := ask(h, "GET", "/metrics", ""); w.Code < 500 {
		t.Errorf("numbers that are none: %d, %s", w.Code, w.Body)
	}
	o := operated(t, &operator{drained: map[partition.NodeID]actors.DrainOptions{}}, nil)
	for method, path := range map[string]string{
		"GET": "/api/v1/kv/t?lo64=%25", "POST": "/api/v1/nodes/n2/drain",
	} {
		h := h
		if method == "POST" {
			h = o
		}
		if w := ask(h, method, path, "{"); w.Code != http.StatusBadRequest {
			t.Errorf("%s %s: %d, %s", method, path, w.Code, w.Body)
		}
	}
	for _, q := range []string{"hi64=%25", "prefix64=%25", "cursor=%25", "prefix=a&lo=b"} {
		if w := ask(h, "GET", "/api/v1/kv/t?"+q, ""); w.Code != http.StatusBadRequest {
			t.Errorf("a scan with %s: %d, %s", q, w.Code, w.Body)
		}
	}
}

// seer is a store whose answers have seen more partitions than a token may name.
type seer struct{ shown httpapi.Shown }

func (s seer) Get(context.Context, string, []byte, httpapi.ReadOptions) (httpapi.Value, error) {
	return httpapi.Value{Shown: s.shown}, nil
}

func (s seer) Put(context.Context, string, []byte, []byte, httpapi.Condition) (httpapi.Written, error) {
	return httpapi.Written{Shown: s.shown}, nil
}

func (s seer) Delete(context.Context, string, []byte, httpapi.Condition) (httpapi.Shown, error) {
	return s.shown, nil
}

func (s seer) Scan(context.Context, string, partition.KeyRange, int, httpapi.ReadOptions) (httpapi.Scanned, error) {
	return httpapi.Scanned{Shown: s.shown}, nil
}

// TestTokenThatIsTooLong: an answer that cannot name all it shows is an error, and
// not one with a token that promises too much.
func TestTokenThatIsTooLong(t *testing.T) {
	var s seer
	for g := range partition.GroupID(client.MaxTokenGroups + 1) {
		s.shown.Token = s.shown.Token.Join(client.Result{Group: g + 1, Index: 1}.Token())
	}
	h := newHandler(t, newTwin("t"), func(c *httpapi.Config) { c.Store = s })
	for _, q := range []struct{ method, path string }{{"GET", "/k"}, {"PUT", "/k"}, {"DELETE", "/k"}, {"GET", ""}} {
		w := ask(h, q.method, "/api/v1/kv/t"+q.path, "v")
		if p := problemOf(t, w); p.Code != "too_large" || p.Next == "" || w.Header().Get("Pando-Token") != "" {
			t.Errorf("%s %s: %d, %+v", q.method, q.path, w.Code, p)
		}
	}
}

// TestStoreWithoutTime: an operation whose time is over before it begins is told as
// that, whichever it is, and does nothing.
func TestStoreWithoutTime(t *testing.T) {
	s := newClientStore(t)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	k, v := []byte("k"), []byte("v")
	for name, f := range map[string]func() error{
		"get":         func() error { _, err := s.Get(over, "t", k, httpapi.ReadOptions{}); return err },
		"put":         func() error { _, err := s.Put(over, "t", k, v, httpapi.Condition{}); return err },
		"put absent":  func() error { _, err := s.Put(over, "t", k, v, httpapi.Condition{Absent: true}); return err },
		"delete":      func() error { _, err := s.Delete(over, "t", k, httpapi.Condition{}); return err },
		"delete that": func() error { _, err := s.Delete(over, "t", k, httpapi.Condition{Version: "1"}); return err },
		"scan":        func() error { _, err := s.Scan(over, "t", partition.KeyRange{}, 1, httpapi.ReadOptions{}); return err },
	} {
		if err := f(); err == nil {
			t.Errorf("%s: it was done", name)
		}
	}
	wrong := httpapi.Condition{Version: "nonsense"}
	_, err := s.Put(t.Context(), "t", k, v, wrong)
	_, err2 := s.Delete(t.Context(), "t", k, wrong)
	_, err3 := s.Scan(t.Context(), "t", partition.KeyRange{}, 1, httpapi.ReadOptions{Level: "best"})
	for _, err := range []error{err, err2, err3} {
		if partition.CodeOf(err) != partition.CodeInvalid {
			t.Errorf("what makes no sense: %v", err)
		}
	}
}

// noNames are certificates that do not say whose they are.
type noNames struct{ why error }

func (noNames) Server() *tls.Config { return nil }

func (n noNames) Peer(tls.ConnectionState) (string, cert.Role, error) { return "", "", n.why }

// TestCertificateOfNobody: who cannot be told may do nothing.
func TestCertificateOfNobody(t *testing.T) {
	why := errors.New("no name")
	may := httpapi.AuthorizeCertificates(noNames{why})
	r, err := http.NewRequest(http.MethodGet, "https://x/", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := may(r, cert.Client); partition.CodeOf(err) != partition.CodeUnauthorized {
		t.Errorf("without a certificate: %v", err)
	}
	r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{}}}
	if err := may(r, cert.Client); !errors.Is(err, why) {
		t.Errorf("with one of nobody: %v", err)
	}
}

// TestAnswersOfSomethingElse: whatever listens at the address, the error says that it
// is no node, or that the change may have happened there.
func TestAnswersOfSomethingElse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var answer atomic.Value
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.SetDeadline(time.Now().Add(5 * time.Second))
			_, _ = c.Read(make([]byte, 4096))
			_, _ = c.Write([]byte(answer.Load().(string))) // it is gone if this fails
			_ = c.Close()
		}
	}()
	c := &httpapi.Client{Addrs: []string{l.Addr().String()}, HTTP: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
	for _, x := range []struct {
		answer       string
		read, change partition.Code
	}{
		{"", partition.CodeUnavailable, partition.CodeUnknown},
		{"SSH-2.0-x\r\n", partition.CodeUnavailable, partition.CodeUnknown},
		{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{\"", partition.CodeInvalid, partition.CodeUnknown},
		{"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", partition.CodeUnavailable, partition.CodeUnknown},
		{"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno", partition.CodeInvalid, partition.CodeInvalid},
		{"HTTP/1.1 400 Bad\r\nContent-Length: 43\r\n\r\nClient sent an HTTP request to an HTTPS server", partition.CodeInvalid, partition.CodeInvalid},
	} {
		answer.Store(x.answer)
		_, read := c.Status(t.Context())
		_, change := c.CreateTable(t.Context(), actors.TableSpec{Name: "t"})
		if partition.CodeOf(read) != x.read || partition.CodeOf(change) != x.change {
			t.Errorf("%.40q: %v and %v, want %v and %v", x.answer, read, change, x.read, x.change)
		}
		if !strings.Contains(read.Error(), l.Addr().String()) && x.read != partition.CodeInvalid {
			t.Errorf("%.40q: it does not say where: %v", x.answer, read)
		}
	}
}
