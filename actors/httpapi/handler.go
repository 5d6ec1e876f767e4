package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"net/http/pprof"
	"path"
	"sort"
	"strings"
	"time"

	"pando.dev/pando/actors/cert"
	"pando.dev/pando/partition"
)

// api is the handler of one node.
type api struct {
	cfg     Config
	metrics *metrics
	slots   chan struct{} // one per request under way
}

// endpoint answers one method of one route; an error is answered as a Problem.
type endpoint struct {
	role  cert.Role // "" wants no certificate
	serve func(w http.ResponseWriter, r *http.Request) error
}

// New returns the handler of a node.
func New(cfg Config) (http.Handler, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	a := &api{cfg: cfg, slots: make(chan struct{}, cfg.MaxInFlight)}
	a.metrics = newMetrics(cfg.Meter)
	mux := http.NewServeMux()
	for _, routes := range []map[string]methods{
		a.routes(), a.operatorRoutes(), a.taskRoutes(), a.dividerRoutes(), a.inspectRoutes(), a.hotRoutes(), a.watcherRoutes(), a.uniterRoutes(),
	} {
		for pattern, methods := range routes {
			mux.Handle(pattern, a.route(pattern, methods))
		}
	}
	if cfg.Pprof {
		a.addPprof(mux)
	}
	mux.Handle("/", a.route("other", nil))
	return cleanPathsOnly(mux), nil
}

type methods map[string]endpoint

func (a *api) routes() map[string]methods {
	read := func(f func(http.ResponseWriter, *http.Request) error) methods {
		return methods{http.MethodGet: {cert.Client, f}}
	}
	return map[string]methods{
		"/livez":                       {http.MethodGet: {"", a.live}},
		"/readyz":                      {http.MethodGet: {"", a.ready}},
		"/metrics":                     read(a.metrics.serve),
		"/api/v1/status":               read(a.status),
		"/api/v1/members":              read(a.members),
		"/api/v1/partitions":           read(a.partitions),
		"/api/v1/partitions/{group}":   read(a.partition),
		"/api/v1/tables":               {http.MethodGet: {cert.Client, a.tables}, http.MethodPost: {cert.Admin, a.createTable}},
		"/api/v1/tables/{table}":       {http.MethodPatch: {cert.Admin, a.alterTable}, http.MethodDelete: {cert.Admin, a.dropTable}},
		"/api/v1/recover":              {http.MethodGet: {cert.Client, a.recoverPlan}, http.MethodPost: {cert.Admin, a.recoverApply}},
		"/api/v1/kv/{table}":           a.kvMethods(),
		"/api/v1/kv/{table}/{key...}":  a.kvMethods(),
		"/api/v1/kv/{table}/{$}":       a.kvMethods(),
		"/api/v1/partitions/{group}/":  nil,
		"/api/v1/tables/{table}/{any}": nil,
	}
}

func (a *api) addPprof(mux *http.ServeMux) {
	admin := func(h http.HandlerFunc) methods {
		return methods{http.MethodGet: {cert.Admin, func(w http.ResponseWriter, r *http.Request) error {
			h(w, r)
			return nil
		}}}
	}
	mux.Handle("/debug/pprof/", a.route("pprof", admin(pprof.Index)))
	mux.Handle("/debug/pprof/profile", a.route("pprof", admin(pprof.Profile)))
	mux.Handle("/debug/pprof/trace", a.route("pprof", admin(pprof.Trace)))
}

// route serves the methods of one pattern: health first and always, the rest
// within the limits. It is also where panics and errors of endpoints stop.
func (a *api) route(pattern string, m methods) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		rec := &recorder{ResponseWriter: w}
		defer func() {
			if p := recover(); p != nil {
				a.cfg.Logger.Error("http_panic", "route", pattern, "panic", fmt.Sprint(p))
				if rec.status == 0 {
					fail(rec, partition.Errorf(partition.CodeInternal, "the request hit a fault"))
				}
				a.metrics.panics.Inc()
			}
			a.metrics.observe(pattern, r.Method, rec.status, time.Since(began))
		}()
		e, err := pick(m, rec, r)
		if err == nil {
			err = a.run(e, pattern, rec, r)
		}
		if err != nil {
			fail(rec, err)
		}
	})
}

// pick finds the endpoint for the request's method, or answers 404 or 405.
func pick(m methods, w http.ResponseWriter, r *http.Request) (endpoint, error) {
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	if e, ok := m[method]; ok {
		return e, nil
	}
	if len(m) == 0 {
		return endpoint{}, &partition.Error{
			Code: partition.CodeNotFound, Why: fmt.Sprintf("there is nothing at %s", r.URL.Path),
			Next: "the API is under /api/v1/: status, members, partitions, nodes, tables, tasks, plans, moves, check, explain, hot, verify, recover, kv",
		}
	}
	allowed := make([]string, 0, len(m))
	for k := range m {
		allowed = append(allowed, k)
	}
	sort.Strings(allowed)
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	return endpoint{serve: func(w http.ResponseWriter, r *http.Request) error {
		answer(w, http.StatusMethodNotAllowed, Problem{
			Code: partition.CodeInvalid.String(), Why: fmt.Sprintf("%s is not a method of %s", r.Method, r.URL.Path),
			Next: "use " + strings.Join(allowed, " or "),
		})
		return nil
	}}, nil
}

func (a *api) run(e endpoint, pattern string, w http.ResponseWriter, r *http.Request) error {
	if e.role != "" {
		if a.cfg.Authorize != nil {
			if err := a.cfg.Authorize(r, e.role); err != nil {
				return err
			}
		}
		select {
		case a.slots <- struct{}{}:
			defer func() { <-a.slots }()
		default:
			return partition.Errorf(partition.CodeBusy, "%d requests are under way, the limit", a.cfg.MaxInFlight)
		}
	}
	if pattern == "pprof" { // a profile takes as long as it was asked to
		return e.serve(w, r)
	}
	timeout, err := a.timeout(r)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	return e.serve(w, r.WithContext(ctx))
}

// timeout is the deadline that the request asks for, within the limit.
func (a *api) timeout(r *http.Request) (time.Duration, error) {
	s := r.URL.Query().Get("timeout")
	if s == "" {
		return a.cfg.Timeout, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return 0, invalid("give it like 5s or 500ms", "timeout %q is not a length of time", s)
	}
	return min(d, a.cfg.MaxTimeout), nil
}

// cleanPathsOnly refuses paths that a ServeMux would redirect to another one: a
// key with an empty or dot element must not silently become another key.
func cleanPathsOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := r.URL.EscapedPath()
		clean := path.Clean(p)
		if strings.HasSuffix(p, "/") && clean != "/" {
			clean += "/"
		}
		if p != clean {
			fail(w, invalid("escape / in a key as %2F, or give the key as ?key64=", "the path has an empty element, . or .."))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// recorder remembers the status for the metrics.
type recorder struct {
	http.ResponseWriter
	status int
}

// WriteHeader remembers and passes on.
func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Write counts as 200 if nothing was said before.
func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
