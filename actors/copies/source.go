package copies

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"pando.dev/pando/partition"
)

// remakes bounds how often a checkpoint is made again because the log had moved
// on before it was described.
const remakes = 3

// checkpoint is a state as it was at one index, kept for whoever fetches it.
//
//	made -> used (users > 0) <-> idle, for Config.Hold -> removed
//
// users and timer are guarded by Copies.mu; so is that it is in
// Copies.checkpoints, which it leaves once and for all before it is removed.
type checkpoint struct {
	offer offer
	name  string // in the stage
	total int64
	users int
	timer *time.Timer // removes it when it was idle for long
	used  time.Time   // when it was last
}

// use returns a checkpoint for a request: the one that it names, if that is
// still there, otherwise a new one.
func (c *Copies) use(ctx context.Context, h hello) (*checkpoint, error) {
	if p := c.held(h); p != nil {
		c.count.resumed.Add(1)
		return p, nil
	}
	old, err := c.admit()
	if err != nil {
		return nil, err
	}
	if old != nil {
		c.remove(old)
	}
	p, err := c.makeCheckpoint(ctx, h)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.making--
	if err != nil {
		return nil, err
	}
	p.users = 1
	p.timer = time.AfterFunc(c.cfg.Hold, func() { c.expire(p) })
	p.timer.Stop()
	c.checkpoints[p.offer.checkpoint] = p
	return p, nil
}

// held returns the checkpoint that a request names, if it is still there.
func (c *Copies) held(h hello) *checkpoint {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.checkpoints[h.checkpoint]
	if p == nil || p.offer.manifest.Group != h.group || p.offer.base.Index < h.min {
		return nil
	}
	p.users++
	p.timer.Stop()
	return p
}

// admit makes room for another checkpoint; the one that it returns, if any, must
// go for it.
func (c *Copies) admit() (old *checkpoint, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.checkpoints)+c.making >= c.cfg.Checkpoints {
		for _, p := range c.checkpoints {
			if p.users == 0 && (old == nil || p.used.Before(old.used)) {
				old = p
			}
		}
		if old == nil {
			return nil, partition.Errorf(partition.CodeBusy, "%d checkpoints are in use", c.cfg.Checkpoints)
		}
		delete(c.checkpoints, old.offer.checkpoint)
		old.timer.Stop()
	}
	c.making++
	return old, nil
}

// makeCheckpoint has the host make one, and describes it.
func (c *Copies) makeCheckpoint(ctx context.Context, h hello) (*checkpoint, error) {
	var why error
	for range remakes {
		p, again, err := c.makeOnce(ctx, h)
		if err == nil || !again {
			return p, err
		}
		why = err
	}
	return nil, partition.Errorf(partition.CodeUnavailable, "the log of %s moves on faster than checkpoints are made: %v", h.group, why)
}

// makeOnce makes one checkpoint; again: another one may succeed at once.
func (c *Copies) makeOnce(ctx context.Context, h hello) (p *checkpoint, again bool, err error) {
	name := c.name("out", h.group)
	m, err := c.cfg.Host.Checkpoint(ctx, h.group, filepath.Join(c.stage, name))
	if err != nil {
		return nil, false, fmt.Errorf("checkpoint of %s: %w", h.group, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.root.RemoveAll(name))
		}
	}()
	switch {
	case m.Group != h.group:
		return nil, false, partition.Errorf(partition.CodeInternal, "the checkpoint of %s is of %s", h.group, m.Group)
	case m.Index < h.min || m.Index == 0:
		return nil, false, partition.Errorf(partition.CodeUnavailable, "the state of %s has come to %d, wanted is %d", h.group, m.Index, h.min)
	}
	total, err := checkFiles(m.Files)
	if err != nil {
		return nil, false, fmt.Errorf("checkpoint of %s: %w", h.group, err)
	}
	base, err := c.cfg.Host.Describe(h.group, m.Index)
	if err != nil {
		return nil, partition.CodeOf(err) == partition.CodeNotFound, fmt.Errorf("describe %s at %d: %w", h.group, m.Index, err)
	}
	if base.Index != m.Index {
		return nil, false, partition.Errorf(partition.CodeInternal, "the log describes %d, the state is at %d", base.Index, m.Index)
	}
	if _, err := checkConfiguration(base.Configuration, h.group, m.Index); err != nil {
		return nil, false, fmt.Errorf("describe %s at %d: %w", h.group, m.Index, err)
	}
	p = &checkpoint{name: name, total: total, offer: offer{manifest: m, base: base}}
	_, _ = rand.Read(p.offer.checkpoint[:]) // never fails
	return p, false, nil
}

// unuse ends a use. A checkpoint whose fetcher has everything is not kept.
func (c *Copies) unuse(p *checkpoint, done bool) {
	c.mu.Lock()
	p.users--
	p.used = time.Now()
	idle := p.users == 0
	if idle && !done {
		p.timer.Reset(c.cfg.Hold)
	}
	c.mu.Unlock()
	if idle && done {
		c.expire(p)
	}
}

// expire removes a checkpoint unless it is in use again, or gone.
func (c *Copies) expire(p *checkpoint) {
	c.mu.Lock()
	there := p.users == 0 && c.checkpoints[p.offer.checkpoint] == p
	if there {
		delete(c.checkpoints, p.offer.checkpoint)
		p.timer.Stop()
	}
	c.mu.Unlock()
	if there {
		c.remove(p)
	}
}

// remove removes the files of a checkpoint that nobody can find any more.
func (c *Copies) remove(p *checkpoint) {
	if err := c.root.RemoveAll(p.name); err != nil {
		c.cfg.Logger.Warn("checkpoint not removed", "name", p.name, "err", err)
	}
}
