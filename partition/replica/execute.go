package replica

import (
	"encoding/binary"
	"errors"
	"fmt"

	"pando.dev/pando/internal/planted"
	"pando.dev/pando/partition"
)

// MaxResultBytes bounds the result of a command, which is kept in the state for
// retries.
const MaxResultBytes = 64 << 10

// Result is what applying one record has given.
type Result struct {
	// Data is the result of a command. It is the caller's to keep.
	Data []byte
	// Session is the session that the record has opened.
	Session partition.SessionID
	// Repeated: the command had been executed before; this is its first result.
	Repeated bool
	// Err refuses the record: it changed nothing, except with CodeTooLarge,
	// which says that the command was executed but its result cannot be kept. With
	// CodeWrongGroup and CodeBusy the command's session does not know of it either:
	// it may be executed yet, by whoever serves its keys.
	Err *partition.Error
}

// Executor applies committed records to a partition and keeps the sessions that
// make every command execute once. All it knows is in the state, in the same
// writes as the commands' effects, so it travels with every copy.
//
// Apply belongs to one goroutine. Read may run on any number of them at once.
type Executor struct {
	p        partition.Partition
	sessions sessions
	config   ConfigurationAt
	extent   partition.Extent
	last     partition.Index // of the newest record applied by this Executor
	user     userWriter
	key, row []byte // scratch
	planted  planted.Set
	points   func(Point) // nil: nobody is told
}

// NewExecutor loads the sessions and the last configuration from the state.
func NewExecutor(p partition.Partition, state partition.Reader) (*Executor, error) {
	e := &Executor{p: p, sessions: sessions{limit: MaxSessions}}
	if err := e.loadConfiguration(state); err != nil {
		return nil, fmt.Errorf("load configuration: %w", err)
	}
	x, err := ExtentOf(state)
	if err != nil {
		return nil, fmt.Errorf("load extent: %w", err)
	}
	e.extent = x
	if _, err := e.sessions.load(state, spaceSessions); err != nil {
		return nil, fmt.Errorf("load sessions: %w", err)
	}
	return e, nil
}

// Plant lets the executor make these mistakes from now on. Only tests and the
// simulator do.
func (e *Executor) Plant(s planted.Set) {
	e.planted = s
	if s.Has(planted.SessionsLost) {
		e.sessions.list = nil
	}
	for _, x := range e.sessions.list {
		if s.Has(planted.WindowLost) {
			x.slots, x.max = nil, 0
		}
	}
}

func (e *Executor) point(p Point) {
	if e.points != nil {
		e.points(p)
	}
}

// LimitSessions changes how many sessions are kept from MaxSessions, the same on
// every replica and from the beginning. Tests and the simulator do, so that
// sessions expire.
func (e *Executor) LimitSessions(n int) { e.sessions.limit = n }

// Observe lets f be told where the executor comes by; see Point.
func (e *Executor) Observe(f func(Point)) { e.points = f }

// Configuration is the last one that was applied; its Membership is nil if the
// state has none.
func (e *Executor) Configuration() ConfigurationAt { return e.config }

// Sessions is the number of open sessions.
func (e *Executor) Sessions() int { return len(e.sessions.list) }

// Apply applies a record. Records come in the order of their indexes, each once
// for a state. After an error the writes that w has seen for this record must be
// discarded and a new Executor made from the state as it is then.
func (e *Executor) Apply(w partition.Writer, rec partition.Record) (Result, error) {
	if rec.Index() <= e.last { // not assert, whose arguments would cost memory each time
		broken("record %s applied behind %d", rec, e.last)
	}
	var (
		res Result
		err error
	)
	switch rec.Kind() {
	case partition.KindNoop:
	case partition.KindCommand, partition.KindSession:
		if e.extent.IsSource() {
			res.Err = e.left()
		} else if rec.Kind() == partition.KindCommand {
			res, err = e.command(w, rec)
		} else {
			res, err = e.session(w, rec)
		}
	case partition.KindMember, partition.KindMode:
		err = e.configuration(w, rec)
	case partition.KindIntent, partition.KindSeal, partition.KindUnseal, partition.KindActivate, partition.KindDone, partition.KindAbort:
		res, err = e.structure(w, rec)
	case partition.KindMergeIntent, partition.KindMerging, partition.KindSourceSeal, partition.KindSourceUnseal, partition.KindSourceGone:
		res, err = e.structure(w, rec)
	case partition.KindAbsorb:
		res, err = e.absorb(w, rec)
	default:
		err = partition.Errorf(partition.CodeNewerFormat, "a record of kind %s", rec.Kind())
	}
	if err != nil {
		return Result{}, fmt.Errorf("apply record %s: %w", rec, err)
	}
	e.last = rec.Index()
	return res, nil
}

// at is a record's index as the partition and the sessions see it.
func (e *Executor) at(rec partition.Record) partition.Index { return e.extent.At(rec.Index()) }

