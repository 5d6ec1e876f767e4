package actors

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pando.dev/pando/partition"
)

// said puts an explanation into lines.
func said(e Explanation) string {
	var b strings.Builder
	for _, f := range e.Facts {
		fmt.Fprintf(&b, "%s: %s\n", f.About, f.Text)
	}
	return b.String()
}

// explained is a partition that is well.
func explained() *partitionFacts {
	f := &partitionFacts{
		p: PartitionInfo{Group: 7, Table: "t", Master: "n1", Epoch: "3.1", CanLose: 1, Rule: "on two of three disks", Policy: "majority"}, want: 3,
		chosen: []partition.NodeID{"n1", "n2", "n3"}, nodes: map[partition.NodeID]MemberInfo{},
	}
	for i := range 3 {
		id := partition.NodeID(fmt.Sprintf("n%d", i+1))
		f.p.Replicas = append(f.p.Replicas, ReplicaInfo{Replica: partition.ReplicaID(i + 1), Node: id, Zone: "z", Kind: "full", Eligible: true, Role: "peer"})
		f.nodes[id] = MemberInfo{Node: id, Status: "alive"}
	}
	return f
}

// TestExplainPartition: every reason for which a partition may wait is named, with
// what would help, and one that is well waits for nothing.
func TestExplainPartition(t *testing.T) {
	if s := said(explained().explain()); !strings.Contains(s, "It waits for nothing.") || strings.Contains(s, AboutWaits+":") ||
		!strings.Contains(s, "replica") && !strings.Contains(s, "rendezvous hashing chooses n1, n2 and n3") {
		t.Errorf("well:\n%s", s)
	}
	for name, c := range map[string]struct {
		change func(*partitionFacts)
		has    []string
	}{
		"no master":    {func(f *partitionFacts) { f.p.Master, f.p.Missing = "", "n2 has to come back" }, []string{"waits: It has no master: n2 has to come back.", "help: pando recover plan g7"}},
		"no writes":    {func(f *partitionFacts) { f.p.CanLose = -1 }, []string{"takes no writes"}},
		"alone":        {func(f *partitionFacts) { f.p.Solo = "n1 goes on alone" }, []string{"waits: n1 goes on alone."}},
		"split from":   {func(f *partitionFacts) { f.parent = 3 }, []string{"split from g3"}},
		"placed first": {func(f *partitionFacts) { f.chosen, f.p.Version = nil, 1 }, []string{"Replica 1 is on node n1, zone z: it was placed there when the partition was made."}},
		"moved": {func(f *partitionFacts) {
			f.tasks = []TaskInfo{{ID: 9, Group: 7, Kind: "move", State: "done", From: "n5", To: "n2", Reason: "fill: n2 is new"}}
		}, []string{"t9 moved it there from n5: fill: n2 is new"}},
		"placed otherwise": {func(f *partitionFacts) { f.chosen = []partition.NodeID{"n4", "n2", "n3"} }, []string{"Replica 1 is on node n1, zone z: no task"}},
		"away":             {func(f *partitionFacts) { f.p.Replicas[1].Role = "unreachable" }, []string{"Replica 2 on node n2 does not answer", "help: start node n2 again"}},
		"broken":           {func(f *partitionFacts) { f.p.Replicas[1].Role, f.p.Replicas[1].Why = "broken", "its log is damaged" }, []string{"is broken: its log is damaged."}},
		"drained": {func(f *partitionFacts) {
			f.p.Replicas[1].Eligible = false
			f.nodes["n2"] = MemberInfo{Node: "n2", Status: "alive", Mode: "drained"}
		}, []string{"does not count: its node is drained", "help: pando node undrain n2"}},
		"log replica": {func(f *partitionFacts) { f.p.Replicas[2].Kind = partition.LogReplica.String() }, []string{"keeps only the log", "2 full replicas and shall have 3"}},
		"learner":     {func(f *partitionFacts) { f.p.Replicas[2].Kind = "learner" }, []string{"being brought up"}},
		"no room":     {func(f *partitionFacts) { f.want, f.chosen = 4, nil }, []string{"help: start another node"}},
		"surplus":     {func(f *partitionFacts) { f.want = 2 }, []string{"the surplus goes"}},
		"in flight":   {func(f *partitionFacts) { f.p.InFlight, f.p.Version = true, 5 }, []string{"Membership version 5 is not known"}},
		"tended":      {func(f *partitionFacts) { f.p.Tending = "n4 gets a copy" }, []string{"n4 gets a copy"}},
		"splitting":   {func(f *partitionFacts) { f.p.Splitting = "n2 has not applied it" }, []string{"n2 has not applied it"}},
		"hot": {func(f *partitionFacts) {
			f.load = &PartitionLoad{Rates: Rates{Units: 460}, Share: 0.92, Limit: 150, Decision: "hot-key", Reason: "one key is the load", HotKey: []byte("k"), HotKeyShare: 0.9}
		}, []string{"460 units a second, 92% of what the cluster is; its table lets it carry 150.", "decided last: hot-key: one key is the load.", `One key, "k", is 90% of that.`}},
		"not divided by load": {func(f *partitionFacts) { f.load = &PartitionLoad{} }, []string{"load does not divide it"}},
		"a task": {func(f *partitionFacts) {
			f.tasks = []TaskInfo{{ID: 4, Group: 7, Kind: "split", State: "open", Phase: "sealed", Why: "n3 is away", Created: time.Unix(1, 0)}}
		}, []string{"t4, a split, is sealed: n3 is away.", "help: pando explain task t4"}},
	} {
		f := explained()
		c.change(f)
		s := said(f.explain())
		for _, has := range c.has {
			if !strings.Contains(s, has) {
				t.Errorf("%s: no %q in\n%s", name, has, s)
			}
		}
	}
}

