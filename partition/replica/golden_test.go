package replica

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"pando.dev/pando/partition"
)

// TestGolden plays the stories of testdata/golden. Their names give the order in
// which a newcomer may read them. The commands:
//
//	group n=3 [ready] [kinds=(full,full,log)] [policy=zones:2] [zones=(x,x,y)] [disk=5ms] [tail=1] [append=1]
//	run 20ms                let time pass; prints what happens
//	start 1 | crash 1 [lose] | pause 1 | resume 1 | stall 1 | unstall 1
//	isolate 1 | heal        cut off a node, mend everything
//	cut 1 2 | mend 1 3      what 1 says to 2 is lost; 1 and 3 reach each other again
//	write 1 [n=3]           propose commands at replica 1
//	open 1 | send 1 seq=2 op=7 [old]   open a session; send command seq of the last or first
//	read 1 | lease-read 1   a quorum read; a read under the lease
//	transfer 1 [to=2] | resign 1
//	change 1 remove=3 | ineligible=3 | eligible=3 | full=3 | log=3 | add=z1 [force]   Configure; several changes make one
//	make 4 [log] [copy=1]   the host of a new member: with the genesis record, or with
//	                        a copy of 1's state, or of the log from there on
//	give 3 from=1           a log replica gets the state
//	truncate 1              its log lets go of what it may
//	recover 2 members=(2,3) an operator's decree
//	peers 1                 what a master knows of the others
//	lock deny=1 | only=2 | forget | lose | down | up
//	quiet | verbose         without and with messages
//	status | log 1          what replicas say, what is on a disk
func TestGolden(t *testing.T) {
	datadriven.Walk(t, "testdata/golden", func(t *testing.T, path string) {
		g := &golden{}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			return g.run(t, d)
		})
	})
}

type golden struct {
	w       *world
	out     strings.Builder
	nextOp  uint64
	session partition.SessionID // the last that was opened
	first   partition.SessionID
}

func (g *golden) run(t *testing.T, d *datadriven.TestData) (s string) {
	g.out.Reset()
	defer func() {
		if v, ok := recover().(violation); ok {
			s = g.out.String() + "VIOLATION: " + string(v) + "\n"
		}
	}()
	if d.Cmd == "group" {
		g.group(t, d)
		return g.out.String()
	}
	g.command(t, d)
	if g.out.Len() == 0 {
		return "ok\n"
	}
	return g.out.String()
}

func (g *golden) group(t *testing.T, d *datadriven.TestData) {
	n, kinds, zones, policy, disk := 3, []string(nil), []string(nil), "", 1
	k, ready := calm(), false
	for _, a := range d.CmdArgs {
		switch a.Key {
		case "ready":
			ready = true
		case "n":
			a.Scan(t, 0, &n)
		case "kinds":
			kinds = a.Vals
		case "zones":
			zones = a.Vals
		case "policy":
			policy = a.Vals[0]
		case "disk":
			a.Scan(t, 0, &disk)
		case "tail":
			a.Scan(t, 0, &k.cfg.TailBytes)
		case "append":
			a.Scan(t, 0, &k.cfg.MaxAppendBytes)
		case "window":
			a.Scan(t, 0, &k.cfg.MaxInFlightBytes)
		case "solo":
			k.cfg.Solo = true
		case "durability":
			k.cfg.DurabilityWait, _ = time.ParseDuration(a.Vals[0])
		default:
			t.Fatalf("%s: unknown %s", d.Pos, a.Key)
		}
	}
	k.diskMin, k.diskMax = time.Duration(disk)*time.Millisecond, time.Duration(disk)*time.Millisecond
	m := members(n)
	for i, x := range kinds {
		m.Members[i].Kind = map[string]partition.MemberKind{"full": partition.Full, "log": partition.LogReplica, "learner": partition.Learner}[x]
	}
	for i, x := range zones {
		m.Members[i].Zone = x
	}
	if policy != "" {
		p, err := partition.ParsePolicy(policy)
		if err != nil {
			t.Fatal(err)
		}
		m.Policy = p
	}
	g.w = newWorld(1, k)
	g.w.check.sessionLimit = 2
	if !ready {
		g.w.out = &g.out
	}
	g.w.start(m)
	if ready {
		g.w.run(time.Second)
		g.w.out, g.w.quiet = &g.out, true
		g.status()
	}
}

func (g *golden) status() {
	for _, n := range g.w.nodes {
		if n.up {
			fmt.Fprintf(&g.out, "%d %s\n", n.id, n.rep.Status())
		} else {
			fmt.Fprintf(&g.out, "%d is down\n", n.id)
		}
	}
}

