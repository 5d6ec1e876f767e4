package httpapi_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"pando.dev/pando/actors"
	"pando.dev/pando/actors/cert"
	"pando.dev/pando/actors/httpapi"
	"pando.dev/pando/partition"
)

// inspector is an operator that has verified something before it was asked a
// second time.
type inspector struct {
	operator
	looks map[string]int
}

var _ httpapi.Inspector = (*inspector)(nil)

func (i *inspector) BeginVerify(_ context.Context, r actors.VerifyRequest) (actors.VerifyInfo, error) {
	if r.Table == "none" {
		return actors.VerifyInfo{}, partition.Errorf(partition.CodeNoSuchTable, "no table %q", r.Table)
	}
	i.looks[r.Token]++
	info := actors.VerifyInfo{Token: r.Token, Of: 1, Partitions: []actors.VerifiedPartition{}}
	if i.looks[r.Token] > 1 {
		info.Done, info.Ended = true, 1
		info.Partitions = append(info.Partitions, actors.VerifiedPartition{Group: 7, Table: r.Table, Verdict: actors.VerdictSame})
	}
	return info, nil
}

// TestInspectRoutes: a verification is begun and followed by asking the same again.
func TestInspectRoutes(t *testing.T) {
	i := &inspector{looks: map[string]int{}}
	s := httptest.NewServer(operated(t, i, nil))
	defer s.Close()
	c := &httpapi.Client{Addrs: []string{strings.TrimPrefix(s.URL, "http://")}}
	info, err := actors.AwaitVerify(t.Context(), actors.VerifyRequest{Table: "t"}, c.BeginVerify, nil)
	if err != nil || !info.Well() || len(i.looks) != 1 || info.Partitions[0].Group != 7 {
		t.Errorf("%+v, %v after %v", info, err, i.looks)
	}
	_, err = actors.AwaitVerify(t.Context(), actors.VerifyRequest{Table: "none"}, c.BeginVerify, nil)
	if partition.CodeOf(err) != partition.CodeNoSuchTable {
		t.Errorf("no such table: %v", err)
	}
	for target, want := range map[string]int{`{"x":1}`: 400, `{"table":"t","token":"x"}`: 200} {
		r := httptest.NewRequest(http.MethodPost, "/api/v1/verify", strings.NewReader(target))
		w := httptest.NewRecorder()
		if operated(t, i, nil).ServeHTTP(w, r); w.Code != want {
			t.Errorf("%s: %d %s", target, w.Code, w.Body)
		}
	}
	r := httptest.NewRequest(http.MethodPost, "/api/v1/verify", strings.NewReader(`{"all":true}`))
	w := httptest.NewRecorder()
	operated(t, i, func(_ *http.Request, need cert.Role) error {
		if need == cert.Admin {
			return partition.Errorf(partition.CodeUnauthorized, "no")
		}
		return nil
	}).ServeHTTP(w, r)
	if w.Code != http.StatusForbidden {
		t.Errorf("a client verifies: %d", w.Code)
	}
	w = httptest.NewRecorder()
	if operated(t, &operator{}, nil).ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/api/v1/verify", strings.NewReader(`{"all":true}`))); w.Code != http.StatusNotFound {
		t.Errorf("a node that inspects nothing: %d", w.Code)
	}
}
