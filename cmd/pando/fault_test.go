package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"pando.dev/pando/actors"
	"pando.dev/pando/actors/httpapi"
	"pando.dev/pando/partition"
)

// badNode answers like a node of a cluster that is well, but for the requests it
// was told to answer badly.
type badNode struct {
	server  *httptest.Server
	answers map[string]any // by method and path

	mu     sync.Mutex
	first  int  // the request that goes wrong, from 1; 0: none
	all    bool // and all that follow it
	how    func(http.ResponseWriter, *http.Request)
	asked  int
	method string // of the first one that went wrong
}

func newBadNode(t *testing.T) *badNode {
	part := actors.PartitionInfo{
		Group: 1, Table: "t", Policy: "majority", Master: "n1", Epoch: "1.1",
		Replicas: []actors.ReplicaInfo{{Replica: 1, Node: "n1", Kind: "full", Eligible: true, Role: "master"}},
	}
	table := actors.TableInfo{Name: "t", Kind: "kv", Replicas: 1, Policy: "majority", Partitions: []partition.GroupID{1}}
	done := actors.ChangeInfo{PartitionChange: actors.PartitionChange{Group: 1}, Done: true, Version: 2}
	split := actors.SplitInfo{Task: 1, Group: 1, Table: "t", State: "done"}
	merge := actors.MergeInfo{Task: 2, Group: 1, Table: "t", State: "done"}
	drained := actors.DrainInfo{Node: "n1", Mode: "drained", Done: true}
	task := actors.TaskInfo{ID: 7, Kind: "plan", State: "done"}
	plan := actors.PlanInfo{Task: task, Steps: []actors.TaskInfo{{ID: 8, Parent: 7, Kind: "move", State: "done", Group: 1, From: "n1", To: "n2"}}}
	verified := actors.VerifyInfo{Done: true, Ended: 1, Of: 1, Partitions: []actors.VerifiedPartition{{Group: 1, Table: "t", Verdict: actors.VerdictSame}}}
	n := &badNode{answers: map[string]any{
		"POST /api/v1/verify":                  verified,
		"POST /api/v1/moves":                   plan,
		"GET /api/v1/check":                    actors.CheckReport{Tables: 1},
		"GET /api/v1/nodes":                    []actors.NodeInfo{{Replicas: 1}},
		"GET /api/v1/explain/partition/g1":     actors.Explanation{Subject: "partition g1"},
		"GET /api/v1/partitions/g1/history":    actors.History{Group: 1},
		"POST /api/v1/split":                   split,
		"POST /api/v1/split/plan":              split,
		"GET /api/v1/split/1":                  split,
		"POST /api/v1/merge":                   merge,
		"POST /api/v1/merge/plan":              merge,
		"GET /api/v1/merge/2":                  merge,
		"GET /api/v1/tasks":                    []actors.TaskInfo{task, plan.Steps[0]},
		"DELETE /api/v1/tasks/t7":              task,
		"POST /api/v1/plans":                   plan,
		"POST /api/v1/plans/t7/apply":          task,
		"POST /api/v1/nodes/n1/decommission":   plan,
		"DELETE /api/v1/nodes/n1/decommission": task,
		"GET /api/v1/status":                   actors.ClusterStatus{Cluster: "c", CanLose: 1, Partitions: 1, WithMaster: 1},
		"GET /api/v1/members":                  []actors.MemberInfo{{Node: "n1", Status: "alive", Link: "127.0.0.1:1"}},
		"GET /api/v1/partitions":               []actors.PartitionInfo{part},
		"GET /api/v1/partitions/g1":            part,
		"POST /api/v1/partitions/g1/change":    done,
		"GET /api/v1/tables":                   []actors.TableInfo{table},
		"GET /api/v1/hot":                      actors.HotInfo{},
		"POST /api/v1/tables":                  table,
		"PATCH /api/v1/tables/t":               table,
		"DELETE /api/v1/tables/t":              nil,
		"GET /api/v1/nodes/n1/drain":           drained,
		"POST /api/v1/nodes/n1/drain":          drained,
		"DELETE /api/v1/nodes/n1/drain":        drained,
		"GET /api/v1/recover":                  lostPlan(),
		"POST /api/v1/recover":                 actors.RecoverOutcome{Groups: []actors.RescueOutcome{{Group: 17, Node: "n1", Done: true}}},
		"GET /api/v1/kv/t":                     httpapi.Page{Pairs: []httpapi.Pair{{Key: "k", Value: "v"}}},
		"PUT /api/v1/kv/t":                     nil,
		"DELETE /api/v1/kv/t":                  nil,
	}}
	n.server = httptest.NewServer(n)
	t.Cleanup(n.server.Close)
	return n
}

