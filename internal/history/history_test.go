package history

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"pgregory.net/rapid"
)

func write(h *History, client int, key, value string) {
	h.Invoke(client, Op{Kind: Write, Key: key, Value: value}).Return(Result{})
}

func read(h *History, client int, key, got string) {
	h.Invoke(client, Op{Kind: Read, Key: key}).Return(Result{Got: got})
}

func add(h *History, client int, list, element string, seq uint64) {
	h.Invoke(client, Op{Kind: Append, Key: list, Value: element}).Return(Result{Seq: seq})
}

// rules returns the rules violated, as "rule rule".
func rules(r Report) string {
	var s []string
	for _, v := range r.Violations {
		s = append(s, string(v.Rule))
	}
	return strings.Join(s, ", ")
}

// recorded is a history with the rules that it violates, "" if it is right.
type recorded struct {
	name   string
	record func(h *History)
	want   string
	detail string // part of the explanation
}

func (c recorded) check(t *testing.T) {
	h := New()
	c.record(h)
	r := h.Check(t.Context())
	if got := rules(r); got != c.want {
		t.Fatalf("violations %q, want %q\n%v", got, c.want, r.Err())
	}
	if (r.Err() == nil) != (c.want == "") {
		t.Errorf("Err() is %v", r.Err())
	}
	if c.want != "" && !strings.Contains(r.Violations[0].Detail, c.detail) {
		t.Errorf("detail %q, want %q in it", r.Violations[0].Detail, c.detail)
	}
}

// TestWrites plants each violation that the check of reads and writes must
// find, beside histories that look odd and are right.
func TestWrites(t *testing.T) {
	for _, c := range []recorded{
		{"nothing", func(h *History) {}, "", ""},
		{"write and read", func(h *History) { read(h, 1, "k", ""); write(h, 1, "k", "a"); read(h, 2, "k", "a") }, "", ""},
		{"stale read", func(h *History) {
			write(h, 1, "k", "a")
			write(h, 1, "k", "b")
			read(h, 2, "k", "a")
		}, "not linearizable", `client 2 read "a" at 5, though client 1's write of "b", which began after it at 3, had taken effect by 4`},
		{"lost acknowledgement", func(h *History) { write(h, 1, "k", "a"); read(h, 2, "k", "") },
			"not linearizable", `read ""`},
		{"read of what nobody wrote", func(h *History) { read(h, 2, "k", "x") }, "not linearizable", "nobody wrote"},
		{"read of a refused write", func(h *History) {
			h.Invoke(1, Op{Kind: Write, Key: "k", Value: "a"}).Refused()
			read(h, 2, "k", "a")
		}, "not linearizable", "refused"},
		{"concurrent write seen early", func(h *History) {
			c := h.Invoke(1, Op{Kind: Write, Key: "k", Value: "a"})
			read(h, 2, "k", "a")
			c.Return(Result{})
		}, "", ""},
		{"concurrent write seen and gone", func(h *History) {
			c := h.Invoke(1, Op{Kind: Write, Key: "k", Value: "a"})
			read(h, 2, "k", "a")
			read(h, 2, "k", "")
			c.Return(Result{})
		}, "not linearizable", "had taken effect by 3"},
		{"unknown write takes effect late", func(h *History) {
			h.Invoke(1, Op{Kind: Write, Key: "k", Value: "a"}).Unknown()
			read(h, 2, "k", "")
			write(h, 2, "k", "b")
			read(h, 2, "k", "b")
			read(h, 2, "k", "a")
		}, "", ""},
		{"unknown write takes effect twice", func(h *History) {
			h.Invoke(1, Op{Kind: Write, Key: "k", Value: "a"}).Unknown()
			read(h, 2, "k", "a")
			write(h, 2, "k", "b")
			read(h, 2, "k", "a")
		}, "not linearizable", "had taken effect"},
		{"open write was never executed", func(h *History) {
			h.Invoke(1, Op{Kind: Write, Key: "k", Value: "a"})
			read(h, 2, "k", "")
		}, "", ""},
	} {
		t.Run(c.name, c.check)
	}
}

