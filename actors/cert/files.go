package cert

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"pando.dev/pando/partition"
)

// reloadEvery is how often, at most, the files are looked at.
const reloadEvery = time.Second

// Files makes TLS configurations from the certificates in a directory and takes
// new ones over when the files change. Only TLS 1.3, no resumption: each
// connection proves its identity anew. Its methods may be called from any
// goroutine.
type Files struct {
	dir string
	log *slog.Logger
	now func() time.Time

	current atomic.Pointer[loaded]
	refused [reasons]atomic.Uint64
	reloads atomic.Uint64
	failed  atomic.Uint64

	mu     sync.Mutex // guards what follows
	looked time.Time
	seen   [3]stamp
}

// loaded is one state of the files.
type loaded struct {
	cert  tls.Certificate
	roots *x509.CertPool
	name  string
	role  Role
}

// stamp tells whether a file has changed.
type stamp struct {
	time time.Time
	size int64
}

// reason is why a certificate was refused.
type reason int

const (
	badOther reason = iota
	badExpired
	badAuthority
	badUsage
	badRole
	badName
	reasons
)

// Open reads the certificates in a directory. Logger is optional, now the clock
// (nil: the system's).
func Open(dir string, logger *slog.Logger, now func() time.Time) (*Files, error) {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	if now == nil {
		now = time.Now
	}
	f := &Files{dir: dir, log: logger, now: now}
	f.seen = f.stamps()
	f.looked = now()
	at, err := load(dir)
	if err != nil {
		return nil, err
	}
	if err := at.inTime(now()); err != nil {
		return nil, &partition.Error{Code: partition.CodeUnauthorized, Why: filepath.Join(dir, CertFile) + ": " + err.Error(),
			Next: "issue a new one with `pando cert`"}
	}
	f.current.Store(at)
	return f, nil
}

// Exist reports whether a directory holds certificates.
func Exist(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, CertFile))
	return !errors.Is(err, fs.ErrNotExist)
}

// load reads and checks the files.
func load(dir string) (*loaded, error) {
	root, err := readFile(dir, CAFile)
	if err != nil {
		return nil, err
	}
	certPEM, err := readFile(dir, CertFile)
	if err != nil {
		return nil, err
	}
	secret, err := readSecret(dir, KeyFile)
	if err != nil {
		return nil, err
	}
	roots, err := parseCerts(root)
	if err != nil {
		return nil, damaged(dir, CAFile, err)
	}
	at := &loaded{roots: x509.NewCertPool()}
	for _, r := range roots {
		at.roots.AddCert(r)
	}
	if at.cert, err = tls.X509KeyPair(certPEM, secret); err != nil {
		return nil, damaged(dir, CertFile, err)
	}
	if at.name, at.role, err = identify(at.cert.Leaf); err != nil {
		return nil, damaged(dir, CertFile, err)
	}
	return at, nil
}

func (l *loaded) inTime(now time.Time) error {
	if leaf := l.cert.Leaf; now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
		return fmt.Errorf("the certificate of %s holds from %s to %s", l.name, leaf.NotBefore.Format(time.RFC3339), leaf.NotAfter.Format(time.RFC3339))
	}
	return nil
}

// identify returns the one name and the one role of a certificate.
func identify(c *x509.Certificate) (string, Role, error) {
	if len(c.DNSNames) != 1 || len(c.Subject.OrganizationalUnit) != 1 || checkName("name", c.DNSNames[0]) != nil {
		return "", "", fmt.Errorf("a certificate with names %q and roles %q is none of this cluster", c.DNSNames, c.Subject.OrganizationalUnit)
	}
	role := Role(c.Subject.OrganizationalUnit[0])
	if role != Node && role != Client && role != Admin {
		return "", "", fmt.Errorf("a certificate with the unknown role %q", role)
	}
	return c.DNSNames[0], role, nil
}

// Name and Role are what the own certificate says.
func (f *Files) Name() string { return f.current.Load().name }

// Role is what the own certificate allows.
func (f *Files) Role() Role { return f.current.Load().role }

// Expires is when the own certificate ends to hold.
func (f *Files) Expires() time.Time { return f.fresh().cert.Leaf.NotAfter }

// Server is for connections that come in: from nodes, clients and admins of the
// cluster.
func (f *Files) Server() *tls.Config {
	at := f.fresh()
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{at.cert},
		ClientAuth:             tls.RequireAnyClientCert, // verified below, with the time and the reasons that we want
		SessionTicketsDisabled: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			return f.verify(at, s, x509.ExtKeyUsageClientAuth, "")
		},
	}
}

