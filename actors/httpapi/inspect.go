package httpapi

import (
	"context"
	"net/http"

	"pando.dev/pando/actors"
	"pando.dev/pando/actors/cert"
	"pando.dev/pando/partition"
)

// Inspector looks at what is there, and changes nothing.
type Inspector interface {
	// BeginVerify begins to compare replicas, once per token, or tells how far that
	// is.
	BeginVerify(ctx context.Context, r actors.VerifyRequest) (actors.VerifyInfo, error)
}

func (a *api) inspectRoutes() map[string]methods {
	return map[string]methods{
		"/api/v1/verify": {http.MethodPost: {cert.Admin, a.inspects(a.verify)}},
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

// BeginVerify begins a verification, or tells how far it is. actors.AwaitVerify
// waits with it until it is done; a node that is asked with the token of another
// node's begins it anew.
func (c *Client) BeginVerify(ctx context.Context, r actors.VerifyRequest) (actors.VerifyInfo, error) {
	return change[actors.VerifyInfo](ctx, c, http.MethodPost, "/api/v1/verify", r)
}
