package detector

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"pando.dev/pando/partition"
)

// durations says how a figure compares with the others' median.
func (s *series) durations() string {
	own, ref := time.Duration(s.own), time.Duration(s.ref)
	text := fmt.Sprintf("%v against %v, the median of %d other nodes", round3(own), round3(ref), s.peers)
	if ref > 0 {
		text = fmt.Sprintf("%v, %.1f times the %v that are the median of %d other nodes", round3(own), s.own/s.ref, round3(ref), s.peers)
	}
	return text
}

func (s *series) forHow(now partition.Time) string {
	return fmt.Sprintf("for %v", (now - s.since).Round(time.Second))
}

func (s *series) syncEvidence(now partition.Time) string {
	return fmt.Sprintf("the syncs of its log took %s, %s", s.durations(), s.forHow(now))
}

func (s *series) lateEvidence(now partition.Time) string {
	return fmt.Sprintf("its timers were late by %s, %s", s.durations(), s.forHow(now))
}

func (s *series) queueEvidence(now partition.Time) string {
	return fmt.Sprintf("its fullest queue was %.0f %% full against %.0f %%, the median of %d other nodes, %s", s.own/10, s.ref/10, s.peers, s.forHow(now))
}

func (n *node) linkEvidence(now partition.Time) string {
	return fmt.Sprintf("%d of its %d links are slower than usual by the word of both ends, and it is what they have in common, for %v",
		n.of[0], n.of[1], (now - n.began).Round(time.Second))
}

func (g *group) evidence(now partition.Time) string {
	return fmt.Sprintf("a load of %.0f/s on node %s, which alone is more than the %.0f that are the median of %d other nodes, %s",
		g.own, g.on, g.ref, g.peers, g.forHow(now))
}

// evidence says what both ends measured.
func (l *link) evidence(d *Detector, now partition.Time) string {
	a, b := &l.way[0], &l.way[1]
	return fmt.Sprintf("there and back took %v and %v by the word of the two ends, usual are %v and %v; %d ways of other links were compared, for %v",
		round3(time.Duration(a.own)), round3(time.Duration(b.own)), round3(time.Duration(a.ref)), round3(time.Duration(b.ref)),
		max(0, a.peers-2), (now - l.since()).Round(time.Second))
}

func bootEvidence(n *node, boots int, window partition.Time) string {
	return fmt.Sprintf("it started %d times anew within %v, now as incarnation %d", boots, window, n.boot)
}

func lossEvidence(n *node, by []partition.NodeID, c Config) string {
	return fmt.Sprintf("node %s was lost at least %d times within %v by %s", n.id, c.Flaps, c.Window, names(by))
}

// names lists nodes as the end of a sentence.
func names(ids []partition.NodeID) string {
	var parts []string
	for _, id := range ids {
		parts = append(parts, string(id))
	}
	slices.Sort(parts)
	if len(parts) > 5 {
		parts = append(parts[:5], fmt.Sprintf("and %d more", len(ids)-5))
	}
	return strings.Join(parts, ", ")
}
