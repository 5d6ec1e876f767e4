package actors_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"

	"pando.dev/pando/actors"
	"pando.dev/pando/actors/client"
	"pando.dev/pando/partition"
)

// counter is a partition kind: a command names a key and adds one to it.
type counter struct{}

func (counter) Apply(w partition.Writer, c partition.Command) ([]byte, error) {
	old, _, err := w.Get(c.Payload)
	if err != nil {
		return nil, err
	}
	n, _ := strconv.Atoi(string(old))
	next := []byte(strconv.Itoa(n + 1))
	return next, w.Set(c.Payload, next)
}

func (counter) Read(r partition.Reader, key []byte) ([]byte, error) {
	n, _, err := r.Get(key)
	return bytes.Clone(n), err
}

// A node of its own with a partition kind of one's own: every visit is counted
// once, however often the client had to send it.
func Example() {
	dir, err := os.MkdirTemp("", "pando-example-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	if err := visit(context.Background(), dir); err != nil {
		fmt.Println(err)
	}
	// Output: home was visited 2 times
}

func visit(ctx context.Context, dir string) error {
	kinds := map[string]partition.Factory{"counter": func(partition.Spec) (partition.Partition, error) { return counter{}, nil }}
	node, err := actors.Start(ctx, actors.Config{
		Dir: dir, Expect: 1, Kinds: kinds, Listen: "127.0.0.1:0", Gossip: "127.0.0.1:0", WALSegmentBytes: 1 << 20,
	})
	if err != nil {
		return err
	}
	defer node.Stop(ctx)
	if _, err := node.CreateTable(ctx, actors.TableSpec{Name: "visits", Kind: "counter"}); err != nil {
		return err
	}
	home := []byte("home")
	for range 2 {
		if _, err := node.Client().Propose(ctx, "visits", home, home); err != nil {
			return err
		}
	}
	res, err := node.Client().Read(ctx, "visits", home, home, client.ReadOptions{})
	if err != nil {
		return err
	}
	fmt.Printf("home was visited %s times\n", res.Body)
	return nil
}
