package httpapi

import (
	"context"
	"net/http"
	"net/url"

	"pando.dev/pando/actors"
	"pando.dev/pando/actors/cert"
	"pando.dev/pando/partition"
)

// Inspector looks at what is there, and changes nothing.
type Inspector interface {
	// BeginVerify begins to compare replicas, once per token, or tells how far that
	// is.
	BeginVerify(ctx context.Context, r actors.VerifyRequest) (actors.VerifyInfo, error)
	// Check looks for what is not as it should be.
	Check(ctx context.Context) (actors.CheckReport, error)
	// Explain says why a partition, node or task is as it is.
	Explain(ctx context.Context, what, id string) (actors.Explanation, error)
	History(ctx context.Context, g partition.GroupID) (actors.History, error)
	Nodes(ctx context.Context) ([]actors.NodeInfo, error)
}

// Mover moves replicas.
type Mover interface {
	// Move begins a move, once per token, or says what it would do.
	Move(ctx context.Context, r actors.MoveRequest) (actors.PlanInfo, error)
}

func (a *api) inspectRoutes() map[string]methods {
	read := func(serve func(Inspector, http.ResponseWriter, *http.Request) error) methods {
		return methods{http.MethodGet: {cert.Client, a.inspects(serve)}}
	}
	return map[string]methods{
		"/api/v1/verify":                     {http.MethodPost: {cert.Admin, a.inspects(a.verify)}},
		"/api/v1/check":                      read(a.check),
		"/api/v1/nodes":                      read(a.nodes),
		"/api/v1/explain/{what}/{id}":        read(a.explain),
		"/api/v1/partitions/{group}/history": read(a.history),
		"/api/v1/moves":                      {http.MethodPost: {cert.Admin, a.move}},
	}
}

// inspects wraps an endpoint that needs an Inspector.
func (a *api) inspects(serve func(Inspector, http.ResponseWriter, *http.Request) error) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		i, ok := a.cfg.Operator.(Inspector)
		if !ok {
			return partition.Errorf(partition.CodeNotFound, "this node inspects nothing")
		}
		return serve(i, w, r)
	}
}

func (a *api) verify(i Inspector, w http.ResponseWriter, r *http.Request) error {
	var ask actors.VerifyRequest
	if err := readJSON(w, r, &ask); err != nil {
		return err
	}
	info, err := i.BeginVerify(r.Context(), ask)
	return answered(w, info, err)
}

func (a *api) check(i Inspector, w http.ResponseWriter, r *http.Request) error {
	report, err := i.Check(r.Context())
	return answered(w, report, err)
}

func (a *api) nodes(i Inspector, w http.ResponseWriter, r *http.Request) error {
	all, err := i.Nodes(r.Context())
	return answered(w, list(all), err)
}

func (a *api) explain(i Inspector, w http.ResponseWriter, r *http.Request) error {
	e, err := i.Explain(r.Context(), r.PathValue("what"), r.PathValue("id"))
	return answered(w, e, err)
}

func (a *api) history(i Inspector, w http.ResponseWriter, r *http.Request) error {
	g, err := partition.ParseGroupID(r.PathValue("group"))
	if err != nil {
		return err
	}
	h, err := i.History(r.Context(), g)
	return answered(w, h, err)
}

func (a *api) move(w http.ResponseWriter, r *http.Request) error {
	m, ok := a.cfg.Operator.(Mover)
	if !ok {
		return partition.Errorf(partition.CodeNotFound, "this node moves no replicas")
	}
	var ask actors.MoveRequest
	if err := readJSON(w, r, &ask); err != nil {
		return err
	}
	p, err := m.Move(r.Context(), ask)
	return answered(w, p, err)
}

// Check looks for what is not as it should be.
func (c *Client) Check(ctx context.Context) (actors.CheckReport, error) {
	return get[actors.CheckReport](ctx, c, "/api/v1/check")
}

// Nodes lists the nodes with what they hold.
func (c *Client) Nodes(ctx context.Context) ([]actors.NodeInfo, error) {
	return get[[]actors.NodeInfo](ctx, c, "/api/v1/nodes")
}

// Explain says why a partition, node or task is as it is.
func (c *Client) Explain(ctx context.Context, what, id string) (actors.Explanation, error) {
	return get[actors.Explanation](ctx, c, "/api/v1/explain/"+url.PathEscape(what)+"/"+url.PathEscape(id))
}

// History tells what is known of a partition's past.
func (c *Client) History(ctx context.Context, g partition.GroupID) (actors.History, error) {
	return get[actors.History](ctx, c, "/api/v1/partitions/"+g.String()+"/history")
}

// Move begins to bring a replica from one node to another, as a plan of one step.
func (c *Client) Move(ctx context.Context, r actors.MoveRequest) (actors.PlanInfo, error) {
	return change[actors.PlanInfo](ctx, c, http.MethodPost, "/api/v1/moves", r)
}

// BeginVerify begins a verification, or tells how far it is. actors.AwaitVerify
// waits with it until it is done; a node that is asked with the token of another
// node's begins it anew.
func (c *Client) BeginVerify(ctx context.Context, r actors.VerifyRequest) (actors.VerifyInfo, error) {
	return change[actors.VerifyInfo](ctx, c, http.MethodPost, "/api/v1/verify", r)
}
