package sim

import (
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
)

// fate is what became of one operation.
type fate struct {
	op     *op             // nil: nobody asked for it
	at     partition.Index // where it was executed, as partition.Extent.At has it; 0: nowhere
	group  int             // that has executed it
	index  partition.Index // of the record in that group's log
	result register
	never  bool // the client was told, in the end, that it was not executed
}

// fate is that of an operation; nil if there can be no such operation.
func (c *checker) fate(id uint64) *fate {
	client, count := id>>40, id&(1<<40-1)
	if client > uint64(c.w.k.Clients) || count > 1<<24 {
		return nil
	}
	for uint64(len(c.fates)) <= client {
		c.fates = append(c.fates, nil)
	}
	for uint64(len(c.fates[client])) <= count {
		c.fates[client] = append(c.fates[client], fate{})
	}
	return &c.fates[client][count]
}

// begin is told of an operation before anybody is asked for it.
func (c *checker) begin(o *op) { c.fate(o.id).op = o }

// valueOf is, mostly, who has written the operation's key last, as far as a client
// can know.
func (c *checker) valueOf(o *op, h uint64) uint64 {
	q := &c.groups[o.table]
	if h%3 == 0 || int(o.key) >= len(q.model.registers) {
		return h
	}
	return q.model.registers[o.key].at(c.floor(o)).by
}

// appliedLog is told of a replica without a state that has got so far.
func (c *checker) appliedLog(h *host, i partition.Index) {
	if q := &c.groups[h.gi]; int(i) > len(q.committed) {
		c.w.violate("apply", "%s takes %d for applied, which is not committed", h, i)
	}
}

// executes is told of a command when the first replica applies it: each is
// executed once, none that was refused, and with the result that the commands
// before it lead to.
func (c *checker) executes(q *groupCheck, h *host, rec partition.Record, res *replica.Result) {
	_, _, body, err := replica.ParseCommand(rec.Payload())
	cmd, ok := parseCommand(body)
	f := (*fate)(nil)
	if err == nil && ok {
		f = c.fate(cmd.id)
	}
	if f == nil || f.op == nil || f.op.table != h.g.table || f.op.command != cmd {
		c.w.violate("command", "%s applies %s, for which nobody has asked: %v %+v", h, rec, err, cmd)
	}
	is := parseRegister(res.Data)
	switch {
	case res.Repeated:
		if f.at == 0 || is != f.result {
			c.w.violate("exactly once", "operation %x at %d gives the result %v; at %d it gave %v", cmd.id, rec.Index(), is, f.at, f.result)
		}
		return
	case f.at != 0:
		c.w.violate("exactly once", "operation %x is executed at %d and was at %d", cmd.id, rec.Index(), f.at)
	case f.never:
		c.w.violate("refused", "operation %x is executed at %d, the client was told that it is not", cmd.id, rec.Index())
	}
	at := q.lifted(rec.Index())
	must, ok := q.model.execute(at, &cmd)
	if !ok || is != must {
		c.w.violate("result", "%s: operation %x at %d gives %v, what was executed before it leads to %v", h, cmd.id, rec.Index(), is, must)
	}
	if !q.executable(cmd.span(h.g.table), rec.Index()) {
		c.w.violate("ranges", "%s executes operation %x at %d on a key that is not in its range", h, cmd.id, rec.Index())
	}
	f.at, f.group, f.index, f.result = at, h.gi, rec.Index(), is
}

// refused is told that a client has learned that its operation was not executed,
// by none of its tries.
func (c *checker) refused(o *op) {
	if o.opens {
		return
	}
	f := c.fate(o.id)
	if f.at != 0 {
		c.w.violate("refused", "the client was told that operation %x is not executed, it was at %d", o.id, f.at)
	}
	f.never = true
}

