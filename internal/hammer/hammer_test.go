package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"pando.dev/pando/actors/client"
	"pando.dev/pando/internal/history"
	"pando.dev/pando/partition"
)

// TestKillMaster kills the masters of a real cluster, a few times. How long it
// takes is not judged: other tests may run beside it.
func TestKillMaster(t *testing.T) {
	var out bytes.Buffer
	code := execute(t.Context(), []string{
		"kill-master", "--kills=2", "--clients=16", "--calm=1s", "--compare=1s", "--failovers=100", "--median=5s", "--p99=10s", "--limit=60s", "--dir=" + t.TempDir(), "-v",
	}, &out)
	t.Log("\n" + out.String())
	if code != 0 {
		t.Fatalf("exit code %d", code)
	}
}

// fake is a key-value table in memory, with a fault of choice.
type fake struct {
	mu     sync.Mutex
	pairs  map[string]string
	place  uint64 // of the last write
	probed uint64 // place of the last probe
	fault  string
	n      int
	stale  map[string]string // what the table held a while ago
}

var _ scanner = (*fake)(nil)

// rare reports whether the fault strikes now, which it does seldom.
func (f *fake) rare(fault string) bool {
	if f.fault != fault {
		return false
	}
	f.n++
	return f.n%29 == 0
}

func (f *fake) get(_ context.Context, key string, _ client.Level) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.n%20 == 0 {
		f.stale = map[string]string{}
		for k, v := range f.pairs {
			f.stale[k] = v
		}
	}
	if f.rare("stale read") {
		return f.stale[key], nil
	}
	return f.pairs[key], nil
}

func (f *fake) put(_ context.Context, key, value string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.place++
	switch {
	case f.rare("lost write"):
		return nil
	case f.rare("refused but written"):
		f.pairs[key] = value
		return partition.ErrTimeout
	case f.rare("unknown outcome"):
		return partition.ErrUnknown
	}
	f.pairs[key] = value
	return nil
}

func (f *fake) swap(_ context.Context, key, old, value string) (bool, uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.pairs[key] != old {
		return false, 0, nil
	}
	if strings.Contains(key, probeList) {
		switch {
		case f.rare("lost probe"):
			f.place++
			return true, f.place, nil
		case f.rare("doubled probe"): // the second execution's answer
			f.pairs[key] = value
			return false, 0, nil
		}
	}
	f.place++
	f.pairs[key] = value
	if strings.Contains(key, probeList) {
		if f.rare("place again") {
			return true, f.probed, nil
		}
		f.probed = f.place
	}
	return true, f.place, nil
}

func (f *fake) scan(_ context.Context, prefix string) (map[string]string, []string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	pairs, keys := map[string]string{}, []string{}
	for k, v := range f.pairs {
		if strings.HasPrefix(k, prefix) {
			pairs[k], keys = v, append(keys, k)
		}
	}
	return pairs, keys, nil
}

// TestJudge plants faults into a table and wants the load and the judgement to
// find each, and nothing in a table without any.
func TestJudge(t *testing.T) {
	// An unknown outcome is no violation, whatever became of it.
	for fault, want := range map[string]string{
		"": "", "unknown outcome": "", "lost write": "not linearizable", "stale read": "not linearizable",
		"refused but written": "not linearizable", "lost probe": "lost", "doubled probe": "executed twice", "place again": "doubled",
	} {
		t.Run("fault "+fault, func(t *testing.T) {
			t.Parallel()
			f := &fake{pairs: map[string]string{}, fault: fault}
			o := options{clients: 8, pace: time.Millisecond}
			l := newLoad(o, "prefix/")
			for i := range o.clients {
				l.begin(i, f, 1)
			}
			l.running.Go(func() { l.probe(f, time.Millisecond) })
			await := time.NewTimer(700 * time.Millisecond)
			<-await.C
			l.stop()
			tr := &trial{opts: o, dir: t.TempDir(), out: new(bytes.Buffer)}
			if err := tr.judge(t.Context(), l, f); err != nil {
				t.Fatal(err)
			}
			found := strings.Join(tr.violations, "\n")
			if want == "" && found != "" || !strings.Contains(found, want) {
				t.Fatalf("wanted %q, found %q\n%v", want, found, tr.rows)
			}
			if acked := l.acks.count(0, l.acks.now()); acked < 100 {
				t.Fatalf("only %d writes were acknowledged", acked)
			}
		})
	}
}