func (g *golden) command(t *testing.T, d *datadriven.TestData) {
	w := g.w
	switch d.Cmd {
	case "run":
		dur, err := time.ParseDuration(d.CmdArgs[0].Key)
		if err != nil {
			t.Fatal(err)
		}
		w.run(dur)
	case "quiet":
		w.quiet = true
	case "verbose":
		w.quiet = false
	case "lock":
		g.lock(t, d)
	case "status":
		g.status()
	case "peers":
		for _, p := range w.node(replicaArg(t, d, 0)).rep.Status().Peers {
			fmt.Fprintf(&g.out, "%+v\n", p)
		}
	case "log":
		im := &w.node(replicaArg(t, d, 0)).disk.synced
		fmt.Fprintf(&g.out, "promise %s commit %d%s\n", im.promise, im.commit, describeRecords(im.recs))
	default:
		if !g.fault(t, d) && !g.call(t, d) {
			t.Fatalf("%s: unknown command %s", d.Pos, d.Cmd)
		}
	}
}

// fault plays what happens to nodes and links.
func (g *golden) fault(t *testing.T, d *datadriven.TestData) bool {
	w := g.w
	arg := func(i int) partition.ReplicaID { return replicaArg(t, d, i) }
	switch d.Cmd {
	case "make", "give", "truncate":
		g.host(t, d)
	case "start":
		w.node(arg(0)).boots()
	case "crash":
		n := w.node(arg(0))
		if d.HasArg("lose") {
			n.crashKeeping(0)
		} else {
			n.crashKeeping(len(n.disk.pending))
		}
	case "pause":
		w.node(arg(0)).pause()
	case "resume":
		w.node(arg(0)).resume()
	case "stall":
		w.node(arg(0)).stalled = true
	case "unstall":
		w.node(arg(0)).stalled = false
	case "isolate":
		w.isolate(arg(0), true)
	case "cut":
		w.cut[[2]partition.ReplicaID{arg(0), arg(1)}] = true
	case "mend":
		delete(w.cut, [2]partition.ReplicaID{arg(0), arg(1)})
		delete(w.cut, [2]partition.ReplicaID{arg(1), arg(0)})
		w.hints()
	case "heal":
		clear(w.cut)
		w.hints()
	default:
		return false
	}
	return true
}

// call plays what clients and operators ask for.
func (g *golden) call(t *testing.T, d *datadriven.TestData) bool {
	w := g.w
	arg := func(i int) partition.ReplicaID { return replicaArg(t, d, i) }
	switch d.Cmd {
	case "write":
		n := 1
		d.MaybeScanArgs(t, "n", &n)
		for range n {
			g.nextOp++
			g.w.check.write(w.node(arg(0)), g.op(g.nextOp))
		}
	case "burst":
		n := 1
		d.MaybeScanArgs(t, "n", &n)
		g.burst(w.node(arg(0)), n)
	case "open":
		g.w.check.propose(w.node(arg(0)), g.opening(), partition.KindSession, AppendOpenSession(nil))
	case "send":
		o := g.op(0)
		d.ScanArgs(t, "seq", &o.seq)
		d.ScanArgs(t, "op", &o.id)
		o.session = g.session
		if d.HasArg("old") {
			o.session = g.first
		}
		g.w.check.write(w.node(arg(0)), o)
	case "read":
		w.check.read(w.node(arg(0)), g.op(0))
	case "lease-read":
		g.leaseRead(w.node(arg(0)))
	case "transfer":
		g.transfer(t, d)
	case "resign":
		w.node(arg(0)).take(Resign{Why: "its node stops"})
	case "recover":
		g.recover(t, w.node(arg(0)), d)
	case "change":
		g.change(t, w.node(arg(0)), d.CmdArgs[1:])
	default:
		return false
	}
	return true
}

func replicaArg(t *testing.T, d *datadriven.TestData, i int) partition.ReplicaID {
	var id int
	if _, err := fmt.Sscan(d.CmdArgs[i].Key, &id); err != nil {
		t.Fatalf("%s: %v", d.Pos, err)
	}
	return partition.ReplicaID(id)
}

// burst hands n commands to a replica in one event, as a busy host does.
func (g *golden) burst(n *node, count int) {
	var ps []Proposal
	for range count {
		g.nextOp++
		g.w.check.nextID++
		o := g.op(g.nextOp)
		o.node = n
		g.w.check.ops[g.w.check.nextID] = o
		body := []byte{byte(o.id), 0, 0, 0, 0, 0, 0, 0}
		ps = append(ps, Proposal{ID: g.w.check.nextID, Kind: partition.KindCommand, Payload: AppendCommand(nil, o.session, 0, body)})
	}
	n.take(Propose{Proposals: ps})
}

