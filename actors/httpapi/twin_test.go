package httpapi_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"pando.dev/pando/actors"
	"pando.dev/pando/actors/client"
	"pando.dev/pando/actors/httpapi"
	"pando.dev/pando/partition"
)

// twin is a node in memory: one table per name, versions that count writes.
type twin struct {
	mu      sync.Mutex
	notYet  error // why it is not ready
	next    error // what the next store access fails with
	panics  bool
	block   chan struct{} // if set, Get waits for it or for its deadline
	tables  map[string]map[string]entry
	writes  int
	asked   httpapi.ReadOptions // what the last read came with
	entered chan struct{}       // if set, told when Get waits
}

type entry struct {
	value   []byte
	version int
}

var (
	_ httpapi.Cluster = (*twin)(nil)
	_ httpapi.Catalog = (*twin)(nil)
	_ httpapi.Store   = (*twin)(nil)
	_ httpapi.Meter   = (*twin)(nil)

	_ httpapi.Recovery = (*twin)(nil)
)

func newTwin(tables ...string) *twin {
	t := &twin{tables: map[string]map[string]entry{}}
	for _, name := range tables {
		t.tables[name] = map[string]entry{}
	}
	return t
}

func (t *twin) Ready() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.notYet
}

func (t *twin) Status(context.Context) (actors.ClusterStatus, error) {
	if t.panics {
		panic("planted")
	}
	return actors.ClusterStatus{Cluster: "twin", CanLose: 1, Nodes: 3, Alive: 3, Self: "n1"}, nil
}

func (t *twin) Members() []actors.MemberInfo {
	return []actors.MemberInfo{{Node: "n1", Status: "alive", Zone: "a"}}
}

func (t *twin) Partitions(_ context.Context, table string) ([]actors.PartitionInfo, error) {
	if table != "" && t.tables[table] == nil {
		return nil, noSuch(table)
	}
	return nil, nil
}

func (t *twin) Partition(_ context.Context, g partition.GroupID) (actors.PartitionInfo, error) {
	if g != 17 {
		return actors.PartitionInfo{}, partition.Errorf(partition.CodeNotFound, "no partition %s", g)
	}
	return actors.PartitionInfo{Group: g, Table: "t", Lo: []byte{0xff}, Master: "n1"}, nil
}

func (t *twin) Tables() []actors.TableInfo { return nil }

func (t *twin) CreateTable(_ context.Context, s actors.TableSpec) (actors.TableInfo, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.tables[s.Name] != nil {
		return actors.TableInfo{}, partition.Errorf(partition.CodeExists, "table %q exists", s.Name)
	}
	t.tables[s.Name] = map[string]entry{}
	return actors.TableInfo{Name: s.Name, Replicas: s.Replicas}, nil
}

func (t *twin) AlterTable(_ context.Context, name string, c actors.TableChange) (actors.TableInfo, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.tables[name] == nil {
		return actors.TableInfo{}, noSuch(name)
	}
	p, err := partition.ParsePolicy(c.Policy)
	if err != nil {
		return actors.TableInfo{}, err
	}
	return actors.TableInfo{Name: name, Replicas: c.Replicas, Policy: p.String(), Version: 2}, nil
}

func (t *twin) RecoverPlan(_ context.Context, ask actors.RecoverAsk) (actors.RecoverPlan, error) {
	plan := actors.RecoverPlan{Plan: fmt.Sprintf("%v/%v", ask.Groups, ask.Dead), Dead: ask.Dead}
	for _, g := range ask.Groups {
		plan.Groups = append(plan.Groups, actors.PartitionRescue{Group: g, State: actors.RecoverLost})
	}
	return plan, nil
}

func (t *twin) RecoverApply(_ context.Context, plan, reason string) (actors.RecoverOutcome, error) {
	if plan != "good" {
		return actors.RecoverOutcome{}, partition.Errorf(partition.CodeRefused, "the state is not the one of the plan")
	}
	return actors.RecoverOutcome{Plan: plan, Groups: []actors.RescueOutcome{{Group: 17, Node: "n1", Done: true, Why: reason}}}, nil
}

