package exhaust

import (
	"fmt"
	"strings"
)

// String tells in one line how far a walk has come.
func (r Report) String() string {
	end := "unfinished"
	switch {
	case r.Violation != nil:
		end = "violation"
	case r.Complete:
		end = "complete"
	}
	s := fmt.Sprintf("%s: %d states, %d transitions, depth %d, %d states of nodes, %d messages, %d steps", end, r.States, r.Transitions, r.Depth, r.Nodes, r.Messages, r.Steps)
	if r.Healed > 0 {
		s += fmt.Sprintf(", %d healed in at most %d actions", r.Healed, r.HealSteps)
	}
	return s
}

// String tells a violation with its path.
func (v *Violation) String() string {
	if v == nil {
		return "none"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n", v.What, v.Why)
	for i, s := range v.Path {
		if i == len(v.Path)-v.Healing {
			fmt.Fprintln(&b, "    without faults from here on:")
		}
		fmt.Fprintf(&b, "%4d  %s\n", i+1, s)
	}
	return b.String()
}