func (g *golden) op(id uint64) *op {
	o := &op{id: id}
	o.done = func(r *Reply, res Result) {
		what := fmt.Sprintf("write %d", o.id)
		if o.read {
			what = "read"
		}
		switch {
		case r.Err != nil:
			g.w.printf("client: %s: %v", what, r.Err)
		case res.Err != nil:
			g.w.printf("client: %s: %v", what, res.Err)
		case o.read:
			g.w.printf("client: read at index %d", r.Index)
		case res.Repeated:
			g.w.printf("client: write %d done before, its first result is %d", o.id, res.Data[0])
		default:
			g.w.printf("client: write %d done at index %d, result %d", o.id, r.Index, res.Data[0])
		}
	}
	return o
}

func (g *golden) transfer(t *testing.T, d *datadriven.TestData) {
	to := 0
	d.MaybeScanArgs(t, "to", &to)
	g.w.check.transfer(g.w.node(replicaArg(t, d, 0)), partition.ReplicaID(to), func(r *Reply) {
		if r.Err != nil {
			g.w.printf("operator: not handed over: %v", r.Err)
		} else {
			g.w.printf("operator: handed over")
		}
	})
}

func (g *golden) opening() *op {
	return &op{opens: true, done: func(r *Reply, res Result) {
		g.session = res.Session
		if g.first.Index == 0 {
			g.first = res.Session
		}
		g.w.printf("client: session %d is open", res.Session.Index)
	}}
}

func (g *golden) leaseRead(n *node) {
	if at, ok := n.leaseRead(); ok {
		g.w.check.reads1(n, g.w.check.floor, at, "lease")
		g.w.printf("client: %d answers at once, from index %d", n.id, at)
	} else {
		g.w.printf("client: %d may not answer", n.id)
	}
}

func (g *golden) change(t *testing.T, n *node, args []datadriven.CmdArg) {
	next, force := n.rep.log.newest().Membership.Successor(), false
	for _, a := range args {
		id := 0
		if a.Key != "add" && a.Key != "force" && a.Key != "policy" {
			a.Scan(t, 0, &id)
		}
		x := next.At(partition.ReplicaID(id))
		switch a.Key {
		case "remove":
			next.Remove(partition.ReplicaID(id))
		case "ineligible", "eligible":
			x.Eligible = a.Key == "eligible"
		case "log":
			x.Kind = partition.LogReplica
		case "full":
			x.Kind = partition.Full
		case "add":
			next.Add(partition.Member{Node: nodeName(next.Next), Zone: a.Vals[0], Kind: partition.Learner, Eligible: true})
		case "policy":
			p, err := partition.ParsePolicy(a.Vals[0])
			if err != nil {
				t.Fatal(err)
			}
			next.Policy = p
		case "force":
			force = true
		default:
			t.Fatalf("unknown change %s", a.Key)
		}
	}
	g.w.check.configure(n, next, force, func(r *Reply, _ Result) {
		if r.Err != nil {
			g.w.printf("operator: version %d: %v", next.Version, r.Err)
		} else {
			g.w.printf("operator: version %d is in force", next.Version)
		}
	})
}

func (g *golden) lock(t *testing.T, d *datadriven.TestData) {
	switch d.CmdArgs[0].Key {
	case "deny":
		d.ScanArgs(t, "deny", &g.w.lock.deny)
	case "only":
		var id int
		d.ScanArgs(t, "only", &id)
		g.w.lock.only = partition.ReplicaID(id)
	case "down":
		g.w.lock.down = true
	case "up":
		g.w.lock.down = false
	case "forget":
		g.w.lock.forgets = true
	case "lose":
		// Whoever holds the lock is told that it is gone.
		if h := g.w.lock.holder; h != nil {
			g.w.lock.holder = nil
			g.w.printf("lock: taken from %d", h.id)
			h.take(LockRefused{})
		}
	}
}

func members(n int) *partition.Membership {
	m := &partition.Membership{Version: 1, Policy: partition.Policy{Rule: partition.Majority}, Next: partition.ReplicaID(n + 1)}
	for i := 1; i <= n; i++ {
		m.Members = append(m.Members, partition.Member{
			Replica: partition.ReplicaID(i), Node: partition.NodeID(fmt.Sprintf("n%d", i)), Zone: fmt.Sprintf("z%d", i),
			Kind: partition.Full, Eligible: true,
		})
	}
	return m
}
