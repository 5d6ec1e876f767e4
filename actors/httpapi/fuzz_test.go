package httpapi_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"pando.dev/pando/actors/httpapi"
	"pando.dev/pando/partition"
)

// FuzzRequest: whatever is asked over HTTP, the answer is one of ours: no panic,
// no fault of the node's own, and a problem that says what is wrong.
func FuzzRequest(f *testing.F) {
	for _, target := range []string{
		"/livez", "/api/v1/status?timeout=5s", "/api/v1/partitions/g17", "/api/v1/kv/t/key?key64=&token=x", "/api/v1/kv/t?from=a&to=b&limit=3&cursor=AA",
		"/api/v1/kv/t/%00%ff?level=stale&max_age=1h", "/api/v1/recover?node=a&group=g1", "/api/v1/tables/t", "/api/v1/tables", "/api/v1/nodes/n1/drain", "/api/v1/partitions/g17/change",
	} {
		f.Add(uint8(0), target, "", "")
		f.Add(uint8(1), target, `{"name":"u","replicas":3,"policy":"2 of 3 zones"}`, "")
		f.Add(uint8(2), target, "value", `"3"`)
		f.Add(uint8(3), target, "", "*")
		f.Add(uint8(4), target, `{"replicas":5}`, "")
	}
	f.Add(uint8(1), "/api/v1/recover", `{"plan":"g1/n2/0123456789abcdef","by":"x"}`, "")
	f.Add(uint8(1), "/api/v1/tables", strings.Repeat("[", 20000), "")
	tw := newTwin("t")
	h := newHandler(f, tw, nil)
	f.Fuzz(func(t *testing.T, method uint8, target, body, header string) {
		u, err := url.ParseRequestURI(target)
		if err != nil || !strings.HasPrefix(target, "/") {
			return
		}
		name := []string{"GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"}[method%7]
		r := &http.Request{
			Method: name, URL: u, RequestURI: target, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Host: "x",
			Header: http.Header{"If-Match": {header}, "If-None-Match": {header}, "Pando-Token": {header}, "Pando-Level": {header}},
			Body:   io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code < 200 || w.Code >= 500 && w.Code != http.StatusServiceUnavailable && w.Code != http.StatusNotImplemented {
			t.Fatalf("%s %q %q: status %d: %s", name, target, body, w.Code, w.Body)
		}
		if w.Code >= 400 && name != "HEAD" {
			problemOf(t, w)
		}
	})
}

// canned answers every request with the same bytes.
type canned struct {
	status int
	body   string
}

func (c canned) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: c.status, Status: "x", Proto: "HTTP/1.1", ProtoMajor: 1, Request: r, ContentLength: -1,
		Header: http.Header{"Etag": {c.body}, "Pando-Token": {c.body}, "Pando-Index": {c.body}, "Pando-Age": {c.body}},
		Body:   io.NopCloser(strings.NewReader(c.body)),
	}, nil
}

// FuzzAnswer: whatever a node, or who is taken for one, answers: the client of
// the command line gives a result or an error.
func FuzzAnswer(f *testing.F) {
	f.Add(uint16(200), `{"cluster":"x","nodes":3}`)
	f.Add(uint16(200), `[{"node":"n1"}]`)
	f.Add(uint16(200), `{"pairs":[{"key":"a","value":"b"}],"cursor":"AA"}`)
	f.Add(uint16(404), `{"code":"not_found","why":"w","next":"n"}`)
	f.Add(uint16(500), "<html>")
	f.Add(uint16(200), strings.Repeat("[", 20000))
	f.Fuzz(func(t *testing.T, status uint16, body string) {
		c := httpapi.Client{Addrs: []string{"127.0.0.1:1"}, HTTP: &http.Client{Transport: canned{100 + int(status)%500, body}}}
		ctx := t.Context()
		_, e1 := c.Status(ctx)
		_, e2 := c.Members(ctx)
		_, e3 := c.Partitions(ctx, "t")
		_, e4 := c.Partition(ctx, 1)
		_, e5 := c.Put(ctx, "t", []byte("k"), []byte("v"), httpapi.Condition{})
		_, e6 := c.Scan(ctx, "t", partition.KeyRange{}, 3, "", httpapi.ReadOptions{})
		for _, err := range []error{e1, e2, e3, e4, e5, e6} {
			if status := 100 + int(status)%500; status >= 300 && err == nil {
				t.Fatalf("status %d and no error", status)
			} else if err != nil && errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
		}
	})
}
