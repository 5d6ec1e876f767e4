package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"pando.dev/pando/actors"
)

// balanceTwin is a node with a plan that is done when it was asked for a few times.
type balanceTwin struct {
	looks  int
	after  int // looks at the tasks before the plan ends
	ends   string
	called []string
}

func (b *balanceTwin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	plan := actors.TaskInfo{ID: 7, Kind: "plan", State: "planned", Reason: "rebalance", OfUnits: 2}
	steps := []actors.TaskInfo{
		{ID: 8, Parent: 7, Kind: "move", State: "planned", Group: 3, From: "n1", To: "n4", Bytes: 3 << 20, Reason: "fill: n4 is new"},
		{ID: 9, Parent: 7, Kind: "transfer", State: "open", Phase: "waiting", Group: 4, From: "n1", To: "n4", Why: "it has not caught up"},
	}
	b.called = append(b.called, r.Method+" "+r.URL.RequestURI())
	var v any
	switch {
	case r.URL.Path == "/api/v1/tasks":
		if b.looks++; b.looks > b.after {
			plan.State, plan.Units = b.ends, 2
		}
		v = append([]actors.TaskInfo{plan}, steps...)
	case r.URL.Path == "/api/v1/plans", strings.HasSuffix(r.URL.Path, "/decommission") && r.Method == http.MethodPost:
		plan.Bytes = 3 << 20
		v = actors.PlanInfo{Task: plan, Steps: steps, Before: map[string]float64{"replicas": 1.5}, After: map[string]float64{"replicas": 1}, Left: 1}
	default:
		plan.State = "open"
		v = plan
	}
	_ = json.NewEncoder(w).Encode(v)
}

func balanceRun(t *testing.T, b *balanceTwin, args ...string) (string, int) {
	t.Helper()
	s := httptest.NewServer(b)
	defer s.Close()
	var out strings.Builder
	code := execute(t.Context(), append([]string{"--addr", strings.TrimPrefix(s.URL, "http://")}, args...), strings.NewReader(""), &out, &out)
	return out.String(), code
}

// TestBalanceCommands: what is printed of tasks and plans, and how waiting ends.
func TestBalanceCommands(t *testing.T) {
	for _, c := range []struct {
		args string
		twin balanceTwin
		code int
		has  []string
	}{
		{"rebalance", balanceTwin{}, 0, []string{"plan t7 is planned: 2 steps, 3 MiB to copy", "replicas 1.50; then: replicas 1.00", "t8", "n4 is new", "1 step more"}},
		{"rebalance --apply --wait 5s", balanceTwin{after: 1, ends: "done"}, 0, []string{"t7, plan of rebalance: done, 2/2 done"}},
		{"plan apply t7 --wait 5s", balanceTwin{ends: "failed"}, exitRefused, []string{"failed"}},
		{"plan apply 7 --wait 300ms", balanceTwin{after: 1000}, exitTimedOut, []string{"pando task wait t7"}},
		{"plan show t7", balanceTwin{after: 9}, 0, []string{"t9", "it has not caught up"}},
		{"plan cancel t7 --reason enough", balanceTwin{}, 0, []string{"t7"}},
		{"task ls", balanceTwin{after: 9}, 0, []string{"g3 n1 -> n4", "waiting"}},
		{"task ls t9", balanceTwin{after: 9}, 0, []string{"t9"}},
		{"task ls t99", balanceTwin{}, 1, []string{"no task t99"}},
		{"task tree", balanceTwin{after: 9}, 0, []string{"  t8", "0/2"}},
		{"task wait t7 --wait 5s", balanceTwin{after: 1, ends: "done"}, 0, []string{"done"}},
		{"task abort x", balanceTwin{}, 1, []string{"x"}},
		{"node decommission n4 --dry-run", balanceTwin{}, 0, []string{"n1"}},
		{"node recommission n4", balanceTwin{}, 0, []string{"node n4 may take replicas again"}},
	} {
		out, code := balanceRun(t, &c.twin, strings.Fields(c.args)...)
		if code != c.code {
			t.Errorf("%s: exit code %d, want %d: %s", c.args, code, c.code, out)
		}
		for _, has := range c.has {
			if !strings.Contains(out, has) {
				t.Errorf("%s: no %q in\n%s", c.args, has, out)
			}
		}
	}
	b := &balanceTwin{}
	if _, code := balanceRun(t, b, "plan", "cancel", "t7", "--reason", "a b"); code != 0 || !strings.HasPrefix(b.called[0], "DELETE /api/v1/tasks/t7?why=a+b&") {
		t.Error(b.called)
	}
}