// TestSwaps does the same with compare-and-set.
func TestSwaps(t *testing.T) {
	for _, c := range []recorded{
		{"swap", func(h *History) {
			h.Invoke(1, Op{Kind: CAS, Key: "k", Value: "a"}).Return(Result{Swapped: true})
			h.Invoke(1, Op{Kind: CAS, Key: "k", Old: "x", Value: "b"}).Return(Result{})
			read(h, 1, "k", "a")
		}, "", ""},
		{"swap executed twice", func(h *History) { // the answer is that of the second time
			h.Invoke(1, Op{Kind: CAS, Key: "k", Value: "a"}).Return(Result{})
			read(h, 1, "k", "a")
		}, "not linearizable", "not swapped"},
		{"two swaps from one value", func(h *History) {
			a := h.Invoke(1, Op{Kind: CAS, Key: "k", Value: "a"})
			b := h.Invoke(2, Op{Kind: CAS, Key: "k", Value: "b"})
			a.Return(Result{Swapped: true})
			b.Return(Result{Swapped: true})
		}, "not linearizable", "no order"},
		{"chain of unknown swaps", func(h *History) {
			h.Invoke(1, Op{Kind: Write, Key: "k", Value: "a"}).Unknown()
			h.Invoke(2, Op{Kind: CAS, Key: "k", Old: "a", Value: "b"}).Unknown()
			h.Invoke(3, Op{Kind: CAS, Key: "k", Old: "b", Value: "c"}).Unknown()
			read(h, 4, "k", "c")
		}, "", ""},
		{"unknown write explains a refused swap", func(h *History) {
			write(h, 1, "k", "a")
			h.Invoke(2, Op{Kind: Write, Key: "k", Value: "b"}).Unknown()
			h.Invoke(3, Op{Kind: CAS, Key: "k", Old: "a", Value: "c"}).Return(Result{})
		}, "", ""},
		{"keys do not mix", func(h *History) { write(h, 1, "k", "a"); read(h, 1, "l", "") }, "", ""},
	} {
		t.Run(c.name, c.check)
	}
}

// TestDurableSet plants the violations of lists and counters.
func TestDurableSet(t *testing.T) {
	for _, c := range []recorded{
		{"all there", func(h *History) {
			add(h, 1, "l", "a", 1)
			add(h, 2, "l", "b", 2)
			h.Observe("l", []string{"a", "b"})
		}, "", ""},
		{"lost", func(h *History) {
			add(h, 1, "l", "a", 0)
			add(h, 2, "l", "b", 0)
			h.Observe("l", []string{"b"})
		}, "lost", ""},
		{"all lost", func(h *History) { add(h, 1, "l", "a", 0); h.Observe("l", nil) }, "lost", ""},
		{"doubled", func(h *History) { add(h, 1, "l", "a", 0); h.Observe("l", []string{"a", "a"}) }, "doubled", ""},
		{"unknown may be there", func(h *History) {
			h.Invoke(1, Op{Kind: Append, Key: "l", Value: "a"}).Unknown()
			h.Observe("l", []string{"a"})
		}, "", ""},
		{"unknown need not be there", func(h *History) {
			h.Invoke(1, Op{Kind: Append, Key: "l", Value: "a"}).Unknown()
			h.Observe("l", nil)
		}, "", ""},
		{"unknown doubled", func(h *History) {
			h.Invoke(1, Op{Kind: Append, Key: "l", Value: "a"}).Unknown()
			h.Observe("l", []string{"a", "a"})
		}, "doubled", ""},
		{"refused is there", func(h *History) {
			h.Invoke(1, Op{Kind: Append, Key: "l", Value: "a"}).Refused()
			h.Observe("l", []string{"a"})
		}, "phantom", ""},
		{"never appended", func(h *History) { h.Observe("l", []string{"a"}) }, "phantom", ""},
		{"number given twice", func(h *History) { add(h, 1, "l", "a", 1); add(h, 1, "l", "b", 1) }, "doubled", ""},
		{"number goes back", func(h *History) { add(h, 1, "l", "a", 2); add(h, 1, "l", "b", 1) }, "out of order", ""},
		{"numbers of concurrent appends", func(h *History) {
			a := h.Invoke(1, Op{Kind: Append, Key: "l", Value: "a"})
			add(h, 1, "l", "b", 2)
			a.Return(Result{Seq: 1})
		}, "", ""},
		{"counter", func(h *History) {
			add(h, 1, "n", "a", 0)
			h.Invoke(1, Op{Kind: Append, Key: "n", Value: "b"}).Unknown()
			h.ObserveCount("n", 2)
		}, "", ""},
		{"counter too low", func(h *History) { add(h, 1, "n", "a", 0); h.ObserveCount("n", 0) }, "lost", ""},
		{"counter too high", func(h *History) {
			add(h, 1, "n", "a", 0)
			h.Invoke(1, Op{Kind: Append, Key: "n", Value: "b"}).Refused()
			h.ObserveCount("n", 2)
		}, "doubled", ""},
	} {
		t.Run(c.name, c.check)
	}
}

// TestUndecided: what cannot be judged is never taken for right.
func TestUndecided(t *testing.T) {
	for name, record := range map[string]func(h *History){
		"too many operations": func(h *History) {
			for range MaxOperations + 1 {
				read(h, 1, "k", "")
			}
		},
		"value written twice": func(h *History) { write(h, 1, "k", "a"); write(h, 2, "k", "a") },
		"empty value":         func(h *History) { write(h, 1, "k", "") },
		"unknown kind":        func(h *History) { h.Invoke(1, Op{Kind: "sing", Key: "k"}) },
	} {
		t.Run(name, func(t *testing.T) {
			h := New()
			record(h)
			r := h.Check(t.Context())
			if r.Err() == nil || len(r.Undecided) != 1 {
				t.Fatalf("want one undecided key, got %v", r)
			}
		})
	}
}

