package logline

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"
)

const (
	// repeatAfter is how long a line is held back after an equal one.
	repeatAfter = 10 * time.Second
	// maxRemembered bounds the lines remembered for that.
	maxRemembered = 64
	// maxLineBytes bounds a line; the rest of a longer one is dropped.
	maxLineBytes = 1024
)

// Writer is what such a library logs to. It may be used by any number of
// goroutines.
type Writer struct {
	log    *slog.Logger
	source string
	levels map[string]slog.Level

	mu   sync.Mutex
	seen map[string]time.Time
}

// New returns a Writer. Levels maps the library's names of levels to ours; a
// line with any other goes to Debug. An error of a library is seldom one of
// ours, so a caller may well map ERR to Warn.
func New(log *slog.Logger, source string, levels map[string]slog.Level) *Writer {
	return &Writer{log: log, source: source, levels: levels, seen: map[string]time.Time{}}
}

// Write logs the lines in p.
func (w *Writer) Write(p []byte) (int, error) {
	for line := range bytes.Lines(p) {
		if line = bytes.TrimSpace(line); len(line) > 0 {
			w.line(string(line[:min(len(line), maxLineBytes)]))
		}
	}
	return len(p), nil
}

func (w *Writer) line(s string) {
	name, message := Parse(s)
	level, ok := w.levels[name]
	if !ok {
		level = slog.LevelDebug
	}
	if level > slog.LevelDebug && w.repeated(message) {
		level = slog.LevelDebug
	}
	w.log.Log(context.Background(), level, "library message", "source", w.source, "message", message)
}

// repeated reports whether the message was logged a short while ago.
func (w *Writer) repeated(message string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if last, ok := w.seen[message]; ok && now.Sub(last) < repeatAfter {
		return true
	}
	if len(w.seen) >= maxRemembered {
		clear(w.seen)
	}
	w.seen[message] = now
	return false
}

// Parse returns the level in brackets and what follows it. A line without one
// is all message.
func Parse(s string) (level, message string) {
	open := strings.IndexByte(s, '[')
	if open < 0 || open > 40 {
		return "", s
	}
	level, message, ok := strings.Cut(s[open+1:], "]")
	if !ok || len(level) == 0 || len(level) > 5 || strings.ToUpper(level) != level {
		return "", s
	}
	return level, strings.TrimSpace(message)
}
