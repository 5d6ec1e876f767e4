package link

import (
	"encoding/binary"
	"math"
	"time"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
)

// Messages between replicas are fixed binary: the fields in the order of their
// struct, little-endian, records last and as they are in every log. Booleans
// are bits of the frame's flags.

const (
	flagElect     = 1 << 0 // Probe
	flagReachable = 1 << 0 // ProbeAnswer
	flagMaster    = 1 << 1 // ProbeAnswer
	flagTrying    = 1 << 2 // ProbeAnswer
	flagWaiting   = 1 << 0 // ReadConfirm
	flagState     = 1 << 0 // AppendAck

	appendHead      = 48 // what comes before the records
	fetchAnswerHead = 56
	// maxLeaseRemaining bounds GatherAnswer.LeaseRemaining: a wrong one must not
	// hold up a failover for ever.
	maxLeaseRemaining = time.Minute
)

// EncodeReplica puts a message into a frame, whose Kind, Flags, Body and Records
// it sets. The records are not copied. Whoever calls has filled in what Through
// stands for.
func EncodeReplica(f *Frame, m replica.Message) {
	f.Flags, f.Records = 0, nil
	e := encoder{b: make([]byte, 0, fetchAnswerHead)}
	switch m := m.(type) {
	case *replica.Append:
		f.Kind, f.Records = KindAppend, m.Records
		e.u64(uint64(m.Epoch)).position(m.Prev).u32(m.PrevSum).u32(uint32(len(m.Records))).u64(uint64(m.Commit)).u64(uint64(m.Everywhere))
	case *replica.AppendAck:
		f.Kind, f.Flags = KindAppendAck, bit(m.State, flagState)
		e.u64(uint64(m.Epoch)).u64(uint64(m.Match)).u64(uint64(m.Want)).u64(uint64(m.Commit))
	case *replica.Gather:
		f.Kind = KindGather
		e.u64(uint64(m.Epoch)).u64(uint64(m.Released))
	case *replica.GatherAnswer:
		f.Kind = KindGatherAnswer
		e.u64(uint64(m.Epoch)).position(m.End).u32(m.EndSum).position(m.Commit).
			u64(uint64(m.LeaseRemaining)).u64(uint64(m.Membership))
	case *replica.Fetch:
		f.Kind = KindFetch
		e.u64(uint64(m.Epoch)).u64(uint64(m.After))
	case *replica.FetchAnswer:
		f.Kind, f.Records = KindFetchAnswer, m.Records
		e.u64(uint64(m.Epoch)).position(m.Prev).u32(m.PrevSum).u32(uint32(len(m.Records))).position(m.End).u64(uint64(m.Commit))
	case *replica.Probe:
		f.Kind, f.Flags = KindProbe, bit(m.Elect, flagElect)
		e.u64(uint64(m.Epoch)).position(m.End)
	case *replica.ProbeAnswer:
		f.Kind, f.Flags = KindProbeAnswer, bit(m.Reachable, flagReachable)|bit(m.Master, flagMaster)|bit(m.Trying, flagTrying)
		e.u64(uint64(m.Promised)).position(m.End).position(m.Commit).u64(uint64(m.Settled)).membership(m.Without)
	case *replica.ReadCheck:
		f.Kind = KindReadCheck
		e.u64(uint64(m.Epoch)).u64(m.Seq)
	case *replica.ReadConfirm:
		f.Kind, f.Flags = KindReadConfirm, bit(m.Waiting, flagWaiting)
		e.u64(uint64(m.Epoch)).u64(m.Seq)
	case *replica.HandOver:
		f.Kind, f.Flags = KindHandOver, uint8(m.Step)
		e.u64(uint64(m.Epoch)).u64(m.Number).position(m.End).u32(m.EndSum)
	}
	f.Body = e.b
}

