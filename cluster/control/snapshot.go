package control

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"pando.dev/pando/partition"
)

// A snapshot is the state as a sequence of parts: head, locks, the catalog's
// pages, tail. Each part has its length and checksum before it. What is read is
// untrusted: a snapshot counts only as a whole.

// maxPartBytes bounds one part of a snapshot.
const maxPartBytes = 1 << 20

// snapshot is a state that no longer changes.
type snapshot struct {
	catalog   *Catalog // shared, immutable
	nextGroup partition.GroupID
	nextTable uint64
	locks     map[partition.GroupID]lock
	sessions  map[partition.NodeID]session
	tokens    []tokenItem
}

func (s *state) snapshot() *snapshot {
	return &snapshot{
		catalog: s.catalog, nextGroup: s.nextGroup, nextTable: s.nextTable,
		locks: maps.Clone(s.locks), sessions: maps.Clone(s.sessions), tokens: slices.Clone(s.tokens),
	}
}

// write writes the snapshot. Equal states give equal bytes.
func (s *snapshot) write(w io.Writer) error {
	out := bufio.NewWriterSize(w, 64<<10)
	if err := writePart(out, kindHead, s.head()); err != nil {
		return err
	}
	locks := s.lockItems()
	for page := range slices.Chunk(locks, pageItems) {
		if err := writePart(out, kindLockPage, &lockPage{Locks: page}); err != nil {
			return err
		}
	}
	for after, more := (cursor{}), true; more; {
		p, err := s.catalog.page(after, true, pageBytes)
		if err != nil {
			return err
		}
		if err := writePart(out, kindPage, p); err != nil {
			return err
		}
		after, more = p.Next, p.More
	}
	tail := tailBody{Locks: len(locks), Tables: len(s.catalog.tables), Groups: len(s.catalog.groups)}
	if err := writePart(out, kindTail, &tail); err != nil {
		return err
	}
	return out.Flush()
}

func (s *snapshot) head() *headBody {
	h := &headBody{NextGroup: s.nextGroup, NextTable: s.nextTable, Tokens: s.tokens, Floor: s.catalog.floor}
	for node, x := range s.sessions {
		h.Sessions = append(h.Sessions, sessionItem{Node: node, Boot: x.boot, Expired: x.expired})
	}
	slices.SortFunc(h.Sessions, func(a, b sessionItem) int { return cmp.Compare(a.Node, b.Node) })
	for _, d := range s.catalog.drops {
		h.Drops = append(h.Drops, dropItem{Version: d.version, Table: d.table})
	}
	return h
}

func (s *snapshot) lockItems() []lockItem {
	all := make([]lockItem, 0, len(s.locks))
	for g, l := range s.locks {
		all = append(all, lockItem{Group: g, Last: l.last, Boot: l.boot, Holder: holderItem(l.holder)})
	}
	slices.SortFunc(all, func(a, b lockItem) int { return cmp.Compare(a.Group, b.Group) })
	return all
}

func writePart(w io.Writer, k kind, body any) error {
	b, err := encode(k, body)
	if err != nil {
		return err
	}
	if len(b) > maxPartBytes {
		return partition.Errorf(partition.CodeTooLarge, "a snapshot part of %d bytes, limit %d", len(b), maxPartBytes)
	}
	head := binary.LittleEndian.AppendUint32(nil, uint32(len(b)))
	head = binary.LittleEndian.AppendUint32(head, partition.Checksum(b))
	_, err = w.Write(append(head, b...))
	return err
}

func readPart(r io.Reader) ([]byte, error) {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, corrupt("it ends early: %v", err)
	}
	n, sum := binary.LittleEndian.Uint32(head[:]), binary.LittleEndian.Uint32(head[4:])
	if n > maxPartBytes {
		return nil, corrupt("a part of %d bytes, limit %d", n, maxPartBytes)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, corrupt("it ends early: %v", err)
	}
	if partition.Checksum(b) != sum {
		return nil, corrupt("the checksum of a part does not match")
	}
	return b, nil
}

func corrupt(format string, args ...any) *partition.Error {
	return partition.Errorf(partition.CodeCorrupt, "control snapshot: "+format, args...)
}

