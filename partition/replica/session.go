package replica

import (
	"cmp"
	"encoding/binary"
	"slices"

	"pando.dev/pando/partition"
)

const (
	// MaxSessions bounds the client sessions of a group. Opening one more
	// expires the one that was not used for longest.
	MaxSessions = 4096
	// SessionWindow is how many results are kept per session. A client may have
	// that many commands of a session under way.
	SessionWindow = 64

	commandPlain   = 0 // no session
	commandSession = 1

	sessionOpen   = 1
	sessionExpire = 2

	sessionBytes = 16 // an encoded SessionID
)

// AppendCommand encodes the payload of a KindCommand record behind dst: body,
// to be executed once for this session and number. Numbers of a session start at
// 1. The zero SessionID means no session: then seq is ignored.
func AppendCommand(dst []byte, s partition.SessionID, seq uint64, body []byte) []byte {
	if s == (partition.SessionID{}) {
		return append(append(dst, commandPlain), body...)
	}
	dst = appendSession(append(dst, commandSession), s)
	dst = binary.LittleEndian.AppendUint64(dst, seq)
	return append(dst, body...)
}

// ParseCommand decodes what AppendCommand has encoded. body aliases b.
func ParseCommand(b []byte) (s partition.SessionID, seq uint64, body []byte, err error) {
	const head = 1 + sessionBytes + 8
	switch {
	case len(b) > 0 && b[0] == commandPlain:
		return s, 0, b[1:], nil
	case len(b) > 0 && b[0] > commandSession:
		return s, 0, nil, partition.Errorf(partition.CodeNewerFormat, "command format %d, this program knows %d", b[0], commandSession)
	case len(b) < head:
		return s, 0, nil, partition.Errorf(partition.CodeCorrupt, "a command of %d bytes is cut short", len(b))
	}
	s = parseSession(b[1:])
	seq = binary.LittleEndian.Uint64(b[1+sessionBytes:])
	if s.Group == 0 || s.Index == 0 || seq == 0 {
		return s, 0, nil, partition.Errorf(partition.CodeInvalid, "command %d of session %d in %s", seq, s.Index, s.Group)
	}
	return s, seq, b[head:], nil
}

// AppendOpenSession encodes the payload of a KindSession record that opens a
// session. Its SessionID is the group and the index of the record.
func AppendOpenSession(dst []byte) []byte { return append(dst, sessionOpen) }

// AppendExpireSessions encodes the payload of a KindSession record that expires
// sessions.
func AppendExpireSessions(dst []byte, ids ...partition.SessionID) []byte {
	dst = append(dst, sessionExpire)
	for _, id := range ids {
		dst = appendSession(dst, id)
	}
	return dst
}

func appendSession(dst []byte, s partition.SessionID) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, uint64(s.Group))
	return binary.LittleEndian.AppendUint64(dst, uint64(s.Index))
}

func parseSession(b []byte) partition.SessionID {
	return partition.SessionID{
		Group: partition.GroupID(binary.LittleEndian.Uint64(b)),
		Index: partition.Index(binary.LittleEndian.Uint64(b[8:])),
	}
}

// session is what the table keeps in memory: which numbers were executed. The
// results are only in the state.
type session struct {
	id   partition.SessionID
	used partition.Index // of the record that used it last
	max  uint64          // the greatest number executed
	// slots[n%SessionWindow] is the last number with that remainder that was
	// executed; nil before the first.
	slots []uint64
}

// verdict is what the table says of a number.
type verdict uint8

const (
	execute verdict = iota // never executed
	known                  // executed; its result is in the state
	tooOld                 // out of the window; whether it was executed is not known
)

func (s *session) judge(seq uint64) verdict {
	switch {
	case s.slots == nil:
		return execute
	case s.slots[seq%SessionWindow] == seq:
		return known
	case s.slots[seq%SessionWindow] > seq || seq+SessionWindow <= s.max:
		return tooOld
	}
	return execute
}

func (s *session) note(seq uint64, at partition.Index) {
	if s.slots == nil {
		s.slots = make([]uint64, SessionWindow)
	}
	s.slots[seq%SessionWindow] = seq
	s.max, s.used = max(s.max, seq), max(s.used, at)
}

// sessions is the table of one group, ordered by id. It holds nothing that is
// not in the state, so it can be loaded from there.
type sessions struct {
	list  []*session
	limit int
}

func compareSessions(s *session, id partition.SessionID) int {
	return cmp.Or(cmp.Compare(s.id.Group, id.Group), cmp.Compare(s.id.Index, id.Index))
}

func (t *sessions) find(id partition.SessionID) *session {
	if i, ok := slices.BinarySearchFunc(t.list, id, compareSessions); ok {
		return t.list[i]
	}
	return nil
}

// add returns the session with this id, new if there was none.
func (t *sessions) add(id partition.SessionID) *session {
	i, ok := slices.BinarySearchFunc(t.list, id, compareSessions)
	if !ok {
		t.list = slices.Insert(t.list, i, &session{id: id, used: id.Index})
	}
	return t.list[i]
}

func (t *sessions) remove(id partition.SessionID) {
	if i, ok := slices.BinarySearchFunc(t.list, id, compareSessions); ok {
		t.list = slices.Delete(t.list, i, i+1)
	}
}

// oldest returns the session that was not used for longest.
func (t *sessions) oldest() *session {
	o := t.list[0]
	for _, s := range t.list[1:] {
		if s.used < o.used {
			o = s
		}
	}
	return o
}