func (e *Executor) command(w partition.Writer, rec partition.Record) (Result, error) {
	id, seq, body, err := ParseCommand(rec.Payload())
	if err != nil {
		return malformed(err)
	}
	if id == (partition.SessionID{}) {
		if outside := e.outside(body); outside != nil {
			return Result{Err: outside}, nil
		}
		return e.run(w, e.at(rec), body)
	}
	s := e.sessions.find(id)
	if s == nil && e.planted.Has(planted.ExpiredExecutes) {
		return e.run(w, e.at(rec), body)
	}
	if s == nil {
		e.point(AtSessionUnknown)
		return Result{Err: partition.Errorf(partition.CodeSessionExpired, "session %d of %s is not open", id.Index, id.Group)}, nil
	}
	v := s.judge(seq)
	if v != execute && e.planted.Has(planted.ExecuteTwice) || v == tooOld && e.planted.Has(planted.OldExecutes) {
		v = execute
	}
	switch v {
	case known:
		e.point(AtRepeated)
		return e.remembered(w, id, seq)
	case tooOld:
		e.point(AtTooOld)
		return Result{Err: partition.Errorf(partition.CodeSessionExpired,
			"command %d is out of the window of %d, the session is at %d", seq, SessionWindow, s.max)}, nil
	}
	if outside := e.outside(body); outside != nil {
		return Result{Err: outside}, nil
	}
	res, err := e.run(w, e.at(rec), body)
	if err != nil {
		return Result{}, err
	}
	if err := e.remember(w, id, seq, e.at(rec), res); err != nil {
		return Result{}, err
	}
	s.note(seq, e.at(rec)) // last: an error above leaves the table as it was
	return res, nil
}

// malformed is the result of a command that cannot be read.
func malformed(err error) (Result, error) {
	var refused *partition.Error
	if partition.CodeOf(err) != partition.CodeNewerFormat && errors.As(err, &refused) {
		return Result{Err: refused}, nil // as on every replica
	}
	return Result{}, err // a newer program would execute it: do not diverge
}

// run executes a command.
func (e *Executor) run(w partition.Writer, at partition.Index, body []byte) (Result, error) {
	e.user.r, e.user.w, e.user.mask = w, w, e.extent.Range
	data, err := e.p.Apply(&e.user, partition.Command{Index: at, Payload: body})
	e.user.r, e.user.w = nil, nil
	if err != nil {
		return Result{}, err
	}
	if len(data) > MaxResultBytes {
		return Result{Err: partition.Errorf(partition.CodeTooLarge,
			"the command was executed, but its result of %d bytes is over the limit of %d", len(data), MaxResultBytes)}, nil
	}
	return Result{Data: data}, nil
}

func (e *Executor) session(w partition.Writer, rec partition.Record) (Result, error) {
	b := rec.Payload()
	switch {
	case len(b) == 1 && b[0] == sessionOpen:
		return e.open(w, partition.SessionID{Group: rec.Group(), Index: e.at(rec)})
	case len(b) > 0 && b[0] == sessionExpire && (len(b)-1)%sessionBytes == 0:
		for b = b[1:]; len(b) > 0; b = b[sessionBytes:] {
			if err := e.expire(w, parseSession(b), e.at(rec)); err != nil {
				return Result{}, err
			}
		}
		return Result{}, nil
	}
	return Result{Err: partition.Errorf(partition.CodeInvalid, "a session record of %d bytes", len(b))}, nil
}

func (e *Executor) open(w partition.Writer, id partition.SessionID) (Result, error) {
	for len(e.sessions.list) >= e.sessions.limit {
		if err := e.expire(w, e.sessions.oldest().id, id.Index); err != nil {
			return Result{}, err
		}
	}
	if err := w.Set(e.sessionKey(id), nil); err != nil {
		return Result{}, err
	}
	e.sessions.add(id)
	e.point(AtSessionOpened)
	return Result{Session: id}, nil
}

func (e *Executor) expire(w partition.Writer, id partition.SessionID, at partition.Index) error {
	if e.sessions.find(id) == nil {
		return nil
	}
	if err := e.forget(w, at); err != nil {
		return err
	}
	rows := e.sessionRows(id)
	if err := e.stageRows(w, rows); err != nil {
		return err
	}
	if err := w.DeleteRange(rows); err != nil {
		return err
	}
	e.sessions.remove(id)
	e.point(AtSessionExpired)
	return nil
}

// forget writes down that a session was expired, and when: what is in no table may
// have been in this one.
func (e *Executor) forget(w partition.Writer, at partition.Index) error {
	if err := e.stageRow(w, []byte{spaceSessions}); err != nil {
		return err
	}
	return w.Set([]byte{spaceSessions}, binary.LittleEndian.AppendUint64(nil, uint64(at)))
}

// Rows. A session has one row without a slot, written when it opens, and one per
// slot with the number, the index and the result of the command in it. All indexes
// are as Extent.At has them. A row of its own says when a session was expired last.
//
//	0x02 = index u64
//	0x02 group u64 index u64           (big-endian, so that rows sort by session)
//	0x02 group u64 index u64 slot u8 = seq u64 | index u64 | code u16 | data or text
const slotHead = 18

