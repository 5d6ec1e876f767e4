package link

import (
	"strconv"
	"strings"
	"sync"

	"github.com/asynkron/protoactor-go/actor"

	"pando.dev/pando/partition"
)

const (
	// maxActorID bounds the name of an actor on the wire.
	maxActorID = 255
	// maxWatches bounds the watches between two nodes, per direction.
	maxWatches = 4_096
	// futurePrefix is how the actor system names what waits for an answer.
	futurePrefix = "future$"
)

// Address is the address of a node's PIDs. It names the incarnation, so what is
// meant for a dead one never reaches the next.
func Address(n partition.NodeID, boot uint64) string {
	return string(n) + "#" + strconv.FormatUint(boot, 10)
}

// ParseAddress is the reverse of Address.
func ParseAddress(addr string) (n partition.NodeID, boot uint64, ok bool) {
	i := strings.LastIndexByte(addr, '#')
	if i <= 0 || i > partition.MaxNodeIDBytes {
		return "", 0, false
	}
	boot, err := strconv.ParseUint(addr[i+1:], 10, 64)
	return partition.NodeID(addr[:i]), boot, err == nil && boot > 0
}

// Poster takes a message for an actor, or refuses it because its mailbox is
// full; a mailbox.Box is one.
type Poster interface {
	TryPostMessage(body any, bytes int) bool
}

// Expose lets the other nodes send to an actor of this node and watch it. Others
// are out of their reach, except futures that wait for an answer. The mailbox is
// bounded, because peers can fill it.
func (l *Links) Expose(pid *actor.PID, box Poster) { l.exposed.Store(pid.Id, box) }

// Hide undoes Expose.
func (l *Links) Hide(pid *actor.PID) { l.exposed.Delete(pid.Id) }

// resolve is the actor system's way to processes on other nodes.
func (l *Links) resolve(pid *actor.PID) (actor.Process, bool) {
	n, boot, ok := ParseAddress(pid.Address)
	if !ok || n == l.c.Node { // another incarnation of this node is dead
		return nil, false
	}
	return &process{l: l, node: n, boot: boot}, true
}

// process stands for all actors of one incarnation of another node.
type process struct {
	l    *Links
	node partition.NodeID
	boot uint64
}

// session returns the link to exactly this incarnation, or nil.
func (p *process) session() *session {
	if s := p.l.session(p.node); s != nil && s.boot == p.boot {
		return s
	}
	return nil
}

// SendUserMessage sends a message to an actor there. What cannot be sent becomes
// a dead letter, which answers a request at once.
func (p *process) SendUserMessage(pid *actor.PID, message any) {
	if err := p.send(pid, message); err != nil {
		p.l.c.Logger.Debug("message to another node was not sent", "to", pid.String(), "err", err)
		p.l.c.System.DeadLetter.SendUserMessage(pid, message)
	}
}

func (p *process) send(pid *actor.PID, message any) error {
	_, m, sender := actor.UnwrapEnvelope(message)
	s := p.session()
	if s == nil {
		p.l.n.sendDown.Add(1)
		return partition.Errorf(partition.CodeUnavailable, "no link to %s", pid.Address)
	}
	e := encoder{}
	e.b = append(e.b, toActor)
	if d, ok := m.(*actor.DeadLetterResponse); ok {
		e.b[0] = toNobody
		e.name(pid.Id).name(d.GetTarget().GetId())
		return p.post(s, kindMessage, e)
	}
	from := ""
	if sender != nil {
		if sender.Address != p.l.c.System.ProcessRegistry.Address {
			p.l.n.forbidden.Add(1)
			return partition.Errorf(partition.CodeInvalid, "the sender %s is on a third node", sender)
		}
		from = sender.Id
	}
	id, body, err := p.l.registry.encode(m)
	if err != nil {
		p.l.n.unknownType.Add(1)
		return err
	}
	e.name(pid.Id).name(from)
	e.b = append(e.b, byte(id), byte(id>>8))
	e.b = append(e.b, body...)
	return p.post(s, kindMessage, e)
}

func (p *process) post(s *session, k Kind, e encoder) error {
	if len(e.b) > MaxControlBytes || e.long {
		return partition.Errorf(partition.CodeTooLarge, "%s of %d bytes, limit %d, names %d", k, len(e.b), MaxControlBytes, maxActorID)
	}
	return s.send(s.control, &Frame{Kind: k, Body: e.b})
}

