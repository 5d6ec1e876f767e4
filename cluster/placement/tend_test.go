package placement

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"pando.dev/pando/partition"
)

func majority() partition.Policy { return partition.Policy{Rule: partition.Majority} }

func zones(k uint8) partition.Policy { return partition.Policy{Rule: partition.Zones, Zones: k} }

// The life of a group, as operators see it.

func TestTendWholeGroupIsLeftAlone(t *testing.T) {
	w := newWorld(t, cluster(5, 5), 3, majority())
	if step := Tend(&w.s); step.Kind != Nothing || step.Why != "" || step.Again != 0 {
		t.Fatalf("%+v", step)
	}
	w.s.Pending = true
	if step := Tend(&w.s); step.Kind != Nothing || step.Why == "" {
		t.Fatalf("while a change is under way: %+v", step)
	}
}

// Three replicas, five, three: MEM-1 and MEM-5.
func TestTendReplicasOfTable(t *testing.T) {
	w := newWorld(t, cluster(6, 3), 3, majority())
	for _, n := range []int{5, 3, 4, 1, 2, 3} {
		version := w.s.Membership.Version
		w.s.Spec.Replicas = n
		w.settled()
		if w.s.Membership.Version == version {
			t.Fatalf("%d replicas and no change", n)
		}
		used := map[string]int{}
		for _, x := range w.s.Membership.Members {
			used[x.Zone]++
		}
		for zone, c := range used {
			if len(used) != min(n, 3) || c > (n+2)/3 {
				t.Errorf("%d replicas: %d in zone %s of %v", n, c, zone, used)
			}
		}
	}
	w.s.Spec.Replicas = 9
	if why := w.settle(); !strings.Contains(why, "no further node") || len(w.s.Membership.Members) != 6 {
		t.Errorf("9 replicas on 6 nodes: %q, %s", why, w.describe())
	}
}

// A voter dies for good: a log replica after LogAfter, a full one after
// ReplaceAfter (CAT-3, CAT-9).
func TestTendLostVoter(t *testing.T) {
	w := newWorld(t, cluster(4, 4), 3, majority())
	lost, spare := w.other(), w.free()[0]
	w.kill(lost)
	died := w.s.Now
	if step := Tend(&w.s); step.Kind != Nothing || !strings.Contains(step.Why, "does not answer") || step.Again != died+10*time.Second {
		t.Fatalf("at once: %+v", step)
	}
	for w.s.Now = died + 10*time.Second; w.step(); {
	}
	if got := w.kinds(); got != "3 full, 1 log, 0 learners, 1 ineligible" || w.on(spare).Kind != partition.LogReplica || w.on(lost).Eligible {
		t.Fatalf("after LogAfter: %s", w.describe())
	}
	if w.canLose() != 1 {
		t.Errorf("with a log replica it can lose %d", w.canLose())
	}
	if step := Tend(&w.s); step.Again != died+5*time.Minute {
		t.Fatalf("then: %+v", step)
	}
	w.s.Now = died + 5*time.Minute
	w.settled()
	if _, still := w.s.Membership.OnNode(lost); still || w.on(spare).Kind != partition.Full || w.canLose() != 1 {
		t.Errorf("after ReplaceAfter: %s", w.describe())
	}
}

// A voter comes back in time: it catches up, counts again, the log replica goes
// with the same change.
func TestTendVoterComesBack(t *testing.T) {
	w := newWorld(t, cluster(4, 4), 3, majority())
	lost := w.other()
	id := w.on(lost).Replica
	w.kill(lost)
	w.s.Now += 20 * time.Second
	for w.step() {
	}
	w.revive(lost)
	version := w.s.Membership.Version
	w.settled()
	if w.on(lost).Replica != id || w.s.Membership.Version != version+1 {
		t.Errorf("%s after version %d", w.describe(), version)
	}
}

// Without a node to spare nothing is changed, and the reason is said.
func TestTendNoSpareNode(t *testing.T) {
	w := newWorld(t, cluster(3, 3), 3, majority())
	w.kill(w.other())
	for range 3 {
		w.s.Now += 4 * time.Minute
		if why := w.settle(); why == "" || w.s.Membership.Version != 1 {
			t.Fatalf("%q, %s", why, w.describe())
		}
	}
}

