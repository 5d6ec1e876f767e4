package client

import (
	"context"
	"strings"
	"testing"
	"time"

	"pando.dev/pando/partition"
	"pando.dev/pando/partition/kv"
)

// TestKVRefusesBeforeItSends: what no partition would take is refused here, with
// the same code whatever the call, and nothing is sent.
func TestKVRefusesBeforeItSends(t *testing.T) {
	inKV(t, func(t *testing.T, c *cluster, table KV) {
		ctx := within(t, time.Minute)
		long := []byte(strings.Repeat("k", kv.MaxKeyBytes+1))
		big := make([]byte, kv.MaxValueBytes+1)
		for name, do := range map[string]func() error{
			"put":                         func() error { _, err := table.Put(ctx, long, nil); return err },
			"put of too much":             func() error { _, err := table.Put(ctx, []byte("k"), big); return err },
			"get":                         func() error { _, err := table.Get(ctx, long); return err },
			"delete":                      func() error { return table.Delete(ctx, long) },
			"compare and set":             func() error { _, err := table.CompareAndSet(ctx, kv.IfAbsent(long), nil); return err },
			"compare and set of too much": func() error { _, err := table.CompareAndSet(ctx, kv.IfAbsent([]byte("k")), big); return err },
			"compare and delete":          func() error { _, err := table.CompareAndDelete(ctx, kv.IfVersion(long, 1)); return err },
			"batch": func() error {
				b := &kv.Batch{}
				b.Put(long, nil)
				_, err := table.Batch(ctx, b)
				return err
			},
		} {
			if err := do(); partition.CodeOf(err) != partition.CodeTooLarge {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := table.Batch(ctx, &kv.Batch{}); partition.CodeOf(err) != partition.CodeInvalid {
			t.Errorf("an empty batch: %v", err)
		}
		gone, cancel := context.WithCancel(ctx)
		cancel()
		if err := table.DeleteRange(gone, partition.KeyRange{Lo: []byte("a")}); err == nil {
			t.Error("a range was deleted for nobody")
		}
		if _, err := table.Put(ctx, []byte("k"), []byte("v")); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}
