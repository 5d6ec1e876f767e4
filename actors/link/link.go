package link

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"pando.dev/pando/actors/mailbox"
	"pando.dev/pando/partition"
)

const (
	redialBase = 50 * time.Millisecond
	redialCap  = time.Second
	// politeness is how long the node with the greater id leaves the first dial
	// to the other.
	politeness = 30 * time.Millisecond
	// crossing is how long two dials of both sides can be under way at once: a
	// hello that comes later proves that its sender has lost the older link.
	crossing = 5 * time.Second
	// pingEvery is how often an idle data connection carries something.
	pingEvery = time.Second
)

// link is what both its actor and its users see of the way to one node.
//
//	down --dial or accept--> joining --both connections--> up
//	 ^                          |                           |
//	 +---- time-out, error -----+--- any connection ends ---+
//
// Both nodes dial. If their dials cross, the connection dialed by the node with
// the smaller id stays.
type link struct {
	l      *Links
	node   partition.NodeID
	number uint64
	box    *mailbox.Box[struct{}]
	wanted atomic.Bool
	// session is the working one, or nil. Only the actor stores a new one.
	session atomic.Pointer[session]
	calls   calls
	watches watches
	newest  atomic.Uint64 // the newest incarnation that we have met

	rtt                 atomic.Int64 // smoothed, in nanoseconds
	framesOut, framesIn atomic.Uint64
	busy                atomic.Uint64
	bulk                atomic.Int64 // transfers of the peer, open now
}

func newLink(l *Links, n partition.NodeID) *link {
	k := &link{l: l, node: n, number: l.n.links.Add(1), box: mailbox.New[struct{}](mailbox.Config{})}
	k.calls.limit = l.c.MaxCalls
	return k
}

// What happens to a link. The actor handles one at a time.
type (
	// evWanted: the wish for the link, or what is known of the node, has changed.
	evWanted struct{}
	// evTick comes once per heartbeat, evDial when it is time to dial.
	evTick struct{ of *linkActor }
	evDial struct{ of *linkActor }
	// evDialed: a dial has ended; it is over if the actor does not take s.
	evDialed struct {
		dial *dial
		s    *session
		err  error
	}
	// evAccepted: the peer has opened a connection; the verdict is awaited.
	evAccepted struct {
		hello   hello
		verdict chan<- verdict
	}
	// evAttached: the peer knows that its connection was accepted.
	evAttached struct {
		s    *session
		conn *conn
	}
	// evEnded: a connection of the session has ended.
	evEnded struct {
		s   *session
		err error
	}
)

// verdict is the actor's answer to evAccepted.
type verdict struct {
	refusal Refusal
	why     string
	s       *session
}

// post queues an event; false means that the link has ended or is flooded.
func (k *link) post(ev any) bool { return k.box.TryPostMessage(ev, 0) }

// end closes the working session, if it is s or s is nil. It is for the
// supervisor and Close; the actor uses its own.
func (k *link) end(s *session) {
	if at := k.session.Load(); at != nil && (s == nil || at == s) && k.session.CompareAndSwap(at, nil) {
		at.close()
		at.wentDown()
	}
}

// dial is one attempt to connect.
type dial struct{ cancel context.CancelFunc }

// linkActor runs a link: it dials, accepts, beats, and notices what breaks.
type linkActor struct {
	link    *link
	current *session // joining or up; nil: down
	dial    *dial    // under way, or nil
	timer   *time.Timer
	ticker  *time.Timer
	fails   int
	// lastAddr and lastBoot are where the last dial went; learned is a boot that
	// the node itself has told us, newer than what Resolve knows.
	lastAddr          string
	lastBoot, learned uint64
	pinged            time.Time
}

// Receive handles what happens to the link. It does not block.
func (a *linkActor) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		a.started()
	case *actor.Stopping, *actor.Restarting:
		a.stop()
	case evWanted:
		a.onWanted(ctx)
	case evTick:
		if m.of == a {
			a.onTick(ctx)
		}
	case evDial:
		if m.of == a {
			a.timer = nil
			a.startDial()
		}
	case evDialed:
		a.onDialed(m)
	case evAccepted:
		m.verdict <- a.onAccepted(m.hello)
	case evAttached:
		a.onAttached(m)
	case evEnded:
		if m.s == a.current {
			a.lose(m.err)
		}
	}
}