// A replica that fell silent is replaced on its own node, under a new id.
func TestTendDamage(t *testing.T) {
	w := newWorld(t, cluster(4, 4), 3, majority())
	at := w.other()
	id := w.on(at).Replica
	w.damage(id)
	w.settled()
	if x := w.on(at); x.Replica != 4 || w.canLose() != 1 {
		t.Errorf("replica %d became %+v: %s", id, x, w.describe())
	}
}

// A drained node hands its mastership over, then does not count, and comes back
// eligible (INE-7); a second one is refused while nothing could be committed
// (INE-6), unless an operator insists.
func TestTendDrain(t *testing.T) {
	w := newWorld(t, cluster(3, 3), 3, majority())
	first, _ := w.s.Membership.Member(w.s.Self)
	w.node(first.Node).Drain = Maintenance
	if step := Tend(&w.s); step.Kind != Transfer {
		t.Fatalf("%+v", step)
	}
	if why := w.settle(); why != "" || w.s.Self == first.Replica || w.on(first.Node).Eligible {
		t.Fatalf("%q: %s", why, w.describe())
	}
	second := w.other()
	if second == first.Node {
		second = w.s.Membership.Members[2].Node
	}
	w.kill(first.Node)
	w.s.Now += time.Hour
	if why := w.settle(); w.on(first.Node).Replica != first.Replica {
		t.Fatalf("a node in maintenance was replaced: %q, %s", why, w.describe())
	}
	w.node(second).Drain = Stopping
	if why := w.settle(); w.on(second).Eligible {
		t.Fatalf("with the first one not counting the second may go: %q, %s", why, w.describe())
	}
	third, _ := w.s.Membership.Member(w.s.Self)
	w.node(third.Node).Drain = Stopping
	if why := w.settle(); !strings.Contains(why, "no other eligible full replica") || !w.on(third.Node).Eligible {
		t.Fatalf("the last one: %q, %s", why, w.describe())
	}
	w.revive(first.Node)
	for _, n := range []partition.NodeID{first.Node, second, third.Node} {
		w.node(n).Drain = InService
	}
	w.settled()
}

func TestTendRefusesDrain(t *testing.T) {
	w := newWorld(t, cluster(3, 3), 3, majority())
	var down, up partition.NodeID
	for _, x := range w.s.Membership.Members {
		if x.Replica != w.s.Self {
			down, up = up, x.Node
		}
	}
	w.kill(down)
	w.node(up).Drain = Maintenance
	if why := w.settle(); !strings.Contains(why, "nothing could be committed") || !w.on(up).Eligible {
		t.Fatalf("%q: %s", why, w.describe())
	}
	w.node(up).Force = true
	if step := Tend(&w.s); step.Kind != Configure || !step.Force {
		t.Fatalf("forced: %+v", step)
	}
}

// What an operator asks of one group stays, until the table's number changes.
func TestTendRequests(t *testing.T) {
	w := newWorld(t, cluster(6, 3), 3, majority())
	add := w.free()[1]
	w.s.Request = Request{Kind: AddReplica, Node: add}
	w.settled()
	w.s.Request = Request{}
	w.settled()
	if len(w.s.Membership.Members) != 4 || w.on(add).Kind != partition.Full {
		t.Fatalf("added: %s", w.describe())
	}
	self, _ := w.s.Membership.Member(w.s.Self)
	w.s.Request = Request{Kind: RemoveReplica, Replica: self.Replica}
	w.settled()
	w.s.Request = Request{}
	if _, still := w.s.Membership.Member(self.Replica); still || len(w.s.Membership.Members) != 3 {
		t.Fatalf("removed: %s", w.describe())
	}
	old, to := w.s.Membership.Members[0], w.free()[0]
	w.s.Request = Request{Kind: ReplaceReplica, Replica: old.Replica, Node: to}
	for w.step() {
		if got := w.canLose(); got < 1 {
			t.Fatalf("while one is replaced it can lose %d: %s", got, w.describe())
		}
		if strings.HasPrefix(w.kinds(), "4 full") {
			t.Fatalf("replaced in two steps: %s", w.describe())
		}
	}
	w.settled()
	w.s.Request = Request{}
	if _, still := w.s.Membership.Member(old.Replica); still || w.on(to).Kind != partition.Full {
		t.Fatalf("replaced: %s", w.describe())
	}
	w.s.Request = Request{Kind: AddReplica, Node: w.free()[0]}
	w.settled()
	w.s.Request = Request{}
	if len(w.s.Membership.Members) != 4 {
		t.Fatalf("added once more: %s", w.describe())
	}
	for _, n := range []int{5, 3} { // the table's word ends the operator's
		w.s.Spec.Replicas = n
		w.settled()
		if len(w.s.Membership.Members) != n {
			t.Fatalf("%d asked for by the table: %s", n, w.describe())
		}
	}
}

