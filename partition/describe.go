package partition

import (
	"fmt"
	"math/bits"
	"strings"
)

// inWords is a small number as a word.
func inWords(n int) string {
	words := [...]string{"no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"}
	if n >= 0 && n < len(words) {
		return words[n]
	}
	return fmt.Sprint(n)
}

// things is a count with its noun.
func things(n int, noun string) string {
	if n == 1 {
		return "one " + noun
	}
	return inWords(n) + " " + noun + "s"
}

// listed joins names as a sentence does.
func listed(names []string, word string) string {
	switch n := len(names); n {
	case 0:
		return ""
	case 1:
		return names[0]
	default:
		return strings.Join(names[:n-1], ", ") + " " + word + " " + names[n-1]
	}
}

// Describe says in words what the policy promises for these members: what it is
// that a write waits for, which losses the group survives, and whom it needs to
// fail over. What it says holds for every set of members, and none better does.
func (m *Membership) Describe() string {
	if err := m.Policy.validate(); err != nil {
		return "unknown policy"
	}
	s := newSets(m)
	parts := []string{s.describeWrite(), s.describeLoss()}
	for _, p := range []string{s.describeKept(), s.describeFailover(), s.describeSolo(), s.describeIdle()} {
		if p != "" {
			parts = append(parts, p)
		}
	}
	return strings.Join(parts, "; ")
}

// describeWrite says where a write is before it is acknowledged.
func (s *sets) describeWrite() string {
	voters := bits.OnesCount32(s.votes)
	rule := s.m.Policy.Rule
	switch {
	case rule == Zones:
		return fmt.Sprintf("a write is on disk in %s of %s", inWords(int(s.m.Policy.Zones)), things(len(s.zones), "zone"))
	case voters == 1:
		return "a write is on disk at the only voter"
	case rule == AllInSync && voters == 2:
		return "a write is on disk at both voters"
	case rule == AllInSync:
		return fmt.Sprintf("a write is on disk at all %s", things(voters, "voter"))
	case s.weight(s.votes) != voters:
		return fmt.Sprintf("a write is on disk at voters with more than half of the weight %d", s.weight(s.votes))
	}
	return fmt.Sprintf("a write is on disk at %s of %s", inWords(voters/2+1), things(voters, "voter"))
}

// describeLoss says after which losses the group goes on taking writes.
func (s *sets) describeLoss() string {
	nodes := loses(s.votes, each(s.votes), s.serves)
	zones := loses(s.votes, s.eachZone(s.votes), s.serves)
	switch {
	case nodes <= 0:
		return s.describeStop()
	case len(s.zones) == 1:
		return fmt.Sprintf("survives the loss of any %s", things(nodes, "node"))
	case zones == 0:
		return fmt.Sprintf("survives the loss of any %s, but not of zone %s", things(nodes, "node"), listed(s.fatalZones(), "or"))
	case nodes == zones:
		return fmt.Sprintf("survives the loss of any %s", things(zones, "zone"))
	}
	return fmt.Sprintf("survives the loss of any %s or any %s", things(nodes, "node"), things(zones, "zone"))
}

// describeStop names those without whom it stops.
func (s *sets) describeStop() string {
	var fatal []string
	for _, x := range each(s.votes) {
		if !s.serves(s.votes &^ x) {
			fatal = append(fatal, s.node(x))
		}
	}
	switch voters := bits.OnesCount32(s.votes); {
	case voters == 1:
		return "stops when its only node is lost"
	case len(fatal) == voters:
		return "takes no more writes when any node is lost"
	}
	return fmt.Sprintf("takes no more writes when %s is lost", listed(fatal, "or"))
}

func (s *sets) fatalZones() (names []string) {
	for _, z := range s.zones {
		if !s.serves(s.votes &^ z.votes) {
			names = append(names, z.name)
		}
	}
	return names
}

// describeKept says which losses cost no acknowledged write, if they are more
// than those after which the group goes on.
func (s *sets) describeKept() string {
	for _, by := range []struct {
		noun  string
		parts []uint32
	}{{"zone", s.eachZone(s.votes)}, {"node", each(s.votes)}} {
		if by.noun == "zone" && s.m.Policy.Rule != Zones {
			continue
		}
		kept := loses(s.votes, by.parts, s.failover)
		if kept >= 1 && kept > loses(s.votes, by.parts, s.serves) {
			return fmt.Sprintf("keeps every acknowledged write through the loss of any %s", things(kept, by.noun))
		}
		if by.noun == "zone" {
			return ""
		}
	}
	return ""
}