func (a *linkActor) started() {
	a.ticker = time.AfterFunc(a.link.l.c.Heartbeat, func() { a.link.post(evTick{a}) })
	a.dialSoon()
}

// dialSoon dials for the first time, or anew because something is new.
func (a *linkActor) dialSoon() {
	a.fails = 0
	if a.link.node < a.link.l.c.Node {
		a.dialIn(politeness)
		return
	}
	a.dialIn(0)
}

func (a *linkActor) stop() {
	a.ticker.Stop()
	if a.timer != nil {
		a.timer.Stop()
	}
	if a.dial != nil {
		a.dial.cancel()
		a.dial = nil
	}
	a.drop(errors.New("the link is closed"))
}

// onWanted dials at once if there is something new to dial, and ends a link that
// nobody wants and that does not work.
func (a *linkActor) onWanted(ctx actor.Context) {
	if !a.link.wanted.Load() {
		a.endIfUnused(ctx)
		return
	}
	addr, boot, ok := a.link.l.c.Resolve(a.link.node)
	if ok && a.current == nil && a.dial == nil && (addr != a.lastAddr || boot != a.lastBoot) {
		a.dialSoon()
	}
}

func (a *linkActor) endIfUnused(ctx actor.Context) {
	if a.link.wanted.Load() || a.current != nil || a.dial != nil {
		return
	}
	a.link.l.drop(a.link)
	a.link.box.Close()
	ctx.Stop(ctx.Self())
}

// dialIn asks for an evDial after d.
func (a *linkActor) dialIn(d time.Duration) {
	if a.timer != nil {
		a.timer.Stop()
	}
	a.timer = time.AfterFunc(d, func() { a.link.post(evDial{a}) })
}

// redial is dialIn after a failure: later each time, never at the same moment as
// others.
func (a *linkActor) redial() {
	d := min(redialCap, redialBase<<min(a.fails, 10))
	a.fails++
	a.dialIn(d + rand.N(d/4+1))
}

func (a *linkActor) startDial() {
	if !a.link.wanted.Load() || a.current != nil || a.dial != nil {
		return
	}
	l := a.link.l
	addr, boot, ok := l.c.Resolve(a.link.node)
	if !ok {
		a.redial()
		return
	}
	a.lastAddr, a.lastBoot = addr, boot
	boot = max(boot, a.learned)
	ctx, cancel := context.WithTimeout(l.ctx, 2*l.c.Silence)
	d := &dial{cancel: cancel}
	a.dial = d
	l.wg.Go(func() {
		defer cancel()
		s, err := a.link.dialSession(ctx, addr, boot)
		if !a.link.post(evDialed{d, s, err}) && s != nil {
			s.close()
		}
	})
}

func (a *linkActor) onDialed(m evDialed) {
	if m.dial == a.dial {
		a.dial = nil
	} else if m.s != nil { // of a life before a restart
		m.s.close()
		return
	}
	if m.err != nil {
		a.dialFailed(m.err)
		return
	}
	// The other side may have come first. Its connection stays if its id is the
	// smaller; it decides the same.
	if a.current != nil && a.link.node < a.link.l.c.Node {
		m.s.close()
		return
	}
	a.drop(errors.New("replaced by a newer connection"))
	a.current = m.s
	a.run(m.s.control)
	a.run(m.s.data)
	a.goUp()
}

func (a *linkActor) dialFailed(err error) {
	n := &a.link.l.n
	n.dialFailed.Add(1)
	var r *RefusedError
	if errors.As(err, &r) && int(r.Refusal) < len(n.declined) {
		n.declined[r.Refusal].Add(1)
		if r.Refusal == RefusedBoot && r.Node == a.link.node && r.Boot > max(a.lastBoot, a.learned) {
			a.learned = r.Boot
			a.dialIn(0)
			return
		}
	}
	a.link.l.c.Logger.Debug("node was not reached", "node", a.link.node, "addr", a.lastAddr, "err", err)
	if a.current == nil {
		a.redial()
	}
}