// sessionKey is the key of the session's row; it is overwritten by the next.
func (e *Executor) sessionKey(id partition.SessionID) []byte {
	be := binary.BigEndian
	e.key = append(e.key[:0], spaceSessions)
	e.key = be.AppendUint64(e.key, uint64(id.Group))
	e.key = be.AppendUint64(e.key, uint64(id.Index))
	return e.key
}

// sessionRows is the range of the session's row and those of its slots.
func (e *Executor) sessionRows(id partition.SessionID) partition.KeyRange {
	lo := append([]byte(nil), e.sessionKey(id)...)
	return partition.KeyRange{Lo: lo, Hi: append(append([]byte(nil), lo...), SessionWindow)}
}

func (e *Executor) slotKey(id partition.SessionID, seq uint64) []byte {
	e.key = append(e.sessionKey(id), byte(seq%SessionWindow))
	return e.key
}

func (e *Executor) remember(w partition.Writer, id partition.SessionID, seq uint64, at partition.Index, res Result) error {
	le := binary.LittleEndian
	e.row = le.AppendUint64(e.row[:0], seq)
	e.row = le.AppendUint64(e.row, uint64(at))
	if res.Err != nil {
		e.row = append(le.AppendUint16(e.row, uint16(res.Err.Code)), res.Err.Why...)
	} else {
		e.row = append(le.AppendUint16(e.row, 0), res.Data...)
	}
	key := e.slotKey(id, seq)
	if err := e.stageRow(w, key); err != nil {
		return err
	}
	return w.Set(key, e.row)
}

// remembered returns the first result of a command.
func (e *Executor) remembered(w partition.Writer, id partition.SessionID, seq uint64) (Result, error) {
	row, ok, err := w.Get(e.slotKey(id, seq))
	if e.planted.Has(planted.OtherResult) && seq > 1 {
		if other, found, _ := w.Get(e.slotKey(id, seq-1)); found && len(other) >= slotHead {
			row = append(append([]byte(nil), row[:8]...), other[8:]...)
		}
	}
	if err != nil {
		return Result{}, err
	}
	le := binary.LittleEndian
	if !ok || len(row) < slotHead || le.Uint64(row) != seq {
		return Result{}, partition.Errorf(partition.CodeCorrupt, "the result of command %d of session %d is not in the state", seq, id.Index)
	}
	res := Result{Repeated: true}
	if c := partition.Code(le.Uint16(row[16:])); c != 0 {
		res.Err = &partition.Error{Code: c, Why: string(row[slotHead:])}
	} else {
		res.Data = append([]byte(nil), row[slotHead:]...)
	}
	return res, nil
}

// load adds the sessions that have rows in the given space, and reports
// whether any was ever expired.
func (t *sessions) load(state partition.Reader, space byte) (forgot bool, err error) {
	const session = 1 + sessionBytes
	be, le := binary.BigEndian, binary.LittleEndian
	for p, err := range state.Scan(partition.KeyRange{Lo: []byte{space}, Hi: []byte{space + 1}}) {
		switch {
		case err != nil:
			return false, err
		case len(p.Key) == 1 && len(p.Value) == 8:
			forgot = true
			continue
		case len(p.Key) != session && len(p.Key) != session+1,
			len(p.Key) > session && len(p.Value) < slotHead:
			return false, partition.Errorf(partition.CodeCorrupt, "session row %x of %d bytes", p.Key, len(p.Value))
		}
		s := t.add(partition.SessionID{
			Group: partition.GroupID(be.Uint64(p.Key[1:])), Index: partition.Index(be.Uint64(p.Key[9:])),
		})
		if len(p.Key) > session {
			s.note(le.Uint64(p.Value), partition.Index(le.Uint64(p.Value[8:])))
		}
	}
	return forgot, nil
}

var configurationKey = [...]byte{spaceMeta, 'c'}

func (e *Executor) configuration(w partition.Writer, rec partition.Record) error {
	m, err := configurationIn(rec)
	if err != nil {
		return err
	}
	e.row = binary.LittleEndian.AppendUint64(e.row[:0], uint64(rec.Index()))
	e.row = append(e.row, rec.Payload()...)
	if err := w.Set(configurationKey[:], e.row); err != nil {
		return err
	}
	e.config = ConfigurationAt{Index: rec.Index(), Membership: m}
	return nil
}

func (e *Executor) loadConfiguration(state partition.Reader) error {
	row, ok, err := state.Get(configurationKey[:])
	if err != nil || !ok {
		return err
	}
	if len(row) < 8 {
		return partition.Errorf(partition.CodeCorrupt, "a configuration row of %d bytes", len(row))
	}
	m := new(partition.Membership)
	if err := m.UnmarshalBinary(row[8:]); err != nil {
		return err
	}
	e.config = ConfigurationAt{Index: partition.Index(binary.LittleEndian.Uint64(row)), Membership: m}
	return nil
}