// TestExplainNode: what a node holds, what depends on it, and what is under way.
func TestExplainNode(t *testing.T) {
	f := explained()
	f.p.CanLose = 0
	members := []MemberInfo{{Node: "n1", Status: "alive", Zone: "a", Seat: true}, {Node: "n2", Status: "failed"}, {Node: "n4", Status: "alive"}}
	all := nodesOfParts(members, []PartitionInfo{f.p})
	if len(all) != 4 || all[0].Masters != 1 || all[2].Status != "unknown" || all[2].Replicas != 1 || all[3].Replicas != 0 {
		t.Fatalf("%+v", all)
	}
	all[3].Leaving = 5
	tasks := []TaskInfo{
		{ID: 5, Kind: "decommission", State: "open", From: "n4", Why: "g9 has no other place", Created: time.Unix(9, 0)},
		{ID: 6, Kind: "move", State: "open", Group: 9, From: "n4", To: "n1", Phase: "copying"},
	}
	for i, has := range map[int][]string{
		0: {"is: It is alive, in zone a, and holds a seat", "g7 stand no further loss", "t6, a move, is copying, of g9 from n4 to n1."},
		1: {"is: It is failed", "help: look whether its process runs"},
		3: {"It is being emptied, by t5, a decommission, is open: g9 has no other place", "help: pando node recommission n4"},
	} {
		s := said((&nodeFacts{node: all[i], all: all, parts: []PartitionInfo{f.p}, tasks: tasks}).explain())
		for _, x := range has {
			if !strings.Contains(s, x) {
				t.Errorf("%s: no %q in\n%s", all[i].Node, x, s)
			}
		}
	}
	loads := []NodeLoad{{Node: "n1", Rates: Rates{Units: 30}}, {Node: "n4", Rates: Rates{Units: 10}}}
	if s := said((&nodeFacts{node: all[0], all: all, loads: loads}).explain()); !strings.Contains(s, "30 units a second, 75% of what the 2 nodes that tell are") {
		t.Errorf("a node with load:\n%s", s)
	}
	fresh := NodeInfo{MemberInfo: MemberInfo{Node: "n9", Status: "alive"}}
	busy := NodeInfo{MemberInfo: MemberInfo{Node: "n1", Status: "alive"}, Replicas: 9}
	if s := said((&nodeFacts{node: fresh, all: []NodeInfo{busy, fresh}}).explain()); !strings.Contains(s, "mean over the 2 nodes that may take replicas is 4.5 replicas") || !strings.Contains(s, "help: pando rebalance") {
		t.Errorf("a new node:\n%s", s)
	}
	over := time.Unix(9, 0)
	limps := []AnomalyInfo{
		{ID: "slow-disk:n9:1", Kind: "slow-disk", Node: "n9", Confirmed: true, Evidence: "its syncs took 31ms", Advice: "look after its disk"},
		{ID: "slow-link:n8-n9:2", Kind: "slow-link", Node: "n8", Peer: "n9", Evidence: "there and back took 40ms"},
		{ID: "flapping:n9:3", Kind: "flapping", Node: "n9", Until: &over}, {ID: "slow-disk:n1:4", Kind: "slow-disk", Node: "n1"},
	}
	s := said((&nodeFacts{node: fresh, all: []NodeInfo{busy, fresh}, limps: limps}).explain())
	if !strings.Contains(s, "waits: It limps (slow-disk, confirmed, as slow-disk:n9:1): its syncs took 31ms.") || !strings.Contains(s, "help: look after its disk") ||
		!strings.Contains(s, "(slow-link, suspected, as slow-link:n8-n9:2)") || strings.Count(s, "limps") != 2 {
		t.Errorf("a node that limps:\n%s", s)
	}
	fresh.Mode = "drained"
	if s := said((&nodeFacts{node: fresh, all: []NodeInfo{busy, fresh}}).explain()); !strings.Contains(s, "help: pando node undrain n9") {
		t.Errorf("a drained node:\n%s", s)
	}
}

