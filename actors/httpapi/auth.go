package httpapi

import (
	"crypto/tls"
	"fmt"
	"net/http"

	"pando.dev/pando/actors/cert"
	"pando.dev/pando/partition"
)

// Certificates is what a secured server needs of a cluster's certificates. Both
// are asked for anew for each connection, so certificates may change.
type Certificates interface {
	// Server demands a client certificate and verifies it.
	Server() *tls.Config
	// Peer tells who is at the other end of a connection that was verified.
	Peer(tls.ConnectionState) (name string, r cert.Role, err error)
}

var _ Certificates = (*cert.Files)(nil)

// ServerTLS is the TLS of a Server with certificates: a client may come without
// one, and then has only what everybody may have; one that is shown must be
// good.
func ServerTLS(c Certificates) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			cfg := c.Server().Clone()
			verify := cfg.VerifyConnection
			cfg.ClientAuth = tls.RequestClientCert
			cfg.NextProtos = []string{"http/1.1"}
			cfg.VerifyConnection = func(s tls.ConnectionState) error {
				if len(s.PeerCertificates) == 0 {
					return nil
				}
				return verify(s)
			}
			return cfg, nil
		},
	}
}

// AuthorizeCertificates is the Authorize of a handler behind ServerTLS. An admin
// may do everything, a client what wants that role, a node nothing: it has its
// links.
func AuthorizeCertificates(c Certificates) func(*http.Request, cert.Role) error {
	return func(r *http.Request, need cert.Role) error {
		if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
			return &partition.Error{
				Code: partition.CodeUnauthorized, Why: "no client certificate was given",
				Next: "make one with pando cert client and give --tls-dir",
			}
		}
		name, has, err := c.Peer(*r.TLS)
		if err != nil {
			return err
		}
		if has == need || has == cert.Admin {
			return nil
		}
		return &partition.Error{
			Code: partition.CodeUnauthorized, Why: fmt.Sprintf("this wants the role %s, %s has %s", need, name, has),
			Next: "make a certificate with that role: pando cert client --role " + string(need),
		}
	}
}
