package sim

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"pando.dev/pando/partition"
)

// catalog says which keys a group has, as the control group's does, with the splits
// that were asked for.
type catalog struct {
	version uint64
	// By ordinal of the group. Those that are not born have no range.
	ranges   []partition.KeyRange
	live     []bool
	versions []partition.RangeVersion
	tasks    []task
	next     int // the next group to be made, never given twice
}

// route says which group has a range since a range version. Of two for a key the one
// of the greater version is the newer one, along all splits and merges.
type route struct {
	group   int
	keys    partition.KeyRange
	version partition.RangeVersion
}

// task is a split, or a merge, that the control group was asked for.
type task struct {
	id    uint64
	group int // that is split, or the survivor
	// merges: the group is to absorb source, which has keys[0].
	merges   bool
	source   int
	children []int
	keys     []partition.KeyRange
	version  partition.RangeVersion
	deadline partition.Time // true time
	nodes    []int          // where the children shall be; none: where the parent is
	cancel   string

	activated, ended, done bool
}

// catalogView is what a node has seen of the catalog.
type catalogView struct {
	version uint64
	at      partition.Time // when it was sent
	tasks   []task
}

// closed reports whether a task is no open one; nothing follows then from an
// activation, either.
func (v *catalogView) closed(id uint64) bool {
	for i := range v.tasks {
		if t := &v.tasks[i]; t.id == id {
			return t.ended && t.activated == t.done
		}
	}
	return true
}

// newCatalog deals all keys to so many groups, by the first two bytes.
func newCatalog(groups int) *catalog {
	c := &catalog{version: 1, next: groups}
	c.reserve(groups)
	for i := range groups {
		c.live[i], c.versions[i] = true, 1
		if i > 0 {
			at := binary.BigEndian.AppendUint16(nil, uint16(i))
			c.ranges[i-1].Hi, c.ranges[i].Lo = at, at
		}
	}
	return c
}

// reserve makes room for groups to come.
func (c *catalog) reserve(n int) {
	c.ranges = append(c.ranges, make([]partition.KeyRange, n)...)
	c.live = append(c.live, make([]bool, n)...)
	c.versions = append(c.versions, make([]partition.RangeVersion, n)...)
}

// check says what is wrong with a version: every key is in one range.
func (c *catalog) check() error {
	var order []int
	for i := range c.ranges {
		if c.live[i] {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return bytes.Compare(c.ranges[a].Lo, c.ranges[b].Lo) })
	var at []byte
	for n, i := range order {
		r, last := c.ranges[i], n == len(order)-1
		switch {
		case r.Empty():
			return fmt.Errorf("version %d: the range %s of group %d is empty", c.version, r, i)
		case !bytes.Equal(r.Lo, at):
			return fmt.Errorf("version %d: group %d begins at %q, the one before ends at %q", c.version, i, r.Lo, at)
		case last != (len(r.Hi) == 0):
			return fmt.Errorf("version %d: group %d ends at %q", c.version, i, r.Hi)
		}
		at = r.Hi
	}
	return nil
}

// task is the one with an id.
func (c *catalog) task(id uint64) *task {
	if id == 0 || id > uint64(len(c.tasks)) {
		return nil
	}
	return &c.tasks[id-1]
}

// openOf is the open task that a group has a part in, or nil.
func (c *catalog) openOf(gi int) *task {
	for i := range c.tasks {
		if t := &c.tasks[i]; (t.group == gi || t.merges && t.source == gi) && !t.ended {
			return t
		}
	}
	return nil
}

// view is a copy for the nodes.
func (c *catalog) view(now partition.Time) *catalogView {
	return &catalogView{version: c.version, at: now, tasks: slices.Clone(c.tasks)}
}

// activate gives the children of a task their ranges, or the survivor that of the
// source.
func (c *catalog) activate(t *task, v partition.RangeVersion, keeps partition.KeyRange) {
	t.activated = true
	c.ranges[t.group], c.versions[t.group] = keeps, v
	if t.merges {
		c.live[t.source] = false
		return
	}
	for i, child := range t.children {
		c.ranges[child], c.live[child], c.versions[child] = t.keys[i], true, v
	}
}

// known reports whether a group was ever in the catalog.
func (c *catalog) known(gi int) bool { return c.versions[gi] != 0 }
