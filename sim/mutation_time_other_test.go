//go:build !linux

package sim

import "time"

// timer measures time on the wall where that of a thread is not told.
type timer struct{ began time.Time }

func threadTimer() *timer { return &timer{time.Now()} }

func (t *timer) stop() {}

func (t *timer) used() time.Duration { return time.Since(t.began) }