// SendSystemMessage forwards watching. Everything else that the system says to
// its actors stays on the node.
func (p *process) SendSystemMessage(pid *actor.PID, message any) {
	switch m := message.(type) {
	case *actor.Watch:
		p.watch(pid, m.Watcher)
	case *actor.Unwatch:
		if k := (*p.l.peers.Load())[p.node]; k != nil && k.watches.removeOut(watch{pid.Id, m.Watcher.Id}) {
			p.sendWatch(doUnwatch, pid.Id, m.Watcher.Id, 0)
		}
	case *actor.Terminated:
		if k := (*p.l.peers.Load())[p.node]; k != nil && k.watches.removeIn(watch{m.Who.Id, pid.Id}) {
			p.sendWatch(doTerminated, m.Who.Id, pid.Id, byte(m.Why))
		}
	default:
		p.l.n.forbidden.Add(1)
		p.l.c.Logger.Warn("system message to another node was not sent", "to", pid.String(), "message", message)
	}
}

// Stop is refused: an actor is stopped on its own node only.
func (p *process) Stop(pid *actor.PID) {
	p.l.n.forbidden.Add(1)
	p.l.c.Logger.Warn("an actor on another node was not stopped", "pid", pid.String())
}

// watch asks for a Terminated of an actor there. If there is no link, the
// watcher is told at once.
func (p *process) watch(pid, watcher *actor.PID) {
	w := watch{pid.Id, watcher.Id}
	s := p.session()
	if s != nil && s.link.watches.addOut(s, w) {
		if p.sendWatch(doWatch, w.target, w.watcher, 0) == nil {
			return
		}
		s.link.watches.removeOut(w)
	}
	p.l.terminated(watcher.Id, pid, actor.TerminatedReason_AddressTerminated)
}

func (p *process) sendWatch(what byte, target, watcher string, why byte) error {
	s := p.session()
	if s == nil {
		return partition.ErrUnavailable
	}
	e := encoder{b: []byte{what, why}}
	e.name(target).name(watcher)
	return p.post(s, kindWatch, e)
}

// terminated tells a local actor that one it watches has ended.
func (l *Links) terminated(watcher string, who *actor.PID, why actor.TerminatedReason) {
	if proc, ok := l.c.System.ProcessRegistry.GetLocal(watcher); ok {
		proc.SendSystemMessage(l.c.System.NewLocalPID(watcher), &actor.Terminated{Who: who, Why: why})
	}
}

// What the first byte of an actor message or a watch frame says.
const (
	toActor  = 1
	toNobody = 2 // the answer to a request whose actor is not there

	doWatch      = 1
	doUnwatch    = 2
	doTerminated = 3
)

// onMessage delivers a message of the peer. What is wrong with a single message
// is counted and does not end the connection.
func (s *session) onMessage(f Frame) error {
	l := s.link.l
	d := decoder{b: f.Body}
	what, to, from := d.u8(), d.text(maxActorID), d.text(maxActorID)
	if d.err != nil || to == "" || what != toActor && what != toNobody {
		return frameError(badBody, "actor message to %q, kind %d: %v", to, what, d.err)
	}
	if what == toNobody {
		s.deliver(to, "", &actor.DeadLetterResponse{Target: s.pid(from)}, len(f.Body))
		return nil
	}
	id := d.u16()
	if d.err != nil {
		return frameError(badBody, "actor message to %q: %v", to, d.err)
	}
	m, known, err := l.registry.decode(id, d.b)
	switch {
	case !known:
		l.n.unknownType.Add(1)
	case err != nil:
		l.n.badMessage.Add(1)
		l.c.Logger.Warn("actor message was not decoded", "node", s.link.node, "type", id, "err", err)
	case s.deliver(to, from, m, len(f.Body)):
		return nil
	}
	if from != "" {
		e := encoder{b: []byte{toNobody}}
		e.name(from).name(to)
		_ = s.send(s.control, &Frame{Kind: kindMessage, Body: e.b})
	}
	return nil
}

// pid names an actor of the peer's incarnation; nil for none.
func (s *session) pid(id string) *actor.PID {
	if id == "" {
		return nil
	}
	return actor.NewPID(Address(s.link.node, s.boot), id)
}

