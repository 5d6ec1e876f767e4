package httpapi

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"pando.dev/pando/actors"
	"pando.dev/pando/partition"
)

// Health is the body of /livez and /readyz when all is well.
type Health struct {
	Status string `json:"status"`
}

func (a *api) live(w http.ResponseWriter, _ *http.Request) error {
	answer(w, http.StatusOK, Health{"alive"})
	return nil
}

func (a *api) ready(w http.ResponseWriter, _ *http.Request) error {
	if err := a.cfg.Cluster.Ready(); err != nil {
		answer(w, http.StatusServiceUnavailable, ProblemOf(err))
		return nil
	}
	answer(w, http.StatusOK, Health{"ready"})
	return nil
}

func (a *api) status(w http.ResponseWriter, r *http.Request) error {
	s, err := a.cfg.Cluster.Status(r.Context())
	if err != nil {
		return err
	}
	answer(w, http.StatusOK, s)
	return nil
}

func (a *api) members(w http.ResponseWriter, _ *http.Request) error {
	answer(w, http.StatusOK, list(a.cfg.Cluster.Members()))
	return nil
}

func (a *api) partitions(w http.ResponseWriter, r *http.Request) error {
	ps, err := a.cfg.Cluster.Partitions(r.Context(), r.URL.Query().Get("table"))
	if err != nil {
		return err
	}
	answer(w, http.StatusOK, list(ps))
	return nil
}

func (a *api) partition(w http.ResponseWriter, r *http.Request) error {
	g, err := partition.ParseGroupID(r.PathValue("group"))
	if err != nil {
		return err
	}
	p, err := a.cfg.Cluster.Partition(r.Context(), g)
	if err != nil {
		return err
	}
	answer(w, http.StatusOK, p)
	return nil
}

func (a *api) tables(w http.ResponseWriter, _ *http.Request) error {
	answer(w, http.StatusOK, list(a.cfg.Catalog.Tables()))
	return nil
}

func (a *api) createTable(w http.ResponseWriter, r *http.Request) error {
	var spec actors.TableSpec
	if err := readJSON(w, r, &spec); err != nil {
		return err
	}
	t, err := a.cfg.Catalog.CreateTable(r.Context(), spec)
	if err != nil {
		return err
	}
	a.cfg.Logger.Info("table_created", "table", t.Name, "partitions", len(t.Partitions), "replicas", t.Replicas)
	answer(w, http.StatusCreated, t)
	return nil
}

func (a *api) alterTable(w http.ResponseWriter, r *http.Request) error {
	var change actors.TableChange
	if err := readJSON(w, r, &change); err != nil {
		return err
	}
	t, err := a.cfg.Catalog.AlterTable(r.Context(), r.PathValue("table"), change)
	if err != nil {
		return err
	}
	a.cfg.Logger.Info("table_altered", "table", t.Name, "replicas", t.Replicas, "policy", t.Policy)
	answer(w, http.StatusOK, t)
	return nil
}

func (a *api) dropTable(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("table")
	if err := a.cfg.Catalog.DropTable(r.Context(), name); err != nil {
		return err
	}
	a.cfg.Logger.Info("table_dropped", "table", name)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// readJSON decodes the body into v and refuses what it does not know, so that a
// misspelled field is not silently a default.
func readJSON(w http.ResponseWriter, r *http.Request, v any) error {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxJSONBytes))
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil {
		_, err = d.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		return invalid("", "the body has more than one JSON value")
	}
	return badBody(err)
}

func badBody(err error) error {
	var big *http.MaxBytesError
	switch {
	case errors.As(err, &big):
		return partition.Errorf(partition.CodeTooLarge, "the body is longer than %d bytes, the limit", big.Limit)
	case errors.Is(err, io.EOF):
		return invalid("", "the body is empty")
	}
	return invalid("", "the body cannot be read: %v", err)
}

// list is s as a JSON array also when it is empty.
func list[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