// onAccepted judges a connection that the peer has opened.
func (a *linkActor) onAccepted(h hello) verdict {
	if newest := a.link.newest.Load(); h.boot < newest {
		return verdict{refusal: RefusedStale, why: "a newer incarnation of this node is known"}
	}
	if h.class == classData {
		s := a.current
		if s == nil || s.dialed || s.id != h.session || s.boot != h.boot || s.data != nil {
			return verdict{refusal: RefusedStale, why: "the session that this connection belongs to is over"}
		}
		return verdict{s: s}
	}
	if s := a.current; s != nil && s.dialed && s.boot == h.boot && a.link.l.c.Node < a.link.node && time.Since(s.born) < crossing {
		return verdict{refusal: RefusedDuplicate, why: "there is a link in the other direction"}
	}
	a.drop(errors.New("replaced by a newer connection"))
	a.current = &session{link: a.link, id: h.session, boot: h.boot, born: time.Now()}
	return verdict{s: a.current}
}

func (a *linkActor) onAttached(m evAttached) {
	if m.s != a.current {
		m.conn.close()
		return
	}
	if m.conn.class == classControl {
		m.s.control = m.conn
	} else {
		m.s.data = m.conn
	}
	a.run(m.conn)
	if m.s.control != nil && m.s.data != nil {
		a.goUp()
	}
}

// run starts the goroutines of a connection of the current session. Either of
// them ends both, and with them the session.
func (a *linkActor) run(c *conn) {
	s := a.current
	wg := &a.link.l.wg
	wg.Go(func() { _ = c.out.run() })
	wg.Go(func() {
		err := s.read(c)
		c.close()
		a.link.post(evEnded{s, err})
	})
}

func (a *linkActor) goUp() {
	s := a.current
	s.up = true
	s.answered.Store(int64(time.Since(s.born)))
	a.fails = 0
	a.link.newest.Store(max(a.link.newest.Load(), s.boot))
	l := a.link.l
	l.c.Leases.Up(a.link.node, s.boot)
	l.n.ups.Add(1)
	a.link.session.Store(s)
	l.c.Logger.Info("link is up", "node", a.link.node, "boot", s.boot, "dialed", s.dialed)
	if l.c.OnUp != nil {
		l.c.OnUp(a.link.node, s.boot)
	}
	s.beat()
}

// lose ends the current session because of an error and dials again at once:
// either the connection alone broke, or the next attempts will tell.
func (a *linkActor) lose(err error) {
	a.drop(err)
	a.dialIn(rand.N(10 * time.Millisecond))
}

// drop ends the current session, if there is one.
func (a *linkActor) drop(why error) {
	s := a.current
	if s == nil {
		return
	}
	a.current = nil
	s.close()
	if !s.up {
		return
	}
	a.link.l.c.Logger.Info("link is down", "node", a.link.node, "boot", s.boot, "err", why)
	if a.link.session.CompareAndSwap(s, nil) {
		s.wentDown()
	}
}

// onTick beats, and drops what is silent.
func (a *linkActor) onTick(ctx actor.Context) {
	a.ticker.Reset(a.link.l.c.Heartbeat)
	s := a.current
	if s == nil {
		a.endIfUnused(ctx)
		return
	}
	silence := a.link.l.c.Silence
	switch now := time.Now(); {
	case !s.up && now.Sub(s.born) > silence:
		a.lose(errors.New("the peer did not complete the link"))
	case s.up && now.Sub(s.born)-time.Duration(s.answered.Load()) > silence:
		a.link.l.n.silent.Add(1)
		a.lose(errors.New("no heartbeat was answered"))
	case s.up:
		s.beat()
		if now.Sub(a.pinged) >= pingEvery {
			a.pinged = now
			_ = s.data.out.send(&Frame{Kind: kindPing})
		}
	}
}
