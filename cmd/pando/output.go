package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"unicode"
	"unicode/utf8"

	"pando.dev/pando/partition"
)

// output is the standard output. It remembers the first error, so that a command
// whose answer did not get out, such as to a full disk, does not end as if it had.
type output struct {
	io.Writer
	mu  sync.Mutex
	err error
}

// Write implements io.Writer.
func (o *output) Write(b []byte) (int, error) {
	n, err := o.Writer.Write(b)
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil && err != nil {
		o.err = fmt.Errorf("write the output: %w", err)
	}
	return n, err
}

// failed is the first error.
func (o *output) failed() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// show prints v as JSON, or lets the caller print it for people.
func (c *cli) show(v any, table func(w io.Writer)) error {
	if c.output == "json" {
		raw, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			return fmt.Errorf("encode the output: %w", err)
		}
		_, err = fmt.Fprintf(c.out, "%s\n", raw)
		return err
	}
	w := tabwriter.NewWriter(c.out, 0, 8, 2, ' ', 0)
	table(w)
	return w.Flush()
}

// row writes one line of a table.
func row(w io.Writer, cells ...any) {
	for i, x := range cells {
		if i > 0 {
			fmt.Fprint(w, "\t")
		}
		fmt.Fprint(w, x)
	}
	fmt.Fprintln(w)
}

// dash stands for what is empty, so that columns stay columns.
func dash[T comparable](x T) any {
	var zero T
	if x == zero {
		return "-"
	}
	return x
}

// printable is a key or value as it is if it is plain text without blanks at its
// ends, and quoted otherwise.
func printable(b []byte) string {
	s := string(b)
	plain := utf8.ValidString(s) && s != "" && s == strings.TrimSpace(s) && s[0] != '"'
	for _, r := range s {
		plain = plain && (unicode.IsPrint(r) || r == ' ')
	}
	if plain {
		return s
	}
	return strconv.Quote(s)
}

// rangeText is a range as partition ls shows it.
func rangeText(lo, hi []byte) string {
	if len(lo) == 0 && len(hi) == 0 {
		return "all keys"
	}
	return partition.KeyRange{Lo: lo, Hi: hi}.String()
}

// isTerminal reports whether somebody looks at the stream.
func isTerminal(w io.Writer) bool {
	if o, wrapped := w.(*output); wrapped {
		w = o.Writer
	}
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}

// printJSONLine prints v as one line, for a command that prints many.
func (c *cli) printJSONLine(v any) {
	raw, err := json.Marshal(v)
	must(err) // only types of this package
	fmt.Fprintf(c.out, "%s\n", raw)
}
