package sim

import (
	"fmt"
	"strings"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/replica"
)

// Kinds of messages, as a KindDrop names them.
const (
	kindAppend = iota
	kindAppendAck
	kindGather
	kindGatherAnswer
	kindFetch
	kindFetchAnswer
	kindProbe
	kindProbeAnswer
	kindHandOver
	kindReadCheck
	kindReadConfirm
	kindBeat
	messageKinds
)

func kindOf(m replica.Message) int {
	switch m.(type) {
	case *replica.Append:
		return kindAppend
	case *replica.AppendAck:
		return kindAppendAck
	case *replica.Gather:
		return kindGather
	case *replica.GatherAnswer:
		return kindGatherAnswer
	case *replica.Fetch:
		return kindFetch
	case *replica.FetchAnswer:
		return kindFetchAnswer
	case *replica.Probe:
		return kindProbe
	case *replica.ProbeAnswer:
		return kindProbeAnswer
	case *replica.HandOver:
		return kindHandOver
	case *replica.ReadCheck:
		return kindReadCheck
	}
	return kindReadConfirm
}

// describe prints a message as traces show it.
func describe(m replica.Message) string {
	switch m := m.(type) {
	case *replica.Append:
		return fmt.Sprintf("append epoch %s after %s commit %d%s", m.Epoch, m.Prev, m.Commit, describeRecords(m.Records))
	case *replica.AppendAck:
		return fmt.Sprintf("ack epoch %s match %d want %d commit %d", m.Epoch, m.Match, m.Want, m.Commit)
	case *replica.Gather:
		return fmt.Sprintf("gather epoch %s released %s", m.Epoch, m.Released)
	case *replica.GatherAnswer:
		return fmt.Sprintf("gather answer epoch %s end %s commit %d lease %s", m.Epoch, m.End, m.Commit.Index, m.LeaseRemaining)
	case *replica.Fetch:
		return fmt.Sprintf("fetch epoch %s after %d", m.Epoch, m.After)
	case *replica.FetchAnswer:
		return fmt.Sprintf("fetch answer epoch %s after %s%s", m.Epoch, m.Prev, describeRecords(m.Records))
	case *replica.Probe:
		return fmt.Sprintf("probe epoch %s elect %v", m.Epoch, m.Elect)
	case *replica.ProbeAnswer:
		return fmt.Sprintf("probe answer epoch %s reachable %v trying %v master %v end %s", m.Promised, m.Reachable, m.Trying, m.Master, m.End)
	case *replica.HandOver:
		return fmt.Sprintf("hand-over epoch %s step %d number %d end %s", m.Epoch, m.Step, m.Number, m.End)
	case *replica.ReadCheck:
		return fmt.Sprintf("read check epoch %s round %d", m.Epoch, m.Seq)
	case *replica.ReadConfirm:
		return fmt.Sprintf("read confirm epoch %s round %d waiting %v", m.Epoch, m.Seq, m.Waiting)
	}
	return fmt.Sprintf("%T", m)
}

func describeRecords(records []partition.Record) string {
	var b strings.Builder
	for _, r := range records {
		fmt.Fprintf(&b, " [%s %s]", r.Position(), r.Kind())
	}
	return b.String()
}

func describePersist(p *replica.Persist) string {
	s := fmt.Sprintf("writes %d: promise %s commit %d", p.Seq, p.Promise, p.Commit)
	if p.Snip {
		s += fmt.Sprintf(" snip behind %d", p.After)
	}
	return s + describeRecords(p.Records)
}