// deliver hands a message to a local actor that peers may reach, or to a future.
func (s *session) deliver(to, from string, m any, bytes int) bool {
	l := s.link.l
	env := &actor.MessageEnvelope{Message: m, Sender: s.pid(from)}
	if box, ok := l.exposed.Load(to); ok {
		if box.(Poster).TryPostMessage(env, bytes) {
			return true
		}
		l.n.undelivered.Add(1)
		return false
	}
	proc, ok := l.c.System.ProcessRegistry.GetLocal(to)
	if _, isActor := proc.(*actor.ActorProcess); ok && !isActor && strings.HasPrefix(to, futurePrefix) {
		proc.SendUserMessage(l.c.System.NewLocalPID(to), env)
		return true
	}
	if ok {
		l.n.forbidden.Add(1)
	} else {
		l.n.undelivered.Add(1)
	}
	return false
}

// onWatch handles watching across the link.
func (s *session) onWatch(f Frame) error {
	d := decoder{b: f.Body}
	what, why := d.u8(), d.u8()
	w := watch{d.text(maxActorID), d.text(maxActorID)}
	if err := d.end(); err != nil || what < doWatch || what > doTerminated || w.target == "" || w.watcher == "" {
		return frameError(badBody, "watch of kind %d: %v", what, err)
	}
	l := s.link.l
	switch what {
	case doWatch:
		s.onWatched(w)
	case doUnwatch:
		if s.link.watches.removeIn(w) {
			l.system(w.target, &actor.Unwatch{Watcher: s.pid(w.watcher)})
		}
	case doTerminated:
		if !s.link.watches.removeOut(w) {
			l.n.forbidden.Add(1)
			return nil
		}
		reason := actor.TerminatedReason_Stopped
		if why == byte(actor.TerminatedReason_NotFound) {
			reason = actor.TerminatedReason_NotFound
		}
		l.terminated(w.watcher, s.pid(w.target), reason)
	}
	return nil
}

// onWatched lets a peer's actor watch one that is exposed; of others it is told
// that they are not there.
func (s *session) onWatched(w watch) {
	l := s.link.l
	if _, ok := l.exposed.Load(w.target); ok && s.link.watches.addIn(s, w) {
		l.system(w.target, &actor.Watch{Watcher: s.pid(w.watcher)})
		return
	}
	e := encoder{b: []byte{doTerminated, byte(actor.TerminatedReason_NotFound)}}
	e.name(w.target).name(w.watcher)
	_ = s.send(s.control, &Frame{Kind: kindWatch, Body: e.b})
}

func (l *Links) system(to string, m any) {
	pid := l.c.System.NewLocalPID(to)
	proc, _ := l.c.System.ProcessRegistry.Get(pid) // the dead letters if it is gone: they answer a Watch
	proc.SendSystemMessage(pid, m)
}

// unwatch ends what a session's actors watched: ours are told that the address
// is gone, theirs are forgotten.
func (l *Links) unwatch(s *session) {
	out, in := s.link.watches.take(s)
	for _, w := range out {
		l.terminated(w.watcher, s.pid(w.target), actor.TerminatedReason_AddressTerminated)
	}
	for _, w := range in {
		l.system(w.target, &actor.Unwatch{Watcher: s.pid(w.watcher)})
	}
}

// watch is an actor that is watched and one that watches it, on two nodes.
type watch struct{ target, watcher string }

// watches are those across one link: out by our actors, in by the peer's.
type watches struct {
	mu      sync.Mutex
	out, in map[watch]*session
}

func (w *watches) addOut(s *session, x watch) bool { return w.add(&w.out, s, x) }
func (w *watches) addIn(s *session, x watch) bool  { return w.add(&w.in, s, x) }
func (w *watches) removeOut(x watch) bool          { return w.remove(&w.out, x) }
func (w *watches) removeIn(x watch) bool           { return w.remove(&w.in, x) }

func (w *watches) add(m *map[watch]*session, s *session, x watch) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if *m == nil {
		*m = make(map[watch]*session)
	}
	if _, known := (*m)[x]; !known && len(*m) >= maxWatches {
		return false
	}
	(*m)[x] = s
	return true
}

func (w *watches) remove(m *map[watch]*session, x watch) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, known := (*m)[x]
	delete(*m, x)
	return known
}

// take removes the watches of a session.
func (w *watches) take(s *session) (out, in []watch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for x, of := range w.out {
		if of == s {
			out = append(out, x)
			delete(w.out, x)
		}
	}
	for x, of := range w.in {
		if of == s {
			in = append(in, x)
			delete(w.in, x)
		}
	}
	return out, in
}

// name appends an actor's name; one that is too long makes the frame invalid.
func (e *encoder) name(s string) *encoder {
	if len(s) > maxActorID {
		e.long = true
		return e
	}
	return e.text(s)
}
