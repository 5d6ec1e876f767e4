package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"pando.dev/pando/partition"
)

// Result is what a group answered.
type Result struct {
	Body  []byte            // the caller's to keep
	Index partition.Index   // of the command's record, or what the read reflects
	Group partition.GroupID // that answered
	// Age is, if AgeKnown, how old the state at most is that a read shows: no
	// write acknowledged longer ago is missing. 0 if the read is linearizable.
	Age      time.Duration
	AgeKnown bool
}

// call is one operation from its begin to its end, over all attempts:
//
//	        .------------------------------------------------------.
//	        v                                                      |
//	advance: routes? --no--> waits for a refresh ------------------+
//	   |     session? --no--> waits for a place in one ------------+
//	   |     a node? --no--> backs off ----------------------------+
//	   v                                                           |
//	 sent --> answered, lost --> may it be tried again? --yes------'
//	                                 `--no--> end
//
// It is always in exactly one of these waits, each of which is bounded by the
// call's deadline. What ends a wait comes from any goroutine and carries the
// wait's number; anything that comes for an earlier wait is ignored.
type call struct {
	c     *Client
	table string
	// group is asked, if set, whatever the key: a session is opened.
	group *group
	// span, if set, must be in one partition as a whole.
	span     *partition.KeyRange
	opts     ReadOptions // of a read; a command uses Seen
	deadline time.Time
	size     int // counted into the client's bytes in flight
	// done is called once, from any goroutine, with no lock held; or ended gets
	// the outcome, if it is set.
	done  func(Result, error)
	ended chan<- outcome
	// stop undoes the watch of the caller's context, if there is one.
	stop func() bool

	mu  sync.Mutex
	req Request
	n   uint32 // number of the current wait
	end bool   // done was called or is about to be

	routing *routing
	first   uint64 // number of the refresh that was newest at the begin
	began   time.Time
	at      *group // the one asked last
	session *session
	// maybe: the command may have been executed under session and seq. From
	// then on it is never sent under any other.
	maybe bool

	sent      peer // the current attempt, if one is on its way
	attempt   uint64
	node      partition.NodeID // asked last
	asked     int              // nodes asked since the last back-off
	tries     int              // back-offs
	timeouts  int              // attempts that were not answered in time
	hops      int              // answers that led elsewhere since the last back-off
	searching bool             // in at.searching
	round     round            // of a read that any replica may answer
	last      error            // of the last attempt

	todo todo
}

// todo is what a step leaves to be done when the call's lock is released.
type todo struct {
	run    func() // of the local peer
	wake   []wait
	open   int // sessions to be opened with at
	done   bool
	result Result
	err    error
}

// unlock releases the call's lock and does what is to be done.
func (k *call) unlock() {
	t, at := k.todo, k.at
	k.todo = todo{}
	k.mu.Unlock()
	for range t.open {
		at.openSession()
	}
	wake(t.wake)
	if t.run != nil {
		t.run()
	}
	if t.done {
		if k.stop != nil {
			k.stop()
		}
		k.leave()
		if t.err == nil {
			k.opts.note(t.result)
		}
		if k.ended != nil {
			k.ended <- outcome{t.result, t.err}
		} else {
			k.done(t.result, t.err)
		}
	}
}

// leave counts the call out of what bounds it.
func (k *call) leave() {
	if k.group != nil {
		k.c.openings.Add(-1)
		return
	}
	k.c.leave(k.size)
}

// wake lets waiting calls go on.
func wake(waits []wait) {
	for _, w := range waits {
		w.k.resume(w)
	}
}

func (k *call) begin() {
	k.mu.Lock()
	if !k.end { // its context may have ended already
		k.first, k.began = k.c.routing.Load().number, time.Now()
		k.advance()
	}
	k.unlock()
}

// retry ends a wait, like resume, after which the call backs off.
func (k *call) retry(w wait, why error) {
	k.mu.Lock()
	if !k.end && w.n == k.n {
		k.last = why
		k.pause(backoff(k.tries, busyMin, busyMax))
	}
	k.unlock()
}

// resume ends a wait other than for an answer.
func (k *call) resume(w wait) {
	k.mu.Lock()
	if k.end || w.n != k.n {
		k.mu.Unlock()
		if w.s != nil {
			wake(w.s.group.release(w.s, w.seq))
		}
		return
	}
	if w.s != nil {
		k.seat(w.s, w.seq)
	}
	k.advance()
	k.unlock()
}

