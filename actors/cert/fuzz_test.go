package cert

import (
	"bytes"
	"encoding/pem"
	"testing"
)

// FuzzPEM: what stands in the files of a certificate directory, whoever wrote
// it, is a certificate and a key or an error; it takes memory in proportion.
func FuzzPEM(f *testing.F) {
	a, err := NewAuthority("test", 0, nil)
	if err != nil {
		f.Fatal(err)
	}
	id, err := a.Issue("n1", Node, 0)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(id.Root)
	f.Add(append(bytes.Clone(id.Root), id.Cert...))
	f.Add(id.Key)
	f.Add(id.Key[:len(id.Key)/2])
	f.Add(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte{0x30, 0x84, 0xff, 0xff, 0xff, 0xff}}))
	f.Add(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte{0x30, 0x80}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		certs, err := parseCerts(b)
		if (err == nil) != (len(certs) > 0) {
			t.Fatalf("%d certificates, %v", len(certs), err)
		}
		for _, c := range certs {
			name, role, err := identify(c)
			if err == nil && (name == "" || len(name) > MaxNameBytes || role == "") {
				t.Fatalf("identified as %q, %q", name, role)
			}
		}
		if key, err := parseKey(b); err == nil && key.Public() == nil {
			t.Fatal("a key without a public one")
		}
	})
}
