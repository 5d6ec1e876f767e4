package httpapi_test

import (
	"bytes"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pando.dev/pando/actors/client"
	"pando.dev/pando/actors/httpapi"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/kv"
)

// oneGroup is a node in memory that serves table t, in two partitions, with the
// real key-value kind.
type oneGroup struct {
	mu    sync.Mutex
	kind  partition.Partition
	index partition.Index
	state map[string][]byte
}

func newOneGroup(t testing.TB) *oneGroup {
	t.Helper()
	kind, err := kv.New(partition.Spec{Table: "t", Group: 1})
	if err != nil {
		t.Fatal(err)
	}
	return &oneGroup{kind: kind, state: map[string][]byte{}}
}

// Propose replies without the lock: the client may ask again from there.
func (g *oneGroup) Propose(req *client.Request, reply func(*client.Response)) {
	reply(g.execute(req))
}

func (g *oneGroup) execute(req *client.Request) *client.Response {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.index++
	if req.Op == client.OpOpenSession {
		return &client.Response{Index: g.index}
	}
	result, err := g.kind.Apply(g, partition.Command{Index: g.index, Payload: req.Body})
	if err != nil {
		return client.ErrorResponse(err)
	}
	return &client.Response{Index: g.index, Body: result}
}

func (g *oneGroup) Read(req *client.Request, reply func(*client.Response)) {
	reply(g.answer(req))
}

func (g *oneGroup) answer(req *client.Request) *client.Response {
	g.mu.Lock()
	defer g.mu.Unlock()
	answer, err := g.kind.Read(g, req.Body)
	if err != nil {
		return client.ErrorResponse(err)
	}
	return &client.Response{Index: g.index, Body: answer}
}

func (g *oneGroup) Route(have uint64) (*client.Routes, time.Duration, error) {
	if have >= 1 {
		return nil, 0, nil
	}
	members := []partition.NodeID{"n1"}
	return &client.Routes{
		Version: 1, Nodes: []client.Node{{ID: "n1", Addr: "x:1"}},
		Tables: []client.Table{{Name: "t", Kind: "kv", Partitions: []client.Partition{
			{Group: 1, Hi: []byte("m"), Members: members, Master: "n1"}, {Group: 2, Lo: []byte("m"), Members: members, Master: "n1"},
		}}},
	}, 0, nil
}

func (g *oneGroup) Get(key []byte) ([]byte, bool, error) {
	v, ok := g.state[string(key)]
	return v, ok, nil
}

func (g *oneGroup) Scan(r partition.KeyRange) iter.Seq2[partition.Pair, error] {
	return func(yield func(partition.Pair, error) bool) {
		for _, k := range slices.Sorted(maps.Keys(g.state)) {
			if r.Contains([]byte(k)) && !yield(partition.Pair{Key: []byte(k), Value: g.state[k]}, nil) {
				return
			}
		}
	}
}

func (g *oneGroup) ScanBack(partition.KeyRange) iter.Seq2[partition.Pair, error] {
	panic("nobody scans back here")
}

func (g *oneGroup) Set(key, value []byte) error {
	g.state[string(key)] = bytes.Clone(value)
	return nil
}

func (g *oneGroup) Delete(key []byte) error {
	delete(g.state, string(key))
	return nil
}

func (g *oneGroup) DeleteRange(partition.KeyRange) error { panic("nobody deletes a range here") }

