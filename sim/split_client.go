package sim

// route is the group that has the keys of an operation, as far as the client knows.
func (c *client) route(o *op) int {
	gi, keys := o.table, o.span(o.table)
	for next := gi; next >= 0; {
		gi, next = next, -1
		for _, x := range c.cuts[gi] {
			if !x.keys.Intersect(keys).Empty() {
				next = x.child
			}
		}
	}
	return gi
}

// session is the client's session with a group. One of before a split goes on with
// the children.
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

// learn notes that keys have left a group.
func (c *client) learn(gi int, x cut) {
	for _, y := range c.cuts[gi] {
		if y.child == x.child {
			return
		}
	}
	c.cuts[gi] = append(c.cuts[gi], x)
	c.tokens[x.child] = max(c.tokens[x.child], min(c.tokens[gi], x.base))
}

// reroute learns from a group that has not got the keys any more, or asks the
// catalog.
func (c *client) reroute(o *op, a *answer) {
	if len(a.moved) == 0 {
		c.refresh()
	}
	for _, x := range a.moved {
		c.learn(o.group, x)
	}
}

// refresh takes the routes of the catalog.
func (c *client) refresh() {
	if c.w.control.down > 0 {
		return
	}
	for gi, cuts := range c.w.catalog.cuts {
		for _, x := range cuts {
			c.learn(gi, x)
		}
	}
}
