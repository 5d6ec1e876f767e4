package client

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/kv"
	"pando.dev/pando/partition/kv/mem"
)

// inKV runs a test with a key-value table divided at "g" and "p".
func inKV(t *testing.T, f func(t *testing.T, c *cluster, table KV)) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, "g", "p")
		for _, g := range c.groups {
			g.space = &mem.Space{}
		}
		cl := c.open(c.config())
		defer cl.Close()
		f(t, c, cl.KV("t"))
	})
}

func put(t *testing.T, table KV, keys ...string) {
	t.Helper()
	for _, k := range keys {
		if _, err := table.Put(within(t, time.Second), []byte(k), []byte("value of "+k)); err != nil {
			t.Fatal(err)
		}
	}
}

// keysOf collects a scan's keys.
func keysOf(t *testing.T, table KV, q kv.ScanQuery) []string {
	t.Helper()
	var keys []string
	for p, err := range table.ScanQuery(within(t, time.Minute), q) {
		if err != nil {
			t.Fatal(err)
		}
		if !q.KeysOnly && string(p.Value) != "value of "+string(p.Key) {
			t.Errorf("%s: %q", p.Key, p.Value)
		}
		keys = append(keys, string(p.Key))
	}
	return keys
}

func TestKVPoint(t *testing.T) {
	inKV(t, func(t *testing.T, c *cluster, table KV) {
		ctx := within(t, time.Minute)
		v, err := table.Put(ctx, []byte("a"), []byte("1"))
		if err != nil || v == 0 {
			t.Fatal(v, err)
		}
		a, err := table.At(Quorum).Get(ctx, []byte("a"))
		if err != nil || !a.Found || a.Version != v || string(a.Value) != "1" {
			t.Fatalf("%+v, %v", a, err)
		}
		r, err := table.CompareAndSet(ctx, kv.IfVersion([]byte("a"), v+1), []byte("2"))
		if err != nil || r.Applied || r.Current != v {
			t.Fatalf("%+v, %v", r, err)
		}
		if r, err = table.CompareAndSet(ctx, kv.IfValue([]byte("a"), []byte("1")), []byte("2")); err != nil || !r.Applied {
			t.Fatalf("%+v, %v", r, err)
		}
		if r, err = table.CompareAndDelete(ctx, kv.IfVersion([]byte("a"), v)); err != nil || r.Applied {
			t.Fatalf("%+v, %v", r, err)
		}
		if err := table.Delete(ctx, []byte("a")); err != nil {
			t.Fatal(err)
		}
		if a, err = table.Get(ctx, []byte("a")); err != nil || a.Found {
			t.Fatalf("%+v, %v", a, err)
		}
		_, err = table.Get(ctx, nil)
		wantCode(t, err, partition.CodeInvalid)
		_, err = table.Put(ctx, []byte("k"), make([]byte, kv.MaxValueBytes+1))
		wantCode(t, err, partition.CodeTooLarge)
		_, err = table.Put(ctx, []byte("k"), make([]byte, kv.MaxValueBytes))
		wantCode(t, err, 0)
	})
}

// A batch is executed by one partition; one over a boundary is refused with the
// place of the boundary, also when the boundary is younger than the routes.
func TestKVBatch(t *testing.T) {
	inKV(t, func(t *testing.T, c *cluster, table KV) {
		ctx := within(t, time.Minute)
		var b kv.Batch
		b.If(kv.IfAbsent([]byte("h")))
		b.Put([]byte("h"), []byte("value of h"))
		b.Put([]byte("o"), []byte("value of o"))
		if r, err := table.Batch(ctx, &b); err != nil || !r.Applied {
			t.Fatalf("%+v, %v", r, err)
		}
		if r, err := table.Batch(ctx, &b); err != nil || r.Applied {
			t.Fatalf("%+v, %v", r, err)
		}
		for _, last := range []string{"p", "z"} {
			var wide kv.Batch
			wide.Put([]byte("h"), nil)
			wide.Put([]byte(last), nil)
			_, err := table.Batch(ctx, &wide)
			wantCode(t, err, partition.CodeInvalid)
			if !strings.Contains(err.Error(), `"p"`) || !strings.Contains(err.Error(), `"h"`) {
				t.Errorf("%v does not name keys and boundary", err)
			}
		}
		var open kv.Batch
		open.DeleteRange(partition.KeyRange{Lo: []byte("h")})
		_, err := table.Batch(ctx, &open)
		wantCode(t, err, partition.CodeInvalid)
		_, err = table.Batch(ctx, &kv.Batch{})
		wantCode(t, err, partition.CodeInvalid)

		c.with(func() { c.split(2, "k", []partition.NodeID{"n3"}, "n3"); c.publish() })
		n := len(c.order)
		_, err = table.Batch(ctx, &b)
		wantCode(t, err, partition.CodeInvalid)
		if len(c.order) != n {
			t.Error("executed in part")
		}
	})
}

