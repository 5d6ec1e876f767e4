package placement

import (
	"fmt"
	"strings"
)

// String writes an operator in one line, as plan show does.
func (o Operator) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-9s %-8s %s", o.Mode, o.Kind, o.Group)
	if o.Replica != 0 {
		fmt.Fprintf(&b, " replica %d", o.Replica)
	}
	if o.From != "" {
		fmt.Fprintf(&b, " %s", o.From)
	}
	fmt.Fprintf(&b, " -> %s", o.To)
	if o.Kind.copies() {
		fmt.Fprintf(&b, "  %s", bytesText(o.Bytes))
	}
	fmt.Fprintf(&b, "  (range %d, membership %d)  %s", o.Range, o.Membership, o.Why)
	return b.String()
}

// String writes the dimensions that count, in brackets those that do not.
func (b Balance) String() string {
	var parts []string
	for d := range Dims {
		if b.Max[d] == 0 {
			continue
		}
		text := fmt.Sprintf("%s %.3f", d, b.Max[d])
		if !b.Active[d] {
			text = "(" + text + ")"
		}
		parts = append(parts, text)
	}
	if len(parts) == 0 {
		return "nothing there"
	}
	return strings.Join(parts, ", ")
}

// String writes an impossibility in one line.
func (x Impossible) String() string {
	var b strings.Builder
	if x.Node != "" {
		fmt.Fprintf(&b, "%s: ", x.Node)
	}
	switch {
	case x.Count > 1 && x.Group != 0:
		fmt.Fprintf(&b, "%d groups (%s and others): ", x.Count, x.Group)
	case x.Group != 0:
		fmt.Fprintf(&b, "%s: ", x.Group)
	}
	return b.String() + x.Why
}

// Summary writes what the plan is about in a few lines.
func (p *Plan) Summary() string {
	var b strings.Builder
	var count [OpAdd + 1]int
	for i := range p.Operators {
		count[p.Operators[i].Kind]++
	}
	if len(p.Operators) == 0 {
		b.WriteString("nothing to do\n")
	} else {
		fmt.Fprintf(&b, "%d operators: %d moves, %d of them with the mastership, %d added replicas, %d transfers\n",
			len(p.Operators), count[OpMove]+count[OpSwap], count[OpSwap], count[OpAdd], count[OpTransfer])
	}
	for m := range Modes {
		if p.Moved[m] > 0 || p.Least[m] > 0 {
			fmt.Fprintf(&b, "%-9s copies %s, the least possible is %s\n", m, bytesText(p.Moved[m]), bytesText(p.Least[m]))
		}
	}
	fmt.Fprintf(&b, "fullest node over its share, now: %s\n", p.Before)
	if len(p.Operators) > 0 {
		fmt.Fprintf(&b, "fullest node over its share, after: %s\n", p.After)
	}
	if p.Full {
		b.WriteString("the plan is as long as allowed; plan again when it is done\n")
	}
	for _, x := range p.Impossible {
		fmt.Fprintf(&b, "impossible: %s\n", x)
	}
	return b.String()
}

// Text writes the whole plan: the summary, then every operator in order.
func (p *Plan) Text() string {
	var b strings.Builder
	b.WriteString(p.Summary())
	for i := range p.Operators {
		fmt.Fprintf(&b, "%4d %s\n", i+1, p.Operators[i])
	}
	return b.String()
}

// bytesText writes an amount in the largest unit in which it is at least one.
func bytesText(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	x, u := float64(n), 0
	for x >= 1024 && u < len(units)-1 {
		x, u = x/1024, u+1
	}
	if u == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", x, units[u])
}
