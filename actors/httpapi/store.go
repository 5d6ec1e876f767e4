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

// table returns the table for one operation, whose answers go into shown.
func (s ClientStore) table(name string, o ReadOptions, shown *Shown) (client.KV, error) {
	c, err := o.of()
	if err != nil {
		return client.KV{}, err
	}
	c.Answered = shown.add
	shown.Token = o.Token
	return s.Client.KV(name).With(c), nil
}

// written is the table for what writes to it.
func (s ClientStore) written(name string, shown *Shown) client.KV {
	return s.Client.KV(name).With(client.ReadOptions{Answered: shown.add})
}

// Get reads one key.
func (s ClientStore) Get(ctx context.Context, table string, key []byte, o ReadOptions) (Value, error) {
	var shown Shown
	t, err := s.table(table, o, &shown)
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
	return Value{Bytes: a.Value, Version: newVersion(a.Version), Shown: shown}, nil
}

// Put stores one key if the condition holds.
func (s ClientStore) Put(ctx context.Context, table string, key, value []byte, c Condition) (Written, error) {
	var shown Shown
	t := s.written(table, &shown)
	if c == (Condition{}) {
		v, err := t.Put(ctx, key, value)
		if err != nil {
			return Written{}, err
		}
		return Written{newVersion(v), shown}, nil
	}
	cond, err := c.on(key)
	if err != nil {
		return Written{}, err
	}
	r, err := t.CompareAndSet(ctx, cond, value)
	if err != nil {
		return Written{}, err
	}
	return Written{newVersion(r.Version), shown}, c.held(key, r)
}

// Delete removes one key if the condition holds.
func (s ClientStore) Delete(ctx context.Context, table string, key []byte, c Condition) (shown Shown, err error) {
	t := s.written(table, &shown)
	if c == (Condition{}) {
		return shown, t.Delete(ctx, key)
	}
	cond, err := c.on(key)
	if err != nil {
		return shown, err
	}
	r, err := t.CompareAndDelete(ctx, cond)
	if err != nil {
		return shown, err
	}
	return shown, c.held(key, r)
}

// Scan reads pairs of a range in order.
func (s ClientStore) Scan(ctx context.Context, table string, r partition.KeyRange, limit int, o ReadOptions) (part Scanned, err error) {
	t, err := s.table(table, o, &part.Shown)
	if err != nil {
		return Scanned{}, err
	}
	bytes := 0
	for p, err := range t.Scan(ctx, r, limit) {
		if err != nil {
			return Scanned{}, err
		}
		part.Pairs = append(part.Pairs, KV{Key: p.Key, Value: p.Value})
		if bytes += len(p.Key) + len(p.Value); bytes >= maxScanBytes {
			part.More = true
			return part, nil
		}
	}
	part.More = len(part.Pairs) == limit
	return part, nil
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