func (k *call) seat(s *session, seq uint64) {
	k.session, k.req.Session, k.req.Seq = s, s.id, seq
}

// unseat gives the place in the session back: nothing more is sent under it.
func (k *call) unseat() {
	if k.session != nil {
		k.todo.wake = append(k.todo.wake, k.session.group.release(k.session, k.req.Seq)...)
		k.session, k.req.Session, k.req.Seq = nil, partition.SessionID{}, 0
	}
}

// advance goes as far as it can. The lock is held.
func (k *call) advance() {
	now := time.Now()
	if k.searching {
		k.searching = false
		k.at.leave(k)
	}
	if !k.deadline.After(now) {
		k.expire(context.DeadlineExceeded)
		return
	}
	if k.c.life.Err() != nil {
		k.fail(errClosed())
		return
	}
	k.routing = k.c.routing.Load()
	if k.req.Op == OpRoutes {
		if k.routing.number > k.first {
			k.finish(nil)
		} else {
			k.awaitRoutes()
		}
		return
	}
	rt := k.target()
	if rt == nil {
		k.unrouted()
		return
	}
	if k.span != nil && !rt.holds(*k.span) {
		k.fail(newCrossing(k.table, *k.span, rt))
		return
	}
	k.at = rt.group
	k.req.Group, k.req.RangeVersion = rt.group.id, rt.RangeVersion
	if k.req.Op == OpPropose && !k.seated() {
		return
	}
	k.transmit(rt, now)
}

// target finds who is to be asked.
func (k *call) target() *route {
	if k.group != nil {
		return k.routing.groups[k.group.id]
	}
	return k.routing.find(k.table, k.req.Key)
}

// unrouted handles that the routes know no target. It is missing if it was not in
// the catalog when the call had begun, for which some node must vouch: one that
// has not heard of the control group for a while may not know a new table yet.
func (k *call) unrouted() {
	fresh := k.routing.asOf.After(k.began)
	switch {
	case fresh && k.group != nil:
		k.fail(partition.Errorf(partition.CodeNotFound, "partition %s is gone", k.group.id))
	case fresh && k.routing.tables[k.table] == nil:
		k.fail(partition.Errorf(partition.CodeNoSuchTable, "no table %q", k.table))
	default:
		k.last = unheard(k.table)
		k.awaitRoutes()
	}
}

// unheard is why a call waits that knows no target.
func unheard(table string) *partition.Error {
	return &partition.Error{
		Code: partition.CodeUnavailable, Why: fmt.Sprintf("no route to table %q, and no node that can be reached has heard from the control group since", table),
		Next: "retry when the control group has a leader",
	}
}

// seated reports whether the command has a place in a session of the group that
// is asked. An earlier place is kept if it may have been used: only under it is
// a second execution impossible.
func (k *call) seated() bool {
	if k.session != nil && (k.maybe || k.session.group == k.at) {
		return true
	}
	k.unseat()
	k.n++
	s, seq, open := k.at.place(k, k.n)
	if s == nil {
		k.todo.open += open
		return false
	}
	k.seat(s, seq)
	return true
}

// callFirst is how much later than its call an attempt ends that has the call's
// time: the call takes it back, and so knows whether it was ever sent.
const callFirst = 100 * time.Millisecond

// transmit sends the request to a member of the group.
func (k *call) transmit(rt *route, now time.Time) {
	m := k.choose(rt, now)
	if m == nil {
		if len(rt.members) == 0 {
			k.last = partition.Errorf(partition.CodeUnavailable, "partition %s has no member with an address", k.at.id)
		} else if k.last == nil {
			k.last = partition.Errorf(partition.CodeUnavailable, "no member of partition %s can be reached", k.at.id)
		}
		k.search()
		return
	}
	limit := k.c.cfg.AttemptTimeout << min(k.timeouts, 2)
	deadline := now.Add(limit)
	if k.deadline.Before(deadline) {
		deadline = k.deadline
	}
	k.req.TimeoutMS = timeoutMS(float64(deadline.Sub(now)) / float64(time.Millisecond))
	k.n++
	if deadline.Equal(k.deadline) {
		deadline = deadline.Add(callFirst)
	}
	id, run, err := m.peer.send(attempt{to: k, n: k.n, deadline: deadline}, &k.req)
	if err != nil {
		k.last = err
		k.refused(partition.CodeOf(err))
		return
	}
	k.c.cfg.Stats.Attempts.Add(1)
	k.node, k.sent, k.attempt, k.todo.run = m.node, m.peer, id, run
	k.asked++
}

