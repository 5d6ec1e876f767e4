package client

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/kv"
)

// noRoutes is a backend whose routes cannot be had, or cannot be told.
type noRoutes struct {
	*fakeNode
	routes *Routes
	err    error
}

func (n noRoutes) Route(uint64) (*Routes, time.Duration, error) { return n.routes, -1, n.err }

// TestRoutesThatCannotBeTold: the client is told why, and not that there are none.
func TestRoutesThatCannotBeTold(t *testing.T) {
	why := partition.Errorf(partition.CodeUnavailable, "no catalog")
	twice := &Routes{Version: 1, Nodes: []Node{{ID: "a", Addr: "x:1"}, {ID: "a", Addr: "x:1"}}}
	for _, c := range []struct {
		b    noRoutes
		want bool
	}{{noRoutes{err: why}, true}, {noRoutes{routes: twice}, true}, {noRoutes{routes: &Routes{Version: 1}}, false}} {
		if r := routesResponse(c.b, 0); (r.Err() != nil) != c.want || c.want && (r.Why == "" || len(r.Body) > 0) {
			t.Errorf("%+v: %+v", c.b, r)
		}
	}
	if r := routesResponse(noRoutes{err: why}, 0); r.Code != partition.CodeUnavailable || r.Why != "no catalog" {
		t.Errorf("%+v", r)
	}
}

// TestConnectionsThatAreClosed take nothing in, and say so.
func TestConnectionsThatAreClosed(t *testing.T) {
	closed := partition.Errorf(partition.CodeClosed, "it is closed")
	for name, p := range map[string]peer{"local": &localPeer{closed: closed}, "remote": &remotePeer{closed: closed}} {
		if _, run, err := p.send(attempt{}, &Request{}); partition.CodeOf(err) != partition.CodeClosed || run != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestAnswersThatAreNotUsed: where keys have gone is believed only if it can be read
// and fits what is known.
func TestAnswersThatAreNotUsed(t *testing.T) {
	k := &call{c: &Client{cfg: Config{Logger: slog.New(slog.DiscardHandler)}}}
	if k.redirected(&Response{Code: partition.CodeWrongGroup, Body: []byte{99}}) {
		t.Error("an answer of a newer program leads elsewhere")
	}
	routes := &Routes{Version: 1, Nodes: []Node{{ID: "a", Addr: "x:1"}}, Tables: []Table{{Name: "t", Kind: "kv", Partitions: []Partition{
		{Group: 1, RangeVersion: 1, Members: []partition.NodeID{"a"}, Master: "a"},
	}}}}
	told := &learned{table: "t", part: Partition{Group: 2, RangeVersion: 2, Members: []partition.NodeID{"b"}, Master: "b"}}
	if got := overlay(routes, told); got != routes {
		t.Errorf("a member that nobody knows: %+v", got)
	}
	told.nodes = []Node{{ID: "b", Addr: "y:1"}}
	if got := overlay(routes, told); got == routes || len(got.Nodes) != 2 || got.Tables[0].Partitions[0].Group != 2 {
		t.Errorf("with the node: %+v", got)
	}
	why := partition.Errorf(partition.CodeNoSpace, "full")
	if e := asError(fmt.Errorf("write it: %w", why)); e != why {
		t.Errorf("%v", e)
	}
}

// TestClosedClientStartsNothing: what is begun after the end is refused at once.
func TestClosedClientStartsNothing(t *testing.T) {
	inKV(t, func(t *testing.T, c *cluster, table KV) {
		table.c.Close()
		var got error
		table.c.start(t.Context(), "t", Request{Op: OpRead, Key: []byte("k")}, ReadOptions{}, func(_ Result, err error) { got = err })
		if partition.CodeOf(got) != partition.CodeClosed {
			t.Errorf("%v", got)
		}
		synctest.Wait()
	})
}

// TestRangesThatMakeNoSense: a range that no table can have is refused before anybody
// is asked, and a table that is not there is told of as that.
func TestRangesThatMakeNoSense(t *testing.T) {
	inKV(t, func(t *testing.T, c *cluster, table KV) {
		put(t, table, "a", "b")
		long := []byte(strings.Repeat("x", 100_000))
		scan := func(table KV, q kv.ScanQuery) (err error) {
			for _, e := range table.ScanQuery(within(t, time.Second), q) {
				err = e
			}
			return err
		}
		far := partition.KeyRange{Lo: long}
		for what, err := range map[string]error{
			"scan from far": scan(table, kv.ScanQuery{Range: far}), "scan to far": scan(table, kv.ScanQuery{Range: partition.KeyRange{Lo: []byte("q"), Hi: long}}),
			"delete from far": table.DeleteRange(within(t, time.Second), far),
		} {
			if code := partition.CodeOf(err); code != partition.CodeTooLarge && code != partition.CodeInvalid {
				t.Errorf("%s: %v", what, err)
			}
		}
		none := table.c.KV("nowhere")
		if err := scan(none, kv.ScanQuery{}); partition.CodeOf(err) != partition.CodeNoSuchTable {
			t.Errorf("a scan of no table: %v", err)
		}
		if keys := keysOf(t, table, kv.ScanQuery{}); len(keys) != 2 {
			t.Errorf("there is %q", keys)
		}
		table.c.Close()
		for what, err := range map[string]error{"scan": scan(table, kv.ScanQuery{}), "delete": table.DeleteRange(within(t, time.Second), partition.KeyRange{})} {
			if partition.CodeOf(err) != partition.CodeClosed {
				t.Errorf("%s with a client that is closed: %v", what, err)
			}
		}
		synctest.Wait()
	})
}
