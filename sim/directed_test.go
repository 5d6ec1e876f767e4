package sim

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pando.dev/pando/internal/planted"
	"pando.dev/pando/sim/fault"
)

// directed is a scenario by its id in README.md: what happens, what shows that it
// did, and the mistakes that it is there to notice.
type directed struct {
	id    string
	knobs string // of a plan
	// acts happen every so often: "1s isolate master@0 for 600ms". * is another
	// number each time.
	acts []string
	// reached are marks, or classes of faults, that have to occur in the seeds
	// together.
	reached []string
	// bugs are caught each, within maxDirected seeds.
	bugs []planted.Bug
}

// maxDirected is how many seeds a planted bug has; directedSeeds how many each
// scenario passes.
const (
	maxDirected   = 300
	directedSeeds = 3
)

// Knobs that several scenarios have.
const (
	manyReads  = "read-share 0.8\nops 200\nclients 8\n"
	slowSyncs  = "sync-min 1ms\nsync-max 8ms\n"
	inSessions = "sessions 1\nread-share 0\nops 100\nstream false\nrepeat 0.2\n"
	oneByOne   = "max-append-bytes 1\nstream false\nloss 0.3\nread-share 0\ndelay-min 0s\ndelay-max 2ms\nsync-min 0s\nsync-max 2ms\n" +
		"point-rate 0.1\npoint-classes power-cut,kill\npoint-names replica.commit,replica.commit-older,replica.lead,replica.noop-durable,replica.supported\n"
	realDisks = "real-log true\nread-share 0\nops 100\nsegment-bytes 65536\n"
)

func scenarios() []directed {
	return slices.Concat(groupScenarios(), worldScenarios())
}

