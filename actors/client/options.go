package client

import (
	"time"

	"pando.dev/pando/partition"
)

// ReadOptions say what a read must show. The zero value is a linearizable read,
// answered by the master under its lease.
//
//	level    promise                               who answers, round trips between nodes
//	Lease    linearizable                          master; 0, 1 when its lease has lapsed
//	Quorum   linearizable, whatever the clocks do  master; 1
//	Session  not older than Seen and Token         any full replica; 0, waits if it is behind
//	Stale    not older than MinIndex and MaxAge    any full replica; 0, with MaxAge at most 1
//	                                               unless the replica is behind
//
// A read at Session or Stale is answered by this process's own node if it has a
// replica, else by one in the client's zone, else by any. One that cannot keep
// the promise in time passes the read on to the next, and to the master.
type ReadOptions struct {
	Level Level
	// Seen, if set, is what a Session read must not be older than, and is told
	// what every answer shows, at any level.
	Seen *Seen
	// Token is a further bound of a Session read.
	Token Token
	// MinIndex bounds a Stale read: the state reflects this record of whatever
	// partition answers. It only makes sense for reads of one partition.
	MinIndex partition.Index
	// MaxAge bounds a Stale read: no write that was acknowledged longer than
	// this before the replica answered is missing. 0 is no bound. Shorter than a
	// round trip to the master, only the master can keep it.
	MaxAge time.Duration
	// Answered, if set, is called with each answer that the read is made of: a
	// scan has one per page. KV calls it for commands as well. It must not block.
	Answered func(Result)
}

// into puts the options into a read's request.
func (o *ReadOptions) into(r Request) Request {
	r.Level, r.MinIndex, r.MaxAge = o.Level, o.MinIndex, o.MaxAge
	return r
}

// Check refuses options that their level does not know.
func (o *ReadOptions) Check() error {
	if !o.Token.IsZero() && o.Level != Session {
		return &partition.Error{
			Code: partition.CodeInvalid, Why: "a token with level " + o.Level.String(),
			Next: "use level session with a token; lease and quorum are never older than one",
		}
	}
	if o.MinIndex != 0 && o.Level != Stale {
		return partition.Errorf(partition.CodeInvalid, "a least index with level %s, it goes with stale", o.Level)
	}
	r := o.into(Request{})
	if err := r.checkLevel(); err != nil {
		return err
	}
	return nil
}

// least is the record of the group that a read must show.
func (o *ReadOptions) least(g partition.GroupID) partition.Index {
	if o.Level != Session {
		return o.MinIndex
	}
	least := o.Token.Index(g)
	if o.Seen != nil {
		least = max(least, o.Seen.index(g))
	}
	return least
}

// note tells of an answer.
func (o *ReadOptions) note(r Result) {
	if o.Seen != nil {
		o.Seen.note(r.Group, r.Index)
	}
	if o.Answered != nil {
		o.Answered(r)
	}
}