func TestTendRequestOfDeadNode(t *testing.T) {
	w := newWorld(t, cluster(4, 4), 3, majority())
	spare := w.free()[0]
	w.kill(spare)
	w.s.Request = Request{Kind: AddReplica, Node: spare}
	if why := w.settle(); !strings.Contains(why, "not in service") || w.s.Membership.Version != 1 {
		t.Errorf("%q: %s", why, w.describe())
	}
}

// A zone counts as the configuration names it, and a node that is in another one
// now gets there by a record (LOC-8); under a policy of zones replicas move until
// they are spread again.
func TestTendZoneOfNodeChanges(t *testing.T) {
	w := newWorld(t, cluster(4, 4), 3, zones(2))
	moved, stays := w.s.Membership.Members[1], w.s.Membership.Members[0]
	w.node(moved.Node).Zone = stays.Zone
	step := Tend(&w.s)
	if step.Kind != Configure || !strings.Contains(step.Why, "zone") {
		t.Fatalf("%+v", step)
	}
	w.settled()
	seen := map[string]bool{}
	for _, x := range w.s.Membership.Members {
		if seen[x.Zone] {
			t.Errorf("two in zone %s: %s", x.Zone, w.describe())
		}
		seen[x.Zone] = true
	}
}

func TestTendPolicy(t *testing.T) {
	w := newWorld(t, cluster(5, 5), 3, majority())
	for _, p := range []partition.Policy{zones(2), zones(3), {Rule: partition.AllInSync}, majority()} {
		w.s.Spec.Policy = p
		w.settled()
	}
	w = newWorld(t, cluster(4, 2), 3, majority())
	w.s.Spec.Policy = zones(3)
	if why := w.settle(); !strings.Contains(why, "zones:3") || w.s.Membership.Policy != majority() {
		t.Errorf("three zones of two: %q, %s", why, w.describe())
	}
}

// A node that comes and goes costs a bounded number of changes: each time it has
// to stay longer.
func TestTendFlappingNode(t *testing.T) {
	w := newWorld(t, cluster(4, 4), 3, majority())
	at := w.other()
	run := func(d time.Duration) {
		for end := w.s.Now + d; w.s.Now < end; {
			for w.step() {
			}
			w.s.Now += time.Second
		}
	}
	for range 40 {
		w.kill(at)
		run(11 * time.Second)
		w.revive(at)
		run(5 * time.Second)
	}
	// In 40 rounds; without damping each would cost four.
	if v := w.s.Membership.Version; v > 20 {
		t.Errorf("%d changes", v-1)
	}
	w.settled()
}

// Whatever happens to a group of whatever shape: every step is legal and has a
// reason, no step that nobody asked for lets it survive fewer losses, and when
// nothing happens any more it comes to rest: whole if there are nodes for it, and
// otherwise with a reason.
func TestTendProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := cluster(rapid.IntRange(1, 7).Draw(t, "nodes"), rapid.IntRange(1, 4).Draw(t, "zones"))
		policy := majority()
		if k := rapid.IntRange(0, min(3, Zones(nodes))).Draw(t, "policy"); k > 0 {
			policy = zones(uint8(k))
		}
		rf := rapid.IntRange(max(1, int(policy.Zones)), min(5, len(nodes))).Draw(t, "rf")
		w := newWorld(t, nodes, max(rf, int(policy.Zones)), policy)
		w.rand = rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		w.lossy = rapid.Bool().Draw(t, "lossy")
		asked := rapid.Bool().Draw(t, "operators")
		for range rapid.IntRange(5, 60).Draw(t, "events") {
			w.happen(t, asked)
			for range rapid.IntRange(0, 4).Draw(t, "steps") {
				before := w.canLose()
				if !w.step() {
					w.s.Now += time.Duration(rapid.IntRange(0, 30).Draw(t, "pause")) * time.Second
				} else if !asked && w.canLose() < before && !w.complete() {
					w.fatal("it could lose %d before and %d now", before, w.canLose())
				}
			}
		}
		w.rest(t)
	})
}

