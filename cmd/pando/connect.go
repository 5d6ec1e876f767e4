package main

import (
	"net"
	"net/http"
	"strings"
	"time"

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
