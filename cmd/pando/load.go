package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"pando.dev/pando/actors/httpapi"
	"pando.dev/pando/cmd/pando/internal/bulk"
	"pando.dev/pando/partition"
)

// loadFlags are the flags of pando load.
type loadFlags struct {
	format    bulk.Format
	delimiter string
	progress  string
	restart   bool
	quiet     bool
	run       bulk.LoadConfig
}

func (c *cli) loadCommand() *cobra.Command {
	var l loadFlags
	cmd := &cobra.Command{
		Use: "load <table> <file>", Short: "Load a file into a table", Args: cobra.ExactArgs(2),
		Long: "Stores every record of a file (- is the standard input). The record is the value, byte\n" +
			"for byte, unless --value names columns or fields. Without a format, a line is key and\n" +
			"value. What has been stored is kept in a progress file: after an interruption the same\n" +
			"command goes on where it was. Of records with the same key the last one wins.",
		Example: "  pando load words /usr/share/dict/words\n" +
			"  pando load chars UnicodeData.txt --delimiter ';' --key 0\n" +
			"  pando load books books.csv --key title\n" +
			"  pando load events events.jsonl --key id --value body",
		RunE: func(cmd *cobra.Command, args []string) error { return c.load(cmd, args[0], args[1], l) },
	}
	f := cmd.Flags()
	f.StringVar(&l.format.Name, "format", "", "lines, csv, tsv, delimited, jsonl or export (default: by the file's name)")
	f.StringVar(&l.delimiter, "delimiter", "", "character between columns, such as ';'; tab for a tab")
	f.StringVar(&l.format.Key, "key", "", "column (by number from 0, or by name) or JSON field that is the key")
	f.StringSliceVar(&l.format.Value, "value", nil, "columns or fields that are the value (default: the whole record)")
	f.BoolVar(&l.format.Header, "header", false, "the first record names the columns and is not loaded")
	f.IntVar(&l.run.Workers, "in-flight", 128, "writes under way at once")
	f.DurationVar(&l.run.Patience, "patience", time.Minute, "how long one record is tried before the load gives up")
	f.BoolVar(&l.run.SkipBad, "skip-bad", false, "count records without a key instead of ending")
	f.StringVar(&l.progress, "progress", "", "progress file (default: <file's name>.<table>.pando-load here)")
	f.BoolVar(&l.restart, "restart", false, "start over, whatever the progress file says")
	f.BoolVarP(&l.quiet, "quiet", "q", false, "show no progress")
	return cmd
}

func (c *cli) load(cmd *cobra.Command, table, file string, l loadFlags) error {
	var err error
	if l.format.Delimiter, err = bulk.ParseDelimiter(l.delimiter); err != nil {
		return err
	}
	if l.format, err = l.format.Resolve(file); err != nil {
		return err
	}
	if l.run.Workers < 1 || l.run.Workers > maxInFlight {
		return &usageError{fmt.Errorf("--in-flight %d is not from 1 to %d", l.run.Workers, maxInFlight)}
	}
	in, size, err := c.openInput(file)
	if err != nil {
		return err
	}
	defer in.Close()
	target, err := c.openTable(cmd, table)
	if err != nil {
		return err
	}
	defer target.client.Close()
	job := &loadJob{cli: c, flags: l, table: table, file: file, size: size, target: target}
	if err := job.open(in); err != nil {
		return err
	}
	return job.run(cmd.Context())
}

// maxInFlight keeps a load within the sessions that a client may have.
const maxInFlight = 1024

