package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pando.dev/pando/actors/httpapi"
)

// api returns the HTTP client of the nodes in --addr.
func (c *cli) api() (*httpapi.Client, error) {
	var addrs []string
	for _, a := range c.addrs {
		// What nodes print with a scheme may be given with it.
		a = strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(strings.TrimSpace(a), "http://"), "https://"), "/")
		if a == "" {
			continue
		}
		if _, _, err := net.SplitHostPort(a); err != nil {
			return nil, invalid("give --addr host:port,... with the HTTP addresses of nodes", "address %q is not host:port", a)
		}
		addrs = append(addrs, a)
	}
	t := &http.Transport{DialContext: (&net.Dialer{Timeout: 2 * time.Second}).DialContext, MaxIdleConnsPerHost: 4}
	if c.tlsDir != "" {
		cfg, err := clientTLS(c.tlsDir)
		if err != nil {
			return nil, err
		}
		t.TLSClientConfig = cfg
	}
	return &httpapi.Client{Addrs: addrs, HTTP: &http.Client{Transport: t}, TLS: c.tlsDir != ""}, nil
}

// asking is how a command runs that asks the nodes in --addr.
func (c *cli) asking(run func(cmd *cobra.Command, args []string, api *httpapi.Client) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		api, err := c.api()
		if err != nil {
			return err
		}
		return run(cmd, args, api)
	}
}

// showAnswer asks within --timeout, and shows what is answered.
func showAnswer[T any](c *cli, cmd *cobra.Command, ask func(context.Context) (T, error), table func(io.Writer, T)) error {
	ctx, cancel := c.within(cmd)
	defer cancel()
	v, err := ask(ctx)
	if err != nil {
		return err
	}
	return c.show(v, func(w io.Writer) { table(w, v) })
}
