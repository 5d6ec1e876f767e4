package main

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"pando.dev/pando/partition"
)

// event is something that a node has logged of a group.
type event struct {
	at    time.Time
	node  string
	group string
	what  string // the message, and for a split's step the step and the record
}

// events collects what all nodes log of groups.
type events struct {
	mu  sync.Mutex
	all []event
}

// since returns the events of a group behind a point in time, in order.
func (e *events) since(from time.Time, g partition.GroupID) (out []event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := len(e.all) - 1; i >= 0 && !e.all[i].at.Before(from); i-- {
		if e.all[i].group == g.String() {
			out = append(out, e.all[i])
		}
	}
	for i, j := 0, len(out)-1; i < j; i, j = i+1, j-1 {
		out[i], out[j] = out[j], out[i]
	}
	return out
}

// none is the record of a step that proposes none.
var none = partition.Kind(0).String()

// recorder is the handler of one node's logger.
type recorder struct {
	to   *events
	node string
}

func (r *recorder) Enabled(context.Context, slog.Level) bool { return true }

func (r *recorder) WithGroup(string) slog.Handler { return r }

func (r *recorder) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *r
	for _, a := range attrs {
		if a.Key == "node" {
			next.node = a.Value.String()
		}
	}
	return &next
}

func (r *recorder) Handle(_ context.Context, rec slog.Record) error {
	e := event{at: rec.Time, node: r.node, what: rec.Message}
	rec.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "group":
			e.group = a.Value.String()
		case "step", "record":
			if v := a.Value.String(); v != none {
				e.what += " " + v
			}
		}
		return true
	})
	if e.group == "" {
		return nil
	}
	r.to.mu.Lock()
	defer r.to.mu.Unlock()
	r.to.all = append(r.to.all, e)
	return nil
}