func newClientStore(t testing.TB) httpapi.ClientStore {
	t.Helper()
	c, err := client.Open(t.Context(), client.Config{Local: client.Local{Node: "n1", Backend: newOneGroup(t)}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return httpapi.ClientStore{Client: c}
}

// TestClientStore: the store over the real client and the real key-value kind.
func TestClientStore(t *testing.T) {
	s, ctx := newClientStore(t), t.Context()
	want := func(what string, err error, code partition.Code) {
		t.Helper()
		if partition.CodeOf(err) != code {
			t.Fatalf("%s: %v, want %v", what, err, code)
		}
	}
	_, err := s.Get(ctx, "t", []byte("a"), httpapi.ReadOptions{})
	want("get of nothing", err, partition.CodeNotFound)
	v1, err := s.Put(ctx, "t", []byte("a"), []byte("1"), httpapi.Condition{Absent: true})
	want("put if absent", err, 0)
	_, err = s.Put(ctx, "t", []byte("a"), []byte("2"), httpapi.Condition{Absent: true})
	want("put if absent of what is there", err, partition.CodeRefused)
	v2, err := s.Put(ctx, "t", []byte("a"), []byte("2"), httpapi.Condition{Version: v1.Version})
	want("put of the version read", err, 0)
	_, err = s.Put(ctx, "t", []byte("a"), []byte("3"), httpapi.Condition{Version: v1.Version})
	want("put of an old version", err, partition.CodeRefused)
	_, err = s.Put(ctx, "t", []byte("b"), []byte("3"), httpapi.Condition{Version: v1.Version})
	want("put of a version of nothing", err, partition.CodeRefused)
	_, err = s.Put(ctx, "t", []byte("a"), []byte("3"), httpapi.Condition{Version: "x"})
	want("put of no version", err, partition.CodeInvalid)
	got, err := s.Get(ctx, "t", []byte("a"), httpapi.ReadOptions{Level: httpapi.LevelQuorum})
	want("get", err, 0)
	if string(got.Bytes) != "2" || got.Version != v2.Version || v1.Version == v2.Version {
		t.Fatalf("%+v, versions %s and %s", got, v1.Version, v2.Version)
	}
	_, err = s.Delete(ctx, "t", []byte("a"), httpapi.Condition{Version: v1.Version})
	want("delete of an old version", err, partition.CodeRefused)
	_, err = s.Delete(ctx, "t", []byte("a"), httpapi.Condition{Version: "-"})
	want("delete of no version", err, partition.CodeInvalid)
	_, err = s.Delete(ctx, "t", []byte("a"), httpapi.Condition{Version: v2.Version})
	want("delete", err, 0)
	_, err = s.Delete(ctx, "t", []byte("a"), httpapi.Condition{})
	want("delete again", err, 0)
	_, err = s.Put(ctx, "nosuch", []byte("a"), nil, httpapi.Condition{})
	want("unknown table", err, partition.CodeNoSuchTable)
	_, err = s.Put(ctx, "t", []byte(strings.Repeat("k", kv.MaxKeyBytes+1)), nil, httpapi.Condition{})
	want("key over the limit", err, partition.CodeTooLarge)
	_, err = s.Get(ctx, "t", []byte("a"), httpapi.ReadOptions{Level: "yesterday"})
	want("unknown level", err, partition.CodeInvalid)
	_, err = s.Scan(ctx, "t", partition.KeyRange{}, 1, httpapi.ReadOptions{Level: "yesterday"})
	want("unknown level", err, partition.CodeInvalid)
}

// TestClientStoreScan: pages follow each other over a partition's boundary, and
// large values make a page shorter instead of an answer without bound.
func TestClientStoreScan(t *testing.T) {
	s, ctx := newClientStore(t), t.Context()
	large := bytes.Repeat([]byte("v"), kv.MaxValueBytes)
	keys := []string{"a", "b", "l", "m", "n", "x", "y", "z"}
	for _, k := range keys {
		if _, err := s.Put(ctx, "t", []byte(k), large, httpapi.Condition{}); err != nil {
			t.Fatal(err)
		}
	}
	part, err := s.Scan(ctx, "t", partition.KeyRange{}, 100, httpapi.ReadOptions{})
	if err != nil || len(part.Pairs) != 4 || !part.More {
		t.Fatalf("%d pairs, more %v, %v", len(part.Pairs), part.More, err)
	}
	part, err = s.Scan(ctx, "t", partition.KeyRange{Lo: []byte("b")}, 3, httpapi.ReadOptions{})
	if err != nil || len(part.Pairs) != 3 || !part.More || string(part.Pairs[2].Key) != "m" {
		t.Fatalf("%d pairs, more %v, %v", len(part.Pairs), part.More, err)
	}
	part, err = s.Scan(ctx, "t", partition.KeyRange{Lo: []byte("x")}, 100, httpapi.ReadOptions{})
	if err != nil || len(part.Pairs) != 3 || part.More {
		t.Fatalf("%d pairs, more %v, %v", len(part.Pairs), part.More, err)
	}
}
