package pulse

import "sync"

// Pulse is level-triggered: it says that something changed, not what. Whoever
// waits takes the channel first, looks at the state, and waits on the channel
// only then; so no change is missed and any number of changes cost one look.
// The zero value is ready.
type Pulse struct {
	mu sync.Mutex
	ch chan struct{}
}

// Next returns a channel that is closed at the next Fire.
func (p *Pulse) Next() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ch == nil {
		p.ch = make(chan struct{})
	}
	return p.ch
}

// Fire wakes everybody who waits.
func (p *Pulse) Fire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ch != nil {
		close(p.ch)
		p.ch = nil
	}
}
