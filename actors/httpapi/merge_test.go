package httpapi_test

import (
	"context"
	"net/http"
	"testing"

	"pando.dev/pando/actors"
	"pando.dev/pando/partition"
)

// uniter is an operator that refuses all merges, once it has looked at them.
type uniter struct {
	operator
	asked int
}

var errNoMerge = partition.Errorf(partition.CodeRefused, "they cannot be merged")

func (u *uniter) PlanMerge(actors.MergeRequest) (actors.MergeInfo, error) {
	u.asked++
	return actors.MergeInfo{}, errNoMerge
}

func (u *uniter) Merge(context.Context, actors.MergeRequest) (actors.MergeInfo, error) {
	u.asked++
	return actors.MergeInfo{}, errNoMerge
}

func (u *uniter) MergeStatus(uint64) (actors.MergeInfo, error) {
	u.asked++
	return actors.MergeInfo{}, errNoMerge
}

// TestMergeThatIsRefused: what the node refuses reaches who asked as what it is, and
// what cannot be read does not reach the node.
func TestMergeThatIsRefused(t *testing.T) {
	for _, c := range []struct {
		method, target, body string
		code                 partition.Code
		asked                int
	}{
		{http.MethodPost, "/api/v1/merge", `{"group":"g1"}`, partition.CodeRefused, 1},
		{http.MethodPost, "/api/v1/merge/plan", `{"group":"g1"}`, partition.CodeRefused, 1},
		{http.MethodGet, "/api/v1/merge/7", "", partition.CodeRefused, 1},
		{http.MethodPost, "/api/v1/merge", `{"`, partition.CodeInvalid, 0},
		{http.MethodPost, "/api/v1/merge/plan", `[]`, partition.CodeInvalid, 0},
		{http.MethodGet, "/api/v1/merge/first", "", partition.CodeInvalid, 0},
	} {
		u := &uniter{}
		w := ask(operated(t, u, nil), c.method, c.target, c.body, "Content-Type", "application/json")
		if p := problemOf(t, w); w.Code < 400 || p.Code != c.code.String() || p.Why == "" || u.asked != c.asked {
			t.Errorf("%s %s %s: status %d, %+v, asked %d times", c.method, c.target, c.body, w.Code, p, u.asked)
		}
		none := ask(operated(t, &operator{}, nil), c.method, c.target, c.body)
		if p := problemOf(t, none); p.Code != partition.CodeNotFound.String() {
			t.Errorf("%s %s on a node that merges nothing: %+v", c.method, c.target, p)
		}
	}
}
