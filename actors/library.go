package actors

import (
	"context"
	"log/slog"
)

// demoted makes what the actor library tells one level less important: its
// information is of no use to an operator, and every failure of an actor is
// told by its supervisor.
type demoted struct{ slog.Handler }

const demotion = slog.LevelInfo - slog.LevelDebug

// Enabled implements slog.Handler.
func (d demoted) Enabled(ctx context.Context, l slog.Level) bool {
	return d.Handler.Enabled(ctx, l-demotion)
}

// Handle implements slog.Handler.
func (d demoted) Handle(ctx context.Context, r slog.Record) error {
	r.Level -= demotion
	return d.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (d demoted) WithAttrs(attrs []slog.Attr) slog.Handler {
	return demoted{d.Handler.WithAttrs(attrs)}
}

// WithGroup implements slog.Handler.
func (d demoted) WithGroup(name string) slog.Handler { return demoted{d.Handler.WithGroup(name)} }
