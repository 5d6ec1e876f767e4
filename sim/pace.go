package sim

import "pando.dev/pando/partition"

const (
	// mostAtOnce is how many events and inputs there may be at one instant. A host
	// that asks for the same thing again at once, for ever, would never end; the most
	// that the default swarm comes to is some thousands.
	mostAtOnce = 100_000
	// lookAfter is after how many of them a run looks whether it is to stop.
	lookAfter = 1024
)

// pace sees that virtual time goes by, and that the run ends when it is told to.
type pace struct {
	at   partition.Time
	n    int // events and inputs at that instant
	all  uint64
	stop <-chan struct{}
}

// stopped is what ends a run that is told to stop.
type stopped struct{}

// goesOn counts an event, or an input of a replica.
func (w *world) goesOn() {
	p := &w.pace
	if p.all++; p.all%lookAfter == 0 {
		select {
		case <-p.stop:
			panic(stopped{})
		default:
		}
	}
	if p.n++; p.at != w.eng.now {
		p.at, p.n = w.eng.now, 1
	}
	if p.n > mostAtOnce {
		w.violate("livelock", "%d events at one instant", mostAtOnce)
	}
}
