package logline

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for line, want := range map[string][2]string{
		"2026/11/20 10:00:00 [ERR] memberlist: no":                {"ERR", "memberlist: no"},
		"2026-11-20T10:00:00.000Z [WARN]  raft: lost: peer=[a b]": {"WARN", "raft: lost: peer=[a b]"},
		"no level":      {"", "no level"},
		"[a b] c":       {"", "[a b] c"},
		"[] c":          {"", "[] c"},
		"[TOOLONG] c":   {"", "[TOOLONG] c"},
		"unclosed [ERR": {"", "unclosed [ERR"},
	} {
		if level, message := Parse(line); level != want[0] || message != want[1] {
			t.Errorf("%q: %q, %q", line, level, message)
		}
	}
}

func TestLevelsAndRepetition(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelInfo}))
	w := New(log, "lib", map[string]slog.Level{"ERR": slog.LevelWarn})
	for range 5 {
		if n, err := w.Write([]byte("[ERR] it broke\n[INFO] chatter\n\n")); n != 31 || err != nil {
			t.Fatal(n, err)
		}
	}
	for i := range 2 * maxRemembered {
		w.Write([]byte("[ERR] another " + strings.Repeat("x", i) + "\n"))
	}
	text := out.String()
	if n := strings.Count(text, "it broke"); n != 1 {
		t.Errorf("a repeated line was logged %d times", n)
	}
	if strings.Contains(text, "chatter") || !strings.Contains(text, "level=WARN") || !strings.Contains(text, "source=lib") {
		t.Error(text)
	}
	if len(w.seen) > maxRemembered {
		t.Errorf("%d lines remembered", len(w.seen))
	}
}