// describeFailover says whom a new master needs.
func (s *sets) describeFailover() string {
	if bits.OnesCount32(s.votes) == 1 {
		return ""
	}
	parts, noun := each(s.votes), "node"
	if s.m.Policy.Rule == Zones {
		parts, noun = s.eachZone(s.votes), "zone"
	}
	need := len(parts) - loses(s.votes, parts, s.failover)
	whole := ""
	if noun == "zone" && bits.OnesCount32(s.votes) > len(s.zones) {
		whole = "every node of "
	}
	return fmt.Sprintf("needs %s%s to fail over", whole, things(need, noun))
}

func (s *sets) describeSolo() string {
	switch {
	case s.m.Alone != 0:
		return fmt.Sprintf("goes on alone, without those who are not named here, by permit %d of the control group", s.m.Alone)
	case s.m.Policy.Rule == AllInSync && bits.OnesCount32(s.votes) > 1:
		return "one that is left goes on alone when the control group permits it"
	}
	return ""
}

// describeIdle names the members that do not count, or not as others do.
func (s *sets) describeIdle() string {
	var out, logs, learners []string
	for i := range s.m.Members {
		x := &s.m.Members[i]
		switch {
		case x.Kind == Learner:
			learners = append(learners, string(x.Node))
		case !x.Eligible:
			out = append(out, string(x.Node))
		case x.Kind == LogReplica:
			logs = append(logs, string(x.Node))
		}
	}
	var parts []string
	for _, p := range []struct {
		names     []string
		one, many string
	}{
		{logs, "keeps only the log and is never master", "keep only the log and are never master"},
		{out, "is ineligible and counts for nothing", "are ineligible and count for nothing"},
		{learners, "is being brought up and does not count yet", "are being brought up and do not count yet"},
	} {
		switch len(p.names) {
		case 0:
		case 1:
			parts = append(parts, p.names[0]+" "+p.one)
		default:
			parts = append(parts, listed(p.names, "and")+" "+p.many)
		}
	}
	return strings.Join(parts, "; ")
}

// Missing says in words who is missing, if the members in up cannot elect a
// master and commit, and nothing if they can.
func (m *Membership) Missing(up func(ReplicaID) bool) string {
	s := newSets(m)
	set := s.mask(up)
	if s.serves(set) {
		return ""
	}
	what := "commit"
	switch {
	case !s.failover(set) && !s.durable(set):
		what = "fail over or commit"
	case !s.failover(set):
		what = "fail over"
	case set&s.full == 0:
		what = "have a master"
	}
	down := s.votes &^ set
	verb := "are"
	names := s.absent(down)
	if len(names) == 1 {
		verb = "is"
	}
	return fmt.Sprintf("it cannot %s: missing %s %s; %s", what, verb, listed(names, "and"), s.describeNeed(set, down))
}

// absent names who is down, zone by zone.
func (s *sets) absent(down uint32) (names []string) {
	for _, z := range s.zones {
		gone := z.votes & down
		if gone == 0 {
			continue
		}
		nodes := listed(s.nodes(gone), "and")
		switch {
		case len(s.zones) == 1:
			names = append(names, s.nodes(gone)...)
		case gone == z.votes:
			names = append(names, fmt.Sprintf("zone %s (%s)", z.name, nodes))
		default:
			names = append(names, fmt.Sprintf("%s of zone %s", nodes, z.name))
		}
	}
	return names
}

// describeNeed says who must come back at least.
func (s *sets) describeNeed(set, down uint32) string {
	for k := 1; k <= bits.OnesCount32(down); k++ {
		var enough []uint32
		tried := 0
		for pick := range s.votes + 1 {
			if pick&^down != 0 || bits.OnesCount32(pick) != k {
				continue
			}
			tried++
			if s.serves(set | pick) {
				enough = append(enough, pick)
			}
		}
		switch {
		case len(enough) == 0:
			continue
		case k == bits.OnesCount32(down) && k == 1:
			return "it has to come back"
		case k == bits.OnesCount32(down):
			return "all of them have to come back"
		case len(enough) == tried && k == 1:
			return "one of them has to come back"
		case len(enough) == tried:
			return fmt.Sprintf("%s of them have to come back", inWords(k))
		}
		return s.describeEnough(enough, k)
	}
	return "nobody who could come back would change that"
}

// describeEnough names the sets of k members of which one has to come back.
func (s *sets) describeEnough(enough []uint32, k int) string {
	const most = 4 // that a sentence takes
	var names []string
	for _, pick := range enough[:min(len(enough), most)] {
		names = append(names, listed(s.nodes(pick), "and"))
	}
	text := listed(names, "or")
	if len(enough) > most {
		text = strings.Join(names, ", ") + " or others"
	}
	if k == 1 {
		return text + " has to come back"
	}
	return text + " have to come back"
}

func (s *sets) node(x uint32) string { return string(s.m.Members[bits.TrailingZeros32(x)].Node) }

func (s *sets) nodes(set uint32) (names []string) {
	for _, x := range each(set) {
		names = append(names, s.node(x))
	}
	return names
}
