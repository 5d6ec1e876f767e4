package actors

import "time"

const (
	// pinsEvery is how often the node looks for replicas that hold up the log.
	pinsEvery = time.Second
	// pinsAtOnce bounds the stores flushed for it at once.
	pinsAtOnce = 16
)

// keepLogShort flushes the replicas that keep the oldest segment of a long log
// from being recycled, until the node stops.
func (n *Node) keepLogShort() {
	tick := time.NewTicker(pinsEvery)
	defer tick.Stop()
	for {
		select {
		case <-n.ctx.Done():
			return
		case <-tick.C:
		}
		if !n.log.Stats().Pinned {
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