// TestExplainTask: what a task waits for is named: a look, another task, a place, a
// pause, its steps.
func TestExplainTask(t *testing.T) {
	move := func(id TaskID, change func(*TaskInfo)) TaskInfo {
		x := TaskInfo{ID: id, Kind: "move", State: "open", Parent: 1, Group: partition.GroupID(id), From: "n1", To: "n4", By: "ann", Reason: "fill: n4 is new"}
		change(&x)
		return x
	}
	all := []TaskInfo{
		{ID: 1, Kind: "plan", State: "open", OfUnits: 6, Units: 1},
		move(2, func(x *TaskInfo) { x.Running, x.Phase, x.Why = true, "copying", "7 of 9 bytes are here" }),
		move(3, func(*TaskInfo) {}),
		move(4, func(x *TaskInfo) { x.Group = 2 }),
		move(5, func(x *TaskInfo) { x.Tries, x.Phase, x.Why = 2, "waiting", "node n4 is failed" }),
		move(6, func(x *TaskInfo) { x.State = "planned" }),
		move(7, func(x *TaskInfo) { x.State, x.Why = "done", "node n4 has it" }),
		move(8, func(x *TaskInfo) { x.Cancel = "enough" }),
		{ID: 9, Kind: "decommission", State: "open", From: "n3", Phase: phaseEmpty},
		{ID: 10, Kind: "split", State: "open", Group: 20, Children: []partition.GroupID{21, 22}},
		{ID: 11, Kind: "transfer", State: "open", Group: 23, From: "n1", To: "n2"},
	}
	for i, has := range map[int][]string{
		0:  {"It is a plan of 6 steps, 1 of which are done.", "Of its steps t2, a move, is copying", "help: pando explain task t2"},
		1:  {"brings the replica of g2 from node n1 to node n4", "begun by ann: fill: n4 is new", "step of t1", "says that it is copying: 7 of 9 bytes are here."},
		2:  {"does not run: 1 copies run from node n1 and 1 to node n4; more than 2 each"},
		3:  {"It waits for t2, which is of the same partition"},
		4:  {"given back 2 times", "after 8 times it fails", "node n4 is failed"},
		5:  {"waits to be looked at", "help: pando plan apply t1"},
		6:  {"It is done: node n4 has it."},
		7:  {"being given up: enough."},
		8:  {"stays empty as long", "help: pando node recommission n3"},
		9:  {"divides partition g20; what leaves becomes g21, g22."},
		10: {"hands the mastership of g23 from node n1 to node n2"},
	} {
		s := said(explainTask(&all[i], all))
		for _, x := range has {
			if !strings.Contains(s, x) {
				t.Errorf("%s: no %q in\n%s", all[i].ID, x, s)
			}
		}
	}
}