// Client is for connections to a node; it must prove to be n, or any node if n
// is empty.
func (f *Files) Client(n partition.NodeID) *tls.Config {
	at := f.fresh()
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		Certificates:       []tls.Certificate{at.cert},
		InsecureSkipVerify: true, // verified below: names here are node ids, not hosts
		VerifyConnection: func(s tls.ConnectionState) error {
			return f.verify(at, s, x509.ExtKeyUsageServerAuth, n)
		},
	}
}

// verify checks the other side's certificate against one state of the files.
func (f *Files) verify(at *loaded, s tls.ConnectionState, usage x509.ExtKeyUsage, want partition.NodeID) error {
	r, err := f.judge(at, s, usage, want)
	if err == nil {
		return nil
	}
	f.refused[r].Add(1)
	f.log.Warn("certificate refused", "err", err)
	return &partition.Error{Code: partition.CodeUnauthorized, Why: err.Error()}
}

func (f *Files) judge(at *loaded, s tls.ConnectionState, usage x509.ExtKeyUsage, want partition.NodeID) (reason, error) {
	if len(s.PeerCertificates) == 0 {
		return badOther, errors.New("no certificate was shown")
	}
	leaf := s.PeerCertificates[0]
	intermediates := x509.NewCertPool() // there are none in a cluster
	_, err := leaf.Verify(x509.VerifyOptions{Roots: at.roots, Intermediates: intermediates, CurrentTime: f.now(), KeyUsages: []x509.ExtKeyUsage{usage}})
	if err != nil {
		return classify(err), fmt.Errorf("the certificate of %q: %w", leaf.Subject.CommonName, err)
	}
	name, role, err := identify(leaf)
	switch {
	case err != nil:
		return badOther, err
	case usage == x509.ExtKeyUsageServerAuth && role != Node:
		return badRole, fmt.Errorf("%s has the role %s, not that of a node", name, role)
	case want != "" && name != string(want):
		return badName, fmt.Errorf("the certificate is for %s, not for node %s", name, want)
	}
	return 0, nil
}

func classify(err error) reason {
	var invalid x509.CertificateInvalidError
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return badExpired
	case errors.As(err, &invalid) && invalid.Reason == x509.IncompatibleUsage:
		return badUsage
	case errors.As(err, &unknown):
		return badAuthority
	}
	return badOther
}

// Peer tells who is at the other end of a connection that one of our
// configurations has verified.
func (f *Files) Peer(s tls.ConnectionState) (name string, r Role, err error) {
	if !s.HandshakeComplete || len(s.PeerCertificates) == 0 {
		return "", "", partition.Errorf(partition.CodeUnauthorized, "the connection is not secured")
	}
	return identify(s.PeerCertificates[0])
}

// fresh returns the newest state of the files that can be used.
func (f *Files) fresh() *loaded {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	if since := now.Sub(f.looked); since >= 0 && since < reloadEvery {
		return f.current.Load()
	}
	f.looked = now
	stamps := f.stamps()
	if slices.Equal(stamps[:], f.seen[:]) {
		return f.current.Load()
	}
	at, err := load(f.dir)
	if err == nil {
		err = at.inTime(now)
	}
	if old := f.current.Load(); err == nil && (at.name != old.name || at.role != old.role) {
		err = fmt.Errorf("it is for %s (%s) and not for %s (%s)", at.name, at.role, old.name, old.role)
	}
	if err != nil {
		// The files may be half replaced: look again, and go on with the old.
		f.failed.Add(1)
		f.log.Warn("changed certificates were not taken over", "dir", f.dir, "err", err)
		return f.current.Load()
	}
	f.seen = stamps
	f.current.Store(at)
	f.reloads.Add(1)
	f.log.Info("changed certificates were taken over", "dir", f.dir, "expires", at.cert.Leaf.NotAfter)
	return at
}

func (f *Files) stamps() (out [3]stamp) {
	for i, name := range []string{CAFile, CertFile, KeyFile} {
		if info, err := os.Stat(filepath.Join(f.dir, name)); err == nil {
			out[i] = stamp{info.ModTime(), info.Size()}
		}
	}
	return out
}

// Stats counts the certificates of others that were refused, by reason, and the
// changes of the own files.
type Stats struct {
	Expired, WrongAuthority, WrongUsage, WrongRole, WrongName, Other uint64
	Reloads, ReloadsFailed                                           uint64
}

// Stats returns the counters.
func (f *Files) Stats() Stats {
	n := func(r reason) uint64 { return f.refused[r].Load() }
	return Stats{
		Expired: n(badExpired), WrongAuthority: n(badAuthority), WrongUsage: n(badUsage), WrongRole: n(badRole), WrongName: n(badName),
		Other: n(badOther), Reloads: f.reloads.Load(), ReloadsFailed: f.failed.Load(),
	}
}
