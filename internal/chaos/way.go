package chaos

import "time"

// Way is how packets fare from one space to another. The zero value delivers each
// at once.
type Way struct {
	Cut bool // none is delivered
	// Refuse cuts as well, and ends every connection whose segments come, as a
	// machine does on which nobody listens.
	Refuse bool
	// Flap cuts the way for that long, opens it for that long, and so on.
	Flap time.Duration
	// Hold keeps everything back and delivers it when it is taken away, as far as
	// there is room.
	Hold bool
	// Delay is added to every packet, and up to Jitter more. Packets stay in
	// order; those of the share Late, of 1, come up to LateBy later, out of order.
	Delay, Jitter time.Duration
	Late          float64
	LateBy        time.Duration
	// Loss, Repeat, Corrupt are shares, of 1: of packets that are lost, that come
	// twice, and whose payload is changed under checksums that are right again.
	Loss, Repeat, Corrupt float64
	// Replay is the share of packets that come again up to a few seconds later.
	Replay float64
	// BytesPerSecond is how much gets through, if it is not 0.
	BytesPerSecond int
}

// plain reports whether every packet is delivered at once.
func (w *Way) plain() bool { return *w == Way{} }

const (
	// replayWithin is how much later a packet is replayed at most.
	replayWithin = 3 * time.Second
	// heldBytes bounds what waits in the hub, for all ways together. What exceeds
	// it is lost, as in any router.
	heldBytes = 64 << 20
	// backlog is how long a packet waits at most for a way of few bytes per
	// second; it is lost if it had to wait longer.
	backlog = time.Second
)