// TestExplainCluster: real nodes explain what is theirs, and tell what they have
// never heard of.
func TestExplainCluster(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	c.table(TableSpec{Name: "t"})
	n := c.nodes[1]
	info, err := n.Split(t.Context(), SplitRequest{Table: "t", At: [][]byte{[]byte("m")}, Reason: "a test", By: "ann"})
	if err == nil {
		_, err = n.AwaitSplit(t.Context(), info.Task)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range [][]string{
		{"partition", "g1", "It waits for nothing", `[,"m")`}, {"partition", "g2", "split from g1", `["m",)`},
		{"node", "n2", "It is alive, in zone b"}, {"task", fmt.Sprintf("t%d", info.Task), "begun by ann: a test", "It is done"},
	} {
		eventually(t, "the explanation", func() error {
			e, err := n.Explain(t.Context(), x[0], x[1])
			for _, has := range x[2:] {
				if err != nil || !strings.Contains(said(e), has) {
					return fmt.Errorf("%s: no %q: %v\n%s", x[1], has, err, said(e))
				}
			}
			return nil
		})
	}
	for id, want := range map[string]error{"partition g99": partition.ErrNotFound, "partition x": partition.ErrInvalid, "node n9": partition.ErrNotFound, "task t99": partition.ErrNotFound, "task x": partition.ErrInvalid, "zone a": partition.ErrInvalid} {
		what, which, _ := strings.Cut(id, " ")
		if _, err := n.Explain(t.Context(), what, which); !errors.Is(err, want) {
			t.Errorf("%s: %v", id, err)
		}
	}
	h, err := n.History(t.Context(), 1)
	text := ""
	for _, e := range h.Events {
		text += fmt.Sprintf("%d %s %s\n", e.Index, e.Kind, e.Text)
	}
	for _, has := range []string{"membership version 1, policy majority: replica 1 on n1", "becomes master", "a split begins", "what leaves is held", "for ever"} {
		if !strings.Contains(text, has) {
			t.Errorf("no %q in\n%s", has, text)
		}
	}
	if err != nil || fmt.Sprint(h.Children) != "[g2]" || len(h.Tasks) != 1 || h.From != 1 || strings.Contains(h.Lost, "records") {
		t.Errorf("%+v, %v", h, err)
	}
	if h, err := n.History(t.Context(), 2); err != nil || h.Parent != 1 || len(h.Events) == 0 || strings.Contains(h.Lost, "records") {
		t.Errorf("of the child: %+v, %v", h, err)
	}
	if _, err := n.History(t.Context(), 99); !errors.Is(err, partition.ErrNotFound) {
		t.Errorf("no such partition: %v", err)
	}
	if _, err := n.serveHistory(t.Context(), []byte("{")); !errors.Is(err, partition.ErrInvalid) {
		t.Errorf("a question that cannot be read: %v", err)
	}
}

// TestHistoryOfMembers: each change of members is told as what has changed.
func TestHistoryOfMembers(t *testing.T) {
	first := &partition.Membership{Version: 1, Policy: partition.Policy{Rule: partition.Majority}, Next: 4}
	for i := range 3 {
		first.Members = append(first.Members, partition.Member{Replica: partition.ReplicaID(i + 1), Node: partition.NodeID(fmt.Sprintf("n%d", i+1)), Zone: "a", Kind: partition.Full, Eligible: true})
	}
	for want, change := range map[string]func(m *partition.Membership){
		"replica 4 on n4 (learner) comes": func(m *partition.Membership) {
			m.Members = append(m.Members, partition.Member{Replica: 4, Node: "n4", Zone: "b", Kind: partition.Learner})
		},
		"replica 3 on n3 goes":           func(m *partition.Membership) { m.Members = m.Members[:2] },
		"replica 2 on n2 does not count": func(m *partition.Membership) { m.Members[1].Eligible = false },
		"replica 2 on n2 is in zone b":   func(m *partition.Membership) { m.Members[1].Zone = "b" },
		"becomes a learner":              func(m *partition.Membership) { m.Members[1].Kind = partition.Learner },
		"becomes a log replica":          func(m *partition.Membership) { m.Members[1].Kind = partition.LogReplica },
		"policy all-in-sync":             func(m *partition.Membership) { m.Policy.Rule = partition.AllInSync },
		"version 2":                      func(*partition.Membership) {},
	} {
		next := first.Successor()
		change(next)
		if got := configurationText(next, first); !strings.Contains(got, want) {
			t.Errorf("%q: %q", want, got)
		}
	}
	next := first.Successor()
	drained := first.Successor()
	drained.Members[0].Eligible = false
	if got := configurationText(next, drained); !strings.Contains(got, "counts again") {
		t.Errorf("%q", got)
	}
	h := &History{}
	if h.take("n1", logHistory{First: 500, From: 900}); !strings.Contains(h.Lost, "before 500 are not kept") || !strings.Contains(h.Lost, "500 to 899 were not read") {
		t.Errorf("%q", h.Lost)
	}
}
