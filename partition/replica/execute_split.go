package replica

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"pando.dev/pando/partition"
)

// extentKey is the row of the group's extent. A group that was never split and is
// no child has none.
var extentKey = [...]byte{spaceMeta, 'e'}

// ExtentOf reads what a group serves, as of this state.
func ExtentOf(state partition.Reader) (partition.Extent, error) {
	var x partition.Extent
	row, ok, err := state.Get(extentKey[:])
	if err != nil || !ok {
		return x, err
	}
	err = x.UnmarshalBinary(row)
	return x, err
}

// Extent is what the group serves as of the last record that was applied. It
// belongs to the goroutine that applies; others ask ExtentOf.
func (e *Executor) Extent() partition.Extent { return e.extent }

// Read answers a query from one state, of the keys that were the group's then.
func (e *Executor) Read(state partition.Reader, query []byte) ([]byte, error) {
	x, err := ExtentOf(state)
	if err != nil {
		return nil, fmt.Errorf("read extent: %w", err)
	}
	return e.p.Read(&userReader{r: state, mask: x.Range}, query)
}

// ReadRouted is Read for a query that was routed by range version v. If that is not
// what the group served as of the state, the query is refused: a scan would show
// less than who asks believes.
func (e *Executor) ReadRouted(state partition.Reader, v partition.RangeVersion, query []byte) ([]byte, error) {
	x, err := ExtentOf(state)
	switch {
	case err != nil:
		return nil, fmt.Errorf("read extent: %w", err)
	case x.IsSource():
		return nil, leftTo(x.Merge)
	case x.Version != 0 && v < x.Since:
		return nil, partition.Errorf(partition.CodeWrongGroup, "routed by range version %d, the range has changed at %d", v, x.Since)
	case x.Version != 0 && v > x.Version:
		return nil, partition.Errorf(partition.CodeBehind, "routed by range version %d, this replica has seen %d", v, x.Version)
	}
	return e.p.Read(&userReader{r: state, mask: x.Range}, query)
}

// outside refuses a command for keys that the group does not serve now, before it
// has done anything.
func (e *Executor) outside(body []byte) *partition.Error {
	s, ok := e.p.(partition.Splitter)
	if e.extent.Version == 0 || !ok {
		return nil
	}
	keys, err := s.Span(body)
	if err != nil || e.extent.Serves(keys) {
		return nil // with an error, the partition refuses the command itself
	}
	e.point(AtOutside)
	if keys.Within(e.extent.Range) {
		return partition.Errorf(partition.CodeBusy, "keys %.80s are about to move", keys)
	}
	return partition.Errorf(partition.CodeWrongGroup, "keys %.80s are not in %.80s", keys, e.extent.Range)
}

// structure applies a record that changes the extent. What does not fit is refused
// alike on every replica.
func (e *Executor) structure(w partition.Writer, rec partition.Record) (Result, error) {
	x, refused := e.extent.Next(rec.Kind(), rec.Payload(), rec.Index())
	if refused == nil && (rec.Kind() == partition.KindIntent || rec.Kind() == partition.KindSeal) {
		refused = e.checkMakers(x.Split)
	}
	switch {
	case refused != nil && refused.Code == partition.CodeNewerFormat:
		return Result{}, refused // a newer program would take it: do not diverge
	case refused != nil:
		e.point(AtSplitRefused)
		return Result{Err: refused}, nil
	}
	if rec.Kind() == partition.KindDone {
		if err := w.DeleteRange(stagedRows()); err != nil {
			return Result{}, err
		}
	}
	if err := e.merges(w, rec, x); err != nil {
		return Result{}, err
	}
	if err := e.setExtent(w, x); err != nil {
		return Result{}, err
	}
	e.structurePoint(rec.Kind())
	return Result{}, nil
}

func (e *Executor) structurePoint(k partition.Kind) {
	p, ok := map[partition.Kind]Point{
		partition.KindIntent: AtIntent, partition.KindSeal: AtSealed, partition.KindUnseal: AtUnsealed,
		partition.KindActivate: AtActivated, partition.KindDone: AtSplitDone, partition.KindAbort: AtSplitAborted,
	}[k]
	if ok {
		e.point(p)
	}
}

// checkMakers refuses children with members that no replica of this group makes.
func (e *Executor) checkMakers(s *partition.Split) *partition.Error {
	m := e.config.Membership
	for i := range s.Children {
		for _, x := range s.Children[i].Membership.Members {
			var made partition.Member
			if m != nil {
				made, _ = m.Member(x.Replica)
			}
			if made.Node != x.Node || made.Kind == partition.LogReplica {
				return partition.Errorf(partition.CodeRefused, "replica %d of %s on %s is made by nobody here", x.Replica, s.Children[i].Group, x.Node)
			}
		}
	}
	return nil
}

func (e *Executor) setExtent(w partition.Writer, x partition.Extent) error {
	row, _ := x.AppendBinary(nil) // never fails
	if err := w.Set(extentKey[:], row); err != nil {
		return err
	}
	e.extent = x
	return nil
}

// Between Activate and Done a child may be made from the state at any time, and
// gets the sessions as they were at Activate. So a row of a session is put aside
// before it changes for the first time; that it has is told by its index.

// stagedRows is the range of the rows that are put aside.
func stagedRows() partition.KeyRange {
	return partition.KeyRange{Lo: []byte{spaceSplit}, Hi: []byte{spaceSplit + 1}}
}

