package httpapi_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"pando.dev/pando/actors/cert"
	"pando.dev/pando/actors/httpapi"
	"pando.dev/pando/partition"
)

func newHandler(t testing.TB, tw *twin, change func(*httpapi.Config)) http.Handler {
	t.Helper()
	cfg := httpapi.Config{Cluster: tw, Catalog: tw, Store: tw, Meter: tw, Recovery: tw, MaxValueBytes: 64}
	if change != nil {
		change(&cfg)
	}
	h, err := httpapi.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// ask sends one request to the handler.
func ask(h http.Handler, method, target, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func problemOf(t testing.TB, w *httptest.ResponseRecorder) httpapi.Problem {
	t.Helper()
	var p httpapi.Problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || p.Code == "" || p.Why == "" {
		t.Fatalf("status %d: %q is not a problem (%v)", w.Code, w.Body, err)
	}
	return p
}

// answerCase is a request and what is said to it.
type answerCase struct {
	method, target, body string
	status               int
	want                 string // in the body, or the code of the problem from 400 on
}

// TestClusterAnswers is what the endpoints of health and catalog say to good and
// bad input.
func TestClusterAnswers(t *testing.T) {
	checkAnswers(t, []answerCase{
		{"GET", "/livez", "", 200, "alive"},
		{"GET", "/readyz", "", 200, "ready"},
		{"HEAD", "/livez", "", 200, ""},
		{"GET", "/metrics", "", 200, "pando_wal_syncs_total 7"},
		{"GET", "/metrics", "", 200, "# TYPE pando_open_stores gauge"},
		{"GET", "/api/v1/status", "", 200, `"can_lose": 1`},
		{"GET", "/api/v1/members", "", 200, `"zone": "a"`},
		{"GET", "/api/v1/partitions", "", 200, "[]"},
		{"GET", "/api/v1/partitions?table=t", "", 200, "[]"},
		{"GET", "/api/v1/partitions?table=no", "", 404, "no_such_table"},
		{"GET", "/api/v1/partitions/g17", "", 200, `"master": "n1"`},
		{"GET", "/api/v1/partitions/17", "", 200, `"master": "n1"`},
		{"GET", "/api/v1/partitions/g18", "", 404, "not_found"},
		{"GET", "/api/v1/partitions/seven", "", 400, "invalid"},
		{"GET", "/api/v1/partitions/g17/x", "", 404, "not_found"},
		{"GET", "/api/v1/tables", "", 200, "[]"},
		{"POST", "/api/v1/tables", `{"name":"u","replicas":3}`, 201, `"name": "u"`},
		{"POST", "/api/v1/tables", `{"name":"t"}`, 409, "exists"},
		{"POST", "/api/v1/tables", `{"nom":"t"}`, 400, "invalid"},
		{"POST", "/api/v1/tables", `{"name":"v"} {}`, 400, "invalid"},
		{"POST", "/api/v1/tables", ``, 400, "invalid"},
		{"POST", "/api/v1/tables", `{"name":"` + strings.Repeat("x", 1<<20) + `"}`, 413, "too_large"},
		{"PATCH", "/api/v1/tables/t", `{"replicas":5,"policy":"zones:2"}`, 200, `"policy": "zones:2"`},
		{"PATCH", "/api/v1/tables/t", `{"policy":"zones:0"}`, 400, "invalid"},
		{"PATCH", "/api/v1/tables/t", `{"polcy":"zones:2"}`, 400, "invalid"},
		{"PATCH", "/api/v1/tables/t", ``, 400, "invalid"},
		{"PATCH", "/api/v1/tables/no", `{"policy":"majority"}`, 404, "no_such_table"},
		{"GET", "/api/v1/recover", "", 200, `"plan": "[]/[]"`},
		{"GET", "/api/v1/recover?partitions=g17,18&dead=n2,n3", "", 200, `"plan": "[g17 g18]/[n2 n3]"`},
		{"GET", "/api/v1/recover?partitions=x", "", 400, "invalid"},
		{"POST", "/api/v1/recover", `{"plan":"good","reason":"fire"}`, 200, `"why": "fire"`},
		{"POST", "/api/v1/recover", `{"plan":"old"}`, 412, "refused"},
		{"POST", "/api/v1/recover", `{"pan":"old"}`, 400, "invalid"},
		{"DELETE", "/api/v1/tables/no", "", 404, "no_such_table"},
		{"DELETE", "/api/v1/tables/t", "", 204, ""},
		{"PATCH", "/api/v1/tables", "", 405, "invalid"},
		{"GET", "/api/v1/tables/t", "", 405, "invalid"},
		{"GET", "/api/v2/status", "", 404, "not_found"},
		{"GET", "/", "", 404, "not_found"},
		{"GET", "/debug/pprof/", "", 404, "not_found"},
	})
}

// TestKVAnswers is what the endpoints of keys say to good and bad input.
func TestKVAnswers(t *testing.T) {
	long := strings.Repeat("x", 65)
	checkAnswers(t, []answerCase{
		{"GET", "/api/v1/kv/t/a", "", 200, "apple"},
		{"GET", "/api/v1/kv/t/nothing", "", 404, "not_found"},
		{"GET", "/api/v1/kv/no/a", "", 404, "no_such_table"},
		{"GET", "/api/v1/kv/t/a%2Fb", "", 200, "slash"},
		{"GET", "/api/v1/kv/t/a/b", "", 200, "slash"},
		{"GET", "/api/v1/kv/t/a//b", "", 400, "invalid"},
		{"GET", "/api/v1/kv/t/../t/a", "", 400, "invalid"},
		{"GET", "/api/v1/kv/t/%2E%2E", "", 404, "not_found"},
		{"GET", "/api/v1/kv/t?key64=YQ", "", 200, "apple"},
		{"GET", "/api/v1/kv/t?key64=YQ==", "", 200, "apple"},
		{"GET", "/api/v1/kv/t?key64=%2A", "", 400, "invalid"},
		{"GET", "/api/v1/kv/t/a?key64=YQ", "", 400, "invalid"},
		{"GET", "/api/v1/kv/t?key64=" + strings.Repeat("A", 5000), "", 413, "too_large"},
		{"GET", "/api/v1/kv/t/a?level=yesterday", "", 400, "invalid"},
		{"GET", "/api/v1/kv/t/a?timeout=soon", "", 400, "invalid"},
		{"GET", "/api/v1/kv/t/a?timeout=-1s", "", 400, "invalid"},
		{"PUT", "/api/v1/kv/t/n", "new", 204, ""},
		{"PUT", "/api/v1/kv/t/n", long, 413, "too_large"},
		{"PUT", "/api/v1/kv/t", "new", 400, "invalid"},
		{"PUT", "/api/v1/kv/t/a?if_absent=true", "new", 412, "refused"},
		{"PUT", "/api/v1/kv/t/a?if_absent=maybe", "new", 400, "invalid"},
		{"PUT", "/api/v1/kv/t/a?if_absent=true&if_version=1", "new", 400, "invalid"},
		{"DELETE", "/api/v1/kv/t/a?if_version=99", "", 412, "refused"},
		{"DELETE", "/api/v1/kv/t/a", "", 204, ""},
		{"GET", "/api/v1/kv/t?limit=0", "", 400, "invalid"},
		{"GET", "/api/v1/kv/t?limit=1001", "", 400, "invalid"},
		{"GET", "/api/v1/kv/t?prefix=a&lo=b", "", 400, "invalid"},
		{"GET", "/api/v1/kv/t?lo=b&hi=a", "", 200, `"pairs": []`},
		{"GET", "/api/v1/kv/t?cursor=%21", "", 400, "invalid"},
	})
}

func checkAnswers(t *testing.T, cases []answerCase) {
	for _, c := range cases {
		t.Run(c.method+" "+short(c.target), func(t *testing.T) {
			tw := newTwin("t")
			for k, v := range map[string]string{"a": "apple", "a/b": "slash"} {
				if _, err := tw.Put(t.Context(), "t", []byte(k), []byte(v), httpapi.Condition{}); err != nil {
					t.Fatal(err)
				}
			}
			w := ask(newHandler(t, tw, nil), c.method, c.target, c.body)
			if w.Code != c.status {
				t.Fatalf("status %d, want %d: %s", w.Code, c.status, w.Body)
			}
			if c.status < 400 {
				if !strings.Contains(w.Body.String(), c.want) {
					t.Fatalf("body %s does not have %s", w.Body, c.want)
				}
			} else if p := problemOf(t, w); p.Code != c.want {
				t.Fatalf("code %s, want %s", p.Code, c.want)
			}
		})
	}
}

func short(s string) string { return s[:min(len(s), 50)] }

// TestConditions: ETag and If-Match make a compare-and-set.
func TestConditions(t *testing.T) {
	h := newHandler(t, newTwin("t"), nil)
	w := ask(h, "PUT", "/api/v1/kv/t/k", "one", "If-None-Match", "*")
	first := w.Header().Get("ETag")
	if w.Code != 204 || first == "" {
		t.Fatalf("create: %d, ETag %q", w.Code, first)
	}
	if w := ask(h, "PUT", "/api/v1/kv/t/k", "two", "If-Match", first); w.Code != 204 {
		t.Fatalf("first set: %d %s", w.Code, w.Body)
	}
	if w := ask(h, "PUT", "/api/v1/kv/t/k", "three", "If-Match", first); w.Code != 412 {
		t.Fatalf("second set with the same version: %d %s", w.Code, w.Body)
	}
	if w := ask(h, "PUT", "/api/v1/kv/t/k", "three", "If-Match", "W/"+first); w.Code != 400 {
		t.Fatalf("weak ETag: %d", w.Code)
	}
	if w := ask(h, "PUT", "/api/v1/kv/t/k", "three", "If-None-Match", first); w.Code != 400 {
		t.Fatalf("If-None-Match with an ETag: %d", w.Code)
	}
	if w := ask(h, "GET", "/api/v1/kv/t/k", ""); w.Body.String() != "two" {
		t.Fatalf("value %q", w.Body)
	}
}

// TestStatusOfEveryCode: each code of partition has its own way out, and comes
// back as the same code on the other side.
func TestStatusOfEveryCode(t *testing.T) {
	want := map[partition.Code]int{
		partition.CodeInternal: 500, partition.CodeNotMaster: 503, partition.CodeWrongGroup: 503, partition.CodeBusy: 429,
		partition.CodeUnavailable: 503, partition.CodeUnknown: 504, partition.CodeTooLarge: 413, partition.CodeNoSuchTable: 404,
		partition.CodeSessionExpired: 503, partition.CodeNoSpace: 507, partition.CodeInvalid: 400, partition.CodeClosed: 503,
		partition.CodeRefused: 412, partition.CodeExists: 409, partition.CodeUnauthorized: 403, partition.CodeNewerFormat: 500,
		partition.CodeNewerEpoch: 500, partition.CodeCorrupt: 500, partition.CodeTimeout: 504, partition.CodeNotFound: 404,
		partition.CodeBehind: 503,
	}
	for code, status := range want {
		tw := newTwin("t")
		h := newHandler(t, tw, nil)
		tw.next = fmt.Errorf("get k: %w", &partition.Error{Code: code, Why: "because", Next: "do this"})
		w := ask(h, "GET", "/api/v1/kv/t/k", "")
		p := problemOf(t, w)
		if w.Code != status || p.Code != code.String() || p.Why != "get k: because" || p.Next != "do this" {
			t.Errorf("%s: status %d, want %d, body %+v", code, w.Code, status, p)
		}
	}
	if !strings.HasPrefix(partition.Code(len(want)+1).String(), "code_") {
		t.Errorf("there is a code that this test does not know")
	}
}

// TestNotReady: /readyz says why, and /livez goes on.
func TestNotReady(t *testing.T) {
	tw := newTwin()
	tw.notYet = &partition.Error{Code: partition.CodeUnavailable, Why: "the control group has no leader"}
	h := newHandler(t, tw, nil)
	w := ask(h, "GET", "/readyz", "")
	if p := problemOf(t, w); w.Code != 503 || p.Why != "the control group has no leader" {
		t.Fatalf("%d %+v", w.Code, p)
	}
	if w := ask(h, "GET", "/livez", ""); w.Code != 200 {
		t.Fatalf("livez %d", w.Code)
	}
}

// TestPanicIsAnswered: a fault in an endpoint becomes 500 and a counter, and
// says nothing of the inside.
func TestPanicIsAnswered(t *testing.T) {
	tw := newTwin()
	tw.panics = true
	h := newHandler(t, tw, nil)
	w := ask(h, "GET", "/api/v1/status", "")
	if p := problemOf(t, w); w.Code != 500 || strings.Contains(p.Why, "planted") {
		t.Fatalf("%d %+v", w.Code, p)
	}
	if m := ask(h, "GET", "/metrics", "").Body.String(); !strings.Contains(m, "pando_http_panics_total 1") {
		t.Fatal("the panic was not counted")
	}
}

// TestBusy: beyond the limit requests are refused at once, health is not.
func TestBusy(t *testing.T) {
	tw := newTwin("t")
	tw.block, tw.entered = make(chan struct{}), make(chan struct{}, 1)
	h := newHandler(t, tw, func(c *httpapi.Config) { c.MaxInFlight = 1 })
	first := make(chan *httptest.ResponseRecorder)
	go func() { first <- ask(h, "GET", "/api/v1/kv/t/k", "") }()
	<-tw.entered
	busy := ask(h, "GET", "/api/v1/kv/t/k", "")
	if p := problemOf(t, busy); busy.Code != 429 || p.Code != "busy" || busy.Header().Get("Retry-After") == "" {
		t.Fatalf("%+v %v", p, busy.Header())
	}
	if w := ask(h, "GET", "/readyz", ""); w.Code != 200 {
		t.Fatalf("readyz when busy: %d", w.Code)
	}
	close(tw.block)
	<-first
}

// TestDeadline: a request that names a deadline is answered within it.
func TestDeadline(t *testing.T) {
	tw := newTwin("t")
	tw.block = make(chan struct{})
	w := ask(newHandler(t, tw, nil), "GET", "/api/v1/kv/t/k?timeout=5ms", "")
	if p := problemOf(t, w); w.Code != 504 || p.Code != "timeout" {
		t.Fatalf("%d %+v", w.Code, p)
	}
}

// byCommonName are certificates whose name is their role.
type byCommonName struct{}

func (byCommonName) Server() *tls.Config { return nil }

func (byCommonName) Peer(s tls.ConnectionState) (string, cert.Role, error) {
	name := s.PeerCertificates[0].Subject.CommonName
	return name, cert.Role(name), nil
}

// TestRoles is the matrix role × endpoint with certificates.
func TestRoles(t *testing.T) {
	h := newHandler(t, newTwin("t"), func(c *httpapi.Config) {
		c.Authorize = httpapi.AuthorizeCertificates(byCommonName{})
		c.Pprof = true
	})
	for _, c := range []struct {
		method, target, body string
		client, admin        bool // who may, besides nobody
	}{
		{"GET", "/livez", "", false, false},
		{"GET", "/readyz", "", false, false},
		{"GET", "/metrics", "", true, true},
		{"GET", "/api/v1/status", "", true, true},
		{"GET", "/api/v1/members", "", true, true},
		{"GET", "/api/v1/partitions", "", true, true},
		{"GET", "/api/v1/tables", "", true, true},
		{"POST", "/api/v1/tables", `{"name":"u"}`, false, true},
		{"PATCH", "/api/v1/tables/t", `{"policy":"majority"}`, false, true},
		{"GET", "/api/v1/recover", "", true, true},
		{"POST", "/api/v1/recover", `{"plan":"good"}`, false, true},
		{"DELETE", "/api/v1/tables/u", "", false, true},
		{"PUT", "/api/v1/kv/t/k", "v", true, true},
		{"GET", "/api/v1/kv/t/k", "", true, true},
		{"GET", "/api/v1/kv/t", "", true, true},
		{"DELETE", "/api/v1/kv/t/k", "", true, true},
		{"GET", "/debug/pprof/", "", false, true},
	} {
		health := c.target == "/livez" || c.target == "/readyz"
		for _, role := range []string{"", "node", "client", "admin"} {
			may := health || role == "client" && c.client || role == "admin" && c.admin
			r := httptest.NewRequest(c.method, c.target, strings.NewReader(c.body))
			r.TLS = &tls.ConnectionState{}
			if role != "" {
				c := &x509.Certificate{}
				c.Subject.CommonName = role
				r.TLS.PeerCertificates = []*x509.Certificate{c}
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if got := w.Code != http.StatusForbidden; got != may {
				t.Errorf("role %q %s %s: allowed %v, want %v (%d)", role, c.method, c.target, got, may, w.Code)
			}
		}
	}
}

// TestBoundedSeries: what clients send does not become labels.
func TestBoundedSeries(t *testing.T) {
	h := newHandler(t, newTwin("t"), nil)
	for i := range 50 {
		ask(h, "GET", fmt.Sprintf("/api/v1/kv/t/key%d", i), "")
		ask(h, fmt.Sprintf("VERB%d", i), "/api/v1/status", "")
		ask(h, "GET", fmt.Sprintf("/nowhere/%d", i), "")
	}
	m := ask(h, "GET", "/metrics", "").Body.String()
	if n := strings.Count(m, "\npando_http_requests_total{"); n == 0 || n > 3 {
		t.Fatalf("%d series for three kinds of request:\n%s", n, m)
	}
}

// TestIncompleteConfig: a handler without its parts is refused, not made.
func TestIncompleteConfig(t *testing.T) {
	if _, err := httpapi.New(httpapi.Config{Cluster: newTwin()}); partition.CodeOf(err) != partition.CodeInvalid {
		t.Fatalf("%v", err)
	}
}

// TestProblemOfOtherErrors: an error without a code is ours, a deadline is not.
func TestProblemOfOtherErrors(t *testing.T) {
	if p := httpapi.ProblemOf(io.ErrUnexpectedEOF); p.Code != "internal" {
		t.Fatalf("%+v", p)
	}
	if p := httpapi.ProblemOf(fmt.Errorf("ask: %w", context.DeadlineExceeded)); p.Code != "timeout" {
		t.Fatalf("%+v", p)
	}
}
