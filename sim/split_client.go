package sim

import (
	"slices"

	"pando.dev/pando/partition"
)

// route is the group that has the keys of an operation, as far as the client knows.
func (c *client) route(o *op) int {
	gi, v, keys := o.table, partition.RangeVersion(0), o.span(o.table)
	for i := range c.routes[o.table] {
		if x := &c.routes[o.table][i]; x.version > v && !x.keys.Intersect(keys).Empty() {
			gi, v = x.group, x.version
		}
	}
	return gi
}

// session is the client's session with a group. One of before a split goes on with
// the children; and one of before a merge with the survivor, which has it as well.
func (c *client) session(gi int) *clientSession {
	if c.sessions[gi] == nil {
		c.sessions[gi] = c.session(c.w.groups[gi].parent)
	}
	return c.sessions[gi]
}

// follow lets a try go where the keys are now.
func (c *client) follow(o *op) {
	if gi := c.route(o); gi != o.group {
		o.group = gi
		if o.level == levelSession {
			o.token = min(o.token, c.tokens[gi])
		}
	}
}

// learn notes whose a range is since a version. Tokens need no change: they are of one
// group, and another one answers for the range only with a state that has everything
// in it which that one has ever shown.
func (c *client) learn(x route) {
	table := c.w.groups[x.group].table
	all := c.routes[table]
	for i := range all {
		if y := &all[i]; y.version >= x.version && x.keys.Within(y.keys) {
			return
		}
	}
	all = slices.DeleteFunc(all, func(y route) bool { return y.version <= x.version && y.keys.Within(x.keys) })
	c.routes[table] = append(all, x)
}

// reroute learns from a group that has not got the keys any more, or asks the
// catalog.
func (c *client) reroute(a *answer) {
	if len(a.moved) == 0 {
		c.refresh()
	}
	for _, x := range a.moved {
		c.learn(x)
	}
}

// refresh takes the routes of the catalog.
func (c *client) refresh() {
	if c.w.control.down > 0 {
		return
	}
	cat := c.w.catalog
	for gi, live := range cat.live {
		if live {
			c.learn(route{group: gi, keys: cat.ranges[gi], version: cat.versions[gi]})
		}
	}
}
