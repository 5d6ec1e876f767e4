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
	"pando.dev/pando/cluster/control"
	"pando.dev/pando/partition"
)

// balancer has one plan, t7, and remembers what it was asked for.
type balancer struct{ asked []string }

var _ httpapi.Balancer = (*balancer)(nil)

func (b *balancer) plan(state string) actors.TaskInfo {
	return actors.TaskInfo{ID: 7, Kind: "plan", State: state}
}

func (b *balancer) Tasks(context.Context) ([]actors.TaskInfo, error) {
	return []actors.TaskInfo{b.plan("planned"), {ID: 8, Parent: 7, Kind: "move", State: "planned", Group: 3, From: "n1", To: "n4"}}, nil
}

func (b *balancer) AbortTask(_ context.Context, id control.TaskID, why string) (actors.TaskInfo, error) {
	if id != 7 {
		return actors.TaskInfo{}, partition.Errorf(partition.CodeNotFound, "no task %s", id)
	}
	b.asked = append(b.asked, "abort "+why)
	return b.plan("aborted"), nil
}

func (b *balancer) Rebalance(_ context.Context, o actors.BalanceOptions) (actors.PlanInfo, error) {
	p := actors.PlanInfo{Task: b.plan("planned"), Before: map[string]float64{"bytes": 1.5}}
	if o.DryRun {
		p.Task.ID = 0
	}
	return p, nil
}

func (b *balancer) StartPlan(_ context.Context, id control.TaskID) (actors.TaskInfo, error) {
	if id != 7 {
		return actors.TaskInfo{}, partition.Errorf(partition.CodeExists, "another plan is being carried out")
	}
	return b.plan("open"), nil
}

func (b *balancer) Decommission(_ context.Context, o actors.BalanceOptions) (actors.PlanInfo, error) {
	if o.Node != "n4" {
		return actors.PlanInfo{}, partition.Errorf(partition.CodeRefused, "two nodes would be left")
	}
	return actors.PlanInfo{Task: actors.TaskInfo{ID: 9, Kind: "decommission", State: "open", From: o.Node}}, nil
}

func (b *balancer) Recommission(_ context.Context, n partition.NodeID) (actors.TaskInfo, error) {
	b.asked = append(b.asked, "recommission "+string(n))
	return actors.TaskInfo{ID: 9, State: "aborted"}, nil
}

func balanced(t testing.TB, b httpapi.Balancer, authorize func(*http.Request, cert.Role) error) http.Handler {
	t.Helper()
	tw := newTwin("t")
	h, err := httpapi.New(httpapi.Config{Cluster: tw, Catalog: tw, Store: tw, Meter: tw, Balancer: b, Authorize: authorize})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestTaskRoutes(t *testing.T) {
	h := balanced(t, &balancer{}, nil)
	for _, c := range []struct {
		method, target, body string
		status               int
		has                  string
	}{
		{"GET", "/api/v1/tasks", ``, 200, `"parent": "t7"`},
		{"DELETE", "/api/v1/tasks/t7?why=enough", ``, 200, "aborted"},
		{"DELETE", "/api/v1/tasks/t8", ``, 404, "not_found"},
		{"DELETE", "/api/v1/tasks/seven", ``, 400, "seven"},
		{"POST", "/api/v1/plans", `{"dry_run":true}`, 200, `"id": "t0"`},
		{"POST", "/api/v1/plans", ``, 200, `"bytes": 1.5`},
		{"POST", "/api/v1/plans", `{"node":"n4"}`, 400, "invalid"},
		{"POST", "/api/v1/plans/7/apply", `{}`, 200, "open"},
		{"POST", "/api/v1/plans/t8/apply", ``, 409, "exists"},
		{"POST", "/api/v1/plans/seven/apply", ``, 400, "seven"},
		{"POST", "/api/v1/plans", `{"dry_run":`, 400, "invalid"},
		{"POST", "/api/v1/nodes/n4/decommission", ``, 200, `"from": "n4"`},
		{"POST", "/api/v1/nodes/n4/decommission", `{"node":"n3"}`, 400, "invalid"},
		{"POST", "/api/v1/nodes/n3/decommission", ``, 412, "refused"},
		{"DELETE", "/api/v1/nodes/n4/decommission", ``, 200, "aborted"},
		{"PUT", "/api/v1/tasks", ``, 405, "GET"},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(c.method, c.target, strings.NewReader(c.body)))
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.has) {
			t.Errorf("%s %s %s: %d %s", c.method, c.target, c.body, w.Code, w.Body)
		}
	}
	w := httptest.NewRecorder()
	balanced(t, nil, nil).ServeHTTP(w, httptest.NewRequest("GET", "/api/v1/tasks", nil))
	if w.Code != 404 {
		t.Errorf("without a balancer: %d", w.Code)
	}
}

// Everybody may look, and only admins change anything.
func TestTaskRoles(t *testing.T) {
	h := balanced(t, &balancer{}, func(_ *http.Request, need cert.Role) error {
		if need == cert.Admin {
			return partition.Errorf(partition.CodeUnauthorized, "no")
		}
		return nil
	})
	for _, c := range []struct {
		method, target string
		status         int
	}{
		{"GET", "/api/v1/tasks", 200}, {"DELETE", "/api/v1/tasks/t7", 403}, {"POST", "/api/v1/plans", 403},
		{"POST", "/api/v1/plans/t7/apply", 403}, {"POST", "/api/v1/nodes/n4/decommission", 403}, {"DELETE", "/api/v1/nodes/n4/decommission", 403},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(c.method, c.target, nil))
		if w.Code != c.status {
			t.Errorf("%s %s: %d", c.method, c.target, w.Code)
		}
	}
}

// The client asks for what the routes answer.
func TestTaskClient(t *testing.T) {
	b := &balancer{}
	s := httptest.NewServer(balanced(t, b, nil))
	defer s.Close()
	c := &httpapi.Client{Addrs: []string{strings.TrimPrefix(s.URL, "http://")}}
	ctx := t.Context()
	all, err := c.Tasks(ctx)
	if err != nil || len(all) != 2 || all[1].Parent != 7 || all[1].To != "n4" {
		t.Fatalf("%+v, %v", all, err)
	}
	if p, err := c.Rebalance(ctx, actors.BalanceOptions{}); err != nil || p.Task.ID != 7 {
		t.Fatalf("%+v, %v", p, err)
	}
	if x, err := c.StartPlan(ctx, 7); err != nil || x.State != "open" {
		t.Fatalf("%+v, %v", x, err)
	}
	if p, err := c.Decommission(ctx, actors.BalanceOptions{Node: "n4"}); err != nil || p.Task.From != "n4" {
		t.Fatalf("%+v, %v", p, err)
	}
	if _, err := c.Recommission(ctx, "n/4"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.AbortTask(ctx, 7, "a & b"); err != nil || strings.Join(b.asked, "; ") != "recommission n/4; abort a & b" {
		t.Fatalf("%v, %v", b.asked, err)
	}
}
