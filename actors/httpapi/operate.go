package httpapi

import (
	"context"
	"net/http"
	"net/url"

	"pando.dev/pando/actors"
	"pando.dev/pando/actors/cert"
	"pando.dev/pando/partition"
)

// Operator changes partitions and takes nodes out of service. What takes a while
// is begun, and asking again tells how far it is.
type Operator interface {
	// BeginChange asks for a change of a partition, once however often it is asked.
	BeginChange(ctx context.Context, c actors.PartitionChange) (actors.ChangeInfo, error)
	BeginDrain(ctx context.Context, o actors.DrainOptions) (actors.DrainInfo, error)
	BeginUndrain(ctx context.Context, node partition.NodeID) (actors.DrainInfo, error)
	DrainStatus(ctx context.Context, node partition.NodeID) (actors.DrainInfo, error)
}

func (a *api) operatorRoutes() map[string]methods {
	return map[string]methods{
		"/api/v1/partitions/{group}/change": {http.MethodPost: {cert.Admin, a.operates(a.change)}},
		"/api/v1/nodes/{node}/drain": {
			http.MethodGet: {cert.Client, a.operates(a.drainStatus)}, http.MethodPost: {cert.Admin, a.operates(a.drain)},
			http.MethodDelete: {cert.Admin, a.operates(a.undrain)},
		},
	}
}

// operates wraps an endpoint that needs an Operator.
func (a *api) operates(serve func(http.ResponseWriter, *http.Request) error) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		if a.cfg.Operator == nil {
			return partition.Errorf(partition.CodeNotFound, "this node changes no partitions")
		}
		return serve(w, r)
	}
}

func (a *api) change(w http.ResponseWriter, r *http.Request) error {
	var c actors.PartitionChange
	g, err := partition.ParseGroupID(r.PathValue("group"))
	if err != nil {
		return err
	}
	if err := readJSON(w, r, &c); err != nil {
		return err
	}
	if c.Group != 0 && c.Group != g {
		return invalid("", "the body is about partition %s, the path about %s", c.Group, g)
	}
	c.Group = g
	info, err := a.cfg.Operator.BeginChange(r.Context(), c)
	if err != nil {
		return err
	}
	answer(w, http.StatusOK, info)
	return nil
}

func (a *api) drain(w http.ResponseWriter, r *http.Request) error {
	var o actors.DrainOptions
	if r.ContentLength != 0 {
		if err := readJSON(w, r, &o); err != nil {
			return err
		}
	}
	node := partition.NodeID(r.PathValue("node"))
	if o.Node != "" && o.Node != node {
		return invalid("", "the body is about node %q, the path about %q", o.Node, node)
	}
	o.Node = node
	return a.drainAnswer(w, func() (actors.DrainInfo, error) { return a.cfg.Operator.BeginDrain(r.Context(), o) })
}

func (a *api) undrain(w http.ResponseWriter, r *http.Request) error {
	return a.drainAnswer(w, func() (actors.DrainInfo, error) {
		return a.cfg.Operator.BeginUndrain(r.Context(), partition.NodeID(r.PathValue("node")))
	})
}

func (a *api) drainStatus(w http.ResponseWriter, r *http.Request) error {
	return a.drainAnswer(w, func() (actors.DrainInfo, error) {
		return a.cfg.Operator.DrainStatus(r.Context(), partition.NodeID(r.PathValue("node")))
	})
}

func (a *api) drainAnswer(w http.ResponseWriter, ask func() (actors.DrainInfo, error)) error {
	info, err := ask()
	if err != nil {
		return err
	}
	answer(w, http.StatusOK, info)
	return nil
}

// BeginChange asks for a change of a partition and tells how far it is.
// actors.AwaitChange waits with it until the change is done.
func (c *Client) BeginChange(ctx context.Context, p actors.PartitionChange) (actors.ChangeInfo, error) {
	return change[actors.ChangeInfo](ctx, c, http.MethodPost, "/api/v1/partitions/"+p.Group.String()+"/change", p)
}

// BeginDrain begins to take a node out of service.
func (c *Client) BeginDrain(ctx context.Context, o actors.DrainOptions) (actors.DrainInfo, error) {
	return change[actors.DrainInfo](ctx, c, http.MethodPost, drainPath(o.Node), o)
}

// BeginUndrain begins to take a node back into service.
func (c *Client) BeginUndrain(ctx context.Context, node partition.NodeID) (actors.DrainInfo, error) {
	var info actors.DrainInfo
	_, err := c.do(ctx, request{method: http.MethodDelete, path: drainPath(node)}, &info)
	return info, err
}

// DrainStatus tells whether a node is in service, and how far a change of that is.
func (c *Client) DrainStatus(ctx context.Context, node partition.NodeID) (actors.DrainInfo, error) {
	return get[actors.DrainInfo](ctx, c, drainPath(node))
}

func drainPath(node partition.NodeID) string {
	return "/api/v1/nodes/" + url.PathEscape(string(node)) + "/drain"
}
