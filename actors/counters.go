package actors

import "sync/atomic"

// counters are what a node counts of itself, beside what its parts count.
type counters struct {
	busy         atomic.Uint64
	restarts     atomic.Uint64
	sendRefused  atomic.Uint64
	strayFrames  atomic.Uint64
	badFrames    atomic.Uint64
	leaseReads   atomic.Uint64
	quorumReads  atomic.Uint64
	sessionReads atomic.Uint64
	staleReads   atomic.Uint64
	readsHeld    atomic.Uint64
	readsBehind  atomic.Uint64
	readsFetched atomic.Uint64 // reads that masters answered for learners without a state
	indexAsked   atomic.Uint64 // questions to masters, for reads with a greatest age
	roomWaits    atomic.Uint64
	noRoom       atomic.Uint64 // messages with commands that a full log did not take
	sent         atomic.Uint64
	alarms       atomic.Uint64 // timers set for replicas
	tended       atomic.Uint64 // steps that the tender took
	relieved     atomic.Uint64 // masterships handed over because of an anomaly
}

// Counter is one figure for /metrics.
type Counter struct {
	Name  string // in Prometheus' form, without the prefix
	Help  string
	Value float64
	Gauge bool // may fall
}

// Counters returns the node's figures. There is none per partition, so that a
// node with thousands stays readable.
func (n *Node) Counters() []Counter {
	count := func(name, help string, v uint64) Counter { return Counter{Name: name, Help: help, Value: float64(v)} }
	w, cp := n.log.Stats(), n.copies.Status()
	return []Counter{
		{Name: "groups_not_whole", Help: "partitions mastered here that are not what they shall be", Value: float64(n.tender.unwhole()), Gauge: true},
		count("group_steps_total", "changes of groups, hand-overs and calls to bring up replicas that the tender made", n.counters.tended.Load()),
		{Name: "anomalies", Help: "nodes and links around this node that are found to limp", Value: float64(len(n.limping())), Gauge: true},
		count("anomaly_hand_overs_total", "masterships that this node handed over because it was sick", n.counters.relieved.Load()),
		count("busy_total", "requests and messages refused because a queue was full", n.counters.busy.Load()),
		count("replica_restarts_total", "replicas rebuilt from the log after a failure", n.counters.restarts.Load()),
		count("messages_sent_total", "messages of replicas given to the links", n.counters.sent.Load()),
		count("sends_refused_total", "messages that a link did not take", n.counters.sendRefused.Load()),
		count("stray_frames_total", "messages for replicas that are not here", n.counters.strayFrames.Load()),
		count("bad_frames_total", "messages that failed their checks", n.counters.badFrames.Load()),
		count("lease_reads_total", "reads answered under a lease", n.counters.leaseReads.Load()),
		count("quorum_reads_total", "reads that asked the other members", n.counters.quorumReads.Load()),
		count("session_reads_total", "reads of level session answered", n.counters.sessionReads.Load()),
		count("stale_reads_total", "reads of level stale answered", n.counters.staleReads.Load()),
		count("reads_held_total", "waits of session and stale reads for a newer state or the master's word", n.counters.readsHeld.Load()),
		count("reads_behind_total", "session and stale reads refused because the state was too old", n.counters.readsBehind.Load()),
		count("reads_fetched_total", "session and stale reads that masters answered for replicas whose state was on its way", n.counters.readsFetched.Load()),
		count("copy_sent_bytes_total", "bytes of states sent to other nodes", uint64(cp.Sent)),
		count("copy_received_bytes_total", "bytes of states received", uint64(cp.Received)),
		count("copy_reused_bytes_total", "bytes of states that were here already and not sent", uint64(cp.Reused)),
		{Name: "copies_under_way", Help: "copies of states that are sent or received", Value: float64(len(cp.Copies)), Gauge: true},
		{Name: "copies_waiting", Help: "copies of states that wait for a turn", Value: float64(cp.WaitingIn + cp.WaitingOut), Gauge: true},
		{Name: "copy_rate_bytes", Help: "bytes per second that copies may take now, each way; 0 or less: no bound", Value: float64(cp.BytesPerSecond), Gauge: true},
		count("index_questions_total", "questions to masters how new a state must be", n.counters.indexAsked.Load()),
		count("apply_waits_total", "times that a replica waited for room in its store", n.counters.roomWaits.Load()),
		count("disk_full_refusals_total", "messages of masters whose commands a full disk did not take", n.counters.noRoom.Load()),
		count("wal_appends_total", "writes taken by the log", w.Appends),
		count("wal_records_total", "records taken by the log", w.Records),
		count("wal_record_bytes_total", "bytes of records taken by the log", w.RecordBytes),
		count("wal_syncs_total", "syncs of the log", w.Syncs),
		{Name: "wal_bytes", Help: "size of the log on disk", Value: float64(w.LogBytes), Gauge: true},
		{Name: "wal_sync_seconds", Help: "duration of the last sync", Value: w.SyncLast.Seconds(), Gauge: true},
		{Name: "wal_quarantined", Help: "replicas that lost records on disk", Value: float64(w.Quarantined), Gauge: true},
	}
}
