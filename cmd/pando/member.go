package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"pando.dev/pando/actors"
	"pando.dev/pando/actors/httpapi"
)

// member is a node together with its HTTP front door.
type member struct {
	node *actors.Node
	web  *httpapi.Server
}

// memberConfig says how a member is started.
type memberConfig struct {
	node          actors.Config
	http          string // where HTTP listens
	httpAdvertise string // what others are told; empty: where it listens
	pprof         bool
	logger        *slog.Logger
}

// startMember listens for HTTP, starts the node and joins the two. What was
// begun is undone if a later step fails.
func startMember(ctx context.Context, cfg memberConfig) (*member, error) {
	security, err := nodeSecurity(cfg.node.TLSDir, cfg.logger)
	if err != nil {
		return nil, err
	}
	web, err := httpapi.Listen(httpapi.ServerConfig{Addr: cfg.http, TLS: security.tls, Logger: cfg.logger})
	if err != nil {
		return nil, err
	}
	m := &member{web: web}
	cfg.node.HTTP = cfg.httpAdvertise
	if cfg.node.HTTP == "" {
		cfg.node.HTTP = reachable(web.Addr(), cfg.node.Advertise)
	}
	if m.node, err = actors.Start(ctx, cfg.node); err != nil {
		return nil, errors.Join(err, m.stop(ctx))
	}
	handler, err := httpapi.New(httpapi.Config{
		Cluster: m.node, Catalog: m.node, Store: httpapi.ClientStore{Client: m.node.Client()}, Meter: m.node, Recovery: m.node,
		Operator: m.node, Balancer: m.node, Authorize: security.authorize, Logger: cfg.logger, Pprof: cfg.pprof,
	})
	if err != nil {
		return nil, errors.Join(err, m.stop(ctx))
	}
	web.SetHandler(handler)
	return m, nil
}

// reachable is addr with the host of advertise if addr itself is no address to
// dial.
func reachable(addr, advertise string) string {
	host, _, err := net.SplitHostPort(advertise)
	if err != nil || !everyInterface(addr) {
		return addr
	}
	_, port, _ := net.SplitHostPort(addr) // it was split before
	return net.JoinHostPort(host, port)
}

// stopWait bounds the orderly end of a node; what has not ended then is cut.
const stopWait = 15 * time.Second

// stop ends the node first, while /readyz and requests are still answered, and
// then the front door.
func (m *member) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWait)
	defer cancel()
	var errs []error
	if m.node != nil {
		errs = append(errs, m.node.Stop(ctx))
	}
	errs = append(errs, m.web.Shutdown(ctx))
	return errors.Join(errs...)
}

// waitReady waits until the node serves. Each new reason why it does not is
// told once.
func (m *member) waitReady(ctx context.Context, told func(why error)) error {
	last := ""
	ready := poll(ctx, func() bool {
		err := m.node.Started() // one that an operator has drained is there as well
		if err != nil && err.Error() != last {
			last = err.Error()
			told(err)
		}
		return err == nil
	})
	if !ready {
		return fmt.Errorf("node %s: %w", m.node.ID(), context.Cause(ctx))
	}
	return nil
}
