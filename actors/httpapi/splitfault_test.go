package httpapi_test

import (
	"context"
	"net/http"
	"testing"

	"pando.dev/pando/actors"
	"pando.dev/pando/partition"
)

// divider is an operator that refuses all splits, once it has looked at them.
type divider struct {
	operator
	asked int
}

var errNoSplit = partition.Errorf(partition.CodeRefused, "it cannot be split")

func (d *divider) PlanSplit(context.Context, actors.SplitRequest) (actors.SplitInfo, error) {
	d.asked++
	return actors.SplitInfo{}, errNoSplit
}

func (d *divider) Split(context.Context, actors.SplitRequest) (actors.SplitInfo, error) {
	d.asked++
	return actors.SplitInfo{}, errNoSplit
}

func (d *divider) SplitStatus(uint64) (actors.SplitInfo, error) {
	d.asked++
	return actors.SplitInfo{}, errNoSplit
}

// TestSplitThatIsRefused: what the node refuses reaches who asked as what it is, and
// what cannot be read does not reach the node.
func TestSplitThatIsRefused(t *testing.T) {
	for _, c := range []struct {
		method, target, body string
		code                 partition.Code
		asked                int
	}{
		{http.MethodPost, "/api/v1/split", `{"group":"g1"}`, partition.CodeRefused, 1},
		{http.MethodPost, "/api/v1/split/plan", `{"group":"g1"}`, partition.CodeRefused, 1},
		{http.MethodGet, "/api/v1/split/7", "", partition.CodeRefused, 1},
		{http.MethodPost, "/api/v1/split", `{"`, partition.CodeInvalid, 0},
		{http.MethodPost, "/api/v1/split/plan", `[]`, partition.CodeInvalid, 0},
		{http.MethodGet, "/api/v1/split/first", "", partition.CodeInvalid, 0},
	} {
		d := &divider{}
		w := ask(operated(t, d, nil), c.method, c.target, c.body, "Content-Type", "application/json")
		if p := problemOf(t, w); w.Code < 400 || p.Code != c.code.String() || p.Why == "" || d.asked != c.asked {
			t.Errorf("%s %s %s: status %d, %+v, asked %d times", c.method, c.target, c.body, w.Code, p, d.asked)
		}
		none := ask(operated(t, &operator{}, nil), c.method, c.target, c.body)
		if p := problemOf(t, none); p.Code != partition.CodeNotFound.String() {
			t.Errorf("%s %s on a node that splits nothing: %+v", c.method, c.target, p)
		}
	}
}
