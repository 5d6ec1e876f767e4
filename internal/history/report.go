package history

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Rule says which promise a violation breaks.
type Rule string

const (
	// NotLinearizable: no order of the key's operations explains the answers.
	NotLinearizable Rule = "not linearizable"
	// Lost: an acknowledged element is not there.
	Lost Rule = "lost"
	// Doubled: an element, or a sequence number, is there twice.
	Doubled Rule = "doubled"
	// Phantom: there is something that nobody wrote, or that was refused.
	Phantom Rule = "phantom"
	// OutOfOrder: a sequence number is not above one acknowledged before.
	OutOfOrder Rule = "out of order"
)

// Violation is one broken promise, with everything recorded about its key.
type Violation struct {
	Rule   Rule
	Key    string
	Detail string // one sentence with the values that matter
	Events []Event
}

// String returns "rule: key: detail".
func (v Violation) String() string { return fmt.Sprintf("%s: %q: %s", v.Rule, v.Key, v.Detail) }

// Report is what Check found.
type Report struct {
	Operations, OK, Unknown, Refused int // Unknown includes calls still open
	Keys, Lists                      int
	Violations                       []Violation
	// Undecided names what could not be judged, and why: time ran out, or the
	// workload breaks what the check needs.
	Undecided []string
}

// String sums the report up in one line.
func (r Report) String() string {
	return fmt.Sprintf("%d operations on %d keys and %d lists: %d ok, %d unknown, %d refused; %d violations, %d undecided",
		r.Operations, r.Keys, r.Lists, r.OK, r.Unknown, r.Refused, len(r.Violations), len(r.Undecided))
}

// Err returns nil if everything was judged and nothing was violated. Undecided
// is not good enough: a check that did not finish has shown nothing.
func (r Report) Err() error {
	const shown = 10
	var lines []string
	for _, v := range r.Violations {
		lines = append(lines, v.String())
	}
	for _, u := range r.Undecided {
		lines = append(lines, "undecided: "+u)
	}
	if len(lines) == 0 {
		return nil
	}
	if n := len(lines); n > shown {
		lines = append(lines[:shown], fmt.Sprintf("and %d more", n-shown))
	}
	return errors.New(r.String() + "\n" + strings.Join(lines, "\n"))
}

// Dump writes the operations of every violated key as NDJSON, one Event a
// line, keys one after the other.
func (r Report) Dump(w io.Writer) error {
	dumped := map[string]bool{}
	for _, v := range r.Violations {
		if dumped[v.Key] {
			continue
		}
		dumped[v.Key] = true
		if err := writeEvents(w, v.Events); err != nil {
			return err
		}
	}
	return nil
}

// Dump writes the whole history as NDJSON, one Event a line.
func (h *History) Dump(w io.Writer) error { return writeEvents(w, h.Events()) }

func writeEvents(w io.Writer, events []Event) error {
	out := bufio.NewWriter(w)
	enc := json.NewEncoder(out)
	for i := range events {
		if err := enc.Encode(&events[i]); err != nil {
			return fmt.Errorf("encode event %d: %w", i, err)
		}
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write history: %w", err)
	}
	return nil
}

// Load reads a dump back, to judge it again.
func Load(r io.Reader) (*History, error) {
	h := New()
	dec := json.NewDecoder(r)
	for {
		var e Event
		err := dec.Decode(&e)
		if errors.Is(err, io.EOF) {
			return h, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read event %d: %w", len(h.calls), err)
		}
		h.clock = max(h.clock, e.Called, e.Ended)
		h.calls = append(h.calls, &Call{h: h, e: e})
	}
}
