package httpapi

import (
	"context"
	"net/http"
	"strconv"

	"pando.dev/pando/actors"
	"pando.dev/pando/actors/cert"
	"pando.dev/pando/partition"
)

// Divider divides partitions while they serve.
type Divider interface {
	// PlanSplit says what Split would do.
	PlanSplit(ctx context.Context, r actors.SplitRequest) (actors.SplitInfo, error)
	// Split begins a split, once per token.
	Split(ctx context.Context, r actors.SplitRequest) (actors.SplitInfo, error)
	SplitStatus(task uint64) (actors.SplitInfo, error)
}

func (a *api) dividerRoutes() map[string]methods {
	return map[string]methods{
		"/api/v1/split":        {http.MethodPost: {cert.Admin, a.divides(a.split)}},
		"/api/v1/split/plan":   {http.MethodPost: {cert.Client, a.divides(a.splitPlan)}},
		"/api/v1/split/{task}": {http.MethodGet: {cert.Client, a.divides(a.splitStatus)}},
	}
}

// divides wraps an endpoint that needs a Divider.
func (a *api) divides(serve func(Divider, http.ResponseWriter, *http.Request) error) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		d, ok := a.cfg.Operator.(Divider)
		if !ok {
			return partition.Errorf(partition.CodeNotFound, "this node splits no partitions")
		}
		return serve(d, w, r)
	}
}

func (a *api) split(d Divider, w http.ResponseWriter, r *http.Request) error {
	return splitAnswer(w, r, d.Split)
}

func (a *api) splitPlan(d Divider, w http.ResponseWriter, r *http.Request) error {
	return splitAnswer(w, r, d.PlanSplit)
}

func splitAnswer(w http.ResponseWriter, r *http.Request, ask func(context.Context, actors.SplitRequest) (actors.SplitInfo, error)) error {
	var s actors.SplitRequest
	if err := readJSON(w, r, &s); err != nil {
		return err
	}
	info, err := ask(r.Context(), s)
	if err != nil {
		return err
	}
	answer(w, http.StatusOK, info)
	return nil
}

func (a *api) splitStatus(d Divider, w http.ResponseWriter, r *http.Request) error {
	task, err := strconv.ParseUint(r.PathValue("task"), 10, 64)
	if err != nil {
		return invalid("", "%.40q is no number of a task", r.PathValue("task"))
	}
	info, err := d.SplitStatus(task)
	if err != nil {
		return err
	}
	answer(w, http.StatusOK, info)
	return nil
}

// Split begins to divide a partition. actors.AwaitSplit waits with SplitStatus until
// it is done.
func (c *Client) Split(ctx context.Context, r actors.SplitRequest) (actors.SplitInfo, error) {
	return change[actors.SplitInfo](ctx, c, http.MethodPost, "/api/v1/split", r)
}

// PlanSplit says what Split would do.
func (c *Client) PlanSplit(ctx context.Context, r actors.SplitRequest) (actors.SplitInfo, error) {
	return change[actors.SplitInfo](ctx, c, http.MethodPost, "/api/v1/split/plan", r)
}

// SplitStatus tells how far a split is.
func (c *Client) SplitStatus(ctx context.Context, task uint64) (actors.SplitInfo, error) {
	return get[actors.SplitInfo](ctx, c, "/api/v1/split/"+strconv.FormatUint(task, 10))
}