// happen is one thing that may happen to a cluster.
func (w *world) happen(t *rapid.T, asked bool) {
	n := &w.s.Nodes[rapid.IntRange(0, len(w.s.Nodes)-1).Draw(t, "node")]
	events := []func(){
		func() { w.kill(n.ID) }, func() { w.revive(n.ID) }, func() { w.revive(n.ID) },
		func() { w.damage(w.on(n.ID).Replica) },
		func() {
			if x, ok := w.s.Membership.OnNode(n.ID); ok && x.Replica != w.s.Self && n.Up {
				w.note("replica %d is behind", x.Replica)
				w.peer(x.Replica).Behind, w.peer(x.Replica).CaughtUp = true, false
			}
		},
		func() {
			w.s.Now += time.Duration(rapid.IntRange(1, 400).Draw(t, "time")) * time.Second
		},
	}
	if asked {
		events = append(events,
			func() { n.Drain = Drain(rapid.IntRange(0, 2).Draw(t, "drain")); w.note("%s: drain %d", n.ID, n.Drain) },
			func() { n.Drain = InService },
			func() {
				w.s.Spec.Replicas = rapid.IntRange(1, 5).Draw(t, "replicas")
				w.note("%d replicas", w.s.Spec.Replicas)
			},
			func() {
				n.Zone = fmt.Sprintf("z%d", rapid.IntRange(0, 3).Draw(t, "zone"))
				w.note("%s is in %s", n.ID, n.Zone)
			},
			func() {
				defer func() { w.note("policy %s", w.s.Spec.Policy) }()
				w.s.Spec.Policy = rapid.SampledFrom([]partition.Policy{majority(), zones(1), zones(2), zones(3)}).Draw(t, "policy")
			},
			func() {
				w.s.Request = Request{
					Kind: RequestKind(rapid.IntRange(0, 3).Draw(t, "request")), Node: n.ID,
					Replica: partition.ReplicaID(rapid.IntRange(1, int(w.s.Membership.Next)).Draw(t, "replica")),
				}
				w.note("request %+v", w.s.Request)
			},
			func() { w.s.Request = Request{} },
		)
	}
	events[rapid.IntRange(0, len(events)-1).Draw(t, "event")]()
	w.elect()
}

// rest lets everything come back and checks that the group comes to rest.
func (w *world) rest(t *rapid.T) {
	w.note("everything is to come back")
	w.s.Request, w.lossy = Request{}, false
	for i := range w.s.Nodes {
		w.s.Nodes[i].Drain = InService
	}
	stay := rapid.IntRange(0, 2).Draw(t, "stay")
	for i := range w.s.Nodes {
		if i >= stay {
			w.revive(w.s.Nodes[i].ID)
		}
	}
	w.elect()
	why := w.settle()
	if why == "" {
		w.whole()
	}
	for i := range w.s.Nodes {
		w.revive(w.s.Nodes[i].ID)
	}
	for range 2 {
		w.elect()
		why = w.settle()
	}
	inZones := map[string]bool{}
	for _, n := range w.s.Nodes {
		inZones[n.Zone] = true
	}
	switch want := wanted(w.s.Membership, w.s.Spec); {
	case why == "":
		w.whole()
	case w.s.Self == 0: // damaged members count as missing for ever: only an operator helps
	case w.s.Membership.Policy.Rule == partition.Zones && w.brokenLeft():
		// The only full replica of a zone is damaged and the others are as many as
		// are asked for: an operator has to ask for more first.
	case want > len(w.s.Nodes) || int(w.s.Spec.Policy.Zones) > min(want, len(inZones)):
	default:
		w.fatal("there are nodes enough, but: %s", why)
	}
}

// A master that is cut off from too many changes nothing, however long.
func TestTendCutOffMaster(t *testing.T) {
	w := newWorld(t, cluster(6, 6), 3, majority())
	for _, x := range w.s.Membership.Members {
		if x.Replica != w.s.Self {
			n := w.node(x.Node)
			n.Up, n.Since = false, w.s.Now
		}
	}
	w.s.Spec.Policy = zones(1) // by which it could commit alone
	for range 3 {
		w.s.Now += 10 * time.Second
		if step := Tend(&w.s); step.Kind == Configure || step.Why == "" {
			t.Fatalf("%+v", step)
		}
	}
}