// groupScenarios are about what a group promises.
func groupScenarios() []directed {
	return []directed{
		// Reads.
		{"R1", manyReads, []string{"1s isolate master@0 for 600ms", "1s reset master@0 -"}, []string{"isolate", "sim.read_lease", "replica.lease-wait"}, []planted.Bug{planted.NoLeaseWait}},
		{"R2", manyReads + "drift 0.005\n", []string{"700ms pause master@0 for 400ms", "1s clock-drift 1 for 800ms arg 5000", "1500ms clock-jump master@0 arg 500"}, []string{"pause", "clock-drift", "clock-jump"}, nil},
		{"R5", manyReads + "apply-max 5ms\n", []string{"400ms kill-fast master@0", "600ms kill-fast peer@0"}, []string{"kill-fast", "sim.read_session", "sim.read_stale"}, nil},
		// Mastership.
		{"M1", "", []string{"2s freeze master@0 for 1200ms"}, []string{"freeze", "replica.stale-append"}, []planted.Bug{planted.StaleAppend}},
		{"M2", manyReads, []string{"700ms cut master@0 supporter@0 for 350ms", "900ms isolate master@0 for 300ms"}, []string{"replica.lease-wait", "replica.lease-reported"}, nil},
		{"M3", "nodes 5\nreplicas 5\n", []string{"2s lock-doubles for 1500ms", "2s halves for 1s arg 3", "1500ms isolate master@0 for 700ms"}, []string{"sim.lock_doubled", "halves"}, nil},
		{"M4", slowSyncs + "lock-forgets 1\n", []string{"500ms isolate master@0 for 300ms", "300ms power-cut peer@0 for 10ms"}, []string{"sim.lock_forgot", "power-cut", "replica.promise-durable"}, nil},
		{"M5", "read-share 0\nops 200\n", []string{"900ms isolate master@0 for 500ms", "700ms power-cut peer@0 for 100ms"}, []string{"replica.newer-log", "replica.fetched"}, []planted.Bug{planted.NewerByIndex}},
		{"M6", oneByOne, []string{"300ms isolate master@0 for 150ms"}, []string{"replica.commit-older", "replica.noop-durable"}, []planted.Bug{planted.AnyEpochCommit}},
		{"M7", "", []string{"20s isolate-in 2 for 19s"}, []string{"isolate-in"}, nil},
		{"M8", "nodes 5\nreplicas 3\n", []string{"2s isolate peer@0 for 3s", "700ms replace-member peer@0 anyone@0", "900ms isolate-in peer@0 for 500ms"}, []string{"replica.member-removed", "replica.removed", "replica.retired"}, []planted.Bug{planted.RetireEarly}},
		{"M11", "nodes 6\nzones 3\nreplicas 6\npolicy-mix zones\n", []string{"2s power-cut-many for 900ms arg 9", "2500ms isolate-out 1 for 900ms"}, []string{"power-cut-many", "isolate-out"}, nil},
		{"M12", "nodes 5\nreplicas 5\nretry-max 100ms\n", []string{"60ms gossip-storm", "400ms kill-many for 20ms arg 31"}, []string{"gossip-storm", "kill-many", "replica.abandoned"}, nil},
		{"M13", "nodes 5\nreplicas 3\n", []string{"300ms remove-member 0", "400ms kill-fast master@0", "1s kill-many for 20ms arg 31"}, []string{"replica.configuration-refused", "kill-many"}, nil},
		{"M14", "", []string{"30ms gossip-lies master@0 peer@0 arg 1", "500ms flap 0 1 for 300ms arg 20", "1s gossip-storm"}, []string{"gossip-lies", "flap", "gossip-storm"}, nil},
		// Log.
		{"L1", slowSyncs + "read-share 0\nops 200\n", []string{"400ms power-cut-many for 20ms arg 7"}, []string{"power-cut-many"}, []planted.Bug{planted.AckUnsynced, planted.CountSent}},
		{"L2", "read-share 0\nops 200\nstream false\nreplay 0.05\nloss 0.1\n", []string{"900ms isolate master@0 for 600ms", "700ms replay master@0 - arg 16"}, []string{"replica.snip"}, []planted.Bug{planted.SnipOnStale}},
		{"L3", realDisks + slowSyncs, []string{"800ms isolate master@0 for 500ms", "300ms power-cut peer@0 for 20ms"}, []string{"replica.snip", "wal.rotated"}, nil},
		{"L5", "read-share 0\nops 200\nstream false\nreplay 0.1\nrepeat 0.2\nflush 0.3\ntruncate 1\n", []string{"200ms truncate-log peer@0", "300ms replay master@0 - arg 16"}, []string{"replica.truncated", "replay"}, nil},
		{"L6", "read-share 0\nops 400\nclients 16\n", []string{"4s disk-slow peer@0 for 2s arg 40", "5s delay peer@0 - for 2s arg 40000"}, []string{"disk-slow", "delay"}, nil},
		{"L7", realDisks, []string{"1s disk-full master@0 for 500ms", "700ms sync-fail anyone@0"}, []string{"sim.log_full", "sync-fail"}, nil},
		{"L8", realDisks + "flush 0.3\ntruncate 1\n", []string{"200ms truncate-log anyone@0", "250ms power-cut anyone@0 for 10ms", "900ms kill-many for 10ms arg 7"}, []string{"sim.log_truncated", "power-cut", "wal.recycled"}, []planted.Bug{planted.ReuseNeeded}},
		// Exactly once.
		{"X1", inSessions, []string{"500ms isolate master@0 for 300ms", "300ms kill-fast master@0"}, []string{"replica.repeated"}, []planted.Bug{planted.ExecuteTwice}},
		{"X2", inSessions, []string{"300ms power-cut anyone@0 for 20ms"}, []string{"replica.repeated"}, []planted.Bug{planted.SessionsLost, planted.WindowLost}},
		{"X3", inSessions + "clients 8\nsession-limit 2\n", []string{"500ms isolate master@0 for 300ms"}, []string{"replica.session-expired", "replica.session-unknown"}, []planted.Bug{planted.ExpiredExecutes}},
		{"X4", inSessions, []string{"300ms transfer master@0 peer@0", "900ms kill master@0 for 50ms"}, []string{"replica.go-taken", "replica.repeated"}, []planted.Bug{planted.OtherResult}},
	}
}

