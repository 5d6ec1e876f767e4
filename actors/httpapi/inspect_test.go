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

var (
	_ httpapi.Inspector = (*inspector)(nil)
	_ httpapi.Mover     = (*inspector)(nil)
)

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

func (i *inspector) Check(context.Context) (actors.CheckReport, error) {
	return actors.CheckReport{Findings: []actors.Finding{{Kind: actors.FindHole, Group: 7}}}, nil
}

func (i *inspector) Explain(_ context.Context, what, id string) (actors.Explanation, error) {
	if what == "zone" {
		return actors.Explanation{}, partition.Errorf(partition.CodeInvalid, "a zone")
	}
	return actors.Explanation{Subject: what + " " + id}, nil
}

func (i *inspector) History(_ context.Context, g partition.GroupID) (actors.History, error) {
	return actors.History{Group: g, Parent: 3}, nil
}

func (i *inspector) Nodes(context.Context) ([]actors.NodeInfo, error) {
	return []actors.NodeInfo{{Replicas: 4}}, nil
}

func (i *inspector) Move(_ context.Context, r actors.MoveRequest) (actors.PlanInfo, error) {
	if r.To == "full" {
		return actors.PlanInfo{}, partition.Errorf(partition.CodeRefused, "no room")
	}
	return actors.PlanInfo{Task: actors.TaskInfo{ID: 9, Group: r.Group, To: r.To}}, nil
}

// TestLooking: what looks at the cluster comes over HTTP as it is, and a move is
// begun.
func TestLooking(t *testing.T) {
	s := httptest.NewServer(operated(t, &inspector{}, nil))
	defer s.Close()
	ctx, c := t.Context(), &httpapi.Client{Addrs: []string{strings.TrimPrefix(s.URL, "http://")}}
	if r, err := c.Check(ctx); err != nil || len(r.Findings) != 1 || r.Findings[0].Group != 7 {
		t.Errorf("check: %+v, %v", r, err)
	}
	if e, err := c.Explain(ctx, "node", "n/1"); err != nil || e.Subject != "node n/1" {
		t.Errorf("explain: %+v, %v", e, err)
	}
	if _, err := c.Explain(ctx, "zone", "a"); partition.CodeOf(err) != partition.CodeInvalid {
		t.Errorf("explain a zone: %v", err)
	}
	if h, err := c.History(ctx, 7); err != nil || h.Group != 7 || h.Parent != 3 {
		t.Errorf("history: %+v, %v", h, err)
	}
	if n, err := c.Nodes(ctx); err != nil || len(n) != 1 || n[0].Replicas != 4 {
		t.Errorf("nodes: %+v, %v", n, err)
	}
	if p, err := c.Move(ctx, actors.MoveRequest{Group: 7, From: "n1", To: "n4"}); err != nil || p.Task.ID != 9 || p.Task.Group != 7 {
		t.Errorf("move: %+v, %v", p, err)
	}
	if _, err := c.Move(ctx, actors.MoveRequest{Group: 7, To: "full"}); partition.CodeOf(err) != partition.CodeRefused {
		t.Errorf("move to a full node: %v", err)
	}
	for target, want := range map[string]int{"GET /api/v1/partitions/x/history": 400, "POST /api/v1/moves": 400, "PUT /api/v1/check": 405} {
		method, path, _ := strings.Cut(target, " ")
		w := httptest.NewRecorder()
		if operated(t, &inspector{}, nil).ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader("{x"))); w.Code != want {
			t.Errorf("%s: %d", target, w.Code)
		}
	}
	w := httptest.NewRecorder()
	if operated(t, &operator{}, nil).ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/api/v1/moves", strings.NewReader("{}"))); w.Code != http.StatusNotFound {
		t.Errorf("a node that moves nothing: %d", w.Code)
	}
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
