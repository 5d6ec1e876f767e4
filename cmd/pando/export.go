package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"pando.dev/pando/actors/httpapi"
	"pando.dev/pando/cmd/pando/internal/bulk"
	"pando.dev/pando/partition"
)

// exportFlags are the flags of pando export.
type exportFlags struct {
	lo, hi, prefix, encoding string
	to                       string
	level                    string
	raw, quiet               bool
}

func (c *cli) exportCommand() *cobra.Command {
	var e exportFlags
	cmd := &cobra.Command{
		Use: "export <table>", Short: "Write a table in key order", Args: cobra.ExactArgs(1),
		Long: "Writes each pair as a line of JSON, which pando load --format export reads again, or\n" +
			"with --raw each value as a line. Writes that happen meanwhile may or may not be seen.",
		Example: "  pando export words --to words.jsonl\n  pando export words --raw | wc -l",
		RunE:    func(cmd *cobra.Command, args []string) error { return c.export(cmd, args[0], e) },
	}
	f := cmd.Flags()
	f.StringVar(&e.to, "to", "", "file to write (default: the standard output)")
	f.BoolVar(&e.raw, "raw", false, "write values only, one per line")
	f.StringVar(&e.lo, "lo", "", "first key")
	f.StringVar(&e.hi, "hi", "", "first key behind the range")
	f.StringVar(&e.prefix, "prefix", "", "keys that begin with this")
	f.StringVar(&e.level, "level", "lease", "lease; quorum to not rely on clocks; stale to read at any replica, from an earlier state")
	f.BoolVarP(&e.quiet, "quiet", "q", false, "show no progress")
	encodingFlag(cmd, &e.encoding)
	return cmd
}

// exportReport is what an export came to.
type exportReport struct {
	bulk.Exportation
	To      string  `json:"to"`
	Seconds float64 `json:"seconds"`
}

func (c *cli) export(cmd *cobra.Command, table string, e exportFlags) (err error) {
	r, err := scanRange(e.encoding, e.lo, e.hi, e.prefix)
	if err != nil {
		return err
	}
	out := c.out
	if e.to != "" {
		f, err := newFile(e.to)
		if err != nil {
			return err
		}
		defer func() { err = f.finish(err) }()
		out = f.file
	}
	target, err := c.openTable(cmd, table)
	if err != nil {
		return err
	}
	defer target.client.Close()
	began := time.Now()
	show := c.newMeter("export "+table, -1, e.quiet || e.to == "" && isTerminal(c.out))
	done, err := bulk.Export(cmd.Context(), bulk.ExportConfig{
		To: out, Range: r, Raw: e.raw,
		Scan:   pages(target.store, table, httpapi.Level(e.level)),
		OnPage: func(x bulk.Exportation) { show.set(x.Bytes, x.Pairs) },
	})
	show.end()
	if err != nil || e.to == "" {
		return err
	}
	rep := exportReport{done, e.to, time.Since(began).Seconds()}
	return c.show(rep, func(w io.Writer) {
		fmt.Fprintf(w, "exported %d pairs (%s) to %s in %.1f s\n", done.Pairs, byteText(done.Bytes), e.to, rep.Seconds)
	})
}

// pagePatience bounds one page of an export; it must outlast a failover.
const pagePatience = time.Minute

func pages(s httpapi.Store, table string, level httpapi.Level) bulk.Scan {
	return func(ctx context.Context, r partition.KeyRange, limit int) ([]httpapi.KV, bool, error) {
		ctx, cancel := context.WithTimeout(ctx, pagePatience)
		defer cancel()
		part, err := s.Scan(ctx, table, r, limit, httpapi.ReadOptions{Level: level})
		return part.Pairs, part.More, err
	}
}

// newFileAt is a file that appears under its name only when it is whole.
type wholeFile struct {
	file *os.File
	name string
}

func newFile(name string) (*wholeFile, error) {
	f, err := os.OpenFile(name+".partial", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	return &wholeFile{f, name}, nil
}

// finish gives the file its name, or removes it if err says that it is not
// whole. It returns the first error.
func (w *wholeFile) finish(err error) error {
	if err == nil {
		err = w.file.Sync()
	}
	err = errors.Join(err, w.file.Close())
	if err != nil {
		return errors.Join(err, os.Remove(w.file.Name()))
	}
	return os.Rename(w.file.Name(), w.name)
}
