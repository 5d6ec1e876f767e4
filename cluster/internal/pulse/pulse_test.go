package pulse

import (
	"sync"
	"testing"
	"testing/synctest"
)

// Whoever takes the channel before looking misses no change, however the
// goroutines are scheduled.
func TestNoChangeIsMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p Pulse
		var mu sync.Mutex
		state := 0
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for {
					changed := p.Next()
					mu.Lock()
					done := state == 1000
					mu.Unlock()
					if done {
						return
					}
					<-changed
				}
			})
		}
		for range 1000 {
			mu.Lock()
			state++
			mu.Unlock()
			p.Fire()
		}
		wg.Wait()
		p.Fire()
		select {
		case <-p.Next():
			t.Error("a channel taken after the change is closed")
		default:
		}
	})
}
