package httpapi

import (
	"context"
	"net/http"

	"pando.dev/pando/actors"
	"pando.dev/pando/actors/cert"
	"pando.dev/pando/partition"
)

// Watcher knows what limps. A Cluster that is one shows it.
type Watcher interface {
	Anomalies() []actors.AnomalyInfo
}

func (a *api) watcherRoutes() map[string]methods {
	return map[string]methods{"/api/v1/anomalies": {http.MethodGet: {cert.Client, a.anomalies}}}
}

func (a *api) anomalies(w http.ResponseWriter, _ *http.Request) error {
	x, ok := a.cfg.Cluster.(Watcher)
	if !ok {
		return partition.Errorf(partition.CodeNotFound, "this node watches nobody")
	}
	answer(w, http.StatusOK, list(x.Anomalies()))
	return nil
}

// Anomalies lists what limps around the answering node, and what did lately.
func (c *Client) Anomalies(ctx context.Context) ([]actors.AnomalyInfo, error) {
	return get[[]actors.AnomalyInfo](ctx, c, "/api/v1/anomalies")
}
