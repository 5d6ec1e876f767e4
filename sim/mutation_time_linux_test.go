package sim

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// timer measures the processor time of one goroutine, which it ties to its
// thread.
type timer struct{ began time.Duration }

func threadTimer() *timer {
	runtime.LockOSThread()
	return &timer{threadTime()}
}

func (t *timer) stop() { runtime.UnlockOSThread() }

func (t *timer) used() time.Duration { return threadTime() - t.began }

func threadTime() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_THREAD, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