// All nodes are stopped at once: two stay eligible, so that not one alone has all
// the say when they come back.
func TestTendAllStop(t *testing.T) {
	w := newWorld(t, cluster(3, 3), 3, majority())
	for i := range w.s.Nodes {
		w.s.Nodes[i].Drain = Stopping
	}
	if why := w.settle(); why == "" || w.kinds() != "3 full, 0 log, 0 learners, 0 ineligible" {
		t.Errorf("all at once: %q: %s", why, w.describe())
	}
	for i := range w.s.Nodes {
		w.s.Nodes[i].Drain = InService
	}
	for i := range w.s.Nodes { // one after the other
		w.s.Nodes[i].Drain = Stopping
		w.settle()
	}
	if got := w.kinds(); got != "3 full, 0 log, 0 learners, 2 ineligible" && got != "3 full, 0 log, 0 learners, 1 ineligible" {
		t.Errorf("one after the other: %s", w.describe())
	}
}

// A voter that is not heard of is never brought up under its id: its node knows
// whether it opens it, or has lost it.
func TestTendSilentVoter(t *testing.T) {
	w := newWorld(t, cluster(4, 4), 3, majority())
	p := w.peer(w.on(w.other()).Replica)
	*p = PeerState{Replica: p.Replica}
	for range 3 {
		w.s.Now += time.Minute
		if step := Tend(&w.s); step.Kind != Nothing {
			t.Fatalf("%+v", step)
		}
	}
	*p = PeerState{Replica: p.Replica, Present: true, Behind: true}
	if step := Tend(&w.s); step.Kind != Host || !step.Voter || step.Replica != p.Replica {
		t.Fatalf("behind: %+v", step)
	}
}

// A node in maintenance is not replaced, but a log replica stands in for it while
// it is down.
func TestTendMaintenance(t *testing.T) {
	w := newWorld(t, cluster(4, 4), 3, majority())
	at := w.other()
	w.node(at).Drain = Maintenance
	w.settled()
	w.kill(at)
	w.s.Now += 24 * time.Hour
	w.settle()
	if w.on(at).Replica == 0 || w.kinds() != "3 full, 1 log, 0 learners, 1 ineligible" {
		t.Fatal(w.describe())
	}
	w.revive(at)
	w.node(at).Drain = InService
	w.settled()
}

// A log replica whose next record is gone is of no use: another takes its place.
func TestTendLogReplicaBehind(t *testing.T) {
	w := newWorld(t, cluster(5, 5), 3, majority())
	w.kill(w.other())
	w.s.Now += time.Minute
	for w.step() {
	}
	i := slices.IndexFunc(w.s.Membership.Members, func(x partition.Member) bool { return x.Kind == partition.LogReplica })
	old := w.s.Membership.Members[i].Replica
	w.peer(old).Behind, w.peer(old).CaughtUp = true, false
	for w.step() {
	}
	if _, still := w.s.Membership.Member(old); still || w.kinds() != "3 full, 1 log, 0 learners, 1 ineligible" {
		t.Error(w.describe())
	}
}

// Mastership goes to nobody who has not caught up.
func TestTendNoHeir(t *testing.T) {
	w := newWorld(t, cluster(3, 3), 3, majority())
	self, _ := w.s.Membership.Member(w.s.Self)
	w.node(self.Node).Drain = Stopping
	for i := range w.s.Peers {
		w.s.Peers[i].CaughtUp = false
	}
	if step := Tend(&w.s); step.Kind != Nothing || !strings.Contains(step.Why, "caught up") {
		t.Fatalf("%+v", step)
	}
	if why := CanDrain(&w.s, self.Node); !strings.Contains(why, "caught up") {
		t.Errorf("%q", why)
	}
	w.peer(2).CaughtUp = true
	if step := Tend(&w.s); step.Kind != Transfer || step.Replica != 2 {
		t.Fatalf("%+v", step)
	}
	if why := CanDrain(&w.s, self.Node); why != "" {
		t.Errorf("%q", why)
	}
}

// What a group costs that is as it shall be: every one is looked at when a node
// comes or goes.
func BenchmarkTend(b *testing.B) {
	w := newWorld(b, cluster(30, 3), 3, majority())
	b.ReportAllocs()
	for b.Loop() {
		if step := Tend(&w.s); step.Kind != Nothing {
			b.Fatal(step)
		}
	}
}
