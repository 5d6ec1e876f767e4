package httpapi_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"pando.dev/pando/actors"
	"pando.dev/pando/actors/httpapi"
)

// warm is an operator that tells of one partition what it was asked with.
type warm struct{ operator }

var _ httpapi.Thermometer = (*warm)(nil)

func (*warm) Hot(_ context.Context, o actors.HotOptions) (actors.HotInfo, error) {
	return actors.HotInfo{Partitions: []actors.PartitionLoad{{Group: o.Group + 1, Table: o.Table, Bytes: int64(o.Limit), HotKey: []byte{0, 255}}}}, nil
}

// TestHot: what is asked for comes to the node, and its answer back.
func TestHot(t *testing.T) {
	h := operated(t, &warm{}, nil)
	s := httptest.NewServer(h)
	defer s.Close()
	c := &httpapi.Client{Addrs: []string{strings.TrimPrefix(s.URL, "http://")}}
	for _, o := range []actors.HotOptions{{}, {Table: "a b", Group: 7, Limit: 3}} {
		got, err := c.Hot(t.Context(), o)
		if err != nil || len(got.Partitions) != 1 {
			t.Fatalf("%+v: %+v, %v", o, got, err)
		}
		if p := got.Partitions[0]; p.Table != o.Table || p.Group != o.Group+1 || p.Bytes != int64(o.Limit) || string(p.HotKey) != "\x00\xff" {
			t.Errorf("%+v: %+v", o, p)
		}
	}
	for target, want := range map[string]int{
		"/api/v1/hot?limit=0": 400, "/api/v1/hot?limit=x": 400, "/api/v1/hot?group=x": 400, "/api/v1/hot": 200,
	} {
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, target, nil)); w.Code != want {
			t.Errorf("%s: %d, want %d", target, w.Code, want)
		}
	}
	w := httptest.NewRecorder()
	if operated(t, &operator{}, nil).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/api/v1/hot", nil)); w.Code != http.StatusNotFound {
		t.Errorf("a node that does not tell: %d", w.Code)
	}
}