func (t *twin) DropTable(_ context.Context, name string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.tables[name] == nil {
		return noSuch(name)
	}
	delete(t.tables, name)
	return nil
}

func noSuch(table string) error {
	return partition.Errorf(partition.CodeNoSuchTable, "no table %q", table)
}

// open returns the table, or the planted error.
func (t *twin) open(table string) (map[string]entry, error) {
	if t.next != nil {
		err := t.next
		t.next = nil
		return nil, err
	}
	if t.tables[table] == nil {
		return nil, noSuch(table)
	}
	return t.tables[table], nil
}

func (t *twin) Get(ctx context.Context, table string, key []byte, o httpapi.ReadOptions) (httpapi.Value, error) {
	if t.block != nil {
		if t.entered != nil {
			t.entered <- struct{}{}
		}
		select {
		case <-t.block:
		case <-ctx.Done():
			return httpapi.Value{}, partition.Errorf(partition.CodeTimeout, "%v", ctx.Err())
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	m, err := t.open(table)
	if err != nil {
		return httpapi.Value{}, err
	}
	t.asked = o
	e, ok := m[string(key)]
	if !ok {
		return httpapi.Value{}, partition.Errorf(partition.CodeNotFound, "no key %q", key)
	}
	return httpapi.Value{Bytes: e.value, Version: versionOf(e), Shown: t.shown(o.Token)}, nil
}

// shown is what an answer shows: all writes so far, of partition 17.
func (t *twin) shown(with client.Token) httpapi.Shown {
	r := client.Result{Group: 17, Index: partition.Index(t.writes)}
	return httpapi.Shown{Group: r.Group, Index: r.Index, Age: 3 * time.Millisecond, AgeKnown: true, Token: r.Token().Join(with)}
}

func versionOf(e entry) httpapi.Version { return httpapi.Version(strconv.Itoa(e.version)) }

func (t *twin) check(m map[string]entry, key []byte, c httpapi.Condition) error {
	e, ok := m[string(key)]
	if c.Absent && ok || c.Version != "" && (!ok || versionOf(e) != c.Version) {
		return partition.Errorf(partition.CodeRefused, "key %q does not meet the condition", key)
	}
	return nil
}

func (t *twin) Put(_ context.Context, table string, key, value []byte, c httpapi.Condition) (httpapi.Written, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m, err := t.open(table)
	if err != nil {
		return httpapi.Written{}, err
	}
	if err := t.check(m, key, c); err != nil {
		return httpapi.Written{}, err
	}
	t.writes++
	e := entry{value: bytes.Clone(value), version: t.writes}
	m[string(key)] = e
	return httpapi.Written{Version: versionOf(e), Shown: t.shown(client.Token{})}, nil
}

func (t *twin) Delete(_ context.Context, table string, key []byte, c httpapi.Condition) (httpapi.Shown, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m, err := t.open(table)
	if err != nil {
		return httpapi.Shown{}, err
	}
	if err := t.check(m, key, c); err != nil {
		return httpapi.Shown{}, err
	}
	delete(m, string(key))
	t.writes++
	return t.shown(client.Token{}), nil
}

func (t *twin) Scan(_ context.Context, table string, r partition.KeyRange, limit int, o httpapi.ReadOptions) (httpapi.Scanned, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m, err := t.open(table)
	if err != nil {
		return httpapi.Scanned{}, err
	}
	t.asked = o
	var keys []string
	for k := range m {
		if r.Contains([]byte(k)) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	out := httpapi.Scanned{More: len(keys) > limit, Shown: t.shown(o.Token)}
	for _, k := range keys[:min(limit, len(keys))] {
		out.Pairs = append(out.Pairs, httpapi.KV{Key: []byte(k), Value: m[k].value})
	}
	return out, nil
}

func (t *twin) Counters() []actors.Counter {
	return []actors.Counter{{Name: "wal_syncs_total", Help: "Syncs.", Value: 7}, {Name: "open_stores", Help: "Stores open.", Value: 2, Gauge: true}}
}
