package httpapi_test

import (
	"fmt"
	"net/http"
	"testing"

	"pando.dev/pando/partition"
)

// TestEveryFailureIsTold: an error of the store, of any code and whatever was
// asked, reaches the client as that code, and nothing else is answered before.
func TestEveryFailureIsTold(t *testing.T) {
	tw := newTwin("t")
	h := newHandler(t, tw, nil)
	for _, code := range []partition.Code{
		partition.CodeInvalid, partition.CodeNotFound, partition.CodeUnavailable, partition.CodeTimeout, partition.CodeUnknown, partition.CodeBusy,
		partition.CodeTooLarge, partition.CodeNoSpace, partition.CodeCorrupt, partition.CodeInternal, partition.CodeNotMaster, partition.CodeClosed,
		partition.CodeRefused, partition.CodeUnauthorized, partition.CodeExists,
	} {
		for _, q := range []struct{ method, target, body string }{
			{"GET", "/api/v1/kv/t/k", ""}, {"PUT", "/api/v1/kv/t/k", "v"}, {"DELETE", "/api/v1/kv/t/k", ""}, {"GET", "/api/v1/kv/t?limit=3", ""},
		} {
			tw.mu.Lock()
			tw.next = fmt.Errorf("do it: %w", partition.Errorf(code, "it failed"))
			tw.mu.Unlock()
			w := ask(h, q.method, q.target, q.body)
			if w.Code < 400 {
				t.Errorf("%s %s with %s: status %d", q.method, q.target, code, w.Code)
				continue
			}
			if p := problemOf(t, w); p.Code != code.String() {
				t.Errorf("%s %s with %s: %+v", q.method, q.target, code, p)
			}
		}
	}
	for _, q := range []struct{ method, target, body string }{
		{"GET", "/api/v1/kv/t?limit=0", ""}, {"GET", "/api/v1/kv/t?limit=x", ""},
		{"GET", "/api/v1/kv/t?prefix64=%25", ""}, {"GET", "/api/v1/kv/t?cursor=%25", ""}, {"PUT", "/api/v1/kv/t", "v"}, {"DELETE", "/api/v1/kv/t", ""},
		{"PUT", "/api/v1/kv/t/k?key64=%25", "v"}, {"GET", "/api/v1/kv/t/k?timeout=never", ""}, {"GET", "/api/v1/kv/t/k?level=best", ""},
		{"POST", "/api/v1/tables", "{"}, {"POST", "/api/v1/tables", `{"strange":1}`}, {"PATCH", "/api/v1/tables/t", "["}, {"POST", "/api/v1/recover", "x"},
	} {
		if w := ask(h, q.method, q.target, q.body); w.Code != http.StatusBadRequest {
			t.Errorf("%s %s %q: status %d, %s", q.method, q.target, q.body, w.Code, w.Body)
		}
	}
	for _, header := range []string{"garbage", "AAAA", "%%%"} {
		for _, method := range []string{"GET", "PUT", "DELETE"} {
			if w := ask(h, method, "/api/v1/kv/t/k", "v", "Pando-Token", header); w.Code != http.StatusBadRequest {
				t.Errorf("%s with the token %q: status %d", method, header, w.Code)
			}
		}
	}
}
