package httpapi

import (
	"context"
	"net/http"
	"strconv"

	"pando.dev/pando/actors"
	"pando.dev/pando/actors/cert"
	"pando.dev/pando/partition"
)

// Uniter merges partitions while they serve.
type Uniter interface {
	// PlanMerge says what Merge would do.
	PlanMerge(r actors.MergeRequest) (actors.MergeInfo, error)
	// Merge begins a merge, once per token.
	Merge(ctx context.Context, r actors.MergeRequest) (actors.MergeInfo, error)
	MergeStatus(task uint64) (actors.MergeInfo, error)
}

func (a *api) uniterRoutes() map[string]methods {
	return map[string]methods{
		"/api/v1/merge":        {http.MethodPost: {cert.Admin, a.merge(Uniter.Merge)}},
		"/api/v1/merge/plan":   {http.MethodPost: {cert.Client, a.merge(planMerge)}},
		"/api/v1/merge/{task}": {http.MethodGet: {cert.Client, a.mergeStatus}},
	}
}

func planMerge(u Uniter, _ context.Context, r actors.MergeRequest) (actors.MergeInfo, error) {
	return u.PlanMerge(r)
}

func (a *api) uniter() (Uniter, error) {
	u, ok := a.cfg.Operator.(Uniter)
	if !ok {
		return nil, partition.Errorf(partition.CodeNotFound, "this node merges no partitions")
	}
	return u, nil
}

func (a *api) merge(ask func(Uniter, context.Context, actors.MergeRequest) (actors.MergeInfo, error)) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		u, err := a.uniter()
		if err != nil {
			return err
		}
		var m actors.MergeRequest
		if err := readJSON(w, r, &m); err != nil {
			return err
		}
		info, err := ask(u, r.Context(), m)
		if err != nil {
			return err
		}
		answer(w, http.StatusOK, info)
		return nil
	}
}

func (a *api) mergeStatus(w http.ResponseWriter, r *http.Request) error {
	u, err := a.uniter()
	if err != nil {
		return err
	}
	task, err := strconv.ParseUint(r.PathValue("task"), 10, 64)
	if err != nil {
		return invalid("", "%.40q is no number of a task", r.PathValue("task"))
	}
	info, err := u.MergeStatus(task)
	if err != nil {
		return err
	}
	answer(w, http.StatusOK, info)
	return nil
}

// Merge begins to merge two partitions. actors.AwaitMerge waits with MergeStatus until
// it is done.
func (c *Client) Merge(ctx context.Context, r actors.MergeRequest) (actors.MergeInfo, error) {
	return change[actors.MergeInfo](ctx, c, http.MethodPost, "/api/v1/merge", r)
}

// PlanMerge says what Merge would do.
func (c *Client) PlanMerge(ctx context.Context, r actors.MergeRequest) (actors.MergeInfo, error) {
	return change[actors.MergeInfo](ctx, c, http.MethodPost, "/api/v1/merge/plan", r)
}

// MergeStatus tells how far a merge is.
func (c *Client) MergeStatus(ctx context.Context, task uint64) (actors.MergeInfo, error) {
	return get[actors.MergeInfo](ctx, c, "/api/v1/merge/"+strconv.FormatUint(task, 10))
}
