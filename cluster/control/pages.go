package control

import (
	"cmp"
	"slices"

	"pando.dev/pando/partition"
)

// A catalog travels as pages: its changes since a version, in order, each page
// small enough for one answer. Whoever has a catalog of that version and puts
// the pages on it has the newer catalog. A page may be cut from a newer catalog
// than the page before; what changed meanwhile has a higher version and so comes
// later again.

// Classes order what changed in the same version: a name that was dropped and
// created again is dropped first.
const (
	classDrop  = 1
	classTable = 2
	classGroup = 3
	classTask  = 4
)

// pageBytes is about how much one page holds: with the largest item and the
// outer form it stays below MaxCallBytes.
const pageBytes = 48 << 10

// pageItems bounds the entries of a page, far below what the structural check
// of a body allows.
const pageItems = 2048

// change is one entry of a catalog's changes.
type change struct {
	at    cursor
	drop  drop
	table *Table
	group *Group
	task  *Task
}

func (a cursor) compare(b cursor) int {
	return cmp.Or(cmp.Compare(a.Version, b.Version), cmp.Compare(a.Class, b.Class), cmp.Compare(a.ID, b.ID))
}

// since is the cursor behind everything of the given version.
func since(version uint64) cursor { return cursor{Version: version, Class: classTask, ID: 1<<64 - 1} }

// changes returns what changed behind the cursor, in order.
func (c *Catalog) changes(after cursor) []change {
	var all []change
	add := func(x change) {
		if x.at.compare(after) > 0 {
			all = append(all, x)
		}
	}
	for _, d := range c.drops {
		add(change{at: cursor{Version: d.version, Class: classDrop, ID: d.table}, drop: d})
	}
	for i := range c.tables {
		t := c.tables[i].table
		add(change{at: cursor{Version: t.Changed, Class: classTable, ID: t.ID}, table: t})
	}
	for _, g := range c.groups {
		add(change{at: cursor{Version: g.Changed, Class: classGroup, ID: uint64(g.ID)}, group: g})
	}
	for _, t := range c.tasks {
		add(change{at: cursor{Version: t.Changed, Class: classTask, ID: uint64(t.ID)}, task: t})
	}
	slices.SortFunc(all, func(a, b change) int { return a.at.compare(b.at) })
	return all
}

// page returns the first changes behind the cursor, about limit bytes of them.
// Without whole, a cursor from before the remembered drops starts a whole
// catalog instead; the page says so. A cursor from the future gets an empty page.
func (c *Catalog) page(after cursor, whole bool, limit int) *pageBody {
	if !whole && after.Version < c.floor {
		after, whole = cursor{}, true
	}
	p := &pageBody{Version: c.Version, Floor: c.floor, Whole: whole}
	size, items := 0, 0
	for _, x := range c.changes(after) {
		// A task is larger than what a page may exceed its limit by.
		if size >= limit || items >= pageItems || x.task != nil && size >= limit/2 && items > 0 {
			p.More = true
			return p
		}
		size, items, p.Next = size+p.add(x), items+1, x.at
	}
	return p
}

// add puts one change on the page and returns its size, roughly.
func (p *pageBody) add(x change) int {
	const fixed = 64 // of numbers and lengths
	switch {
	case x.table != nil:
		p.Tables = append(p.Tables, tableItemOf(x.table))
		if x.table.Splits != (SplitPolicy{}) {
			p.Splits = append(p.Splits, splitsItemOf(x.table.ID, x.table.Splits))
		}
		return fixed + len(x.table.Name) + len(x.table.Kind)
	case x.group != nil:
		g := itemOf(x.group)
		p.Groups = append(p.Groups, g)
		if x.group.Parent != 0 {
			p.Origins = append(p.Origins, originItem{Group: x.group.ID, Parent: x.group.Parent})
		}
		return fixed + len(g.Lo) + len(g.Hi) + len(g.Membership) + len(g.Master)
	case x.task != nil:
		t, size := itemOfTask(x.task)
		p.Tasks = append(p.Tasks, t)
		return fixed + size
	}
	p.Drops = append(p.Drops, dropItem{Version: x.drop.version, Table: x.drop.table})
	return fixed
}

// EncodeCatalog returns the whole catalog as pages, each with its length before
// it.
func EncodeCatalog(c *Catalog) [][]byte {
	var all [][]byte
	for after, more := (cursor{}), true; more; {
		p := c.page(after, true, pageBytes)
		all, after, more = append(all, p.encode()), p.Next, p.More
	}
	return all
}

// DecodeCatalog puts the pages of a whole catalog together. They are untrusted.
func DecodeCatalog(pages [][]byte) (*Catalog, error) {
	a := newAssembly(&Catalog{})
	for i, b := range pages {
		p, err := decodePage(b)
		if err != nil {
			return nil, err
		}
		done, err := a.add(p)
		if err != nil {
			return nil, err
		}
		if done != (i == len(pages)-1) {
			return nil, partition.Errorf(partition.CodeCorrupt, "catalog: page %d of %d is the last: %t", i+1, len(pages), done)
		}
	}
	return a.result()
}

