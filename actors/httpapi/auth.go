package httpapi

import (
	"crypto/x509"
	"fmt"
	"net/http"

	"pando.dev/pando/partition"
)

// AuthorizeCertificates returns the Authorize of a server with certificates:
// roles reads the roles out of a verified client certificate. RoleAdmin may do
// everything, RoleClient everything that wants RoleClient.
func AuthorizeCertificates(roles func(*x509.Certificate) ([]Role, error)) func(*http.Request, Role) error {
	return func(r *http.Request, need Role) error {
		if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 || len(r.TLS.PeerCertificates) == 0 {
			return &partition.Error{
				Code: partition.CodeUnauthorized, Why: "no client certificate was given",
				Next: "make one with pando cert client and give --tls-dir",
			}
		}
		has, err := roles(r.TLS.PeerCertificates[0])
		if err != nil {
			return fmt.Errorf("read the client certificate: %w", err)
		}
		for _, x := range has {
			if x == need || x == RoleAdmin {
				return nil
			}
		}
		return &partition.Error{
			Code: partition.CodeUnauthorized, Why: fmt.Sprintf("this wants the role %s, the certificate has %v", need, has),
			Next: "make a certificate with that role: pando cert client --role " + string(need),
		}
	}
}
