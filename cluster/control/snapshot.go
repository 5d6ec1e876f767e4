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

// A snapshot is the state as a sequence of parts: head, starts, locks, in-sync
// numbers, the catalog's pages, tail. Each part has its length and checksum before it. What is read is
// untrusted: a snapshot counts only as a whole.

// maxPartBytes bounds one part of a snapshot.
const maxPartBytes = 1 << 20

// permitsOfPage bounds the in-sync numbers of one part: with the longest names
// and reasons they stay below maxPartBytes.
const permitsOfPage = 1024

// snapshot is a state that no longer changes.
type snapshot struct {
	catalog   *Catalog // shared, immutable
	nextGroup partition.GroupID
	nextTable uint64
	nextTask  TaskID
	locks     map[partition.GroupID]lock
	sessions  map[partition.NodeID]session
	permits   map[partition.GroupID]permit
	tokens    []tokenItem
}

func (s *state) snapshot() *snapshot {
	return &snapshot{
		catalog: s.catalog, nextGroup: s.nextGroup, nextTable: s.nextTable, nextTask: s.nextTask,
		locks: maps.Clone(s.locks), sessions: maps.Clone(s.sessions),
		permits: maps.Clone(s.permits), tokens: slices.Clone(s.tokens),
	}
}

// write writes the snapshot. Equal states give equal bytes.
func (s *snapshot) write(w io.Writer) error {
	out := &parts{to: bufio.NewWriterSize(w, 64<<10)}
	out.add(kindHead, s.head())
	if s.nextTask > 1 {
		out.add(kindTaskHead, &taskHead{Next: s.nextTask, Tasks: len(s.catalog.tasks)})
	}
	starts := s.startItems()
	for page := range slices.Chunk(starts, pageItems) {
		out.add(kindStartPage, &startPage{Of: len(starts), Starts: page})
	}
	permits := s.permitItems()
	for page := range slices.Chunk(permits, permitsOfPage) {
		out.add(kindPermitPage, &permitPage{Of: len(permits), Permits: page})
	}
	locks := s.lockItems()
	for page := range slices.Chunk(locks, pageItems) {
		out.add(kindLockPage, &lockPage{Locks: page})
	}
	for after, more := (cursor{}), true; more; {
		p := s.catalog.page(after, true, pageBytes)
		out.add(p.part())
		after, more = p.Next, p.More
	}
	out.add(kindTail, &tailBody{Locks: len(locks), Tables: len(s.catalog.tables), Groups: len(s.catalog.groups)})
	return out.end()
}

// parts are the parts of a snapshot that is written. Behind the first error
// nothing is.
type parts struct {
	to  *bufio.Writer
	err error
}

func (p *parts) add(k kind, body any) {
	if p.err == nil {
		p.err = writePart(p.to, k, body)
	}
}

func (p *parts) end() error {
	if p.err == nil {
		p.err = p.to.Flush()
	}
	return p.err
}

func (s *snapshot) head() *headBody {
	h := &headBody{NextGroup: s.nextGroup, NextTable: s.nextTable, Tokens: s.tokens, Floor: s.catalog.floor}
	for node, x := range s.sessions {
		h.Sessions = append(h.Sessions, heldSession{Node: node, Boot: x.boot, Expired: x.expired})
	}
	slices.SortFunc(h.Sessions, func(a, b heldSession) int { return cmp.Compare(a.Node, b.Node) })
	for _, d := range s.catalog.drops {
		h.Drops = append(h.Drops, dropItem{Version: d.version, Table: d.table})
	}
	return h
}

func (s *snapshot) startItems() []startItem {
	var all []startItem
	for node, x := range s.sessions {
		if x.start != 0 {
			all = append(all, startItem{Node: node, Start: x.start})
		}
	}
	slices.SortFunc(all, func(a, b startItem) int { return cmp.Compare(a.Node, b.Node) })
	return all
}

