package httpapi

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"pando.dev/pando/actors"
	"pando.dev/pando/actors/cert"
	"pando.dev/pando/partition"
)

// Thermometer tells which partitions are asked for most.
type Thermometer interface {
	Hot(ctx context.Context, o actors.HotOptions) (actors.HotInfo, error)
}

// maxHot bounds the partitions of one answer.
const maxHot = 10_000

func (a *api) hotRoutes() map[string]methods {
	return map[string]methods{"/api/v1/hot": {http.MethodGet: {cert.Client, a.hot}}}
}

func (a *api) hot(w http.ResponseWriter, r *http.Request) error {
	t, ok := a.cfg.Operator.(Thermometer)
	if !ok {
		return partition.Errorf(partition.CodeNotFound, "this node does not tell what is asked of it")
	}
	q := r.URL.Query()
	o := actors.HotOptions{Table: q.Get("table")}
	var err error
	if s := q.Get("group"); s != "" {
		if o.Group, err = partition.ParseGroupID(s); err != nil {
			return err
		}
	}
	if s := q.Get("limit"); s != "" {
		if o.Limit, err = strconv.Atoi(s); err != nil || o.Limit < 1 || o.Limit > maxHot {
			return invalid("give a number from 1 to 10000", "limit %q", s)
		}
	}
	info, err := t.Hot(r.Context(), o)
	return answered(w, info, err)
}

// Hot tells which partitions are asked for most.
func (c *Client) Hot(ctx context.Context, o actors.HotOptions) (actors.HotInfo, error) {
	q := url.Values{}
	if o.Table != "" {
		q.Set("table", o.Table)
	}
	if o.Group != 0 {
		q.Set("group", o.Group.String())
	}
	if o.Limit != 0 {
		q.Set("limit", strconv.Itoa(o.Limit))
	}
	path := "/api/v1/hot"
	if len(q) > 0 {
		path += "?" + q.Encode()
	}
	return get[actors.HotInfo](ctx, c, path)
}
