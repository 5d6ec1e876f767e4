package httpapi

import (
	"context"
	"fmt"
	"strconv"

	"pando.dev/pando/actors/client"
	"pando.dev/pando/partition"
	"pando.dev/pando/partition/kv"
)

// maxScanBytes bounds the keys and values of one answer of ClientStore.Scan,
// but for the last pair.
const maxScanBytes = 4 << 20

// ClientStore is the Store behind a client of the cluster.
type ClientStore struct {
	Client *client.Client
}

var _ Store = ClientStore{}

func (s ClientStore) table(name string, l Level) (client.KV, error) {
	t := s.Client.KV(name)
	switch l {
	case "", LevelLease:
		return t, nil
	case LevelQuorum:
		return t.At(client.Quorum), nil
	}
	return t, invalid("use lease or quorum", "read level %q is unknown", l)
}

// Get reads one key.
func (s ClientStore) Get(ctx context.Context, table string, key []byte, l Level) (Value, error) {
	t, err := s.table(table, l)
	if err != nil {
		return Value{}, err
	}
	a, err := t.Get(ctx, key)
	if err != nil {
		return Value{}, err
	}
	if !a.Found {
		return Value{}, partition.Errorf(partition.CodeNotFound, "table %q has no key %q", table, key)
	}
	return Value{Bytes: a.Value, Version: newVersion(a.Version)}, nil
}

// Put stores one key if the condition holds.
func (s ClientStore) Put(ctx context.Context, table string, key, value []byte, c Condition) (Version, error) {
	t := s.Client.KV(table)
	if c == (Condition{}) {
		v, err := t.Put(ctx, key, value)
		if err != nil {
			return "", err
		}
		return newVersion(v), nil
	}
	cond, err := c.on(key)
	if err != nil {
		return "", err
	}
	r, err := t.CompareAndSet(ctx, cond, value)
	if err != nil {
		return "", err
	}
	return newVersion(r.Version), c.held(key, r)
}

// Delete removes one key if the condition holds.
func (s ClientStore) Delete(ctx context.Context, table string, key []byte, c Condition) error {
	t := s.Client.KV(table)
	if c == (Condition{}) {
		return t.Delete(ctx, key)
	}
	cond, err := c.on(key)
	if err != nil {
		return err
	}
	r, err := t.CompareAndDelete(ctx, cond)
	if err != nil {
		return err
	}
	return c.held(key, r)
}

// Scan reads pairs of a range in order.
func (s ClientStore) Scan(ctx context.Context, table string, r partition.KeyRange, limit int, l Level) ([]KV, bool, error) {
	t, err := s.table(table, l)
	if err != nil {
		return nil, false, err
	}
	var pairs []KV
	bytes := 0
	for p, err := range t.Scan(ctx, r, limit) {
		if err != nil {
			return nil, false, err
		}
		pairs = append(pairs, KV{Key: p.Key, Value: p.Value})
		if bytes += len(p.Key) + len(p.Value); bytes >= maxScanBytes {
			return pairs, true, nil
		}
	}
	return pairs, len(pairs) == limit, nil
}

func newVersion(v kv.Version) Version { return Version(strconv.FormatUint(uint64(v), 10)) }

// on is the condition as the table checks it.
func (c Condition) on(key []byte) (kv.Condition, error) {
	if c.Absent {
		return kv.IfAbsent(key), nil
	}
	v, err := strconv.ParseUint(string(c.Version), 10, 64)
	if err != nil {
		return kv.Condition{}, invalid("give the version that a read of the key returned", "%q is not a version", c.Version)
	}
	return kv.IfVersion(key, kv.Version(v)), nil
}

// held turns a condition that did not hold into its error.
func (c Condition) held(key []byte, r kv.Result) error {
	switch {
	case r.Applied:
		return nil
	case c.Absent:
		return &partition.Error{
			Code: partition.CodeRefused, Why: fmt.Sprintf("key %q exists, with version %d", key, r.Current), Next: "nothing was written",
		}
	case r.Current == 0:
		return &partition.Error{
			Code: partition.CodeRefused, Why: fmt.Sprintf("key %q does not exist, so it has no version %s", key, c.Version), Next: "nothing was written",
		}
	}
	return &partition.Error{
		Code: partition.CodeRefused, Why: fmt.Sprintf("key %q has version %d, not %s", key, r.Current, c.Version),
		Next: "nothing was written; read it again and decide anew",
	}
}
