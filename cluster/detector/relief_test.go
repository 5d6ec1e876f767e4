package detector

import (
	"strings"
	"testing"

	"pando.dev/pando/partition"
)

func TestRelief(t *testing.T) {
	slow := func(id partition.NodeID) Verdict {
		return Verdict{Claim: Claim{Kind: SlowDisk, Node: id}, Confirmed: true, Evidence: "31ms against 3ms"}
	}
	sick := Relief{Self: "n1", Verdicts: []Verdict{slow("n1")}, Nodes: 5, Sick: []partition.NodeID{"n1"}, Held: 50, Began: 50}
	for name, x := range map[string]struct {
		change func(*Relief)
		want   int
		why    string
	}{
		"a tenth":              {func(*Relief) {}, 5, "node n1 is sick (slow-disk): 31ms against 3ms"},
		"of what it had":       {func(r *Relief) { r.Held = 3 }, 3, "is sick"},
		"one at least":         {func(r *Relief) { r.Held, r.Began = 4, 4 }, 1, "is sick"},
		"not in the same min":  {func(r *Relief) { r.Held, r.Began, r.Moved = 3, 4, 1 }, 0, "1 masterships were handed over within a minute"},
		"the rest of a tenth":  {func(r *Relief) { r.Held, r.Moved = 47, 3 }, 2, "is sick"},
		"nothing left":         {func(r *Relief) { r.Held = 0 }, 0, "it has no masterships"},
		"observe":              {func(r *Relief) { r.Mode = Observe }, 0, "the mode is observe"},
		"off":                  {func(r *Relief) { r.Mode = Off }, 0, "the mode is off"},
		"another node":         {func(r *Relief) { r.Verdicts = []Verdict{slow("n2")} }, 0, ""},
		"one opinion":          {func(r *Relief) { r.Verdicts[0].Confirmed = false }, 0, ""},
		"it is over":           {func(r *Relief) { r.Verdicts[0].Until = 1 }, 0, ""},
		"a slow link":          {func(r *Relief) { r.Verdicts[0].Kind = SlowLink }, 0, ""},
		"a flapping node":      {func(r *Relief) { r.Verdicts[0].Kind = Flapping }, 0, ""},
		"one of three":         {func(r *Relief) { r.Nodes = 3 }, 5, "is sick"},
		"two of five":          {func(r *Relief) { r.Sick = append(r.Sick, "n4") }, 0, "2 of 5 nodes are sick, which no hand-over mends"},
		"the tag is not there": {func(r *Relief) { r.Sick = []partition.NodeID{"n4"} }, 0, "2 of 5 nodes are sick"},
	} {
		r := sick
		r.Verdicts = []Verdict{slow("n1")}
		x.change(&r)
		n, why := r.Now()
		if n != x.want || !strings.Contains(why, x.why) || x.why == "" && why != "" {
			t.Errorf("%s: %d, %q; want %d, %q", name, n, why, x.want, x.why)
		}
	}
}

func TestParseMode(t *testing.T) {
	for name, want := range map[string]Mode{"": Act, "act": Act, "observe": Observe, "off": Off} {
		if m, err := ParseMode(name); m != want || err != nil {
			t.Errorf("%q: %v, %v", name, m, err)
		}
	}
	if _, err := ParseMode("on"); err == nil {
		t.Error("on was taken")
	}
}