// worldScenarios are about disks, networks, processes and clocks.
func worldScenarios() []directed {
	return []directed{
		{"D1", realDisks, []string{"150ms kill-fast anyone@0", "400ms kill-many for 10ms arg 7"}, []string{"kill-fast", "kill-many"}, nil},
		{"D2", realDisks + slowSyncs, []string{"200ms power-cut anyone@0 for 10ms", "900ms power-cut-many for 10ms arg 7"}, []string{"power-cut", "power-cut-many"}, []planted.Bug{planted.DoneUnsynced}},
		{"D3", realDisks + slowSyncs, []string{"150ms torn-write anyone@0 for 10ms"}, []string{"torn-write"}, nil},
		{"D4", realDisks, []string{"3s flip-log peer@0 for 100ms arg *"}, []string{"flip-log"}, nil},
		{"D4", "nodes 5\nreplicas 5\n", []string{"3s flip-state peer@0 for 100ms arg 3", "4s flip-log peer@0 for 100ms arg 3"}, []string{"flip-state", "sim.log_damaged"}, nil},
		{"D5", realDisks, []string{"2s flip-log peer@0 for 50ms arg *"}, []string{"flip-log"}, nil},
		{"D6", realDisks, []string{"2s misdirect peer@0 for 50ms arg *", "3s lost-write peer@0 for 50ms arg *"}, []string{"misdirect"}, nil},
		{"D7", realDisks, []string{"300ms sync-fail anyone@0", "500ms sync-fail master@0"}, []string{"sync-fail"}, nil},
		{"D8", slowSyncs, []string{"3s lying-sync peer@0 for 500ms"}, []string{"lying-sync"}, nil},
		{"D9", "tail-bytes 100\n", []string{"500ms read-fail master@0 for 200ms", "1s disk-read-only peer@0 for 300ms", "600ms kill peer@0 for 100ms"}, []string{"read-fail", "disk-read-only"}, nil},
		{"D10", realDisks, []string{"700ms disk-full anyone@0 for 500ms"}, []string{"sim.log_full"}, nil},
		{"D11", "length 40s\n", []string{"10s disk-stall peer@0 for 6s", "15s disk-stall master@0 for 3s", "4s disk-slow master@0 for 2s arg 100"}, []string{"disk-stall", "disk-slow"}, nil},
		{"D13", "nodes 4\n", []string{"4s wipe peer@0 for 100ms"}, []string{"sim.wiped"}, nil},
		{"D14", "", []string{"4s roll-back peer@0 for 50ms arg 1500", "900ms kill-fast anyone@0"}, []string{"roll-back", "sim.rolled_back_noticed"}, nil},
		{"D15", "", []string{"2s swap-disks peer@0 master@0 for 50ms"}, []string{"swap-disks"}, nil},
		// Network, process, time.
		{"N1", "stream false\nloss 0.2\n", []string{"1s loss master@0 - for 500ms arg 700"}, []string{"loss"}, []planted.Bug{planted.NoResend}},
		{"N2", "", []string{"700ms delay 0 - for 500ms arg 100000", "900ms clog master@0 peer@0 for 400ms"}, []string{"delay", "clog"}, nil},
		{"N3", "stream false\n", []string{"700ms reorder master@0 - for 600ms arg 50000"}, []string{"reorder"}, nil},
		{"N4", "stream false\nrepeat 0.3\n", []string{"700ms duplicate master@0 - for 500ms arg 800", "300ms replay anyone@0 - arg 16"}, []string{"duplicate", "replay"}, nil},
		{"N5", "", []string{"700ms cut-one-way master@0 peer@0 for 500ms", "1100ms isolate-out anyone@0 for 400ms"}, []string{"cut-one-way", "isolate-out"}, nil},
		{"N6", "nodes 5\nreplicas 5\n", []string{"1s bridge 2 for 700ms arg 3", "1700ms ring for 600ms", "2300ms isolate master@0 for 500ms"}, []string{"bridge", "ring", "isolate"}, nil},
		{"N7", "", []string{"1s flap master@0 peer@0 for 900ms arg 30"}, []string{"flap"}, nil},
		{"N8", "", []string{"300ms clog anyone@0 - for 250ms"}, []string{"clog"}, nil},
		{"P1", "", []string{"300ms pause anyone@0 for 100ms", "2s pause master@0 for 1500ms"}, []string{"pause"}, nil},
		{"P2", "", []string{"2s freeze anyone@0 for 1500ms"}, []string{"freeze"}, nil},
		{"P3", "", []string{"1s starve anyone@0 for 900ms arg 5000"}, []string{"starve"}, nil},
		{"P4", "max-pending 8\nmax-in-flight-bytes 2000\ntail-bytes 500\npad 1000\nclients 32\nops 400\n", []string{"1s delay peer@0 - for 500ms arg 30000", "700ms disk-slow peer@0 for 300ms arg 20"}, []string{"replica.read-back", "delay"}, nil},
		{"T1", "offset 1h\n", []string{"200ms clock-step anyone@0 arg 3600000", "500ms clock-strobe anyone@0 for 300ms arg 100"}, []string{"sim.wall_clock_stepped"}, nil},
		{"T3", manyReads, []string{"100ms clock-strobe anyone@0 for 900ms arg 3600000", "1s isolate master@0 for 500ms"}, []string{"clock-strobe", "sim.wall_clock_stepped"}, nil},
		{"T4", manyReads + "offset 10h\n", []string{"1s isolate master@0 for 600ms", "700ms kill-fast anyone@0"}, []string{"isolate", "replica.lease-wait"}, []planted.Bug{planted.NoLeaseWait}},
		{"T2", manyReads + "drift 0.005\n", []string{"500ms clock-drift master@0 for 400ms arg -5000", "700ms isolate master@0 for 400ms"}, []string{"clock-drift"}, nil},
	}
}

