package main

import (
	"context"
	"fmt"
	"io"
	"strings"
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
// after the other, and ends at the first violation.
func (c *cli) simExhaustive(ctx context.Context, bugs planted.Set) error {
	var all []walkReport
	var failed error
	for _, w := range exhaust.Walks() {
		conf := w.Config
		conf.Planted = bugs
		if conf.MaxStates == 0 || conf.MaxStates > exhaustiveStates {
			conf.MaxStates = exhaustiveStates
		}
		began := time.Now()
		r, err := exhaust.Walk(ctx, conf)
		if err != nil {
			return fmt.Errorf("walk %s: %w", w.Name, err)
		}
		x := walkReport{
			Name: w.Name, About: w.About, States: r.States, Transitions: r.Transitions, Depth: r.Depth,
			Complete: r.Complete, Seconds: time.Since(began).Seconds(),
		}
		if r.Violation != nil {
			x.Violation = r.Violation.String()
			failed = &partition.Error{Code: partition.CodeInternal, Why: fmt.Sprintf("walk %s: %s", w.Name, strings.TrimSpace(r.Violation.What+": "+r.Violation.Why))}
		}
		all = append(all, x)
		if failed != nil {
			break
		}
	}
	if err := c.show(all, func(out io.Writer) { printWalks(out, all) }); err != nil {
		return err
	}
	return failed
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