func (s *snapshot) permitItems() []permitItem {
	all := make([]permitItem, 0, len(s.permits))
	for g, p := range s.permits {
		all = append(all, p.item(g))
	}
	slices.SortFunc(all, func(a, b permitItem) int { return cmp.Compare(a.Group, b.Group) })
	return all
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
	b := encode(k, body)
	if len(b) > maxPartBytes {
		return partition.Errorf(partition.CodeTooLarge, "a snapshot part of %d bytes, limit %d", len(b), maxPartBytes)
	}
	head := binary.LittleEndian.AppendUint32(nil, uint32(len(b)))
	head = binary.LittleEndian.AppendUint32(head, partition.Checksum(b))
	_, err := w.Write(append(head, b...))
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
	var starts, permits, tasks int // that there must be in the end
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
		case kindStartPage:
			starts, err = s.readStarts(b)
		case kindPermitPage:
			permits, err = s.readPermits(b)
		case kindLockPage:
			err = s.readLocks(b)
		case kindTaskHead:
			tasks, err = s.readTaskHead(b)
		case kindPage, kindTaskPage, kindSplitsPage:
			err = catalog.read(b)
		case kindTail:
			if have := s.startCount(); have != starts || len(s.permits) != permits {
				return nil, corrupt("%d of %d starts and %d of %d in-sync numbers", have, starts, len(s.permits), permits)
			}
			tail, err := s.readTail(r, b, catalog)
			if err == nil && len(s.catalog.tasks) != tasks {
				err = corrupt("%d of %d tasks", len(s.catalog.tasks), tasks)
			}
			return tail, err
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
	p, err := decodePage(b)
	if err != nil {
		return err
	}
	_, err = a.add(p)
	return err
}

func (s *state) readStarts(b []byte) (of int, err error) {
	page, err := decode[startPage](kindStartPage, b)
	if err != nil {
		return 0, err
	}
	for _, i := range page.Starts {
		x, ok := s.sessions[i.Node]
		if !ok || x.start != 0 || i.Start == 0 {
			return 0, corrupt("the start of node %q is 0, there twice, or of no session", i.Node)
		}
		x.start = i.Start
		s.sessions[i.Node] = x
	}
	return page.Of, nil
}

func (s *state) startCount() (n int) {
	for _, x := range s.sessions {
		if x.start != 0 {
			n++
		}
	}
	return n
}

func (s *state) readPermits(b []byte) (of int, err error) {
	page, err := decode[permitPage](kindPermitPage, b)
	if err != nil {
		return 0, err
	}
	for i := range page.Permits {
		p, failed := permitOf(&page.Permits[i])
		if failed != nil {
			return 0, failed
		}
		g := page.Permits[i].Group
		if _, ok := s.permits[g]; ok {
			return 0, corrupt("the in-sync number of %s is there twice", g)
		}
		s.permits[g] = p
	}
	if len(s.permits) > MaxGroups {
		return 0, corrupt("%d in-sync numbers, limit %d", len(s.permits), MaxGroups)
	}
	return page.Of, nil
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
		if err := s.openSession(x.Node, x.Boot, 0); err != nil {
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
	if c.floor > c.Version {
		return corrupt("it forgot drops up to version %d, its catalog is of version %d", c.floor, c.Version)
	}
	for _, d := range c.drops {
		if d.version > c.Version {
			return corrupt("table %d was dropped in version %d, its catalog is of version %d", d.table, d.version, c.Version)
		}
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
	for _, t := range c.tasks {
		if err := t.validateIDs(s); err != nil {
			return err
		}
	}
	for g := range s.permits {
		if !c.kept(g) {
			return corrupt("the in-sync number of %s, which the catalog does not have", g)
		}
	}
	for g := range s.locks {
		if !c.kept(g) {
			return corrupt("the lock of %s, which the catalog does not have", g)
		}
	}
	return nil
}
