package control

import (
	"bytes"
	"cmp"
	"slices"

	"pando.dev/pando/partition"
)

// Table is a table of the catalog. Whoever holds one shares it.
type Table struct {
	ID       uint64 // never reused, not even for the same name
	Name     string
	Kind     string
	Replicas int
	Policy   partition.Policy
	Splits   SplitPolicy // as it was set; WithDefaults has what holds
	Changed  uint64      // the catalog version that changed it last
}

// Group is a group of the catalog: what its master told last. Whoever holds one
// shares it.
type Group struct {
	ID           partition.GroupID
	Table        uint64
	Range        partition.KeyRange
	RangeVersion partition.RangeVersion
	// Parent is the group that this one was split from, 0 for none. Only a group
	// without one begins empty.
	Parent     partition.GroupID
	Membership *partition.Membership
	// Master is a hint: who was master in Epoch. Empty before there was one.
	Master  partition.NodeID
	Epoch   partition.Epoch
	Changed uint64 // the catalog version that changed it last
}

// Catalog is one state of the catalog. It is immutable: readers on any number
// of goroutines share it, and a change makes a new one. It is an index that may
// be stale; the truth about a group is in the group's own log.
type Catalog struct {
	Version uint64

	tables []tableEntry // by name
	groups []*Group     // by id
	drops  []drop       // by version
	tasks  []*Task      // by id
	// busy, prepared and unmade are made of tasks: who occupies a group, who is to
	// make one, and who was to but has ended without it.
	busy, prepared, unmade map[partition.GroupID]*Task
	// absorbed are the groups whose keys another one has, by the merge.
	absorbed map[partition.GroupID]*Task
	// floor: what was dropped at or before this version is no longer in drops, and
	// tasks that ended by then may be forgotten.
	floor uint64
}

// tableEntry is a table and its groups by Range.Lo.
type tableEntry struct {
	table  *Table
	groups []*Group
}

// drop remembers that a table is gone, for copies that have it still.
type drop struct {
	version uint64
	table   uint64
}

// maxDrops bounds the drops that are remembered. A copy that is older gets the
// whole catalog.
const maxDrops = 256

// Table returns the table of the given name.
func (c *Catalog) Table(name string) (*Table, bool) {
	i, ok := c.tableIndex(name)
	if !ok {
		return nil, false
	}
	return c.tables[i].table, true
}

// Tables returns all tables by name.
func (c *Catalog) Tables() []*Table {
	all := make([]*Table, len(c.tables))
	for i := range c.tables {
		all[i] = c.tables[i].table
	}
	return all
}

// Groups returns a table's groups in the order of their ranges. The slice is
// shared and must not be changed.
func (c *Catalog) Groups(table string) []*Group {
	i, ok := c.tableIndex(table)
	if !ok {
		return nil
	}
	return c.tables[i].groups
}

// AllGroups returns every group by id. The slice is shared and must not be
// changed.
func (c *Catalog) AllGroups() []*Group { return c.groups }

// Group returns the group with the given id.
func (c *Catalog) Group(id partition.GroupID) (*Group, bool) {
	i, ok := c.groupIndex(id)
	if !ok {
		return nil, false
	}
	return c.groups[i], true
}

// TableOf returns the table that a group belongs to.
func (c *Catalog) TableOf(g *Group) (*Table, bool) {
	for i := range c.tables {
		if c.tables[i].table.ID == g.Table {
			return c.tables[i].table, true
		}
	}
	return nil, false
}

// Lookup returns the group that holds a key of a table: CodeNoSuchTable if
// there is no such table, CodeNotFound if no group of it has the key.
func (c *Catalog) Lookup(table string, key []byte) (*Group, error) {
	i, ok := c.tableIndex(table)
	if !ok {
		return nil, partition.Errorf(partition.CodeNoSuchTable, "the catalog (version %d) has no table %q", c.Version, table)
	}
	if g := floor(c.tables[i].groups, key); g != nil && g.Range.Contains(key) {
		return g, nil
	}
	return nil, partition.Errorf(partition.CodeNotFound, "no group of table %q holds the key %.64q (catalog version %d)", table, key, c.Version)
}

// floor returns the last group whose range begins at or before key.
func floor(groups []*Group, key []byte) *Group {
	i, found := slices.BinarySearchFunc(groups, key, func(g *Group, k []byte) int { return bytes.Compare(g.Range.Lo, k) })
	if !found {
		i--
	}
	if i < 0 {
		return nil
	}
	return groups[i]
}

func (c *Catalog) tableIndex(name string) (int, bool) {
	return slices.BinarySearchFunc(c.tables, name, func(e tableEntry, n string) int { return cmp.Compare(e.table.Name, n) })
}

func (c *Catalog) groupIndex(id partition.GroupID) (int, bool) {
	return slices.BinarySearchFunc(c.groups, id, func(g *Group, id partition.GroupID) int { return cmp.Compare(g.ID, id) })
}

// edit is a set of changes to a catalog that take effect together.
type edit struct {
	base   *Catalog
	tables map[uint64]*Table // new or changed
	groups map[partition.GroupID]*Group
	tasks  map[TaskID]*Task
	drops  []uint64 // tables that go, with their groups
	gone   map[uint64]bool
}

func newEdit(base *Catalog) *edit {
	return &edit{base: base, tables: map[uint64]*Table{}, groups: map[partition.GroupID]*Group{}, tasks: map[TaskID]*Task{}, gone: map[uint64]bool{}}
}

