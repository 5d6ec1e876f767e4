package bulk

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"unicode/utf8"

	"pando.dev/pando/actors/httpapi"
	"pando.dev/pando/partition"
)

// Names of the formats.
const (
	Lines     = "lines"     // the line is key and value
	CSV       = "csv"       // delimited, fields may be quoted
	TSV       = "tsv"       // delimited by tabs
	Delimited = "delimited" // delimited, a quote is a character like any other
	JSONL     = "jsonl"     // one JSON object per line
	Exported  = "export"    // what Export writes as JSONL
)

// Format says how an input is cut into records and where key and value are.
type Format struct {
	Name      string `json:"name"`
	Delimiter byte   `json:"delimiter,omitempty"`
	// Key is a column by number, from 0, or by name, or a JSON field.
	Key string `json:"key,omitempty"`
	// Value names columns or fields; empty means the whole record, byte for byte.
	Value []string `json:"value,omitempty"`
	// Header says that the first record names the columns.
	Header bool `json:"header,omitempty"`
}

// Resolve completes the format from the input's name and checks it.
func (f Format) Resolve(input string) (Format, error) {
	if f.Name == "" {
		f.Name = formatByName(input)
		if f.Delimiter != 0 && f.Name == Lines {
			f.Name = Delimited
		}
	}
	if f.Delimiter == 0 {
		f.Delimiter = map[string]byte{CSV: ',', TSV: '\t'}[f.Name]
	}
	switch f.Name {
	case Lines, Exported:
		if f.Key != "" || len(f.Value) > 0 {
			return f, bad("leave --key and --value out, or give --delimiter or --format", "format %s has neither columns nor fields", f.Name)
		}
	case CSV, TSV, Delimited:
		if f.Delimiter == 0 || f.Delimiter == '\n' || f.Delimiter == '"' {
			return f, bad("give one character, such as --delimiter ';'", "format %s has no usable delimiter", f.Name)
		}
		if f.Key == "" {
			f.Key = "0"
		}
		f.Header = f.Header || !isNumber(f.Key)
		for _, v := range f.Value {
			f.Header = f.Header || !isNumber(v)
		}
	case JSONL:
		if f.Key == "" {
			return f, bad("name the field that holds the key with --key", "a JSON record has no key of its own")
		}
	default:
		return f, bad("use lines, csv, tsv, delimited, jsonl or export", "format %q is unknown", f.Name)
	}
	return f, nil
}

func bad(next, format string, args ...any) error {
	return &partition.Error{Code: partition.CodeInvalid, Why: fmt.Sprintf(format, args...), Next: next}
}

func formatByName(input string) string {
	switch strings.ToLower(filepath.Ext(input)) {
	case ".csv":
		return CSV
	case ".tsv", ".tab":
		return TSV
	case ".jsonl", ".ndjson":
		return JSONL
	}
	return Lines
}

func isNumber(s string) bool {
	_, err := strconv.ParseUint(s, 10, 31)
	return err == nil
}

func (f Format) quotes() bool { return f.Name == CSV }

// cutter takes key and value out of a record. The results may alias it. why
// says what is wrong with the record, if anything.
type cutter func(raw []byte) (key, value []byte, why string)

// cutter returns the format's cutter; header is the record with the columns'
// names, or nil before it was read.
func (f Format) cutter(header []byte) (cutter, error) {
	switch f.Name {
	case Lines:
		return func(raw []byte) ([]byte, []byte, string) { return raw, raw, "" }, nil
	case JSONL:
		return f.cutJSON, nil
	case Exported:
		return cutExported, nil
	}
	if f.Header && header == nil {
		return nil, nil // Next makes it from the first record
	}
	return f.columns(header)
}

// columns returns the cutter of a delimited format.
func (f Format) columns(header []byte) (cutter, error) {
	var names []string
	if f.Header {
		fields, why := f.split(bytes.TrimSuffix(header, []byte("\r")))
		if why != "" {
			return nil, bad("", "the header: %s", why)
		}
		for _, x := range fields {
			names = append(names, string(x))
		}
	}
	find := func(column string) (int, error) {
		for i, n := range names {
			if n == column {
				return i, nil
			}
		}
		if n, err := strconv.ParseUint(column, 10, 31); err == nil {
			return int(n), nil
		}
		return 0, bad("the header has: "+strings.Join(names, ", "), "there is no column %q", column)
	}
	key, err := find(f.Key)
	if err != nil {
		return nil, err
	}
	var values []int
	for _, v := range f.Value {
		i, err := find(v)
		if err != nil {
			return nil, err
		}
		values = append(values, i)
	}
	return func(raw []byte) ([]byte, []byte, string) { return f.cutColumns(raw, key, values) }, nil
}