// DecodeReplica reads a message from a frame that came from a peer. Everything
// is checked that can be without the replica: sizes, flags, and of records the
// checksum, the group, the kind, the order of epochs and the chain behind Prev.
// Records alias f.Body. Any error means that the peer is broken or hostile.
func DecodeReplica(f Frame) (replica.Message, error) {
	if f.Group == 0 || f.From == 0 || f.To == 0 {
		return nil, corrupt("%s frame for %s from replica %d to %d", f.Kind, f.Group, f.From, f.To)
	}
	d := decoder{b: f.Body}
	m, flags := d.message(f)
	switch {
	case m == nil && d.err == nil:
		return nil, corrupt("%s frame is no message of a replica", f.Kind)
	case d.err != nil:
		return nil, d.err
	case len(d.b) != 0:
		return nil, corrupt("%s frame has %d bytes too many", f.Kind, len(d.b))
	case f.Flags&^flags != 0:
		return nil, corrupt("%s frame with flags %02x", f.Kind, f.Flags)
	}
	return m, nil
}

// message reads the fields in order; flags are those that the kind defines.
func (d *decoder) message(f Frame) (m replica.Message, flags uint8) {
	switch f.Kind {
	case KindAppend:
		return d.append(f), 0
	case KindAppendAck:
		return &replica.AppendAck{Epoch: d.epoch(), Match: d.index(), Want: d.index(), Commit: d.index(), State: f.Flags&flagState != 0}, flagState
	case KindGather:
		return &replica.Gather{Epoch: d.epoch(), Released: d.epoch()}, 0
	case KindGatherAnswer:
		return d.gatherAnswer(), 0
	case KindFetch:
		return &replica.Fetch{Epoch: d.epoch(), After: d.index()}, 0
	case KindFetchAnswer:
		return d.fetchAnswer(f), 0
	case KindProbe:
		return &replica.Probe{Epoch: d.epoch(), Elect: f.Flags&flagElect != 0, End: d.position()}, flagElect
	case KindProbeAnswer:
		return &replica.ProbeAnswer{Promised: d.epoch(), Reachable: f.Flags&flagReachable != 0,
			Master: f.Flags&flagMaster != 0, Trying: f.Flags&flagTrying != 0, End: d.position(), Commit: d.position(),
			Settled: partition.MembershipVersion(d.u64()), Without: d.membership()}, flagReachable | flagMaster | flagTrying
	case KindReadCheck:
		return &replica.ReadCheck{Epoch: d.epoch(), Seq: d.u64()}, 0
	case KindReadConfirm:
		return &replica.ReadConfirm{Epoch: d.epoch(), Seq: d.u64(), Waiting: f.Flags&flagWaiting != 0}, flagWaiting
	case KindHandOver:
		return d.handOver(f), 0xff
	}
	return nil, 0
}

// handOver reads a message whose step is in the flags.
func (d *decoder) handOver(f Frame) replica.Message {
	m := &replica.HandOver{Epoch: d.epoch(), Step: replica.HandStep(f.Flags), Number: d.u64(), End: d.position(), EndSum: d.u32()}
	if d.err == nil && (m.Step < replica.HandPrepare || m.Step > replica.HandGo) {
		d.err = corrupt("step %d of a hand-over", m.Step)
	}
	return m
}

func (d *decoder) append(f Frame) replica.Message {
	m := &replica.Append{Epoch: d.epoch(), Prev: d.position(), PrevSum: d.u32()}
	count := d.u32()
	m.Commit, m.Everywhere = d.index(), d.index()
	m.Records = d.records(f.Group, m.Epoch, m.Prev, m.PrevSum, count)
	return m
}

func (d *decoder) fetchAnswer(f Frame) replica.Message {
	m := &replica.FetchAnswer{Epoch: d.epoch(), Prev: d.position(), PrevSum: d.u32()}
	count := d.u32()
	m.End, m.Commit = d.position(), d.index()
	m.Records = d.records(f.Group, m.Epoch, m.Prev, m.PrevSum, count)
	return m
}

func (d *decoder) gatherAnswer() replica.Message {
	m := &replica.GatherAnswer{Epoch: d.epoch(), End: d.position(), EndSum: d.u32(), Commit: d.position(),
		LeaseRemaining: time.Duration(d.u64()), Membership: partition.MembershipVersion(d.u64())}
	if d.err == nil && (m.LeaseRemaining < 0 || m.LeaseRemaining > maxLeaseRemaining) {
		d.err = corrupt("gather answer with %v of lease remaining", m.LeaseRemaining)
	}
	return m
}

