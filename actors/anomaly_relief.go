package actors

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"pando.dev/pando/cluster"
	"pando.dev/pando/cluster/detector"
	"pando.dev/pando/cluster/placement"
	"pando.dev/pando/partition"
)

const (
	// reliefMinute is the minute of the limit on hand-overs, in rounds.
	reliefMinute = 60
	// reliefRetry is the pause before a hand-over that came to nothing is tried
	// again, in rounds.
	reliefRetry = 10
)

// relief hands masterships over while its node is sick. It belongs to the goroutine
// of anomalies; the outcome of a hand-over comes from elsewhere, through done.
type relief struct {
	a *anomalies
	// verdict is what it is about; began is how many masterships there were then.
	verdict string
	began   int
	told    bool                                 // that nothing is done
	tried   map[partition.GroupID]partition.Time // when a hand-over began last
	given   map[partition.NodeID]int             // by receiver
}

// heir is who is to be master instead.
type heir struct {
	cell    *cell
	rate    float64
	replica partition.ReplicaID
	node    partition.NodeID
}

// look hands over as many masterships as may be handed over now.
func (r *relief) look(now partition.Time, verdicts []detector.Verdict, members []cluster.Node) {
	n := r.a.node
	sick := detector.Sick(n.ID(), verdicts)
	if sick == nil || n.cfg.untended || n.service.now().Drain != placement.InService {
		r.verdict = ""
		return
	}
	var held []*cell
	n.cells.each(func(c *cell) {
		if v := c.view.Load(); v != nil && v.Serving && len(v.Configurations.Last().Members) > 1 {
			held = append(held, c)
		}
	})
	if r.verdict != sick.ID {
		r.verdict, r.began, r.told, r.given = sick.ID, len(held), false, make(map[partition.NodeID]int)
	}
	maps.DeleteFunc(r.tried, func(_ partition.GroupID, at partition.Time) bool { return now-at >= reliefMinute*r.a.every })
	q := detector.Relief{Mode: r.a.mode, Self: n.ID(), Verdicts: verdicts, Held: len(held), Began: r.began}
	for _, m := range members {
		if m.Status == cluster.Alive {
			q.Nodes++
		}
		if m.Sick != "" && m.Status == cluster.Alive || detector.Sick(m.ID, verdicts) != nil {
			q.Sick = append(q.Sick, m.ID)
		}
	}
	if most, why := q.Now(); most == 0 {
		if len(held) > 0 && !r.told {
			r.told = true
			n.logger.Warn("masterships stay on a sick node", "why", why)
		}
		return
	}
	q.Moved = len(r.tried)
	room, _ := q.Now()
	turns := max(1, room/10) // not all at once: the disk that is to be relieved has to take part
	for _, h := range r.heirs(now, held, q.Sick, members) {
		_, again := r.tried[h.cell.group]
		if !again {
			room--
		}
		if turns == 0 {
			return
		}
		if again || room >= 0 {
			turns--
			r.handOver(now, h, sick.ID, sick.Evidence)
		}
	}
}

// heirs lists the groups that can be handed over, the heaviest first, and to whom:
// a full member that counts, has all of the log, and is well.
func (r *relief) heirs(now partition.Time, held []*cell, sick []partition.NodeID, members []cluster.Node) []heir {
	n := r.a.node
	cat := n.control.Catalog()
	well := make(map[partition.NodeID]bool)
	for _, m := range members {
		_, leaving := cat.Leaving(m.ID)
		well[m.ID] = m.ID != n.ID() && m.Status == cluster.Alive && n.leases.Reachable(m.ID) && !leaving &&
			wordOf(m.Mode).Drain == placement.InService && !slices.Contains(sick, m.ID)
	}
	var out []heir
	for _, c := range held {
		st, v := c.status.Load(), c.view.Load()
		if at, ok := r.tried[c.group]; ok && now-at < reliefRetry*r.a.every || st == nil || v == nil || v.Next != "" || st.InFlight || n.splitter.occupies(c.group) {
			continue
		}
		h := heir{cell: c, rate: r.a.sampler.rates[c.group]}
		var best partition.Index
		for _, p := range st.Peers {
			x, ok := v.Configurations.Last().Member(p.Replica)
			if !ok || x.Kind != partition.Full || !x.Eligible || !well[x.Node] || !p.CaughtUp || p.Down || p.Behind {
				continue
			}
			if h.node == "" || r.given[x.Node] < r.given[h.node] || r.given[x.Node] == r.given[h.node] && p.Match > best {
				h.replica, h.node, best = x.Replica, x.Node, p.Match
			}
		}
		if h.node != "" {
			out = append(out, h)
		}
	}
	slices.SortFunc(out, func(a, b heir) int {
		return cmp.Or(cmp.Compare(b.rate, a.rate), cmp.Compare(a.cell.group, b.cell.group))
	})
	return out
}

// handOver begins a hand-over. A master has to have applied all that it took before it
// hands over, which a disk that limps badly does not allow in time. After one
// such attempt the master resigns: somebody else is elected then, and clients
// repeat what was not answered.
func (r *relief) handOver(now partition.Time, h heir, id, why string) {
	n, g := r.a.node, h.cell.group
	r.tried[g] = now
	r.given[h.node]++
	n.counters.relieved.Add(1)
	x := AnomalyAction{Group: g, To: h.node}
	if r.a.hasFailed(id, g) {
		x.At, x.To = time.Now(), ""
		r.a.note(id, x)
		n.logger.Warn("the master resigns because of an anomaly", "group", g, "anomaly", id, "why", why)
		h.cell.ask(&resignMaster{why: why})
		return
	}
	h.cell.ask(&transferMaster{to: h.replica, why: why, done: func(err error) {
		x.At = time.Now()
		if err != nil {
			x.Err = err.Error()
		}
		r.a.note(id, x)
		n.logger.Info("handed over because of an anomaly", "group", g, "to", x.To, "anomaly", id, "why", why, "err", err)
	}})
}
