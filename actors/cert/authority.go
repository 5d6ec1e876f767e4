package cert

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"pando.dev/pando/partition"
)

// Files of a directory with certificates. CAFile holds the authorities that are
// trusted, one or, during a rotation, two.
const (
	CAFile   = "ca.pem"
	CertFile = "cert.pem"
	KeyFile  = "key.pem"
	// CAKeyFile is the authority's own; it belongs on no node.
	CAKeyFile = "ca-key.pem"
)

const (
	// DefaultAuthorityValid and DefaultValid are how long certificates hold.
	DefaultAuthorityValid = 10 * 365 * 24 * time.Hour
	DefaultValid          = 365 * 24 * time.Hour
	// backdate allows for clocks of nodes that are behind.
	backdate = 5 * time.Minute
	// MaxNameBytes bounds the name in a certificate.
	MaxNameBytes = partition.MaxNodeIDBytes
	// maxFileBytes bounds what is read from a file.
	maxFileBytes = 1 << 20
)

// Authority signs the certificates of one cluster.
type Authority struct {
	cluster string
	cert    *x509.Certificate
	pem     []byte // of cert
	key     crypto.Signer
	now     func() time.Time
}

// NewAuthority makes an authority. valid is how long it holds (0:
// DefaultAuthorityValid), now the clock (nil: the system's).
func NewAuthority(cluster string, valid time.Duration, now func() time.Time) (*Authority, error) {
	if now == nil {
		now = time.Now
	}
	if valid == 0 {
		valid = DefaultAuthorityValid
	}
	if err := checkName("cluster", cluster); err != nil {
		return nil, err
	}
	key := newKey()
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "pando authority", Organization: []string{cluster}},
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true, // it signs no other authorities
	}
	a := &Authority{cluster: cluster, cert: template, key: key, now: now}
	der, err := a.sign(template, key.Public(), valid)
	if err == nil {
		a.cert, err = x509.ParseCertificate(der)
	}
	if err != nil {
		return nil, err
	}
	a.pem = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return a, nil
}

// newKey makes a key.
func newKey() ed25519.PrivateKey {
	seed := make([]byte, ed25519.SeedSize)
	rand.Read(seed) // never fails
	return ed25519.NewKeyFromSeed(seed)
}

// sign completes a template with serial number and time and signs it.
func (a *Authority) sign(t *x509.Certificate, public crypto.PublicKey, valid time.Duration) ([]byte, error) {
	if valid < 0 {
		return nil, partition.Errorf(partition.CodeInvalid, "a certificate that holds for %v", valid)
	}
	var serial [16]byte
	rand.Read(serial[:])         // never fails
	serial[0] = serial[0]>>2 | 1 // positive, and never nothing
	now := a.now()
	t.SerialNumber, t.NotBefore, t.NotAfter = new(big.Int).SetBytes(serial[:]), now.Add(-backdate), now.Add(valid)
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, public, a.key)
	if err != nil {
		return nil, fmt.Errorf("sign a certificate: %w", err)
	}
	return der, nil
}

// Cluster is the cluster that the authority is for.
func (a *Authority) Cluster() string { return a.cluster }

// Root returns the authority's certificate as CAFile holds it.
func (a *Authority) Root() []byte { return a.pem }

// Write keeps the authority in a directory. An authority that is there already
// stays: that is a CodeExists.
func (a *Authority) Write(dir string) error {
	key, err := keyPEM(a.key)
	if err != nil {
		return err
	}
	return writeAll(dir, false, file{CAKeyFile, key}, file{CAFile, a.pem})
}

// OpenAuthority reads the authority kept in a directory.
func OpenAuthority(dir string) (*Authority, error) {
	root, err := readFile(dir, CAFile)
	if err != nil {
		return nil, err
	}
	secret, err := readSecret(dir, CAKeyFile)
	if err != nil {
		return nil, err
	}
	certs, err := parseCerts(root)
	if err != nil {
		return nil, damaged(dir, CAFile, err)
	}
	key, err := parseKey(secret)
	if err != nil {
		return nil, damaged(dir, CAKeyFile, err)
	}
	for _, c := range certs {
		if public, ok := key.Public().(ed25519.PublicKey); ok && public.Equal(c.PublicKey) && c.IsCA && len(c.Subject.Organization) == 1 {
			block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
			return &Authority{cluster: c.Subject.Organization[0], cert: c, pem: block, key: key, now: time.Now}, nil
		}
	}
	return nil, damaged(dir, CAFile, errors.New("no authority in it belongs to the key"))
}

// Identity is a certificate with its key and the authorities to trust.
type Identity struct {
	Root, Cert, Key []byte // PEM
}