// ServeHTTP implements http.Handler.
func (n *badNode) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	n.asked++
	bad := n.first > 0 && (n.asked == n.first || n.all && n.asked > n.first)
	if bad && n.method == "" {
		n.method = r.Method
	}
	how := n.how
	n.mu.Unlock()
	if bad {
		how(w, r)
		return
	}
	a, known := n.answers[r.Method+" "+r.URL.Path]
	if !known {
		http.NotFound(w, r)
		return
	}
	if a == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	_ = json.NewEncoder(w).Encode(a) // who asked is gone if this fails
}

// goWrong sets what goes wrong from now on.
func (n *badNode) goWrong(first int, all bool, how func(http.ResponseWriter, *http.Request)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.first, n.all, n.how, n.asked, n.method = first, all, how, 0, ""
}

// run executes a command against the node, with JSON as its output.
func (n *badNode) run(t *testing.T, line string, out io.Writer) (int, httpapi.Problem) {
	t.Helper()
	var errOut bytes.Buffer
	args := append([]string{"--addr", n.server.Listener.Addr().String(), "-o", "json", "--timeout", "200ms"}, strings.Fields(line)...)
	code := execute(t.Context(), args, strings.NewReader("value"), out, &errOut)
	var p httpapi.Problem
	if last := errOut.String(); code != exitOK && code != exitUnhealthy && !strings.Contains(line, "-o table") {
		last = strings.TrimSpace(last)
		if err := json.Unmarshal([]byte(last[strings.LastIndexByte(last, '\n')+1:]), &p); err != nil {
			t.Fatalf("%s: exit code %d, and the standard error is %q", line, code, last)
		}
	}
	return code, p
}

// asking are command lines that ask nodes, each with every step of its own.
var asking = []string{
	"status", "status --wait 1ms", "members", "partition ls", "partition ls t", "partition show g1",
	"table ls", "table create t --wait 100ms", "table create t --wait 0", "table drop t --confirm t",
	"table alter t --replicas 1 --wait 100ms", "table alter t --replicas 1", "hot",
	"kv get t k", "kv put t k v", "kv put t k --file -", "kv delete t k", "kv scan t",
	"partition add-replica g1 --node n2 --wait 0", "partition add-replica g1 --node n2 --wait 100ms",
	"partition replace-replica g1 --from n1 --wait 0", "partition transfer-master g1 --wait 100ms",
	"partition split t --at k --wait 0", "partition split g1 --into 3 --wait 100ms", "partition split t --middle --dry-run",
	"partition merge g1 --wait 0", "partition merge g1 --wait 100ms", "partition merge g1 --dry-run",
	"node drain n1 --status", "node drain n1 --wait 0", "node drain n1 --wait 100ms", "node undrain n1 --wait 100ms",
	"task ls", "task ls t7", "task tree", "task tree t7", "task wait t7 --wait 100ms", "task abort t7",
	"plan show t7", "plan apply t7", "plan apply t7 --wait 100ms", "plan cancel t7", "rebalance", "rebalance --apply --wait 100ms",
	"node decommission n1", "node decommission n1 --wait 100ms", "node recommission n1",
	"node ls", "explain partition g1", "partition history g1", "check", "check --digests --wait 100ms", "partition verify g1 --wait 100ms",
	"partition move g1 --from n1 --to n2", "partition move g1 --from n1 --to n2 --wait 100ms",
	"recover plan", "recover plan g17 --dead n2", "recover apply x", "load t FILE -q", "export t -q",
}

