package httpapi_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"pando.dev/pando/actors"
	"pando.dev/pando/actors/cert"
	"pando.dev/pando/actors/httpapi"
	"pando.dev/pando/partition"
)

// operator is a node that begins what it is asked for, and has done it when it is
// asked again.
type operator struct {
	changes []actors.PartitionChange
	drained map[partition.NodeID]actors.DrainOptions
}

var _ httpapi.Operator = (*operator)(nil)

func (o *operator) BeginChange(_ context.Context, c actors.PartitionChange) (actors.ChangeInfo, error) {
	if c.Group != 17 {
		return actors.ChangeInfo{}, partition.Errorf(partition.CodeNotFound, "no partition %s", c.Group)
	}
	o.changes = append(o.changes, c)
	info := actors.ChangeInfo{PartitionChange: c, Done: len(o.changes) > 1, Why: "it is being brought up", Version: 4}
	if c.Node == "full" {
		info.Done, info.Refused = false, "no room"
	}
	return info, nil
}

func (o *operator) BeginDrain(_ context.Context, d actors.DrainOptions) (actors.DrainInfo, error) {
	if d.Node == "last" && !d.Force {
		return actors.DrainInfo{}, partition.Errorf(partition.CodeRefused, "the last one")
	}
	o.drained[d.Node] = d
	return o.DrainStatus(context.Background(), d.Node)
}

func (o *operator) BeginUndrain(_ context.Context, n partition.NodeID) (actors.DrainInfo, error) {
	delete(o.drained, n)
	return o.DrainStatus(context.Background(), n)
}

func (o *operator) DrainStatus(_ context.Context, n partition.NodeID) (actors.DrainInfo, error) {
	d, ok := o.drained[n]
	info := actors.DrainInfo{Node: n, Reason: d.Reason, Done: true}
	if ok {
		info.Mode = "drained"
	}
	return info, nil
}

func operated(t testing.TB, o httpapi.Operator, authorize func(*http.Request, cert.Role) error) http.Handler {
	t.Helper()
	tw := newTwin("t")
	h, err := httpapi.New(httpapi.Config{Cluster: tw, Catalog: tw, Store: tw, Meter: tw, Operator: o, Authorize: authorize})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestOperatorRoutes(t *testing.T) {
	h := operated(t, &operator{drained: map[partition.NodeID]actors.DrainOptions{}}, nil)
	for _, c := range []struct {
		method, target, body string
		status               int
		has                  string
	}{
		{"POST", "/api/v1/partitions/g17/change", `{"kind":"add-replica","node":"n4"}`, 200, `"done": false`},
		{"POST", "/api/v1/partitions/17/change", `{"kind":"add-replica","node":"n4"}`, 200, `"done": true`},
		{"POST", "/api/v1/partitions/g17/change", `{"kind":"add-replica","group":"g18"}`, 400, "invalid"},
		{"POST", "/api/v1/partitions/g18/change", `{"kind":"add-replica"}`, 404, "not_found"},
		{"POST", "/api/v1/partitions/x/change", `{}`, 400, "invalid"},
		{"POST", "/api/v1/partitions/g17/change", `{"knd":"x"}`, 400, "invalid"},
		{"GET", "/api/v1/partitions/g17/change", ``, 405, "POST"},
		{"POST", "/api/v1/nodes/n2/drain", `{"reason":"new disk"}`, 200, `"mode": "drained"`},
		{"GET", "/api/v1/nodes/n2/drain", ``, 200, `"new disk"`},
		{"DELETE", "/api/v1/nodes/n2/drain", ``, 200, `"mode": ""`},
		{"POST", "/api/v1/nodes/n2/drain", ``, 200, `"drained"`},
		{"POST", "/api/v1/nodes/n2/drain", `{"node":"n3"}`, 400, "invalid"},
		{"POST", "/api/v1/nodes/last/drain", `{}`, 412, "refused"},
		{"POST", "/api/v1/nodes/last/drain", `{"force":true}`, 200, "drained"},
	} {
		r := httptest.NewRequest(c.method, c.target, strings.NewReader(c.body))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.has) {
			t.Errorf("%s %s %s: %d %s", c.method, c.target, c.body, w.Code, w.Body)
		}
	}
	w := httptest.NewRecorder()
	operated(t, nil, nil).ServeHTTP(w, httptest.NewRequest("GET", "/api/v1/nodes/n2/drain", nil))
	if w.Code != 404 {
		t.Errorf("without an operator: %d", w.Code)
	}
}

// Only admins change anything.
func TestOperatorRoles(t *testing.T) {
	h := operated(t, &operator{drained: map[partition.NodeID]actors.DrainOptions{}}, func(_ *http.Request, need cert.Role) error {
		if need == cert.Admin {
			return partition.Errorf(partition.CodeUnauthorized, "a client only")
		}
		return nil
	})
	for target, want := range map[string]int{
		"GET /api/v1/nodes/n2/drain": 200, "POST /api/v1/nodes/n2/drain": 403, "DELETE /api/v1/nodes/n2/drain": 403,
		"POST /api/v1/partitions/g17/change": 403,
	} {
		method, path, _ := strings.Cut(target, " ")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(`{}`)))
		if w.Code != want {
			t.Errorf("%s: %d %s", target, w.Code, w.Body)
		}
	}
}

// The client's methods reach the node; AwaitChange asks until it is done, ends
// with what is refused for good, and says what it waited for when time is up.
func TestOperatorClient(t *testing.T) {
	o := &operator{drained: map[partition.NodeID]actors.DrainOptions{}}
	c, _ := serve(t, operated(t, o, nil))
	ctx := t.Context()
	info, err := actors.AwaitChange(ctx, actors.PartitionChange{Kind: actors.ChangeAdd, Group: 17, Node: "n4"}, c.BeginChange)
	if err != nil || !info.Done || info.Version != 4 || len(o.changes) != 2 {
		t.Errorf("%+v, %v, asked %d times", info, err, len(o.changes))
	}
	if _, err := actors.AwaitChange(ctx, actors.PartitionChange{Group: 18}, c.BeginChange); !errors.Is(err, partition.ErrNotFound) {
		t.Error(err)
	}
	_, err = actors.AwaitChange(ctx, actors.PartitionChange{Kind: actors.ChangeAdd, Group: 17, Node: "full"}, c.BeginChange)
	if !errors.Is(err, partition.ErrRefused) || !strings.Contains(err.Error(), "no room") || !o.changes[len(o.changes)-1].Cancel {
		t.Errorf("%v, %+v", err, o.changes[len(o.changes)-1])
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if _, err = actors.AwaitChange(short, actors.PartitionChange{Group: 17, Node: "full"}, c.BeginChange); !errors.Is(err, partition.ErrUnknown) {
		t.Error(err)
	}
	d, err := c.BeginDrain(ctx, actors.DrainOptions{Node: "n2", Reason: "x"})
	if err != nil || d.Mode != "drained" || o.drained["n2"].Reason != "x" {
		t.Errorf("%+v, %v", d, err)
	}
	if d, err = c.DrainStatus(ctx, "n2"); err != nil || d.Mode != "drained" {
		t.Errorf("%+v, %v", d, err)
	}
	if d, err = c.BeginUndrain(ctx, "n2"); err != nil || d.Mode != "" {
		t.Errorf("%+v, %v", d, err)
	}
}
