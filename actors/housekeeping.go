package actors

import "time"

const (
	// pinsEvery is how often the node looks for replicas that hold up the log.
	pinsEvery = time.Second
	// pinsAtOnce bounds the stores flushed for it at once.
	pinsAtOnce = 16
)

// keepLogShort flushes the replicas that keep the oldest segment of a long log
// from being recycled, and tells all replicas when a segment was, until the
// node stops.
func (n *Node) keepLogShort() {
	tick := time.NewTicker(pinsEvery)
	defer tick.Stop()
	var recycled uint64
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-tick.C:
		}
		st := n.log.Stats()
		if st.Recycled != recycled {
			recycled = st.Recycled
			n.cells.each(func(c *cell) { c.box.PostUserMessage(truncated{}) })
		}
		if !st.Pinned {
			continue
		}
		for _, g := range n.log.Pins(pinsAtOnce) {
			if c := n.cells.get(g); c != nil {
				if st := c.state.Load(); st != nil {
					st.store.FlushSoon()
				}
			}
		}
	}
}