// records reads count records that follow prev without a gap.
func (d *decoder) records(g partition.GroupID, limit partition.Epoch, prev partition.Position, sum, count uint32) []partition.Record {
	if d.err != nil || count == 0 {
		return nil
	}
	if uint64(count)*partition.RecordHeaderBytes > uint64(len(d.b)) {
		d.err = corrupt("%d records in %d bytes", count, len(d.b))
		return nil
	}
	out := make([]partition.Record, 0, count)
	for range count {
		r, rest, err := partition.ParseRecord(d.b)
		if err != nil {
			d.err = corrupt("record %d of %d: %v", len(out), count, err)
			return nil
		}
		if r.Group() != g || r.Index() != prev.Index+1 || r.Epoch() < prev.Epoch || r.Epoch() > limit ||
			r.Prev() != sum || r.Kind() == 0 || r.Kind() >= partition.KindLocal {
			d.err = corrupt("record %s of %s, kind %s, does not follow %s in %s", r.Position(), r.Group(), r.Kind(), prev, g)
			return nil
		}
		prev, sum, d.b = r.Position(), r.Checksum(), rest
		out = append(out, r)
	}
	return out
}

// encoder appends fixed-size fields.
type encoder struct {
	b    []byte
	long bool // a name did not fit
}

func (e *encoder) u64(x uint64) *encoder {
	e.b = binary.LittleEndian.AppendUint64(e.b, x)
	return e
}

func (e *encoder) u32(x uint32) *encoder {
	e.b = binary.LittleEndian.AppendUint32(e.b, x)
	return e
}

func (e *encoder) position(p partition.Position) *encoder {
	return e.u64(uint64(p.Epoch)).u64(uint64(p.Index))
}

// membership appends a configuration, or nothing.
func (e *encoder) membership(m *partition.Membership) *encoder {
	if m == nil {
		return e
	}
	b, err := m.AppendBinary(e.b)
	if err == nil { // a replica holds none that cannot be encoded
		e.b = b
	}
	return e
}

func bit(set bool, b uint8) uint8 {
	if set {
		return b
	}
	return 0
}

// decoder cuts fixed-size fields off b. After the first that is missing it
// keeps err and returns zeros.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) u64() uint64 {
	if d.err != nil || len(d.b) < 8 {
		d.short()
		return 0
	}
	x := binary.LittleEndian.Uint64(d.b)
	d.b = d.b[8:]
	return x
}

func (d *decoder) u32() uint32 {
	if d.err != nil || len(d.b) < 4 {
		d.short()
		return 0
	}
	x := binary.LittleEndian.Uint32(d.b)
	d.b = d.b[4:]
	return x
}

func (d *decoder) short() {
	if d.err == nil {
		d.err = corrupt("body is cut short with %d bytes left", len(d.b))
	}
}

// membership reads the configuration that is all the rest, or nil.
func (d *decoder) membership() *partition.Membership {
	if d.err != nil || len(d.b) == 0 {
		return nil
	}
	if len(d.b) > partition.MaxMembershipBytes {
		d.err = corrupt("a configuration of %d bytes, limit %d", len(d.b), partition.MaxMembershipBytes)
		return nil
	}
	m := new(partition.Membership)
	if err := m.UnmarshalBinary(d.b); err != nil {
		d.err = corrupt("a configuration: %v", err)
		return nil
	}
	d.b = nil
	return m
}

func (d *decoder) epoch() partition.Epoch { return partition.Epoch(d.u64()) }

// replica reads the id of a replica, which the wire gives four bytes.
func (d *decoder) replica() partition.ReplicaID {
	x := d.u32()
	if x > math.MaxUint16 && d.err == nil {
		d.err = corrupt("replica %d", x)
	}
	return partition.ReplicaID(x)
}

func (d *decoder) index() partition.Index { return partition.Index(d.u64()) }
func (d *decoder) position() partition.Position {
	return partition.Position{Epoch: d.epoch(), Index: d.index()}
}