// openInput opens the file to load; the size of the standard input is not known
// and -1.
func (c *cli) openInput(file string) (io.ReadCloser, int64, error) {
	if file == "-" {
		return io.NopCloser(c.in), -1, nil
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a file; give - to read the standard input", file)
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, info.Size(), nil
}

// loadJob is one load: from the input, over the table, to the report.
type loadJob struct {
	cli         *cli
	flags       loadFlags
	table, file string
	size        int64
	target      *bulkTarget

	progress bulk.Progress // what this load is; Mark is where it went on from
	source   *bulk.Reader
}

// resumable reports whether the load can go on in the middle of its input.
func (j *loadJob) resumable() bool { return j.size >= 0 }

// open finds out where to begin.
func (j *loadJob) open(in io.Reader) (err error) {
	if !j.resumable() {
		j.source, err = bulk.NewReader(in, j.flags.format)
		return err
	}
	path, err := filepath.Abs(j.file)
	if err != nil {
		return fmt.Errorf("find %s: %w", j.file, err)
	}
	j.progress = bulk.Progress{
		Cluster: j.target.cluster, Table: j.table, Group: j.target.group, Input: path, Size: j.size, Format: j.flags.format,
	}
	if j.flags.progress == "" {
		j.flags.progress = filepath.Base(j.file) + "." + j.table + ".pando-load"
	}
	if !j.flags.restart {
		old, ok, err := bulk.ReadProgress(j.flags.progress)
		if err != nil {
			return err
		}
		if ok {
			if err := old.Continues(j.progress); err != nil {
				return err
			}
			j.progress.Mark = old.Mark
		}
	}
	j.source, err = bulk.Resume(in.(io.ReadSeeker), j.flags.format, j.progress.Mark)
	return err
}

// loadReport is what a load came to.
type loadReport struct {
	Loaded           int64   `json:"loaded"` // all, those before an interruption included
	Bytes            int64   `json:"bytes"`
	Bad              int64   `json:"bad"`
	ResumedFromLine  int64   `json:"resumed_from_line,omitempty"`
	Seconds          float64 `json:"seconds"`
	RecordsPerSecond float64 `json:"records_per_second"`
}

func (j *loadJob) run(ctx context.Context) error {
	began, from := time.Now(), j.progress.Mark
	show := j.cli.newMeter("load "+j.table, j.size, j.flags.quiet)
	cfg := j.flags.run
	cfg.Source, cfg.From = j.source, from
	cfg.Put = func(ctx context.Context, key, value []byte) error {
		_, err := j.target.store.Put(ctx, j.table, key, value, httpapi.Condition{})
		return err
	}
	saver := newSaver(j)
	cfg.OnMark = func(m bulk.Mark) {
		saver.set(m)
		show.set(m.Offset, m.Loaded)
	}
	mark, err := bulk.Load(ctx, cfg)
	show.end()
	if saveErr := saver.end(mark, err == nil); err == nil {
		err = saveErr
	}
	if err != nil {
		return j.stopped(mark, err)
	}
	r := loadReport{Loaded: mark.Loaded, Bytes: mark.Bytes, Bad: mark.Bad, ResumedFromLine: from.Line, Seconds: time.Since(began).Seconds()}
	r.RecordsPerSecond = float64(mark.Loaded-from.Loaded) / r.Seconds
	return j.cli.show(r, func(w io.Writer) {
		fmt.Fprintf(w, "loaded %d records (%s) in %.1f s: %.0f records/s\n", mark.Loaded-from.Loaded, byteText(mark.Bytes-from.Bytes), r.Seconds, r.RecordsPerSecond)
		if from.Line > 0 {
			fmt.Fprintf(w, "went on from line %d; %d records in all\n", from.Line, mark.Loaded)
		}
		if mark.Bad > 0 {
			fmt.Fprintf(w, "skipped %d bad records\n", mark.Bad)
		}
	})
}

// stopped says how to go on after an error.
func (j *loadJob) stopped(m bulk.Mark, err error) error {
	where := fmt.Sprintf("%d records are stored, everything before line %d", m.Loaded, m.Line)
	next := "run the same command again: it goes on there"
	if !j.resumable() {
		next = "run it again; storing a record twice does no harm"
	}
	code := partition.CodeOf(err)
	if errors.Is(err, context.Canceled) {
		return &partition.Error{Code: partition.CodeUnknown, Why: "interrupted: " + where, Next: next}
	}
	p := httpapi.ProblemOf(err)
	if code == partition.CodeInvalid {
		next = p.Next + "; then " + next
	}
	return &partition.Error{Code: code, Why: p.Why + "; " + where, Next: next}
}

func byteText(n int64) string {
	for _, u := range []struct {
		name string
		size int64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n >= u.size {
			return fmt.Sprintf("%.1f %s", float64(n)/float64(u.size), u.name)
		}
	}
	return fmt.Sprintf("%d B", n)
}
