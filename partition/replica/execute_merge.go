package replica

import (
	"bytes"
	"encoding/binary"
	"slices"

	"pando.dev/pando/partition"
)

// A survivor takes the source's rows in by its own log, so that its replicas need
// nothing else: not the source's replicas, wherever they are, nor a node that has
// both. Keys of the partition go where they will be, which is outside the survivor's
// range, so nobody sees them before the decision; rows of sessions wait in a space of
// their own until they are united with the survivor's.

// left refuses what comes to the source of a merge.
func (e *Executor) left() *partition.Error {
	e.point(AtOutside)
	return leftTo(e.extent.Merge)
}

func leftTo(m *partition.Merge) *partition.Error {
	if m.Phase == partition.SourceSealed {
		return partition.Errorf(partition.CodeBusy, "keys %.80s are about to be %s's", m.Range, m.Other)
	}
	return partition.Errorf(partition.CodeWrongGroup, "keys %.80s are %s's", m.Range, m.Other)
}

// sourceRows are the rows of a source that its survivor takes in: those of its
// sessions, and those of its keys.
func sourceRows(keys partition.KeyRange) [2]partition.KeyRange {
	return [2]partition.KeyRange{{Lo: []byte{spaceSessions}, Hi: []byte{spaceSessions + 1}}, userRange(keys)}
}

// stagedSessions is the range of a source's rows of sessions in its survivor.
func stagedSessions() partition.KeyRange {
	return partition.KeyRange{Lo: []byte{spaceMerge}, Hi: []byte{spaceMerge + 1}}
}

// staged is where the survivor keeps rows of the source.
func staged(rows partition.KeyRange) partition.KeyRange {
	if rows.Lo[0] != spaceSessions {
		return rows
	}
	if rows.Hi[0] != spaceSessions {
		return partition.KeyRange{Lo: inSpace(spaceMerge, rows.Lo), Hi: []byte{spaceMerge + 1}}
	}
	return partition.KeyRange{Lo: inSpace(spaceMerge, rows.Lo), Hi: inSpace(spaceMerge, rows.Hi)}
}

func stagedKey(key []byte) []byte {
	if key[0] != spaceSessions {
		return key
	}
	return inSpace(spaceMerge, key)
}

// SourceRows reads the rows of a source that serves keys, from a row on that the
// call before has ended at, or from nil: about so many bytes, at least one row if there is
// one. With done they were the last.
func SourceRows(state partition.Reader, keys partition.KeyRange, from []byte, limit int) (a partition.Absorb, done bool, err error) {
	spaces := sourceRows(keys)
	if len(from) == 0 {
		from = spaces[0].Lo
	}
	space := spaces[1]
	if bytes.Compare(from, spaces[0].Hi) < 0 {
		space = spaces[0]
	}
	a.Rows = partition.KeyRange{Lo: from, Hi: space.Hi}
	if a.Rows.Intersect(space).Empty() || !a.Rows.Within(space) {
		return a, false, partition.Errorf(partition.CodeInvalid, "rows from %.80x on are not the source's", from)
	}
	size := 0
	for p, err := range state.Scan(a.Rows) {
		if err != nil {
			return a, false, err
		}
		n := len(p.Key) + len(p.Value) + pairBytes
		if size+n > limit && size > 0 {
			a.Rows.Hi = bytes.Clone(p.Key)
			return a, false, nil
		}
		size += n
		a.Pairs = append(a.Pairs, partition.Pair{Key: bytes.Clone(p.Key), Value: bytes.Clone(p.Value)})
	}
	return a, space.Lo[0] == spaceUser, nil
}

// pairBytes is what a pair takes in an Absorb beside its key and value.
const pairBytes = 8

// SourceNext is where the rows behind those of a go on, for the call of SourceRows
// that follows.
func SourceNext(a *partition.Absorb, keys partition.KeyRange) []byte {
	if spaces := sourceRows(keys); bytes.Equal(a.Rows.Hi, spaces[0].Hi) {
		return spaces[1].Lo
	}
	return a.Rows.Hi
}

// IsSessions reports whether the rows are of sessions. They are united in one go, so
// they have to be few.
func IsSessions(a *partition.Absorb) bool { return a.Rows.Lo[0] == spaceSessions }

// HasAbsorbed reports whether the survivor's state has these rows of the source
// already, and no others there.
func HasAbsorbed(state partition.Reader, a *partition.Absorb) (bool, error) {
	i := 0
	for p, err := range state.Scan(staged(a.Rows)) {
		if err != nil {
			return false, err
		}
		if i == len(a.Pairs) || !bytes.Equal(p.Key, stagedKey(a.Pairs[i].Key)) || !bytes.Equal(p.Value, a.Pairs[i].Value) {
			return false, nil
		}
		i++
	}
	return i == len(a.Pairs), nil
}