func (f Format) cutColumns(raw []byte, key int, values []int) (k, v []byte, why string) {
	fields, why := f.split(bytes.TrimSuffix(raw, []byte("\r")))
	if why != "" {
		return nil, nil, why
	}
	missing := func(i int) string {
		return fmt.Sprintf("no column %d, the record has %d (they count from 0)", i, len(fields))
	}
	if key >= len(fields) {
		return nil, nil, missing(key)
	}
	if len(values) == 0 {
		return fields[key], raw, ""
	}
	for n, i := range values {
		if i >= len(fields) {
			return nil, nil, missing(i)
		}
		if n > 0 {
			v = append(v, f.Delimiter)
		}
		v = append(v, fields[i]...)
	}
	return fields[key], v, ""
}

// split cuts a record at its delimiters; quoted fields lose their quotes.
func (f Format) split(raw []byte) (fields [][]byte, why string) {
	if !f.quotes() {
		return bytes.Split(raw, []byte{f.Delimiter}), ""
	}
	for {
		if len(raw) == 0 || raw[0] != '"' {
			field, rest, more := bytes.Cut(raw, []byte{f.Delimiter})
			fields = append(fields, field)
			if !more {
				return fields, ""
			}
			raw = rest
			continue
		}
		field, rest, ok := unquote(raw[1:])
		if !ok {
			return nil, "a quoted field does not end"
		}
		fields = append(fields, field)
		if len(rest) == 0 {
			return fields, ""
		}
		if rest[0] != f.Delimiter {
			return nil, "text behind a quoted field"
		}
		raw = rest[1:]
	}
}

// unquote reads a field up to its closing quote; doubled quotes are one.
func unquote(b []byte) (field, rest []byte, ok bool) {
	for {
		i := bytes.IndexByte(b, '"')
		if i < 0 {
			return nil, nil, false
		}
		field = append(field, b[:i]...)
		if i+1 >= len(b) || b[i+1] != '"' {
			return field, b[i+1:], true
		}
		field = append(field, '"')
		b = b[i+2:]
	}
}

func (f Format) cutJSON(raw []byte) (k, v []byte, why string) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		return nil, nil, "not a JSON object: " + err.Error()
	}
	key, ok := fields[f.Key]
	if !ok {
		return nil, nil, fmt.Sprintf("no field %q", f.Key)
	}
	k = plain(key)
	if len(f.Value) == 0 {
		return k, raw, ""
	}
	if len(f.Value) == 1 {
		if v, ok := fields[f.Value[0]]; ok {
			return k, plain(v), ""
		}
		return nil, nil, fmt.Sprintf("no field %q", f.Value[0])
	}
	some := make(map[string]json.RawMessage, len(f.Value))
	for _, name := range f.Value {
		x, ok := fields[name]
		if !ok {
			return nil, nil, fmt.Sprintf("no field %q", name)
		}
		some[name] = x
	}
	v, _ = json.Marshal(some) // each field was JSON already
	return k, v, ""
}

// plain is a JSON string without quotes and escapes, and anything else as it is.
func plain(raw json.RawMessage) []byte {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return []byte(s)
	}
	return raw
}

func cutExported(raw []byte) (k, v []byte, why string) {
	var p httpapi.Pair
	if err := json.Unmarshal(raw, &p); err != nil {
		return nil, nil, "not a line of an export: " + err.Error()
	}
	return p.KeyBytes(), p.ValueBytes(), ""
}

// ParseDelimiter reads a delimiter as a flag gives it: one character of one
// byte, or a name such as tab.
func ParseDelimiter(s string) (byte, error) {
	switch s {
	case "":
		return 0, nil
	case "tab", `\t`:
		return '\t', nil
	}
	if len(s) != 1 || s[0] >= utf8.RuneSelf {
		return 0, bad("give one ASCII character, or tab", "delimiter %q is not one character", s)
	}
	return s[0], nil
}