// refused handles a request that the client's own limits kept from being sent.
func (k *call) refused(code partition.Code) {
	switch code {
	case partition.CodeClosed:
		k.fail(k.last)
		return
	case partition.CodeUnavailable: // the routes are older than the client's
		k.awaitRoutes()
		return
	}
	k.pause(backoff(k.tries, busyMin, busyMax))
}

// answered implements answerer.
func (k *call) answered(n uint32, r *Response) {
	k.mu.Lock()
	if k.end || n != k.n {
		k.mu.Unlock()
		return
	}
	k.sent = nil
	switch {
	case r.Code == 0:
		k.succeed(r)
	case k.redirected(r):
		k.c.cfg.Stats.Redirects.Add(1)
		k.last = r.Err()
		k.hops++
		k.asked, k.round = 0, round{}
		k.advance()
	default:
		k.judge(r.Err())
	}
	k.unlock()
}

func (k *call) succeed(r *Response) {
	if !k.anywhere() {
		k.todo.wake = append(k.todo.wake, k.at.learn(k.node)...)
	}
	k.todo.result = Result{Index: r.Index, Group: k.req.Group, Age: r.Age, AgeKnown: r.AgeKnown || k.req.Op == OpRead && !k.anywhere()}
	if len(r.Body) > 0 {
		k.todo.result.Body = bytes.Clone(r.Body)
	}
	k.finish(nil)
}

// lost implements answerer.
func (k *call) lost(n uint32, maybe bool, why error) {
	k.mu.Lock()
	if k.end || n != k.n {
		k.mu.Unlock()
		return
	}
	k.c.cfg.Stats.Lost.Add(1)
	k.sent = nil
	k.last = why
	k.at.forget(k.node)
	k.uncertain(maybe)
	if errors.Is(why, errAttemptTimeout) {
		k.timeouts++
	}
	if partition.CodeOf(why) == partition.CodeClosed || partition.CodeOf(why) == partition.CodeNewerFormat {
		k.fail(why)
	} else {
		k.next()
	}
	k.unlock()
}

// uncertain notes that the last attempt may have been executed. Only a command
// can be executed; reading or opening a session twice does no harm.
func (k *call) uncertain(maybe bool) {
	k.maybe = k.maybe || maybe && k.req.Op == OpPropose
}

// judge decides what an error means for the call. Every code is named in one of
// the cases; a new one ends the call.
func (k *call) judge(e *partition.Error) {
	k.last = e
	if k.anywhere() {
		k.judgeReplica(e)
		return
	}
	switch e.Code {
	case partition.CodeNotMaster, partition.CodeNewerEpoch:
		k.c.cfg.Stats.Redirects.Add(1)
		k.at.hint(k.node, e.Master)
		k.next()
	case partition.CodeUnavailable, partition.CodeClosed:
		k.at.forget(k.node)
		k.search()
	case partition.CodeWrongGroup, partition.CodeNotFound:
		k.c.cfg.Stats.Redirects.Add(1)
		if e.Code == partition.CodeNotFound { // no replica is left there that could name the master
			k.at.forget(k.node)
			k.c.unlearn(k.req.Group)
		}
		k.awaitRoutes()
	case partition.CodeBusy, partition.CodeTimeout:
		k.pause(backoff(k.tries, busyMin, busyMax))
	case partition.CodeUnknown:
		k.uncertain(true)
		k.at.forget(k.node)
		k.search()
	case partition.CodeInternal:
		if k.req.Op == OpRead {
			k.fail(e)
			return
		}
		k.uncertain(true)
		k.pause(backoff(k.tries, searchMin, searchMax))
	case partition.CodeSessionExpired:
		k.sessionExpired(e)
	case partition.CodeNoSpace:
		if k.maybe { // space may return, and with it the answer to what happened
			k.pause(backoff(k.tries, busyMin, busyMax))
			return
		}
		k.fail(e)
	default:
		k.fail(e)
	}
}

