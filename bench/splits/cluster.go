package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"pando.dev/pando/actors"
	"pando.dev/pando/actors/client"
	"pando.dev/pando/actors/link"
	"pando.dev/pando/partition"
)

const (
	clusterName = "bench"
	tableName   = "t"
	// stopWait bounds the end of a node.
	stopWait = 20 * time.Second
)

// cluster is a number of nodes in this process and a client outside of them.
type cluster struct {
	dir    string
	nodes  []*actors.Node
	events *events
	client *client.Client
}

// startCluster starts nodes below a directory of its own.
func startCluster(ctx context.Context, dir string, size int, segment int64) (c *cluster, err error) {
	c = &cluster{events: &events{}}
	if c.dir, err = os.MkdirTemp(dir, "pando-splits-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.close())
		}
	}()
	var join, addrs []string
	for i := range size {
		n, err := actors.Start(ctx, actors.Config{
			Dir: filepath.Join(c.dir, fmt.Sprintf("n%d", i+1)), Cluster: clusterName, NodeID: partition.NodeID(fmt.Sprintf("n%d", i+1)),
			Listen: "127.0.0.1:0", Gossip: "127.0.0.1:0", Join: join, Expect: 3, WALSegmentBytes: segment,
			Logger: slog.New(&recorder{to: c.events}),
		})
		if err != nil {
			return c, err
		}
		c.nodes, join, addrs = append(c.nodes, n), append(join, n.GossipAddr()), append(addrs, n.LinkAddr())
	}
	c.client, err = client.Open(ctx, client.Config{
		Addrs: addrs, Timeout: 30 * time.Second,
		Dial: func(ctx context.Context, addr string) (net.Conn, error) {
			return link.DialClient(ctx, addr, link.ClientConfig{Cluster: clusterName})
		},
	})
	return c, err
}

// table makes the table on the first nodes and waits until it takes writes.
func (c *cluster) table(ctx context.Context, nodes int) (partition.GroupID, error) {
	spec := actors.TableSpec{Name: tableName, Replicas: nodes, Splits: actors.SplitPolicy{Mode: "off"}}
	for _, n := range c.nodes[:nodes] {
		spec.Nodes = append(spec.Nodes, n.ID())
	}
	for {
		info, err := c.nodes[0].CreateTable(ctx, spec)
		if err == nil {
			_, err = c.client.KV(tableName).Put(ctx, []byte("first"), nil)
			return info.Partitions[0], err
		}
		select {
		case <-ctx.Done():
			return 0, err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// close stops the nodes and removes what they have written.
func (c *cluster) close() error {
	var errs []error
	if c.client != nil {
		c.client.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopWait)
	defer cancel()
	for _, n := range c.nodes {
		errs = append(errs, n.Stop(ctx))
	}
	return errors.Join(append(errs, os.RemoveAll(c.dir))...)
}

// split divides a partition, waits for the end and says when it began and ended.
func (c *cluster) split(ctx context.Context, r actors.SplitRequest) (info actors.SplitInfo, from, to time.Time, err error) {
	from = time.Now()
	if info, err = c.nodes[0].Split(ctx, r); err == nil {
		info, err = c.nodes[0].AwaitSplit(ctx, info.Task)
	}
	return info, from, time.Now(), err
}