// TestEveryAnswerGoesWrong: whichever answer of a node goes wrong, and however, a
// command ends with what went wrong and what to do, and never tells of a change
// that may have happened as of one that did not.
func TestEveryAnswerGoesWrong(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "input.txt")
	if err := os.WriteFile(file, []byte("word\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const unknown, invalid, injected = "outcome_unknown", "invalid", "no_space"
	ways := []way{
		{"refused once", false, refuseInjected, []string{injected}, []string{injected}},
		{"refused from then on", true, refuseInjected, []string{injected, unknown}, []string{injected}},
		{"garbage", true, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"`) }, []string{invalid, unknown}, []string{unknown}},
		{"not a node's", true, http.NotFound, []string{invalid, unknown}, []string{invalid}},
		{"cut", true, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			fmt.Fprint(w, "{")
		}, []string{"unavailable", unknown}, []string{unknown}},
	}
	for _, line := range asking {
		line = strings.ReplaceAll(line, "FILE", file)
		t.Run(line, func(t *testing.T) {
			t.Parallel()
			n := newBadNode(t)
			for _, way := range ways {
				for i := 1; n.goesWrong(t, line, way, i); i++ {
				}
			}
		})
	}
}

// way is a way in which an answer goes wrong.
type way struct {
	name         string
	all          bool // and all that follow
	how          func(http.ResponseWriter, *http.Request)
	read, change []string // codes that a command may end with
}

// goesWrong has the i-th answer go wrong, and judges how the command ends. It
// reports whether the command asked as often.
func (n *badNode) goesWrong(t *testing.T, line string, x way, i int) bool {
	n.goWrong(i, x.all, x.how)
	code, p := n.run(t, line, io.Discard)
	want := x.read
	switch {
	case n.method == "":
		// What wants the binary protocol as well ends where that begins.
		well := code == exitOK || strings.HasSuffix(line, "-q") && p.Code == "timeout"
		if i < 2 || !well {
			t.Errorf("with all in order: exit code %d, %+v after %d requests", code, p, i-1)
		}
		return false
	case code == exitOK: // it asked again, or there was nothing to read in the answer
		if passes := strings.Contains(line, "--wait 100ms") || strings.HasPrefix(line, "kv") || strings.HasPrefix(line, "table drop"); !passes {
			t.Errorf("request %d %s: exit code 0", i, x.name)
		}
		return true
	case n.method != http.MethodGet:
		want = x.change
	}
	if !slices.Contains(want, p.Code) || p.Why == "" || p.Next == "" {
		t.Errorf("request %d %s: exit code %d, %+v, want %v", i, x.name, code, p, want)
	}
	return true
}

// refuseInjected answers as a node does that cannot do it.
func refuseInjected(w http.ResponseWriter, _ *http.Request) {
	w.WriteHeader(http.StatusInsufficientStorage)
	_ = json.NewEncoder(w).Encode(httpapi.Problem{Code: "no_space", Why: "injected", Next: "make room"}) // who asked is gone if this fails
}

// TestAddressesFirst: no command asks anybody with addresses or certificates that
// are none.
func TestAddressesFirst(t *testing.T) {
	t.Parallel()
	n := newBadNode(t)
	n.goWrong(0, false, nil)
	for _, line := range append(asking, "load t "+os.Args[0]) {
		line = strings.ReplaceAll(line, "FILE", os.Args[0])
		for flags, want := range map[string]string{"--addr nowhere": "invalid", "--tls-dir " + t.TempDir(): "not_found"} {
			code, p := n.run(t, line+" "+flags, io.Discard)
			if code != exitError || p.Code != want || p.Next == "" {
				t.Errorf("%s %s: exit code %d, %+v", line, flags, code, p)
			}
		}
	}
	if n.asked > 0 {
		t.Errorf("the node was asked %d times", n.asked)
	}
	if got := (&cli{addrs: []string{"nowhere"}}).tableNames(); got != nil {
		t.Errorf("the tables of nowhere: %v", got)
	}
	n.goWrong(1, true, refuseInjected)
	if got := (&cli{addrs: []string{n.server.Listener.Addr().String()}}).tableNames(); got != nil || n.asked != 1 {
		t.Errorf("the tables of a node that does not tell them: %v", got)
	}
}

// full is a standard output on a disk with room for so many bytes.
type full struct{ room int }

func (f *full) Write(b []byte) (int, error) {
	if len(b) > f.room {
		return 0, syscall.ENOSPC
	}
	f.room -= len(b)
	return len(b), nil
}

// TestOutputThatDoesNotGetOut: a command whose answer could not be written does
// not end as if it had been, in either form.
func TestOutputThatDoesNotGetOut(t *testing.T) {
	t.Parallel()
	n := newBadNode(t)
	n.goWrong(0, false, nil)
	dir := t.TempDir()
	lines := append(slices.Clone(asking), "kv get t k --raw", "version", "cert ca --ca "+dir+"/ca", "cert node --ca "+dir+"/ca --id n1 --out "+dir+"/n1",
		"cert gossip-key --out "+dir+"/key", "sim --seed 1", "sim --seeds 1 --marks", "sim --plant list")
	for i, line := range lines {
		if strings.HasPrefix(line, "load") || strings.HasPrefix(line, "export") {
			continue // those need a real node
		}
		for _, form := range []string{"json", "table"} {
			if strings.HasPrefix(line, "cert") && form == "table" {
				continue // what was made is not made again
			}
			if i > len(asking) && testing.Short() && strings.HasPrefix(line, "sim") {
				continue
			}
			code, p := n.run(t, line+" -o "+form+" --timeout 5s", &full{})
			if form == "table" {
				p.Code, p.Why = "failed", "no space" // told in the other form
			}
			if code != exitError || p.Code != "failed" || !strings.Contains(p.Why, "no space") {
				t.Errorf("%s: exit code %d, %+v", line, code, p)
			}
		}
	}
}