// Issue makes a certificate for a name: of a node its id. valid is how long it
// holds; 0 means DefaultValid.
func (a *Authority) Issue(name string, role Role, valid time.Duration) (*Identity, error) {
	if err := checkName("name", name); err != nil {
		return nil, err
	}
	usage := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	switch role {
	case Node:
		usage = append(usage, x509.ExtKeyUsageServerAuth)
	case Client, Admin:
	default:
		return nil, partition.Errorf(partition.CodeInvalid, "no certificate for role %q; there are %s, %s and %s", role, Node, Client, Admin)
	}
	if valid == 0 {
		valid = DefaultValid
	}
	key := newKey()
	der, err := a.sign(&x509.Certificate{
		Subject:               pkix.Name{CommonName: name, Organization: []string{a.cluster}, OrganizationalUnit: []string{string(role)}},
		DNSNames:              []string{name},
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           usage,
		BasicConstraintsValid: true,
	}, key.Public(), valid)
	if err != nil {
		return nil, err
	}
	secret, err := keyPEM(key)
	if err != nil {
		return nil, err
	}
	return &Identity{Root: a.pem, Cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), Key: secret}, nil
}

// Write puts the identity into a directory, replacing the one that is there. A
// node that uses the directory takes it over by itself.
func (i *Identity) Write(dir string) error {
	return writeAll(dir, true, file{CAFile, i.Root}, file{KeyFile, i.Key}, file{CertFile, i.Cert})
}

// Trust adds the authorities in root to those that a directory trusts. A
// rotation first trusts the new authority everywhere, then replaces the
// certificates, and last writes each directory anew without the old one.
func Trust(dir string, root []byte) error {
	if _, err := parseCerts(root); err != nil {
		return partition.Errorf(partition.CodeInvalid, "the authority to trust: %v", err)
	}
	old, err := readFile(dir, CAFile)
	if err != nil {
		return err
	}
	return writeAll(dir, true, file{CAFile, append(append(old[:len(old):len(old)], '\n'), root...)})
}

func checkName(what, s string) error {
	if s == "" || len(s) > MaxNameBytes {
		return partition.Errorf(partition.CodeInvalid, "%s of %d bytes, allowed are 1 to %d", what, len(s), MaxNameBytes)
	}
	for _, r := range s {
		if r <= ' ' || r > '~' {
			return partition.Errorf(partition.CodeInvalid, "%s %q has other than printable ASCII characters", what, s)
		}
	}
	return nil
}

func keyPEM(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode a key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func parseKey(b []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, errors.New("it holds no private key")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("parse the key: %w", err)
	}
	s, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a key of type %T cannot sign", key)
	}
	return s, nil
}

// parseCerts reads one certificate or more.
func parseCerts(b []byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for len(b) > 0 {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("parse a certificate: %w", err)
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, errors.New("it holds no certificate")
	}
	return out, nil
}

func damaged(dir, name string, err error) error {
	return &partition.Error{Code: partition.CodeCorrupt, Why: fmt.Sprintf("%s: %v", filepath.Join(dir, name), err),
		Next: "make it anew with `pando cert`"}
}

type file struct {
	name  string
	bytes []byte
}

// writeAll writes files that only the owner may read, each as a whole or not at
// all.
func writeAll(dir string, replace bool, files ...file) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make directory %s: %w", dir, err)
	}
	for _, f := range files {
		if err := writeFile(dir, f, replace); err != nil {
			return err
		}
	}
	return nil
}

func writeFile(dir string, f file, replace bool) error {
	path := filepath.Join(dir, f.name)
	temp, err := os.CreateTemp(dir, "."+f.name+".*") // 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(temp.Name())
	_, err = temp.Write(f.bytes)
	if err = errors.Join(err, temp.Sync(), temp.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if replace {
		err = os.Rename(temp.Name(), path)
	} else {
		err = os.Link(temp.Name(), path) // fails if it is there
	}
	if errors.Is(err, fs.ErrExist) {
		return &partition.Error{Code: partition.CodeExists, Why: path + " is there already", Next: "use it, or choose another directory"}
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func readFile(dir, name string) ([]byte, error) {
	path := filepath.Join(dir, name)
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, &partition.Error{Code: partition.CodeNotFound, Why: "there is no " + path, Next: "make certificates with `pando cert`"}
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", path, err)
	case !info.Mode().IsRegular() || info.Size() > maxFileBytes:
		return nil, damaged(dir, name, fmt.Errorf("it is no file of at most %d bytes", maxFileBytes))
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return b, nil
}

// readSecret is readFile for what nobody else may read.
func readSecret(dir, name string) ([]byte, error) {
	path := filepath.Join(dir, name)
	if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o077 != 0 {
		return nil, &partition.Error{Code: partition.CodeRefused, Why: fmt.Sprintf("%s may be read by others (mode %04o)", path, info.Mode().Perm()),
			Next: "run chmod 600 on it, and make it anew if others had access"}
	}
	return readFile(dir, name)
}
