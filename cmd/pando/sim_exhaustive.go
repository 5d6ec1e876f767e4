package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"pando.dev/pando/internal/planted"
	"pando.dev/pando/partition"
	"pando.dev/pando/sim/exhaust"
)

// exhaustiveStates is where a walk ends if it has not seen all by then; the memory
// that it takes grows with it, by some 50 bytes a state.
const exhaustiveStates = 2_000_000

// walkReport is what one walk has seen.
type walkReport struct {
	Name        string  `json:"name"`
	About       string  `json:"about"`
	States      uint64  `json:"states"`
	Transitions uint64  `json:"transitions"`
	Depth       int     `json:"depth"`
	Complete    bool    `json:"complete"`
	Seconds     float64 `json:"seconds"`
	Violation   string  `json:"violation,omitempty"`
}

// simExhaustive visits every state of small configurations of the protocol, one
// after the other, and ends at the first violation. What was seen until then, or
// until it was interrupted, is printed.
func (c *cli) simExhaustive(ctx context.Context, bugs planted.Set) error {
	var all []walkReport
	var failed error
	walks := exhaust.Walks()
	terminal := isTerminal(c.err)
	for i, w := range walks {
		if terminal {
			fmt.Fprintf(c.err, "\rwalk %d of %d, up to %d states: %s\x1b[K", i+1, len(walks), exhaustiveStates, w.Name)
		}
		var x walkReport
		if x, failed = walk(ctx, w, bugs); x.States > 0 {
			all = append(all, x)
		}
		if failed != nil {
			break
		}
	}
	if terminal {
		fmt.Fprint(c.err, "\r\x1b[K")
	}
	if err := c.show(all, func(out io.Writer) { printWalks(out, all) }); err != nil {
		return err
	}
	return failed
}

// walk takes one walk. The error is its violation, or that it was interrupted.
func walk(ctx context.Context, w exhaust.Named, bugs planted.Set) (walkReport, error) {
	conf := w.Config
	conf.Planted = bugs
	if conf.MaxStates == 0 || conf.MaxStates > exhaustiveStates {
		conf.MaxStates = exhaustiveStates
	}
	began := time.Now()
	r, err := exhaust.Walk(ctx, conf)
	x := walkReport{
		Name: w.Name, About: w.About, States: r.States, Transitions: r.Transitions, Depth: r.Depth,
		Complete: r.Complete, Seconds: time.Since(began).Seconds(),
	}
	if err != nil {
		return x, fmt.Errorf("walk %s: %w", w.Name, err)
	}
	v := r.Violation
	if v == nil {
		return x, nil
	}
	x.Violation = v.String()
	return x, &partition.Error{
		Code: partition.CodeInternal, Why: fmt.Sprintf("walk %s: %s: %s", w.Name, v.What, v.Why),
		Next: "the same command shows the same path again; sim/exhaust can make a Go test of it",
	}
}

func printWalks(out io.Writer, all []walkReport) {
	row(out, "WALK", "STATES", "TRANSITIONS", "DEPTH", "SECONDS", "COMPLETE", "ABOUT")
	var sum uint64
	for _, x := range all {
		complete := "no"
		if x.Complete {
			complete = "yes"
		}
		sum += x.States
		row(out, x.Name, fmt.Sprint(x.States), fmt.Sprint(x.Transitions), fmt.Sprint(x.Depth), fmt.Sprintf("%.1f", x.Seconds), complete, x.About)
	}
	row(out, "all", fmt.Sprint(sum), "", "", "", "", "")
	for _, x := range all {
		if x.Violation != "" {
			fmt.Fprintf(out, "\n%s\n%s\n", x.Name, x.Violation)
		}
	}
}
