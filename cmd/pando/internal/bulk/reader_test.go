package bulk

import (
	"bytes"
	"encoding/csv"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"pando.dev/pando/partition"
)

// readAll reads an input to its end; bad records become their error's text.
func readAll(t rapid.TB, input string, f Format) (items []Item, bad []string) {
	t.Helper()
	f, err := f.Resolve("input.txt")
	if err != nil {
		t.Fatal(err)
	}
	r, err := NewReader(strings.NewReader(input), f)
	if err != nil {
		t.Fatal(err)
	}
	for {
		item, err := r.Next()
		var b *BadRecordError
		switch {
		case errors.Is(err, io.EOF):
			return items, bad
		case errors.As(err, &b):
			bad = append(bad, b.Error())
		case err != nil:
			t.Fatal(err)
		default:
			items = append(items, item)
		}
	}
}

// TestFormats is the table of formats: what key and value each record gives.
func TestFormats(t *testing.T) {
	for _, c := range []struct {
		name   string
		format Format
		input  string
		want   string // key=value, separated by |
		bad    string // part of the only bad record's error
	}{
		{"a word list", Format{}, "apple\nA's\n\nzebra", "apple=apple|A's=A's|zebra=zebra", ""},
		{"carriage returns stay", Format{Delimiter: ';'}, "a;1\r\nb;2\r\n", "a=a;1\r|b=b;2\r", ""},
		{"semicolons and a quote", Format{Delimiter: ';', Key: "0"}, "0022;\"QUOTE\n0041;A;Lu\n", "0022=0022;\"QUOTE|0041=0041;A;Lu", ""},
		{"another column", Format{Delimiter: ';', Key: "1"}, "x;k;y\n", "k=x;k;y", ""},
		{"some columns", Format{Name: TSV, Key: "0", Value: []string{"2", "1"}}, "k\tone\ttwo\n", "k=two\tone", ""},
		{"names of columns", Format{Name: CSV, Key: "id", Value: []string{"name"}}, "id,name\n7,Ann\n8,\"B, b\"\n", "7=Ann|8=B, b", ""},
		{"header and numbers", Format{Name: CSV, Header: true}, "id,name\n7,Ann\n", "7=7,Ann", ""},
		{"quotes over lines", Format{Name: CSV}, "\"a\nb\",1\nc,2\n", "a\nb=\"a\nb\",1|c=c,2", ""},
		{"doubled quotes", Format{Name: CSV}, "\"say \"\"hi\"\"\",1\n", "say \"hi\"=\"say \"\"hi\"\"\",1", ""},
		{"a quote inside a field", Format{Name: CSV}, "5\" disk,1\nb,2\n", "5\" disk=5\" disk,1|b=b,2", ""},
		{"JSON", Format{Name: JSONL, Key: "id"}, `{"id":"x","n":1}` + "\n", `x={"id":"x","n":1}`, ""},
		{"JSON number as key", Format{Name: JSONL, Key: "id", Value: []string{"v"}}, `{"id":7,"v":"text"}`, "7=text", ""},
		{"JSON fields", Format{Name: JSONL, Key: "id", Value: []string{"b", "a"}}, `{"id":7,"a":1,"b":2,"c":3}`, `7={"a":1,"b":2}`, ""},
		{"an export", Format{Name: Exported}, `{"key":"k","value":"v"}` + "\n" + `{"key64":"/w==","value":"","value64":"AP8="}`, "k=v|\xff=\x00\xff", ""},
		{"no such column", Format{Delimiter: ',', Key: "2"}, "a,b\nc,d,e\n", "e=c,d,e", "line 1: no column 2, the record has 2"},
		{"empty key", Format{Delimiter: ','}, ",b\n", "", "line 1: the key is empty"},
		{"open quote", Format{Name: CSV}, "a,1\n\"b,2\n", "a=a,1", "line 2: a quoted field does not end"},
		{"text behind a quote", Format{Name: CSV}, "\"a\"b,2\n", "", "line 1: text behind a quoted field"},
		{"no JSON", Format{Name: JSONL, Key: "id"}, "{\n", "", "line 1: not a JSON object"},
		{"no such field", Format{Name: JSONL, Key: "id"}, "{}\n", "", `line 1: no field "id"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			items, bad := readAll(t, c.input, c.format)
			var got []string
			for _, i := range items {
				got = append(got, string(i.Key)+"="+string(i.Value))
			}
			if s := strings.Join(got, "|"); s != c.want {
				t.Errorf("got %q, want %q", s, c.want)
			}
			if (len(bad) == 1) != (c.bad != "") || len(bad) == 1 && !strings.Contains(bad[0], c.bad) {
				t.Errorf("bad records %q, want %q", bad, c.bad)
			}
		})
	}
}

// TestUnusableFormats: what cannot work is refused before anything is read.
func TestUnusableFormats(t *testing.T) {
	for _, f := range []Format{
		{Name: "xml"}, {Name: JSONL}, {Key: "1"}, {Name: Delimited}, {Name: CSV, Delimiter: '"'}, {Name: Exported, Value: []string{"v"}},
	} {
		if _, err := f.Resolve("x"); partition.CodeOf(err) != partition.CodeInvalid {
			t.Errorf("%+v: %v", f, err)
		}
	}
	f, err := Format{Name: CSV, Key: "nom"}.Resolve("x")
	if err != nil {
		t.Fatal(err)
	}
	r, err := NewReader(strings.NewReader("id,name\n1,a\n"), f)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Next(); partition.CodeOf(err) != partition.CodeInvalid || !strings.Contains(err.Error(), "id, name") {
		t.Errorf("a column that is not there: %v", err)
	}
	for _, s := range []string{";;", "é", "ab"} {
		if _, err := ParseDelimiter(s); partition.CodeOf(err) != partition.CodeInvalid {
			t.Errorf("delimiter %q: %v", s, err)
		}
	}
}

// TestResumeWithHeader: the columns' names are known behind a mark, too.
func TestResumeWithHeader(t *testing.T) {
	f, err := Format{Name: CSV, Key: "id", Value: []string{"name"}}.Resolve("")
	if err != nil {
		t.Fatal(err)
	}
	r, err := Resume(strings.NewReader("name,id\nAnn,1\nBob,2\n"), f, Mark{Offset: 14, Line: 3})
	if err != nil {
		t.Fatal(err)
	}
	item, err := r.Next()
	if err != nil || string(item.Key) != "2" || string(item.Value) != "Bob" || item.Line != 3 || item.End != 20 {
		t.Fatalf("%+v %v", item, err)
	}
}

// TestFormatByName: the name decides when nothing is said.
func TestFormatByName(t *testing.T) {
	for name, want := range map[string]string{"a.csv": CSV, "A.TSV": TSV, "x.txt": Lines, "words": Lines} {
		f, err := Format{}.Resolve(name)
		if err != nil || f.Name != want {
			t.Errorf("%s: %s %v", name, f.Name, err)
		}
	}
	if f, err := (Format{Key: "id"}).Resolve("a.ndjson"); err != nil || f.Name != JSONL {
		t.Errorf("%+v %v", f, err)
	}
}

// TestLongRecord: a record over the limit is an error with its line.
func TestLongRecord(t *testing.T) {
	r, err := NewReader(io.MultiReader(strings.NewReader("a\n"), strings.NewReader(strings.Repeat("x", MaxRecordBytes+1))), Format{Name: Lines})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Next(); partition.CodeOf(err) != partition.CodeTooLarge || !strings.Contains(err.Error(), "line 2") {
		t.Fatalf("%v", err)
	}
}

// TestPropertyCSV: what another writer of CSV wrote is read as the same fields,
// the values together are the input, and reading can go on behind any item.
func TestPropertyCSV(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		field := rapid.StringOf(rapid.SampledFrom([]rune{'a', '"', ',', '\n', ' ', 'é', ';'}))
		rows := rapid.SliceOfN(rapid.SliceOfN(field, 2, 4), 1, 8).Draw(t, "rows")
		var buf bytes.Buffer
		w := csv.NewWriter(&buf)
		for i := range rows {
			rows[i][0] = "k" + rows[i][0] // never empty
			if err := w.Write(rows[i]); err != nil {
				t.Fatal(err)
			}
		}
		w.Flush()
		items, bad := readAll(t, buf.String(), Format{Name: CSV})
		if len(items) != len(rows) || len(bad) != 0 {
			t.Fatalf("%d items and %q of %d rows in %q", len(items), bad, len(rows), buf.String())
		}
		var whole []byte
		for i, item := range items {
			if string(item.Key) != rows[i][0] {
				t.Fatalf("row %d: key %q, want %q", i, item.Key, rows[i][0])
			}
			whole = append(append(whole, item.Value...), '\n')
			if item.End != int64(len(whole)) {
				t.Fatalf("row %d ends at %d, want %d", i, item.End, len(whole))
			}
		}
		if !bytes.Equal(whole, buf.Bytes()) {
			t.Fatalf("values %q, input %q", whole, buf.Bytes())
		}
		at := rapid.IntRange(0, len(items)-1).Draw(t, "resume behind")
		rest, _ := readFrom(t, buf.Bytes(), items[at].End)
		if !slices.EqualFunc(rest, items[at+1:], func(a, b Item) bool { return bytes.Equal(a.Value, b.Value) && a.End == b.End }) {
			t.Fatalf("behind item %d: %d items, want %d", at, len(rest), len(items)-at-1)
		}
	})
}

func readFrom(t rapid.TB, input []byte, offset int64) (items []Item, err error) {
	f, err := Format{Name: CSV}.Resolve("")
	if err != nil {
		t.Fatal(err)
	}
	r, err := Resume(bytes.NewReader(input), f, Mark{Offset: offset, Line: 1})
	if err != nil {
		t.Fatal(err)
	}
	for {
		item, err := r.Next()
		if err != nil {
			return items, err
		}
		items = append(items, item)
	}
}

// FuzzReader: no input makes the reader fail in another way than by its errors.
func FuzzReader(f *testing.F) {
	f.Add("a,b\n\"c\"\"\n\",d\n", byte(','))
	f.Add("{\"id\":1}\n{", byte(0))
	f.Fuzz(func(t *testing.T, input string, delimiter byte) {
		for _, x := range []Format{{Name: Lines}, {Name: CSV, Delimiter: delimiter}, {Name: Delimited, Delimiter: delimiter}, {Name: JSONL, Key: "id"}, {Name: Exported}} {
			if _, err := x.Resolve(""); err != nil {
				continue
			}
			items, _ := readAll(t, input, x)
			for _, i := range items {
				if len(i.Key) == 0 || i.End > int64(len(input)) {
					t.Fatalf("%+v of %q", i, input)
				}
			}
		}
	})
}
