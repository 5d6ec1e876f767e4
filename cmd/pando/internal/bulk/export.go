package bulk

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"

	"pando.dev/pando/actors/httpapi"
	"pando.dev/pando/partition"
)

// Scan returns pairs of the range in order, and whether there are more behind
// the last one. It retries by itself until ctx ends.
type Scan func(ctx context.Context, r partition.KeyRange, limit int) (pairs []httpapi.KV, more bool, err error)

// ExportConfig says what to export and how. Scan and To are required.
type ExportConfig struct {
	Scan  Scan
	To    io.Writer
	Range partition.KeyRange
	// Raw writes each value and a line end; otherwise each pair is a line of
	// JSON that loads again with format export.
	Raw bool
	// Page is how many pairs are asked for at once (default 1,000).
	Page int
	// OnPage, if set, is told how much is written so far.
	OnPage func(Exportation)
}

// Exportation is how much was written.
type Exportation struct {
	Pairs int64 `json:"pairs"`
	Bytes int64 `json:"bytes"`
}

// Export writes the pairs of a range in key order. Each page is one consistent
// state, the whole is not: writes during the export may or may not be seen.
func Export(ctx context.Context, cfg ExportConfig) (Exportation, error) {
	if cfg.Page <= 0 {
		cfg.Page = 1000
	}
	var done Exportation
	out := bufio.NewWriterSize(cfg.To, 256<<10)
	for r := cfg.Range; ; {
		pairs, more, err := cfg.Scan(ctx, r, cfg.Page)
		if err != nil {
			return done, fmt.Errorf("export from key %q on: %w", r.Lo, err)
		}
		for _, p := range pairs {
			done.Bytes += writePair(out, p, cfg.Raw)
		}
		if err := out.Flush(); err != nil {
			return done, fmt.Errorf("write the export: %w", err)
		}
		done.Pairs += int64(len(pairs))
		if cfg.OnPage != nil {
			cfg.OnPage(done)
		}
		if !more || len(pairs) == 0 {
			return done, nil
		}
		last := pairs[len(pairs)-1].Key
		r.Lo = append(append(make([]byte, 0, len(last)+1), last...), 0)
	}
}

// writePair writes a pair and returns how long it is. The writer keeps its first
// error until it is flushed.
func writePair(w *bufio.Writer, p httpapi.KV, raw bool) int64 {
	line := p.Value
	if !raw {
		line, _ = json.Marshal(httpapi.NewPair(p.Key, p.Value, "")) // text and bytes always encode
	}
	w.Write(line)
	w.WriteByte('\n')
	return int64(len(line)) + 1
}