// acked is told of a write that is acknowledged at a record.
func (c *checker) acked(h *host, o *op, i partition.Index, res *replica.Result) {
	q := &c.groups[h.gi]
	c.w.count.Acked++
	switch {
	case int(i) > len(q.committed):
		c.w.violate("ack", "%s acknowledges operation %x at %d, which is not committed", h, o.id, i)
	case h.applied < i:
		c.w.violate("ack", "%s acknowledges operation %x at %d, its state is at %d", h, o.id, i, h.applied)
	}
	c.excludes(h, q, "acknowledges a write")
	if o.opens || res.Err != nil {
		c.durable(h, q, i)
		q.visible = max(q.visible, i)
		return
	}
	f := c.fate(o.id)
	is := parseRegister(res.Data)
	switch {
	case f.at == 0:
		c.w.violate("ack", "%s acknowledges operation %x at %d, which was not executed", h, o.id, i)
	case is != f.result || !res.Repeated && (f.index != i || f.group != h.gi):
		c.w.violate("ack", "operation %x is answered at %d with %v; executed at %d it gave %v", o.id, i, is, f.at, f.result)
	case f.at <= o.floor:
		c.w.violate("linearizable", "operation %x takes effect at %d, when it was called %d was visible", o.id, f.at, o.floor)
	}
	c.durable(h, q, i)
	if c.owner(h.g.table, o.span(h.g.table)) == h.gi { // else it was executed before the key moved
		c.alone(h, o)
	}
	if f.group == h.gi {
		q.visible = max(q.visible, f.index)
	}
}

// durable checks that what is acknowledged is on the platters of a durable set of
// the configuration that was in force, or of the one that is.
func (c *checker) durable(h *host, q *groupCheck, i partition.Index) {
	at := len(q.configs) - 1
	p := q.committed[i-1].Position()
	if q.configs[at].Membership.Durable(c.on(q, p, nil)) {
		return
	}
	for at > 0 && q.configs[at].Index > i {
		at--
	}
	if !q.configs[at].Membership.Durable(c.on(q, p, nil)) {
		c.w.violate("durable", "%s acknowledges %d, which no durable set of configuration %d has on disk", h, i, q.configs[at].Membership.Version)
	}
}

// shown is told of a read before it is answered: its level's promise, and that
// the value is that of the state of which it says the index.
func (c *checker) shown(h *host, r *reading) {
	q := &c.groups[h.gi]
	o := r.op
	switch {
	case int(r.index) > len(q.committed):
		c.w.violate("read", "a %s read at %s shows %d, which is not committed", o.level, h, r.index)
	case o.level < levelSession && q.lifted(r.index) < r.floor:
		c.w.violate("linearizable", "a %s read at %s shows %d, when it came %d was visible", o.level, h, q.lifted(r.index), r.floor)
	case o.level == levelSession && r.index < o.token:
		c.w.violate("session", "a read at %s shows %d, the client has seen %d", h, r.index, o.token)
	case !q.model.answers(&o.command, r.value, q.reflects(r.index)):
		what, key := "read", o.key
		if o.verb == verbSum {
			what, key = "bank", 0
		}
		c.w.violate(what, "a %s read of %d at %s gives %v as the state at %d", o.level, key, h, r.value, r.index)
	}
	if !q.owns(o.span(h.g.table), r.index) {
		c.w.violate("ranges", "a %s read of %d at %s shows %d, where the key is not the group's any more", o.level, o.key, h, r.index)
	}
	c.w.count.reads[o.level]++
	if o.level < levelSession {
		c.alone(h, o)
		q.visible = max(q.visible, r.index)
	}
}

// holds compares a state with what the committed commands lead to.
func (c *checker) holds(h *host, s *state) {
	q := &c.groups[h.gi]
	if int(s.applied) > len(q.committed) {
		c.w.violate("state", "%s opens a state at %d, which is not committed", h, s.applied)
	}
	if int(s.applied) < len(q.hashes) && q.hashes[s.applied] != 0 && q.hashes[s.applied] != s.hash|1 {
		c.w.violate("state", "%s opens another state at %d than somebody had", h, s.applied)
	}
	if class, key, is, must := q.model.lacks(s, q, s.applied); class != 0 {
		c.w.violate("durable", "the state of %s at %d has %v in %c%d, the committed commands lead to %v", h, s.applied, is, class, key, must)
	}
}