// plan is the scenario's plan for a seed.
func (d *directed) plan(t *testing.T, seed uint64) *Plan {
	t.Helper()
	length := 8 * time.Second
	if strings.Contains(d.knobs, "length") {
		length = 40 * time.Second
	}
	text := fmt.Sprintf("seed %d\n%s", seed, d.knobs)
	if !strings.Contains(d.knobs, "length") {
		text += fmt.Sprintf("length %s\n", length)
	}
	for i, a := range d.acts {
		every, what, _ := strings.Cut(a, " ")
		e, err := time.ParseDuration(every)
		if err != nil {
			t.Fatal(err)
		}
		for n, at := uint64(0), min(e, time.Second); at < length; n, at = n+1, at+e {
			jitter := between(mix(seed<<20^uint64(i)<<16^n), 0, e/4).Round(time.Microsecond)
			text += fmt.Sprintf("at %s %s\n", at+jitter, strings.ReplaceAll(what, "*", fmt.Sprint(mix(seed<<8|n)>>40)))
		}
	}
	p, err := ParsePlan([]byte(text))
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return p
}

// TestDirected: each scenario that is known from other systems, on purpose. The
// product passes, what the scenario is about has happened, and the mistake that it
// is there to notice is noticed.
func TestDirected(t *testing.T) {
	for _, d := range scenarios() {
		t.Run(d.id, func(t *testing.T) {
			t.Parallel()
			marks, counts := Marks{}, Counts{}
			for seed := range uint64(directedSeeds) {
				r := d.plan(t, seed).Run(Options{})
				if r.Violation != nil {
					t.Errorf("seed %d: %v\n%s", seed, r.Violation, d.plan(t, seed))
				}
				marks.Add(r.Marks)
				counts.Add(&r.Counts)
			}
			for _, name := range d.reached {
				if !happened(name, marks, &counts) {
					t.Errorf("%s has not happened", name)
				}
			}
			if counts.Acked < 20 {
				t.Errorf("%d writes were acknowledged", counts.Acked)
			}
			for _, b := range d.bugs {
				if !testing.Short() {
					d.catches(t, b)
				}
			}
		})
	}
}

func (d *directed) catches(t *testing.T, b planted.Bug) {
	t.Helper()
	for seed := range uint64(maxDirected) {
		p := d.plan(t, seed)
		p.Planted = planted.Of(b)
		if r := p.Run(Options{}); r.Violation != nil {
			t.Logf("%s: seed %d, %s", b, seed, r.Violation.What)
			return
		}
	}
	t.Errorf("%s is not noticed in %d seeds", b, maxDirected)
}

// happened reports whether a mark was reached, or a class of faults injected.
func happened(name string, m Marks, c *Counts) bool {
	if class, err := fault.Parse(name); err == nil {
		return c.Faults[class] > 0
	}
	return m[name] > 0
}

// TestOverBudget (G13, D4, D6, D13): damage in any number of replicas, also in all
// of them. A group may fall silent then; what it still answers is right.
func TestOverBudget(t *testing.T) {
	t.Parallel()
	d := directed{
		id: "D4", knobs: "nodes 4\nover-budget true\n",
		acts: []string{
			"1s flip-log anyone@0 for 50ms arg *", "1300ms flip-state anyone@0 for 50ms arg *", "2500ms wipe anyone@0 for 50ms",
			"400ms kill-fast anyone@0", "900ms isolate master@0 for 300ms",
		},
	}
	silent := 0
	var counts Counts
	for seed := range uint64(20) {
		p := d.plan(t, seed)
		w := newWorld(p, nil)
		if what := objection(func() { w.create(); w.play(p.Knobs.Length); w.recover() }); what != "" {
			t.Errorf("seed %d: %s objects\n%s", seed, what, p)
		}
		if !w.could(0, nil) {
			silent++
		}
		counts.Add(&w.count.Counts)
	}
	if silent < 5 || counts.Faults[fault.FlipLog] < 20 || counts.Acked < 200 {
		t.Errorf("%d groups fell silent, %d logs were damaged, %d writes acknowledged", silent, counts.Faults[fault.FlipLog], counts.Acked)
	}
}