// history draws a history of one key whose answers are mostly right.
func drawHistory(t *rapid.T) *History {
	h := New()
	values := []string{""}
	var open []*Call
	for i := range rapid.IntRange(1, 14).Draw(t, "operations") {
		op := Op{Key: "k", Kind: rapid.SampledFrom([]Kind{Write, Read, CAS}).Draw(t, "kind")}
		if op.Kind != Read {
			op.Value = fmt.Sprint("v", i)
			values = append(values, op.Value)
		}
		if op.Kind == CAS {
			op.Old = rapid.SampledFrom(values[:len(values)-1]).Draw(t, "old")
		}
		open = append(open, h.Invoke(i, op))
		for len(open) > rapid.IntRange(0, 4).Draw(t, "left open") {
			n := rapid.IntRange(0, len(open)-1).Draw(t, "which")
			c := open[n]
			open = append(open[:n], open[n+1:]...)
			switch {
			case rapid.IntRange(0, 2).Draw(t, "outcome") == 0:
				c.Unknown()
			case c.e.Kind == Read:
				c.Return(Result{Got: rapid.SampledFrom(values).Draw(t, "got")})
			default:
				c.Return(Result{Swapped: c.e.Kind == CAS && rapid.Bool().Draw(t, "swapped")})
			}
		}
	}
	return h
}

// TestAgainstPlainSearch compares the shortened search with one that leaves
// every unknown operation open for ever, and looks whether the plain rules only
// ever object to a wrong history.
func TestAgainstPlainSearch(t *testing.T) {
	var right, wrong int
	rapid.Check(t, func(t *rapid.T) {
		events := drawHistory(t).Events()
		var all []porcupine.Operation
		for i := range events {
			e := &events[i]
			o := porcupine.Operation{ClientId: i, Input: e, Call: int64(e.Called), Return: int64(e.Ended)}
			if e.Outcome != OutcomeOK {
				o.Return = math.MaxInt64
				if e.Kind == Read {
					continue
				}
			}
			all = append(all, o)
		}
		want := porcupine.CheckOperations(register(), all)
		got := linearizable(events, time.Minute) == legal
		if got != want {
			t.Fatalf("shortened search says %v, plain search %v", got, want)
		}
		if why := plain(events); want && why != "" {
			t.Fatalf("the plain rules object to a right history: %s", why)
		}
		if want {
			right++
		} else {
			wrong++
		}
	})
	t.Logf("%d right, %d wrong", right, wrong)
	if right == 0 || wrong == 0 {
		t.Errorf("the drawn histories are one-sided: %d right, %d wrong", right, wrong)
	}
}

// TestConcurrentRecording has many clients share a register that is right, and
// one reader that is not, on full windows.
func TestConcurrentRecording(t *testing.T) {
	const clients, each = 16, 500
	h := New()
	var mu sync.Mutex
	state := map[string]string{}
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			for i := range each {
				key := h.Window(fmt.Sprint("k", i%3))
				if i%4 == 0 {
					value := fmt.Sprintf("%d.%d", c, i)
					call := h.Invoke(c, Op{Kind: Write, Key: key, Value: value})
					mu.Lock()
					state[key] = value
					mu.Unlock()
					if i%20 == 0 {
						call.Unknown()
					} else {
						call.Return(Result{})
					}
					continue
				}
				call := h.Invoke(c, Op{Kind: Read, Key: key})
				mu.Lock()
				got := state[key]
				mu.Unlock()
				call.Return(Result{Got: got})
			}
		})
	}
	wg.Wait()
	r := h.Check(t.Context())
	if err := r.Err(); err != nil {
		t.Fatal(err)
	}
	if r.Operations != clients*each || r.Keys != 9 {
		t.Errorf("%v", r)
	}
	keys := h.Acknowledged()
	// Two writes that are sure: one whose outcome is unknown might come late.
	write(h, 0, keys[0], "before")
	write(h, 0, keys[0], "last")
	read(h, 0, keys[0], "before")
	if r := h.Check(t.Context()); rules(r) != string(NotLinearizable) {
		t.Errorf("a stale read at the end was not found: %v", r)
	}
}

// TestDump writes the history of the violated key alone, and judges it again.
func TestDump(t *testing.T) {
	h := New()
	write(h, 1, "good", "a")
	write(h, 1, "bad", "a")
	read(h, 2, "bad", "")
	var b bytes.Buffer
	if err := h.Check(t.Context()).Dump(&b); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(b.String(), "\n"); n != 2 {
		t.Fatalf("%d lines, want 2:\n%s", n, &b)
	}
	again, err := Load(&b)
	if err != nil {
		t.Fatal(err)
	}
	r := again.Check(t.Context())
	if rules(r) != string(NotLinearizable) || r.Operations != 2 {
		t.Errorf("loaded again: %v", r)
	}
}

func TestEndedTwice(t *testing.T) {
	c := New().Invoke(1, Op{Kind: Read, Key: "k"})
	c.Unknown()
	defer func() {
		if recover() == nil {
			t.Error("a call may end twice")
		}
	}()
	c.Return(Result{})
}

func BenchmarkRecord(b *testing.B) {
	h := New()
	b.ReportAllocs()
	for b.Loop() {
		h.Invoke(1, Op{Kind: Read, Key: "k"}).Return(Result{Got: "v"})
	}
}