// inSpace is a row's key with another first byte.
func inSpace(space byte, key []byte) []byte { return append([]byte{space}, key[1:]...) }

// isSlot reports whether the key of a session's row is that of a slot.
func isSlot(key []byte) bool { return len(key) > 1+sessionBytes }

// newer reports whether a session's row is of a record behind base.
func newer(p partition.Pair, base partition.Index) (bool, error) {
	switch {
	case len(p.Key) == 1 && len(p.Value) == 8:
		return partition.Index(binary.LittleEndian.Uint64(p.Value)) > base, nil
	case isSlot(p.Key) && len(p.Value) >= slotHead:
		return partition.Index(binary.LittleEndian.Uint64(p.Value[8:])) > base, nil
	case len(p.Key) == 1+sessionBytes:
		return partition.Index(binary.BigEndian.Uint64(p.Key[9:])) > base, nil
	}
	return false, partition.Errorf(partition.CodeCorrupt, "session row %x of %d bytes", p.Key, len(p.Value))
}

// staging is the index that children begin at, 0 if none may be made now.
func (e *Executor) staging() partition.Index {
	if s := e.extent.Split; s != nil && s.Phase == partition.Activated {
		return e.extent.At(s.At)
	}
	return 0
}

// stageRow puts a slot's row aside, unless it has changed since Activate.
func (e *Executor) stageRow(w partition.Writer, key []byte) error {
	base := e.staging()
	if base == 0 {
		return nil
	}
	row, ok, err := w.Get(key)
	if err != nil || !ok {
		return err
	}
	return e.stage(w, partition.Pair{Key: key, Value: row}, base)
}

func (e *Executor) stage(w partition.Writer, p partition.Pair, base partition.Index) error {
	if changed, err := newer(p, base); changed || err != nil {
		return err
	}
	e.point(AtStaged)
	return w.Set(inSpace(spaceSplit, p.Key), bytes.Clone(p.Value))
}

// stageRows puts the rows of a session aside.
func (e *Executor) stageRows(w partition.Writer, rows partition.KeyRange) error {
	base := e.staging()
	if base == 0 {
		return nil
	}
	var kept []partition.Pair
	for p, err := range w.Scan(rows) {
		if err != nil {
			return err
		}
		kept = append(kept, partition.Pair{Key: bytes.Clone(p.Key), Value: bytes.Clone(p.Value)})
	}
	for _, p := range kept {
		if err := e.stage(w, p, base); err != nil {
			return err
		}
	}
	return nil
}

// AdoptChild turns a copy of the parent's state, made at the parent's Activate or
// any time later until Done, into the state that the child g begins with, the
// same whenever the copy was made. The caller writes Base of the returned extent as
// the applied index with the same batch.
//
// The parent's other keys stay where they are, see Foreign.
func AdoptChild(w partition.Writer, parent, g partition.GroupID) (partition.Extent, error) {
	x, c, err := activated(w, parent, g)
	if err != nil {
		return x, err
	}
	child := x.OfChild(parent, c)
	if err := restoreSessions(w, child.At(child.Base)); err != nil {
		return x, err
	}
	return adopt(w, parent, c, x)
}

// AdoptSeed is AdoptChild in the write that applies Activate itself to a copy of
// the parent's state: its sessions are as they were then, however many they are.
func AdoptSeed(w partition.Writer, parent, g partition.GroupID) (partition.Extent, error) {
	x, c, err := activated(w, parent, g)
	if err != nil {
		return x, err
	}
	return adopt(w, parent, c, x)
}

// activated returns the extent of a parent's state, and the child of its split.
func activated(w partition.Writer, parent, g partition.GroupID) (partition.Extent, *partition.Child, error) {
	x, err := ExtentOf(w)
	if err != nil {
		return x, nil, err
	}
	c := x.Split.Child(g)
	if c == nil || x.Split.Phase != partition.Activated {
		return x, nil, partition.Errorf(partition.CodeRefused, "a state of %s makes no %s: %s", parent, g, x.Describe())
	}
	return x, c, nil
}

func adopt(w partition.Writer, parent partition.GroupID, c *partition.Child, x partition.Extent) (partition.Extent, error) {
	child := x.OfChild(parent, c)
	rec, err := partition.FirstConfiguration(c.Group, child.Base, c.Membership)
	if err != nil {
		return child, err
	}
	e := Executor{}
	if err := e.configuration(w, rec); err != nil {
		return child, err
	}
	return child, e.setExtent(w, child)
}

// restoreSessions makes the sessions what they were at base.
func restoreSessions(w partition.Writer, base partition.Index) error {
	var gone [][]byte
	for p, err := range w.Scan(partition.KeyRange{Lo: []byte{spaceSessions}, Hi: []byte{spaceSessions + 1}}) {
		if err != nil {
			return err
		}
		after, err := newer(p, base)
		if err != nil {
			return err
		}
		if after {
			gone = append(gone, bytes.Clone(p.Key))
		}
	}
	for _, key := range gone {
		if err := w.Delete(key); err != nil {
			return err
		}
	}
	var kept []partition.Pair
	for p, err := range w.Scan(stagedRows()) {
		if err != nil {
			return err
		}
		kept = append(kept, partition.Pair{Key: inSpace(spaceSessions, p.Key), Value: bytes.Clone(p.Value)})
	}
	for _, p := range kept {
		if err := w.Set(p.Key, p.Value); err != nil {
			return err
		}
	}
	return w.DeleteRange(stagedRows())
}