// assembly puts pages on a catalog. Nothing is shown before the last page.
type assembly struct {
	base    *Catalog
	e       *edit
	after   cursor
	whole   bool
	started bool
	began   uint64 // version of the catalog that the first page was cut from
	version uint64
	done    bool
}

func newAssembly(base *Catalog) *assembly {
	return &assembly{base: base, e: newEdit(base), after: since(base.Version)}
}

// add takes the next page and reports whether it was the last. After an error
// the assembly is worth nothing.
func (a *assembly) add(p *pageBody) (done bool, err error) {
	if !a.started && p.Whole {
		a.base, a.whole = &Catalog{}, true
		a.e, a.after = newEdit(a.base), cursor{}
	}
	if !a.started {
		a.started, a.began = true, p.Version
	}
	switch {
	case a.done || p.Whole != a.whole || p.Version < a.version || p.Version < a.base.Version:
		return false, partition.Errorf(partition.CodeCorrupt, "catalog: a page of version %d does not follow one of %d", p.Version, a.version)
	case p.Floor > a.began:
		return false, partition.Errorf(partition.CodeUnavailable, "the catalog changed too fast to be copied; copy it again")
	case p.More && p.Next.compare(a.after) <= 0:
		return false, partition.Errorf(partition.CodeCorrupt, "catalog: pages do not advance")
	}
	if err := a.put(p); err != nil {
		return false, err
	}
	a.after, a.version, a.done = p.Next, p.Version, !p.More
	return a.done, nil
}

func (a *assembly) put(p *pageBody) error {
	for _, d := range p.Drops {
		a.e.dropTable(d.Table)
	}
	for i := range p.Tables {
		t, err := tableOf(&p.Tables[i])
		if err != nil {
			return err
		}
		a.e.putTable(t)
	}
	if err := a.putSplits(p.Splits); err != nil {
		return err
	}
	for i := range p.Groups {
		g, err := groupOf(&p.Groups[i])
		if err != nil {
			return err
		}
		a.e.putGroup(g)
	}
	for _, o := range p.Origins {
		g, ok := a.e.groups[o.Group]
		if !ok || o.Parent == 0 || o.Parent == o.Group {
			return partition.Errorf(partition.CodeCorrupt, "catalog: %s comes from %s", o.Group, o.Parent)
		}
		g.Parent = o.Parent
	}
	for i := range p.Tasks {
		t, err := taskOf(&p.Tasks[i])
		if err != nil {
			return err
		}
		a.e.putTask(t)
	}
	if len(a.e.tables) > MaxTables+maxDrops || len(a.e.groups) > MaxGroups+MaxSplitPoints || len(a.e.drops) > 1<<16 || len(a.e.tasks) > 4*MaxOpenTasks {
		return partition.Errorf(partition.CodeTooLarge, "catalog: %d tables, %d groups, %d drops, %d tasks", len(a.e.tables), len(a.e.groups), len(a.e.drops), len(a.e.tasks))
	}
	return nil
}

// result returns the catalog after the last page, checked as a whole.
func (a *assembly) result() (*Catalog, error) {
	if !a.done {
		return nil, partition.Errorf(partition.CodeCorrupt, "catalog: the last page is missing")
	}
	c := a.e.apply(a.version)
	// Copies do not serve pages, so they need not remember what was dropped.
	c.drops, c.floor = nil, c.Version
	if err := c.validate(); err != nil {
		return nil, err
	}
	return c, nil
}

// validate checks what the codec cannot: that groups belong to tables, that
// names are unique, that nothing is newer than the catalog.
func (c *Catalog) validate() error {
	if len(c.tables) > MaxTables || len(c.groups) > MaxGroups {
		return partition.Errorf(partition.CodeTooLarge, "catalog: %d tables (limit %d), %d groups (limit %d)", len(c.tables), MaxTables, len(c.groups), MaxGroups)
	}
	ids := make(map[uint64]bool, len(c.tables))
	inTables := 0
	for i, e := range c.tables {
		if i > 0 && c.tables[i-1].table.Name == e.table.Name || ids[e.table.ID] || e.table.Changed > c.Version {
			return partition.Errorf(partition.CodeCorrupt, "catalog: table %q (id %d) is there twice or too new", e.table.Name, e.table.ID)
		}
		ids[e.table.ID] = true
		inTables += len(e.groups)
	}
	for _, g := range c.groups {
		if !ids[g.Table] || g.Changed > c.Version {
			return partition.Errorf(partition.CodeCorrupt, "catalog: %s belongs to no table or is too new", g.ID)
		}
	}
	for g := range c.absorbed {
		if _, ok := c.Group(g); ok {
			inTables++
		}
	}
	if inTables != len(c.groups) {
		return partition.Errorf(partition.CodeCorrupt, "catalog: %d groups, %d of them in tables", len(c.groups), inTables)
	}
	return c.validateTasks(ids)
}