// sessionExpired takes a new session for a command that was certainly not
// executed under the old one.
func (k *call) sessionExpired(e *partition.Error) {
	if k.session == nil || k.maybe {
		k.fail(e)
		return
	}
	k.session.group.expired(k.session)
	k.unseat()
	if k.tries++; k.tries > 1 {
		k.pause(backoff(k.tries, busyMin, busyMax))
		return
	}
	k.advance()
}

// next asks another member at once, unless all have just been asked.
func (k *call) next() {
	if k.anywhere() {
		k.nextReplica()
		return
	}
	rt := k.target()
	if rt == nil || k.asked > len(rt.members) {
		k.search()
		return
	}
	k.advance()
}

// refreshEvery is after how many back-offs a call wants new routes: the members
// may all have moved.
const refreshEvery = 8

// search backs off until a master is found.
func (k *call) search() {
	if k.anywhere() {
		k.endRound()
		return
	}
	k.tries++
	k.asked = 0
	if k.tries%refreshEvery == 0 {
		k.awaitRoutes()
		return
	}
	k.n++
	k.searching = true
	k.after(k.at.search(k, k.n, k.tries))
}

// pause backs off for d.
func (k *call) pause(d time.Duration) {
	k.tries++
	k.asked, k.hops = 0, 0
	k.n++
	k.after(d)
}

// after goes on at the end of the back-off, or at the deadline if that is
// earlier.
func (k *call) after(d time.Duration) {
	k.c.cfg.Stats.BackOffs.Add(1)
	w := wait{k: k, n: k.n}
	time.AfterFunc(min(d, time.Until(k.deadline)), func() { k.resume(w) })
}

// awaitRoutes waits for a refresh that is newer than the routes that were used.
func (k *call) awaitRoutes() {
	k.asked, k.hops = 0, 0
	k.n++
	k.c.refresher.want(wait{k: k, n: k.n}, k.routing.number)
}

// cancel ends the call because its context has ended.
func (k *call) cancel(cause error) {
	k.mu.Lock()
	if !k.end {
		k.expire(cause)
	}
	k.unlock()
}

// over ends a call that waits since w because the deadline has passed or, with
// a reason, because the client is closed.
func (k *call) over(w wait, reason error) {
	k.mu.Lock()
	if !k.end && w.n == k.n {
		if reason != nil {
			k.fail(reason)
		} else {
			k.expire(context.DeadlineExceeded)
		}
	}
	k.unlock()
}

// expire ends the call because its time is over.
func (k *call) expire(cause error) {
	if k.sent != nil {
		k.uncertain(!k.sent.withdraw(k.attempt))
	}
	if k.last == nil {
		k.last = k.c.refresher.failure()
	}
	if k.maybe {
		k.finish(fmt.Errorf("%w (%w)", unknown(k.last), cause))
		return
	}
	if partition.CodeOf(k.last) == partition.CodeBehind {
		k.finish(fmt.Errorf("%w (%w)", k.last, cause))
		return
	}
	e := partition.Errorf(partition.CodeTimeout, "%s on table %q was not begun in time", k.req.Op, k.table)
	if k.req.Op != OpPropose {
		e.Why = fmt.Sprintf("%s on table %q was not answered in time", k.req.Op, k.table)
	}
	if k.last != nil {
		e.Why += ", last: " + k.last.Error()
	}
	k.finish(fmt.Errorf("%w (%w)", e, cause))
}

// fail ends the call with an error that is final. If the command may have been
// executed earlier it cannot be what the caller gets.
func (k *call) fail(err error) {
	if k.maybe {
		err = unknown(err)
	}
	k.finish(err)
}

func unknown(last error) *partition.Error {
	e := &partition.Error{
		Code: partition.CodeUnknown, Why: "the command may have been executed, and at most once",
		Next: "read the state to find out",
	}
	if last != nil {
		e.Why += "; last: " + last.Error()
	}
	return e
}

// finish ends the call.
func (k *call) finish(err error) {
	k.end = true
	if k.searching {
		k.searching = false
		k.at.leave(k)
	}
	k.unseat()
	if partition.CodeOf(err) == partition.CodeUnknown {
		k.c.cfg.Stats.Unknown.Add(1)
	}
	k.todo.done, k.todo.err = true, err
}