func TestKVScan(t *testing.T) {
	inKV(t, func(t *testing.T, c *cluster, table KV) {
		all := []string{"a", "b", "f", "g", "h", "k", "p", "q", "z"}
		put(t, table, all...)
		back := slices.Clone(all)
		slices.Reverse(back)
		rng := func(lo, hi string) partition.KeyRange {
			return partition.KeyRange{Lo: []byte(lo), Hi: []byte(hi)}
		}
		for _, x := range []struct {
			q    kv.ScanQuery
			want []string
		}{
			{kv.ScanQuery{}, all},
			{kv.ScanQuery{Limit: 4}, all[:4]},
			{kv.ScanQuery{Bytes: 1}, all},
			{kv.ScanQuery{KeysOnly: true}, all},
			{kv.ScanQuery{Range: rng("b", "q")}, all[1:7]},
			{kv.ScanQuery{Range: rng("b", "p")}, all[1:6]},
			{kv.ScanQuery{Range: rng("q", "b")}, nil},
			{kv.ScanQuery{Back: true}, back},
			{kv.ScanQuery{Back: true, Bytes: 1}, back},
			{kv.ScanQuery{Back: true, Range: rng("b", "p"), Limit: 5}, back[3:8]},
			{kv.ScanQuery{Back: true, Range: rng("g", "g")}, nil},
			{kv.ScanQuery{Back: true, Range: rng("f", "g")}, []string{"f"}},
		} {
			if got := keysOf(t, table, x.q); !slices.Equal(got, x.want) {
				t.Errorf("%+v: %v, want %v", x.q, got, x.want)
			}
		}
		for range table.Scan(t.Context(), partition.KeyRange{}, 0) {
			break
		}
		var failed error
		for _, err := range table.c.KV("none").Scan(t.Context(), partition.KeyRange{}, 0) {
			failed = err
		}
		wantCode(t, failed, partition.CodeNoSuchTable)
	})
}

// A split between two pages, and one that the routes do not yet show, lose and
// repeat nothing.
func TestKVScanOverSplit(t *testing.T) {
	for _, back := range []bool{false, true} {
		inKV(t, func(t *testing.T, c *cluster, table KV) {
			all := []string{"a", "b", "c", "d", "e", "f", "h", "i", "q", "r"}
			put(t, table, all...)
			var got []string
			for p, err := range table.ScanQuery(within(t, time.Minute), kv.ScanQuery{Bytes: 1, Back: back}) {
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, string(p.Key))
				c.with(func() {
					switch len(got) {
					case 2:
						c.split(1, "d", []partition.NodeID{"n2"}, "n2")
						c.split(3, "r", []partition.NodeID{"n3"}, "n3")
						time.AfterFunc(100*time.Millisecond, func() { c.with(c.publish) })
					}
				})
			}
			if back {
				slices.Reverse(got)
			}
			if !slices.Equal(got, all) {
				t.Errorf("back %v: %v", back, got)
			}
		})
	}
}

func TestKVDeleteRange(t *testing.T) {
	inKV(t, func(t *testing.T, c *cluster, table KV) {
		ctx := within(t, time.Minute)
		put(t, table, "a", "b", "f", "g", "h", "k", "p", "q", "z")
		n := 0
		c.with(func() {
			c.fault = func(_ *fakeNode, r *Request) fault {
				if n++; n == 2 { // the second part is divided on its way
					c.split(2, "h", []partition.NodeID{"n3"}, "n3")
					c.publish()
				}
				return fault{}
			}
		})
		if err := table.DeleteRange(ctx, partition.KeyRange{Lo: []byte("b"), Hi: []byte("q")}); err != nil {
			t.Fatal(err)
		}
		if got := keysOf(t, table, kv.ScanQuery{}); !slices.Equal(got, []string{"a", "q", "z"}) {
			t.Errorf("left: %v", got)
		}
		if err := table.DeleteRange(ctx, partition.KeyRange{}); err != nil {
			t.Fatal(err)
		}
		if got := keysOf(t, table, kv.ScanQuery{}); got != nil {
			t.Errorf("left: %v", got)
		}
		if err := table.DeleteRange(ctx, partition.KeyRange{Lo: []byte("b"), Hi: []byte("a")}); err != nil {
			t.Error(err)
		}
		c.with(func() { c.fault = func(*fakeNode, *Request) fault { return fault{before: partition.CodeRefused} } })
		wantCode(t, table.DeleteRange(ctx, partition.KeyRange{}), partition.CodeRefused)
	})
}

func ExampleKV() {
	c := newCluster(nil, 1)
	c.groups[1].space = &mem.Space{}
	client, err := Open(ctxOfExample(), Config{Addrs: []string{"n1:1"}, Dial: c.dial})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()

	ctx, table := ctxOfExample(), client.KV("t")
	for _, tree := range []string{"pine", "aspen", "oak"} {
		if _, err := table.Put(ctx, []byte(tree), []byte("tree")); err != nil {
			fmt.Println(err)
		}
	}
	r, err := table.CompareAndSet(ctx, kv.IfAbsent([]byte("aspen")), []byte("clone"))
	fmt.Println("set:", r.Applied, err)
	for pair, err := range table.Scan(ctx, partition.KeyRange{}, 2) {
		fmt.Println(string(pair.Key), string(pair.Value), err)
	}
	// Output:
	// set: false <nil>
	// aspen tree <nil>
	// oak tree <nil>
}