// readState reads a whole snapshot and checks it as a whole.
func readState(from io.Reader) (*state, error) {
	r := bufio.NewReaderSize(from, 64<<10)
	b, err := readPart(r)
	if err != nil {
		return nil, err
	}
	head, err := decode[headBody](kindHead, b)
	if err != nil {
		return nil, err
	}
	s := newState()
	if err := s.putHead(head); err != nil {
		return nil, err
	}
	tail, err := s.readParts(r)
	if err != nil {
		return nil, err
	}
	s.catalog.drops, s.catalog.floor = nil, head.Floor
	for _, d := range head.Drops {
		s.catalog.drops = append(s.catalog.drops, drop{version: d.Version, table: d.Table})
	}
	return s, s.validate(tail)
}

// readParts reads everything behind the head.
func (s *state) readParts(r *bufio.Reader) (*tailBody, error) {
	catalog := newAssembly(&Catalog{})
	for {
		b, err := readPart(r)
		if err != nil {
			return nil, err
		}
		k, err := kindOf(b)
		if err != nil {
			return nil, err
		}
		switch k {
		case kindLockPage:
			err = s.readLocks(b)
		case kindPage:
			err = catalog.read(b)
		case kindTail:
			return s.readTail(r, b, catalog)
		default:
			err = corrupt("a part of kind %d", k)
		}
		if err != nil {
			return nil, err
		}
	}
}

func (s *state) readTail(r *bufio.Reader, b []byte, catalog *assembly) (*tailBody, error) {
	tail, err := decode[tailBody](kindTail, b)
	if err != nil {
		return nil, err
	}
	if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
		return nil, corrupt("something follows its end")
	}
	s.catalog, err = catalog.result()
	return tail, err
}

func (a *assembly) read(b []byte) error {
	p, err := decode[pageBody](kindPage, b)
	if err != nil {
		return err
	}
	_, err = a.add(p)
	return err
}

func (s *state) readLocks(b []byte) error {
	page, err := decode[lockPage](kindLockPage, b)
	if err != nil {
		return err
	}
	for _, l := range page.Locks {
		if _, ok := s.locks[l.Group]; ok || l.Last > MaxLockNumber || l.Holder.Number > l.Last {
			return corrupt("the lock of %s is there twice or has no valid number", l.Group)
		}
		s.locks[l.Group] = lock{last: l.Last, boot: l.Boot, holder: LockHolder(l.Holder)}
	}
	if len(s.locks) > MaxGroups {
		return corrupt("%d locks, limit %d", len(s.locks), MaxGroups)
	}
	return nil
}

func (s *state) putHead(h *headBody) error {
	s.nextGroup, s.nextTable, s.tokens = h.NextGroup, h.NextTable, h.Tokens
	if len(h.Sessions) > MaxSessions || len(h.Tokens) > maxTokens || len(h.Drops) > maxDrops {
		return corrupt("%d sessions, %d tokens, %d drops", len(h.Sessions), len(h.Tokens), len(h.Drops))
	}
	for _, x := range h.Sessions {
		if err := s.openSession(x.Node, x.Boot); err != nil {
			return fmt.Errorf("control snapshot: %w", err)
		}
		s.sessions[x.Node] = session{boot: x.Boot, expired: x.Expired}
	}
	return nil
}

// validate checks what the parts cannot know of each other.
func (s *state) validate(tail *tailBody) error {
	c := s.catalog
	if tail.Locks != len(s.locks) || tail.Tables != len(c.tables) || tail.Groups != len(c.groups) {
		return corrupt("%d locks, %d tables, %d groups, its tail says %d, %d, %d",
			len(s.locks), len(c.tables), len(c.groups), tail.Locks, tail.Tables, tail.Groups)
	}
	for _, e := range c.tables {
		if e.table.ID >= s.nextTable {
			return corrupt("table %q has id %d, the next is %d", e.table.Name, e.table.ID, s.nextTable)
		}
	}
	for _, g := range c.groups {
		if g.ID >= s.nextGroup {
			return corrupt("%s is there, the next is %s", g.ID, s.nextGroup)
		}
	}
	for g := range s.locks {
		if _, ok := c.Group(g); !ok {
			return corrupt("the lock of %s, which the catalog does not have", g)
		}
	}
	return nil
}
