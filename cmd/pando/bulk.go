package main

import (
	"context"
	"net"
	"time"

	"github.com/spf13/cobra"

	"pando.dev/pando/actors/client"
	"pando.dev/pando/actors/httpapi"
	"pando.dev/pando/actors/link"
	"pando.dev/pando/partition"
)

// bulkTarget is a table as load and export reach it: each partition's master
// directly, over the binary protocol.
type bulkTarget struct {
	client  *client.Client
	store   httpapi.Store
	cluster string
	group   partition.GroupID // the table's first partition
}

// openTable asks a node over HTTP who is there, and connects to the table.
func (c *cli) openTable(cmd *cobra.Command, table string) (*bulkTarget, error) {
	api, err := c.api()
	if err != nil {
		return nil, err
	}
	ctx, cancel := c.within(cmd)
	defer cancel()
	status, err := api.Status(ctx)
	if err != nil {
		return nil, err
	}
	t, err := findTable(ctx, api, table)
	if err != nil {
		return nil, err
	}
	ms, err := api.Members(ctx)
	if err != nil {
		return nil, err
	}
	var addrs []string
	for _, m := range ms {
		if m.Link != "" && m.Status == "alive" {
			addrs = append(addrs, m.Link)
		}
	}
	b := &bulkTarget{cluster: status.Cluster}
	if len(t.Partitions) > 0 {
		b.group = t.Partitions[0]
	}
	dial, err := c.dialer(status.Cluster)
	if err != nil {
		return nil, err
	}
	if b.client, err = client.Open(ctx, client.Config{Addrs: addrs, Dial: dial, Timeout: time.Minute}); err != nil {
		return nil, err
	}
	b.store = httpapi.ClientStore{Client: b.client}
	return b, nil
}

// dialer opens binary client connections, with this user's certificate if there
// is one.
func (c *cli) dialer(cluster string) (client.Dialer, error) {
	cfg := link.ClientConfig{Cluster: cluster}
	if c.tlsDir != "" {
		var err error
		if cfg.TLS, err = linkTLS(c.tlsDir); err != nil {
			return nil, err
		}
	}
	return func(ctx context.Context, addr string) (net.Conn, error) { return link.DialClient(ctx, addr, cfg) }, nil
}