// TestParts: each prefix has keys, a list of probes and acknowledgements of its
// own.
func TestParts(t *testing.T) {
	f := &fake{pairs: map[string]string{}}
	o := options{clients: 4, pace: time.Millisecond}
	l := newLoad(o, "a/", "b/")
	for n := range 20 {
		l.probeOnce(f, n)
	}
	l.do(0, f, history.Op{Kind: history.Write, Key: "b/x", Value: "v"}, client.Lease, 1)
	if a, b := l.parts[0].count(0, time.Hour), l.parts[1].count(0, time.Hour); a != 10 || b != 11 || l.acks.count(0, time.Hour) != 21 {
		t.Errorf("%d and %d of 10 and 11 acknowledgements", a, b)
	}
	delete(f.pairs, "b/"+probeList+"00000003")
	tr := &trial{opts: o, dir: t.TempDir(), out: new(bytes.Buffer)}
	if err := tr.judge(t.Context(), l, f); err != nil {
		t.Fatal(err)
	}
	if len(tr.violations) != 1 || !strings.Contains(tr.violations[0], "00000003") {
		t.Errorf("a lost probe of the second list: %q", tr.violations)
	}
}

// TestAckLog checks gaps and counts against a list that is walked through.
func TestAckLog(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		a := newAckLog()
		at := time.Duration(0)
		for range rng.IntN(20) {
			at += time.Duration(rng.IntN(10))
			a.acks = append(a.acks, ack{at: at})
		}
		from := time.Duration(rng.IntN(100))
		to := from + time.Duration(rng.IntN(100))
		count, gap, last := 0, time.Duration(0), time.Duration(0)
		for _, x := range a.acks {
			if x.at >= from && x.at < to {
				count++
			}
			if x.at >= from && last <= to {
				gap = max(gap, x.at-last)
			}
			last = x.at
		}
		if last <= to {
			gap = max(gap, to-last)
		}
		if got := a.count(from, to); got != count {
			t.Fatalf("%v: %d acks in [%d, %d), counted %d", a.acks, count, from, to, got)
		}
		if got := a.longestGap(from, to); got != gap {
			t.Fatalf("%v: longest gap around [%d, %d] is %d, found %d", a.acks, from, to, gap, got)
		}
	}
}

// TestNextAck: only a write that was begun late enough ends the wait.
func TestNextAck(t *testing.T) {
	a := newAckLog()
	hit := a.next(time.Hour)
	a.add(time.Minute)
	select {
	case <-hit:
		t.Fatal("a write from before ended the wait")
	default:
	}
	a.add(2 * time.Hour)
	if _, ok := <-hit; !ok {
		t.Fatal("no time")
	}
	a.add(2 * time.Hour) // nobody waits any more
}

func TestPercentile(t *testing.T) {
	var ts times
	for i := range 100 {
		ts = append(ts, time.Duration(100-i))
	}
	for p, want := range map[int]time.Duration{1: 1, 50: 50, 90: 90, 99: 99, 100: 100} {
		if got := ts.percentile(p); got != want {
			t.Errorf("p%d is %d, want %d", p, got, want)
		}
	}
	if got := (times{7}).percentile(50); got != 7 {
		t.Errorf("the median of one is %d", got)
	}
	if got := (times{}).percentile(50); got != 0 {
		t.Errorf("the median of none is %d", got)
	}
}

// TestPanicsAreFound: a stack trace in what a process printed fails the trial.
func TestPanicsAreFound(t *testing.T) {
	for text, want := range map[string]int{
		"level=INFO msg=ready\n":                          0,
		"panic: index out of range\n\ngoroutine 1 [run]:": 2,
		"msg=x err=\"a panic in replica g1\"\n":           1,
	} {
		log := filepath.Join(t.TempDir(), "log")
		if err := os.WriteFile(log, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := panicsIn(log); len(got) != want {
			t.Errorf("%q: found %q", text, got)
		}
	}
}

// TestUsage: what is not understood ends with 2 and says what there is.
func TestUsage(t *testing.T) {
	for _, args := range [][]string{{"no-such-scenario"}, {"kill-all", "--no-such-flag"}, {"kill-all", "stray"}} {
		var out bytes.Buffer
		if code := execute(t.Context(), args, &out); code != 2 || !strings.Contains(out.String(), "kill-master") {
			t.Errorf("%v: exit code %d, %s", args, code, out.String())
		}
	}
}

// TestPorts: no port is handed out twice, and each can be listened on.
func TestPorts(t *testing.T) {
	tr := &trial{ports: map[int]bool{}}
	seen := map[int]bool{}
	for range 50 {
		p, err := tr.port()
		if err != nil {
			t.Fatal(err)
		}
		if seen[p] || !free(p) {
			t.Fatal(fmt.Sprint("port ", p, " is not free"))
		}
		seen[p] = true
	}
}