// absorb applies rows of the source. They may come again, as they are by then.
func (e *Executor) absorb(w partition.Writer, rec partition.Record) (Result, error) {
	var a partition.Absorb
	if err := a.UnmarshalBinary(rec.Payload()); err != nil {
		return malformed(err)
	}
	m := e.extent.Merge
	if m == nil || m.Phase != partition.Absorbing || e.extent.MergeDecision() != a.Decision {
		return Result{Err: partition.Errorf(partition.CodeRefused, "rows for task %d, begun at %d, which takes none in", a.Task, a.Intent)}, nil
	}
	if s := sourceRows(m.Range); !a.Rows.Within(s[0]) && !a.Rows.Within(s[1]) {
		return Result{Err: partition.Errorf(partition.CodeInvalid, "rows of %.80s are not the source's", a.Rows)}, nil
	}
	if err := removeAny(w, staged(a.Rows)); err != nil {
		return Result{}, err
	}
	for _, p := range a.Pairs {
		if err := w.Set(stagedKey(p.Key), p.Value); err != nil {
			return Result{}, err
		}
	}
	return Result{}, nil
}

// removeAny removes rows, if there are any: a store pays for each range that it is told
// to remove.
func removeAny(w partition.Writer, rows partition.KeyRange) error {
	for _, err := range w.Scan(rows) {
		if err != nil {
			return err
		}
		return w.DeleteRange(rows)
	}
	return nil
}

// merges does what the records of a merge change beside the extent, which becomes x.
func (e *Executor) merges(w partition.Writer, rec partition.Record, x partition.Extent) error {
	switch {
	case rec.Kind() == partition.KindMergeIntent: // what an earlier split has left there goes
		return e.unstage(w, x.Merge)
	case rec.Kind() == partition.KindAbort && e.extent.Merge != nil:
		return e.unstage(w, e.extent.Merge)
	case rec.Kind() == partition.KindMerging:
		if err := e.unite(w, e.at(rec)); err != nil {
			return err
		}
		return removeAny(w, stagedSessions())
	}
	return nil
}

// unstage removes what was taken in.
func (e *Executor) unstage(w partition.Writer, m *partition.Merge) error {
	if err := removeAny(w, stagedSessions()); err != nil {
		return err
	}
	return removeAny(w, userRange(m.Range))
}

// unite makes one table of the survivor's sessions and the source's.
//
// A number is executed once: by the group that had its keys then. So two rows of a
// session with the same number are one that both have inherited, and of two in the
// same slot the one with the lesser number is out of the window by the greater one.
//
// A session that only one of them has is kept if the other has never expired any.
// Else it may have been there and its numbers with it: it ends, and its client is told,
// rather than that a command is executed a second time.
func (e *Executor) unite(w partition.Writer, at partition.Index) error {
	var source sessions
	forgot, err := source.load(w, spaceMerge)
	if err != nil {
		return err
	}
	_, own, err := w.Get([]byte{spaceSessions})
	if err != nil {
		return err
	}
	if forgot {
		for _, s := range slices.Clone(e.sessions.list) {
			if source.find(s.id) == nil {
				if err := e.expire(w, s.id, at); err != nil {
					return err
				}
			}
		}
		if err := e.forget(w, at); err != nil {
			return err
		}
	}
	for _, s := range source.list {
		if own && e.sessions.find(s.id) == nil {
			continue
		}
		if err := e.inherit(w, s); err != nil {
			return err
		}
	}
	// A row of the source may have taken the place of one that used its session later,
	// so what is in memory is no longer what a replica finds that starts here.
	e.sessions.list = nil
	if _, err := e.sessions.load(w, spaceSessions); err != nil {
		return err
	}
	for len(e.sessions.list) > e.sessions.limit {
		if err := e.expire(w, e.sessions.oldest().id, at); err != nil {
			return err
		}
	}
	return nil
}

// inherit adds what the source knows of a session.
func (e *Executor) inherit(w partition.Writer, s *session) error {
	t := e.sessions.find(s.id)
	if t == nil {
		if err := w.Set(e.sessionKey(s.id), nil); err != nil {
			return err
		}
		t = e.sessions.add(s.id)
	}
	rows, err := pairs(w, inRange(spaceMerge, e.sessionRows(s.id)))
	if err != nil {
		return err
	}
	for _, p := range rows {
		if !isSlot(p.Key) {
			continue
		}
		seq := binary.LittleEndian.Uint64(p.Value)
		if t.slots != nil && t.slots[seq%SessionWindow] >= seq {
			continue
		}
		if err := w.Set(inSpace(spaceSessions, p.Key), p.Value); err != nil {
			return err
		}
		t.note(seq, partition.Index(binary.LittleEndian.Uint64(p.Value[8:])))
	}
	return nil
}

func inRange(space byte, rows partition.KeyRange) partition.KeyRange {
	return partition.KeyRange{Lo: inSpace(space, rows.Lo), Hi: inSpace(space, rows.Hi)}
}

// pairs reads rows, so that they can be written meanwhile.
func pairs(r partition.Reader, rows partition.KeyRange) (all []partition.Pair, err error) {
	for p, err := range r.Scan(rows) {
		if err != nil {
			return nil, err
		}
		all = append(all, partition.Pair{Key: bytes.Clone(p.Key), Value: bytes.Clone(p.Value)})
	}
	return all, nil
}
