package httpapi

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"pando.dev/pando/actors"
	"pando.dev/pando/partition"
)

// Recovery brings partitions back that have lost their failover quorum.
type Recovery interface {
	// RecoverPlan says what would bring them back and changes nothing.
	RecoverPlan(ctx context.Context, ask actors.RecoverAsk) (actors.RecoverPlan, error)
	// RecoverApply carries a plan out, if everything is still as it was planned.
	RecoverApply(ctx context.Context, plan, reason string) (actors.RecoverOutcome, error)
}

// recoverApply is the body of a request to apply a plan.
type recoverApply struct {
	Plan   string `json:"plan"`
	Reason string `json:"reason,omitempty"`
}

func (a *api) recoverPlan(w http.ResponseWriter, r *http.Request) error {
	if a.cfg.Recovery == nil {
		return partition.Errorf(partition.CodeNotFound, "this node recovers nothing")
	}
	var ask actors.RecoverAsk
	q := r.URL.Query()
	for _, s := range listOf(q.Get("partitions")) {
		g, err := partition.ParseGroupID(s)
		if err != nil {
			return err
		}
		ask.Groups = append(ask.Groups, g)
	}
	for _, s := range listOf(q.Get("dead")) {
		ask.Dead = append(ask.Dead, partition.NodeID(s))
	}
	plan, err := a.cfg.Recovery.RecoverPlan(r.Context(), ask)
	if err != nil {
		return err
	}
	answer(w, http.StatusOK, plan)
	return nil
}

func (a *api) recoverApply(w http.ResponseWriter, r *http.Request) error {
	if a.cfg.Recovery == nil {
		return partition.Errorf(partition.CodeNotFound, "this node recovers nothing")
	}
	var ask recoverApply
	if err := readJSON(w, r, &ask); err != nil {
		return err
	}
	out, err := a.cfg.Recovery.RecoverApply(r.Context(), ask.Plan, ask.Reason)
	if err != nil {
		return err
	}
	for _, p := range out.Groups {
		a.cfg.Logger.Warn("partition_recovered", "group", p.Group, "node", p.Node, "done", p.Done, "loss", p.Loss, "why", p.Why)
	}
	answer(w, http.StatusOK, out)
	return nil
}

// listOf reads what is given as a,b,c.
func listOf(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

// RecoverPlan asks what would bring lost partitions back.
func (c *Client) RecoverPlan(ctx context.Context, ask actors.RecoverAsk) (actors.RecoverPlan, error) {
	q := url.Values{}
	var groups, dead []string
	for _, g := range ask.Groups {
		groups = append(groups, g.String())
	}
	for _, d := range ask.Dead {
		dead = append(dead, string(d))
	}
	if len(groups) > 0 {
		q.Set("partitions", strings.Join(groups, ","))
	}
	if len(dead) > 0 {
		q.Set("dead", strings.Join(dead, ","))
	}
	path := "/api/v1/recover"
	if len(q) > 0 {
		path += "?" + q.Encode()
	}
	return get[actors.RecoverPlan](ctx, c, path)
}

// RecoverApply carries a plan out.
func (c *Client) RecoverApply(ctx context.Context, plan, reason string) (actors.RecoverOutcome, error) {
	return change[actors.RecoverOutcome](ctx, c, http.MethodPost, "/api/v1/recover", recoverApply{Plan: plan, Reason: reason})
}
