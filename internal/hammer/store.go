package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"pando.dev/pando/actors/client"
	"pando.dev/pando/actors/link"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/kv"
)

// store is a key-value table as the load uses it. An empty value means that the
// key is absent; no client writes one.
type store interface {
	get(ctx context.Context, key string, level client.Level) (string, error)
	put(ctx context.Context, key, value string) error
	// swap writes value if the key holds old, and returns whether it did and
	// the place of the write in the order of all writes.
	swap(ctx context.Context, key, old, value string) (swapped bool, place uint64, err error)
}

// table is the real store: one client with its own connections and sessions.
type table struct {
	client *client.Client
	kv     client.KV
}

var _ store = (*table)(nil)

// openWait bounds the wait for a client's first routes.
const openWait = 20 * time.Second

// openTable connects to the nodes at the addresses. A client reaches nodes that
// the routes name only if they are among them.
func openTable(ctx context.Context, clusterName, tableName string, addrs []string) (*table, error) {
	return openTableBy(ctx, tableName, addrs, func(ctx context.Context, addr string) (net.Conn, error) {
		return link.DialClient(ctx, addr, link.ClientConfig{Cluster: clusterName})
	})
}

// openTableBy is openTable with another way to connect.
func openTableBy(ctx context.Context, tableName string, addrs []string, to client.Dialer) (*table, error) {
	known := map[string]bool{}
	for _, a := range addrs {
		known[a] = true
	}
	dial := func(ctx context.Context, addr string) (net.Conn, error) {
		if !known[addr] {
			return nil, fmt.Errorf("%s is out of this client's reach", addr)
		}
		return to(ctx, addr)
	}
	ctx, cancel := context.WithTimeout(ctx, openWait)
	defer cancel()
	c, err := client.Open(ctx, client.Config{Addrs: addrs, Dial: dial})
	if err != nil {
		return nil, fmt.Errorf("open a client of %v: %w", addrs, err)
	}
	return &table{c, c.KV(tableName)}, nil
}

// open connects a client that reaches all nodes.
func (c *cluster) open(ctx context.Context) (*table, error) {
	return c.openOn(ctx, tableName, c.links())
}

// openOn connects a client of any table that reaches the nodes at the addresses.
func (c *cluster) openOn(ctx context.Context, name string, addrs []string) (*table, error) {
	if c.dialer != nil {
		return openTableBy(ctx, name, addrs, c.dialer())
	}
	return openTable(ctx, c.name, name, addrs)
}

func (t *table) close() { t.client.Close() }

func (t *table) get(ctx context.Context, key string, level client.Level) (string, error) {
	a, err := t.kv.At(level).Get(ctx, []byte(key))
	return string(a.Value), err
}

func (t *table) put(ctx context.Context, key, value string) error {
	_, err := t.kv.Put(ctx, []byte(key), []byte(value))
	return err
}

func (t *table) swap(ctx context.Context, key, old, value string) (bool, uint64, error) {
	cond := kv.IfAbsent([]byte(key))
	if old != "" {
		cond = kv.IfValue([]byte(key), []byte(old))
	}
	r, err := t.kv.CompareAndSet(ctx, cond, []byte(value))
	return r.Applied, uint64(r.Version), err
}

// scan returns every pair whose key begins with the prefix.
func (t *table) scan(ctx context.Context, prefix string) (map[string]string, []string, error) {
	r := partition.KeyRange{Lo: []byte(prefix)}
	if prefix != "" {
		r.Hi = append([]byte(prefix[:len(prefix)-1]), prefix[len(prefix)-1]+1)
	}
	return t.scanAt(ctx, client.ReadOptions{}, r)
}

// scanAt returns every pair of a range as a read of that kind shows it.
func (t *table) scanAt(ctx context.Context, o client.ReadOptions, r partition.KeyRange) (map[string]string, []string, error) {
	pairs, keys := map[string]string{}, []string{}
	for p, err := range t.kv.With(o).Scan(ctx, r, 0) {
		if err != nil {
			return nil, nil, err
		}
		pairs[string(p.Key)] = string(p.Value)
		keys = append(keys, string(p.Key))
	}
	if len(pairs) != len(keys) {
		return nil, nil, errors.New("a scan returned a key twice")
	}
	return pairs, keys, nil
}
