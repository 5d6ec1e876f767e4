package exhaust

import (
	"slices"

	"pando.dev/pando/partition"
)

// history is what has happened on a path and no node may know: what is committed,
// and what clients were told. It is never written after it was numbered.
type history struct {
	committed []partition.Record // all that anybody has committed, in order
	// floor is the newest record that a client knows to be there: every later read
	// must show it, and every later command come behind it.
	floor partition.Index
	ops   [8]op
	reads [4]op
}

// op is a client's call.
type op struct {
	state state
	tries uint8
	node  uint8 // that was asked last
	// floor is that of the history when it was called first, answered the index in a
	// good answer.
	floor, answered partition.Index
}

type state uint8

const (
	idle    state = iota
	open          // no answer yet
	done          // a good answer
	unknown       // the answer is unknown, or was lost
	denied        // it was refused, and never executed
)

// histories numbers histories.
type histories struct {
	byKey map[string]uint32
	list  []*history
	buf   []byte
}

func (k *histories) number(h *history) uint32 {
	k.buf = h.key(k.buf[:0])
	if n, ok := k.byKey[string(k.buf)]; ok {
		return n
	}
	n := uint32(len(k.list))
	k.byKey[string(k.buf)] = n
	k.list = append(k.list, h)
	return n
}

// key appends an encoding in which different histories differ; checksums chain
// the log.
func (h *history) key(b []byte) []byte {
	b = appendNumbers(b, uint64(len(h.committed)), uint64(h.committed[len(h.committed)-1].Checksum()), uint64(h.floor))
	for _, list := range [][]op{h.ops[:], h.reads[:]} {
		for i := range list {
			o := &list[i]
			b = append(b, byte(o.state), o.tries, o.node)
			b = appendNumbers(b, uint64(o.floor), uint64(o.answered))
		}
	}
	return b
}

func (h *history) fork() *history {
	c := *h
	c.committed = slices.Clip(h.committed)
	return &c
}

// asked notes that a node was asked for something.
func (o *op) asked(node int, floor partition.Index) {
	if o.state == idle {
		o.floor = floor
	}
	o.state, o.node = open, uint8(node)
	o.tries++
}

// lost notes that a node has stopped: what it was asked is not answered.
func (h *history) lost(node int) {
	for i := range h.ops {
		if o := &h.ops[i]; o.state == open && int(o.node) == node {
			o.state = unknown
		}
	}
	for i := range h.reads {
		if o := &h.reads[i]; o.state == open && int(o.node) == node {
			o.state = unknown
		}
	}
}

// last is the newest committed record.
func (h *history) last() partition.Record { return h.committed[len(h.committed)-1] }

// configuration is the newest one that is committed.
func (h *history) configuration() *partition.Membership {
	for i := len(h.committed) - 1; i >= 0; i-- {
		if m := configuration(h.committed[i]); m != nil {
			return m
		}
	}
	return nil
}
