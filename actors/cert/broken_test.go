package cert

import (
	"crypto/ecdh"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pando.dev/pando/partition"
)

// block is a PEM block.
func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// TestBrokenAuthority: whatever is wrong with an authority's files, it is not
// opened, and the error names the file.
func TestBrokenAuthority(t *testing.T) {
	exchange, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(exchange)
	if err != nil {
		t.Fatal(err)
	}
	other, err := NewAuthority("other", 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(dir string) error{
		"no certificate":           func(dir string) error { return os.Remove(filepath.Join(dir, CAFile)) },
		"no key":                   func(dir string) error { return os.Remove(filepath.Join(dir, CAKeyFile)) },
		"a certificate of nothing": func(dir string) error { return os.WriteFile(filepath.Join(dir, CAFile), nil, 0o600) },
		"a certificate of garbage": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, CAFile), block("CERTIFICATE", []byte{1}), 0o600)
		},
		"another certificate": func(dir string) error { return os.WriteFile(filepath.Join(dir, CAFile), other.Root(), 0o600) },
		"a key of nothing":    func(dir string) error { return os.WriteFile(filepath.Join(dir, CAKeyFile), nil, 0o600) },
		"a key of garbage": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, CAKeyFile), block("PRIVATE KEY", []byte{1}), 0o600)
		},
		"a key that cannot sign": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, CAKeyFile), block("PRIVATE KEY", der), 0o600)
		},
		"a key that others read":    func(dir string) error { return os.Chmod(filepath.Join(dir, CAKeyFile), 0o644) },
		"a directory as its key":    func(dir string) error { return replaceByDir(filepath.Join(dir, CAKeyFile)) },
		"a file as its directory":   func(dir string) error { return errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o600)) },
		"a certificate of 100 MB":   func(dir string) error { return os.Truncate(filepath.Join(dir, CAFile), 100<<20) },
		"a key where none can read": func(dir string) error { return loop(filepath.Join(dir, CAKeyFile)) },
	} {
		dir := filepath.Join(t.TempDir(), "ca")
		a, err := NewAuthority("test", 0, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Write(dir); err != nil {
			t.Fatal(err)
		}
		if err := spoil(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenAuthority(dir); err == nil {
			t.Errorf("%s: it was opened", name)
		}
	}
}

func replaceByDir(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) }

// loop is a link to itself.
func loop(path string) error { return errors.Join(os.Remove(path), os.Symlink(path, path)) }

// TestWriteInTheWay: files that cannot be put in place are an error, and nothing
// half written remains.
func TestWriteInTheWay(t *testing.T) {
	a, err := NewAuthority("test", 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	id, err := a.Issue("n1", Node, 0)
	if err != nil {
		t.Fatal(err)
	}
	under := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(under, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := id.Write(filepath.Join(under, "dir")); err == nil {
		t.Error("written below a file")
	}
	if err := Trust(under, a.Root()); err == nil {
		t.Error("trusted below a file")
	}
	if err := Trust(t.TempDir(), []byte("none")); partition.CodeOf(err) != partition.CodeInvalid {
		t.Errorf("trusted garbage: %v", err)
	}
	if err := Trust(t.TempDir(), a.Root()); partition.CodeOf(err) != partition.CodeNotFound {
		t.Errorf("trusted where nothing is: %v", err)
	}
	for _, name := range []string{CAFile, KeyFile, CertFile} {
		dir := t.TempDir()
		if err := os.MkdirAll(filepath.Join(dir, name, "x"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := id.Write(dir); err == nil {
			t.Errorf("%s: a directory was replaced", name)
		}
		left, err := filepath.Glob(filepath.Join(dir, ".*"))
		if err != nil || len(left) > 0 {
			t.Errorf("%s: left %v, %v", name, left, err)
		}
	}
	if _, err := a.Issue("", Node, 0); partition.CodeOf(err) != partition.CodeInvalid {
		t.Errorf("no name: %v", err)
	}
	if _, err := a.Issue("n", "king", 0); partition.CodeOf(err) != partition.CodeInvalid {
		t.Errorf("no role: %v", err)
	}
	if _, err := NewAuthority("", 0, nil); partition.CodeOf(err) != partition.CodeInvalid {
		t.Errorf("no cluster: %v", err)
	}
}

// TestBrokenIdentity: a node with a certificate directory that is damaged in any
// way does not start with it.
func TestBrokenIdentity(t *testing.T) {
	a, err := NewAuthority("test", 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	id, err := a.Issue("n1", Node, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	strange, err := a.sign(&x509.Certificate{DNSNames: []string{"a", "b"}}, a.key.Public(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for name, files := range map[string]map[string][]byte{
		"another key":           {KeyFile: mustKey(t, a)},
		"garbage for a key":     {KeyFile: []byte("key")},
		"garbage for the cert":  {CertFile: []byte("cert")},
		"garbage in the cert":   {CertFile: block("CERTIFICATE", []byte{0x30, 0})},
		"garbage for the roots": {CAFile: []byte("roots")},
		"two names":             {CertFile: block("CERTIFICATE", strange), KeyFile: mustAuthorityKey(t, a)},
	} {
		dir := t.TempDir()
		if err := id.Write(dir); err != nil {
			t.Fatal(err)
		}
		for file, b := range files {
			if err := os.WriteFile(filepath.Join(dir, file), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := load(dir); err == nil {
			t.Errorf("%s: it was loaded", name)
		}
	}
	for _, file := range []string{CAFile, KeyFile, CertFile} {
		dir := t.TempDir()
		if err := id.Write(dir); err != nil {
			t.Fatal(err)
		}
		if err := replaceByDir(filepath.Join(dir, file)); err != nil {
			t.Fatal(err)
		}
		if _, err := load(dir); err == nil {
			t.Errorf("%s is a directory and was loaded", file)
		}
	}
}

func mustKey(t *testing.T, a *Authority) []byte {
	t.Helper()
	id, err := a.Issue("n2", Node, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return id.Key
}

func mustAuthorityKey(t *testing.T, a *Authority) []byte {
	t.Helper()
	b, err := keyPEM(a.key)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
