package exhaust

import (
	"encoding/binary"
	"fmt"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
)

// letter is a message on its way: who has sent it, in which incarnation, to whom.
type letter struct {
	from, to int // ordinals of nodes
	boot     uint8
	message  replica.Message
}

// letters numbers the messages that were ever sent, each content once.
type letters struct {
	byKey map[string]uint32
	list  []letter
	keys  []string
	buf   []byte
}

func (l *letters) number(x letter) uint32 {
	l.buf = append(l.buf[:0], byte(x.from), byte(x.to), x.boot)
	l.buf = appendMessage(l.buf, x.message)
	if n, ok := l.byKey[string(l.buf)]; ok {
		return n
	}
	n := uint32(len(l.list))
	key := string(l.buf)
	l.byKey[key] = n
	l.list, l.keys = append(l.list, x), append(l.keys, key)
	return n
}

func appendNumbers(b []byte, values ...uint64) []byte {
	for _, v := range values {
		b = binary.AppendUvarint(b, v)
	}
	return b
}

func appendFlags(b []byte, flags ...bool) []byte {
	for _, f := range flags {
		if f {
			b = append(b, 1)
		} else {
			b = append(b, 0)
		}
	}
	return b
}

func appendPosition(b []byte, p partition.Position) []byte {
	return appendNumbers(b, uint64(p.Epoch), uint64(p.Index))
}

func appendRecords(b []byte, recs []partition.Record) []byte {
	b = appendNumbers(b, uint64(len(recs)))
	for _, r := range recs {
		b = append(b, r...)
	}
	return b
}

// appendMessage appends an encoding in which different messages differ.
func appendMessage(b []byte, m replica.Message) []byte {
	switch m := m.(type) {
	case *replica.Append:
		b = appendPosition(append(b, 1), m.Prev)
		b = appendNumbers(b, uint64(m.Epoch), uint64(m.PrevSum), uint64(m.Commit), uint64(m.Everywhere))
		return appendRecords(b, m.Records)
	case *replica.AppendAck:
		b = appendNumbers(append(b, 2), uint64(m.Epoch), uint64(m.Match), uint64(m.Want), uint64(m.Commit))
		return appendFlags(b, m.State)
	case *replica.Gather:
		return appendNumbers(append(b, 3), uint64(m.Epoch), uint64(m.Released))
	case *replica.GatherAnswer:
		b = appendPosition(appendPosition(append(b, 4), m.End), m.Commit)
		return appendNumbers(b, uint64(m.Epoch), uint64(m.EndSum), uint64(m.LeaseRemaining), uint64(m.Membership))
	case *replica.Fetch:
		return appendNumbers(append(b, 5), uint64(m.Epoch), uint64(m.After))
	case *replica.FetchAnswer:
		b = appendPosition(appendPosition(append(b, 6), m.Prev), m.End)
		b = appendNumbers(b, uint64(m.Epoch), uint64(m.PrevSum), uint64(m.Commit))
		return appendRecords(b, m.Records)
	case *replica.Probe:
		return appendFlags(appendPosition(appendNumbers(append(b, 7), uint64(m.Epoch)), m.End), m.Elect)
	case *replica.ProbeAnswer:
		b = appendPosition(appendPosition(append(b, 8), m.End), m.Commit)
		b = appendNumbers(b, uint64(m.Promised), uint64(m.Settled))
		b = appendFlags(b, m.Reachable, m.Trying, m.Master, m.Without != nil)
		if m.Without != nil {
			x, err := m.Without.AppendBinary(b)
			if err != nil {
				panic(err)
			}
			b = x
		}
		return b
	case *replica.HandOver:
		b = appendPosition(append(b, 9), m.End)
		return appendNumbers(b, uint64(m.Epoch), uint64(m.Step), m.Number, uint64(m.EndSum))
	case *replica.ReadCheck:
		return appendNumbers(append(b, 10), uint64(m.Epoch), m.Seq)
	case *replica.ReadConfirm:
		return appendFlags(appendNumbers(append(b, 11), uint64(m.Epoch), m.Seq), m.Waiting)
	}
	panic(fmt.Sprintf("a message of type %T", m))
}

// describe tells a message in words. Different messages between the same two
// incarnations differ in them.
func describe(m replica.Message) string {
	switch m := m.(type) {
	case *replica.Append:
		s := fmt.Sprintf("append epoch %s behind %s commit %d", m.Epoch, m.Prev, m.Commit)
		if m.Everywhere != 0 {
			s += fmt.Sprintf(" everywhere %d", m.Everywhere)
		}
		return s + describeRecords(m.Records)
	case *replica.AppendAck:
		s := fmt.Sprintf("ack epoch %s match %d commit %d", m.Epoch, m.Match, m.Commit)
		if m.Want != 0 {
			s += fmt.Sprintf(" want %d", m.Want)
		}
		return s
	case *replica.Gather:
		return fmt.Sprintf("gather epoch %s released %s", m.Epoch, m.Released)
	case *replica.GatherAnswer:
		return fmt.Sprintf("gather answer epoch %s end %s/%08x commit %s lease %s version %d", m.Epoch, m.End, m.EndSum, m.Commit, m.LeaseRemaining, m.Membership)
	case *replica.Fetch:
		return fmt.Sprintf("fetch epoch %s behind %d", m.Epoch, m.After)
	case *replica.FetchAnswer:
		return fmt.Sprintf("fetch answer epoch %s behind %s end %s commit %d", m.Epoch, m.Prev, m.End, m.Commit) + describeRecords(m.Records)
	case *replica.Probe:
		return fmt.Sprintf("probe epoch %s end %s elect %v", m.Epoch, m.End, m.Elect)
	case *replica.ProbeAnswer:
		s := fmt.Sprintf("probe answer epoch %s reachable %v trying %v master %v end %s commit %s settled %d", m.Promised, m.Reachable, m.Trying, m.Master, m.End, m.Commit, m.Settled)
		if m.Without != nil {
			s += fmt.Sprintf(" without %d", m.Without.Version)
		}
		return s
	case *replica.HandOver:
		step := [...]string{
			replica.HandPrepare: "prepare", replica.HandReady: "ready", replica.HandRefuse: "refuse",
			replica.HandCancel: "cancel", replica.HandGo: "go",
		}[m.Step]
		return fmt.Sprintf("hand-over %s epoch %s number %d end %s", step, m.Epoch, m.Number, m.End)
	case *replica.ReadCheck:
		return fmt.Sprintf("read check epoch %s round %d", m.Epoch, m.Seq)
	case *replica.ReadConfirm:
		return fmt.Sprintf("read confirm epoch %s round %d waiting %v", m.Epoch, m.Seq, m.Waiting)
	}
	return fmt.Sprintf("%T", m)
}

func describeRecords(recs []partition.Record) string {
	s := ""
	for _, r := range recs {
		s += fmt.Sprintf(" [%s %s %08x]", r.Position(), r.Kind(), r.Checksum())
	}
	return s
}
