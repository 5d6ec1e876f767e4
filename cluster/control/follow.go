package control

import (
	"context"
	"time"

	"pando.dev/pando/partition"
)

const (
	// followWait is how long a seat may hold the question for news.
	followWait = time.Second
	// followPause is the pause after a seat did not answer.
	followPause = 50 * time.Millisecond
)

// followLoop keeps the catalog of a node without a working seat: it asks one
// seat for news, which answers when there is some. Another seat is asked when
// that one does not answer, or is behind what somebody has seen.
func (c *Control) followLoop(ctx context.Context) {
	for turn := 0; ctx.Err() == nil; {
		changed := c.changed.Next()
		if c.usableSeat() != nil {
			if !waitFor(ctx, changed) {
				return
			}
			continue
		}
		seat := c.followed(turn)
		if seat == "" {
			if !c.pause(ctx, followPause) {
				return
			}
			continue
		}
		if err := c.followOnce(ctx, seat); err != nil {
			turn++
			if !c.pause(ctx, followPause) {
				return
			}
		} else if c.behind() {
			turn++
		}
	}
}

// followed returns the seat to ask: each node begins with another one.
func (c *Control) followed(turn int) partition.NodeID {
	all := c.knownSeats()
	if len(all) == 0 {
		return ""
	}
	start := int(partition.Checksum([]byte(c.cfg.Node)) % uint32(len(all)))
	return all[(start+turn)%len(all)]
}

// behind reports whether somebody has seen a newer catalog than this node has.
func (c *Control) behind() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hint > c.Catalog().Version
}

func waitFor(ctx context.Context, changed <-chan struct{}) bool {
	select {
	case <-changed:
		return true
	case <-ctx.Done():
		return false
	}
}

// followOnce brings the catalog to what the seat has. A hint cuts the waiting
// for news short, so that a seat that is behind is left for another.
func (c *Control) followOnce(ctx context.Context, seat partition.NodeID) error {
	ctx, cancel := context.WithTimeout(ctx, followWait+c.cfg.CallTimeout)
	defer cancel()
	hinted := c.hinted.Next()
	wait := followWait
	if c.behind() {
		wait = 0
	}
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-hinted:
			// The answer may be on its way; leave it a moment.
			c.pause(ctx, followPause)
			cancel()
		case <-stop:
		}
	}()
	have := c.Catalog()
	a := newAssembly(have)
	for {
		ask := &askCatalog{After: a.after, Whole: a.whole, WaitMs: uint32(wait.Milliseconds())}
		p, err := c.askPage(ctx, seat, ask)
		if err != nil {
			return err
		}
		if !a.started && p.Version <= have.Version {
			return nil
		}
		done, err := a.add(p)
		if err != nil {
			return err
		}
		if done {
			break
		}
		wait = 0
	}
	next, err := a.result()
	if err != nil {
		return err
	}
	c.catalog.Store(next)
	c.changed.Fire()
	return nil
}

func (c *Control) askPage(ctx context.Context, seat partition.NodeID, ask *askCatalog) (*pageBody, error) {
	answer, err := c.callOnce(ctx, seat, kindAskCatalog, ask)
	if err != nil {
		return nil, err
	}
	if answer.Error != nil {
		return nil, fromItem(answer.Error)
	}
	return decodePage(answer.Body)
}
