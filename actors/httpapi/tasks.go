package httpapi

import (
	"context"
	"net/http"
	"net/url"

	"pando.dev/pando/actors"
	"pando.dev/pando/actors/cert"
	"pando.dev/pando/cluster/control"
	"pando.dev/pando/partition"
)

// Balancer shows and ends structural changes, and plans those that bring the
// cluster into balance or empty a node.
type Balancer interface {
	Tasks(ctx context.Context) ([]actors.TaskInfo, error)
	AbortTask(ctx context.Context, id control.TaskID, why string) (actors.TaskInfo, error)
	Rebalance(ctx context.Context, o actors.BalanceOptions) (actors.PlanInfo, error)
	StartPlan(ctx context.Context, id control.TaskID) (actors.TaskInfo, error)
	Decommission(ctx context.Context, o actors.BalanceOptions) (actors.PlanInfo, error)
	Recommission(ctx context.Context, node partition.NodeID) (actors.TaskInfo, error)
}

func (a *api) taskRoutes() map[string]methods {
	return map[string]methods{
		"/api/v1/tasks":                     {http.MethodGet: {cert.Client, a.balances(a.tasks)}},
		"/api/v1/tasks/{task}":              {http.MethodDelete: {cert.Admin, a.balances(a.abortTask)}},
		"/api/v1/plans":                     {http.MethodPost: {cert.Admin, a.balances(a.rebalance)}},
		"/api/v1/plans/{task}/apply":        {http.MethodPost: {cert.Admin, a.balances(a.startPlan)}},
		"/api/v1/nodes/{node}/decommission": {http.MethodPost: {cert.Admin, a.balances(a.decommission)}, http.MethodDelete: {cert.Admin, a.balances(a.recommission)}},
	}
}

// balances wraps an endpoint that needs a Balancer.
func (a *api) balances(serve func(http.ResponseWriter, *http.Request) error) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		if a.cfg.Balancer == nil {
			return partition.Errorf(partition.CodeNotFound, "this node has no tasks")
		}
		return serve(w, r)
	}
}

// answered writes what was answered, if it was.
func answered[T any](w http.ResponseWriter, v T, err error) error {
	if err != nil {
		return err
	}
	answer(w, http.StatusOK, v)
	return nil
}

func (a *api) tasks(w http.ResponseWriter, r *http.Request) error {
	all, err := a.cfg.Balancer.Tasks(r.Context())
	return answered(w, all, err)
}

func (a *api) abortTask(w http.ResponseWriter, r *http.Request) error {
	id, err := control.ParseTaskID(r.PathValue("task"))
	if err != nil {
		return err
	}
	t, err := a.cfg.Balancer.AbortTask(r.Context(), id, r.URL.Query().Get("why"))
	return answered(w, t, err)
}

func (a *api) startPlan(w http.ResponseWriter, r *http.Request) error {
	id, err := control.ParseTaskID(r.PathValue("task"))
	if err != nil {
		return err
	}
	t, err := a.cfg.Balancer.StartPlan(r.Context(), id)
	return answered(w, t, err)
}

func (a *api) rebalance(w http.ResponseWriter, r *http.Request) error {
	o, err := balanceOptions(w, r, "")
	if err != nil {
		return err
	}
	p, err := a.cfg.Balancer.Rebalance(r.Context(), o)
	return answered(w, p, err)
}

func (a *api) decommission(w http.ResponseWriter, r *http.Request) error {
	o, err := balanceOptions(w, r, partition.NodeID(r.PathValue("node")))
	if err != nil {
		return err
	}
	p, err := a.cfg.Balancer.Decommission(r.Context(), o)
	return answered(w, p, err)
}

func (a *api) recommission(w http.ResponseWriter, r *http.Request) error {
	t, err := a.cfg.Balancer.Recommission(r.Context(), partition.NodeID(r.PathValue("node")))
	return answered(w, t, err)
}

func balanceOptions(w http.ResponseWriter, r *http.Request, node partition.NodeID) (actors.BalanceOptions, error) {
	var o actors.BalanceOptions
	if r.ContentLength != 0 {
		if err := readJSON(w, r, &o); err != nil {
			return o, err
		}
	}
	if o.Node != "" && o.Node != node {
		return o, invalid("", "the body is about node %q, the path about %q", o.Node, node)
	}
	o.Node = node
	return o, nil
}

// Tasks returns all tasks by id, also those that ended not long ago.
func (c *Client) Tasks(ctx context.Context) ([]actors.TaskInfo, error) {
	return get[[]actors.TaskInfo](ctx, c, "/api/v1/tasks")
}

// AbortTask asks for a task to be given up, with its steps if it is a plan.
func (c *Client) AbortTask(ctx context.Context, id control.TaskID, why string) (actors.TaskInfo, error) {
	return remove[actors.TaskInfo](ctx, c, "/api/v1/tasks/"+id.String()+"?why="+url.QueryEscape(why))
}

// Rebalance plans what brings the cluster into balance.
func (c *Client) Rebalance(ctx context.Context, o actors.BalanceOptions) (actors.PlanInfo, error) {
	return change[actors.PlanInfo](ctx, c, http.MethodPost, "/api/v1/plans", o)
}

// StartPlan has a plan carried out.
func (c *Client) StartPlan(ctx context.Context, id control.TaskID) (actors.TaskInfo, error) {
	return change[actors.TaskInfo](ctx, c, http.MethodPost, "/api/v1/plans/"+id.String()+"/apply", struct{}{})
}

// Decommission has a node emptied.
func (c *Client) Decommission(ctx context.Context, o actors.BalanceOptions) (actors.PlanInfo, error) {
	return change[actors.PlanInfo](ctx, c, http.MethodPost, decommissionPath(o.Node), o)
}

// Recommission takes a node back that was emptied, or is being.
func (c *Client) Recommission(ctx context.Context, node partition.NodeID) (actors.TaskInfo, error) {
	return remove[actors.TaskInfo](ctx, c, decommissionPath(node))
}

func decommissionPath(node partition.NodeID) string {
	return "/api/v1/nodes/" + url.PathEscape(string(node)) + "/decommission"
}

func remove[T any](ctx context.Context, c *Client, path string) (T, error) {
	var v T
	_, err := c.do(ctx, request{method: http.MethodDelete, path: path}, &v)
	return v, err
}