func (e *edit) putTable(t *Table) { e.tables[t.ID] = t }
func (e *edit) putGroup(g *Group) { e.groups[g.ID] = g }
func (e *edit) putTask(t *Task)   { e.tasks[t.ID] = t }
func (e *edit) dropTable(id uint64) {
	e.drops = append(e.drops, id)
	e.gone[id] = true
}

// group returns a group as it is with the changes so far.
func (e *edit) group(id partition.GroupID) (*Group, bool) {
	if g, ok := e.groups[id]; ok {
		return g, true
	}
	return e.base.Group(id)
}

// task returns a task as it is with the changes so far.
func (e *edit) task(id TaskID) (*Task, bool) {
	if t, ok := e.tasks[id]; ok {
		return t, true
	}
	return e.base.Task(id)
}

// touched returns the tables that the changes touch and that stay.
func (e *edit) touched() map[uint64]bool {
	all := make(map[uint64]bool)
	for id := range e.tables {
		all[id] = true
	}
	for _, g := range e.groups {
		all[g.Table] = true
	}
	return all
}

// apply returns the catalog with the changes, as the given version. What the
// changes do not touch is shared with the base.
func (e *edit) apply(version uint64) *Catalog {
	next := &Catalog{Version: version, floor: e.base.floor}
	next.drops = slices.Clone(e.base.drops)
	for _, id := range e.drops {
		next.drops = append(next.drops, drop{version: version, table: id})
	}
	if extra := len(next.drops) - maxDrops; extra > 0 {
		next.floor = next.drops[extra-1].version
		next.drops = next.drops[extra:]
	}
	next.tasks, next.busy, next.prepared, next.unmade, next.absorbed = e.base.tasks, e.base.busy, e.base.prepared, e.base.unmade, e.base.absorbed
	if len(e.tasks) > 0 {
		next.tasks = e.mergeTasks()
		next.forgetTasks()
		next.indexTasks()
	}
	next.groups, next.tables = e.base.groups, e.base.tables
	if len(e.groups) > 0 || len(e.tables) > 0 || len(e.drops) > 0 {
		next.groups = e.mergeGroups()
		next.tables = e.mergeTables(next.groups, next.absorbed)
	}
	if len(next.absorbed) > 0 {
		next.dropAbsorbed()
	}
	return next
}

// mergeTasks returns all tasks by id after the changes.
func (e *edit) mergeTasks() []*Task {
	all := make([]*Task, 0, len(e.base.tasks)+len(e.tasks))
	for _, t := range e.base.tasks {
		if _, ok := e.tasks[t.ID]; !ok {
			all = append(all, t)
		}
	}
	for _, t := range e.tasks {
		all = append(all, t)
	}
	slices.SortFunc(all, func(a, b *Task) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// forgetTasks forgets those that ended longest ago, beyond MaxEndedTasks. A copy
// of before their end gets the whole catalog.
func (c *Catalog) forgetTasks() {
	var ended []*Task
	for _, t := range c.tasks {
		if !t.Open() {
			ended = append(ended, t)
		}
	}
	extra := len(ended) - MaxEndedTasks
	if extra <= 0 {
		return
	}
	slices.SortFunc(ended, func(a, b *Task) int { return cmp.Or(cmp.Compare(a.Changed, b.Changed), cmp.Compare(a.ID, b.ID)) })
	gone := make(map[TaskID]bool, extra)
	for _, t := range ended[:extra] {
		gone[t.ID] = true
		c.floor = max(c.floor, t.Changed)
	}
	c.tasks = slices.DeleteFunc(c.tasks, func(t *Task) bool { return gone[t.ID] })
}

// mergeGroups returns all groups by id after the changes.
func (e *edit) mergeGroups() []*Group {
	all := make([]*Group, 0, len(e.base.groups)+len(e.groups))
	fresh := len(e.groups)
	for _, g := range e.base.groups {
		if changed, ok := e.groups[g.ID]; ok {
			g = changed
			fresh--
		}
		if !e.gone[g.Table] {
			all = append(all, g)
		}
	}
	if fresh == 0 {
		return all
	}
	for _, g := range e.groups {
		if _, ok := e.base.groupIndex(g.ID); !ok && !e.gone[g.Table] {
			all = append(all, g)
		}
	}
	slices.SortFunc(all, func(a, b *Group) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// mergeTables returns all tables after the changes; only those that the changes
// touch get a new list of groups.
func (e *edit) mergeTables(groups []*Group, absorbed map[partition.GroupID]*Task) []tableEntry {
	all := make([]tableEntry, 0, len(e.base.tables)+len(e.tables))
	rebuild, touched := make(map[uint64]int), e.touched()
	add := func(t *Table) {
		rebuild[t.ID] = len(all)
		all = append(all, tableEntry{table: t})
	}
	for _, old := range e.base.tables {
		id := old.table.ID
		switch t := e.tables[id]; {
		case e.gone[id]:
		case t != nil:
			add(t)
		case touched[id]:
			add(old.table)
		default:
			all = append(all, old)
		}
	}
	for id, t := range e.tables {
		if _, ok := rebuild[id]; !ok && !e.gone[id] {
			add(t)
		}
	}
	for _, g := range groups {
		if _, gone := absorbed[g.ID]; gone {
			continue // no key leads to it
		}
		if i, ok := rebuild[g.Table]; ok {
			all[i].groups = append(all[i].groups, g)
		}
	}
	for _, i := range rebuild {
		slices.SortFunc(all[i].groups, func(a, b *Group) int {
			return cmp.Or(bytes.Compare(a.Range.Lo, b.Range.Lo), cmp.Compare(a.ID, b.ID))
		})
	}
	slices.SortFunc(all, func(a, b tableEntry) int { return cmp.Compare(a.table.Name, b.table.Name) })
	return all
}
