package httpapi_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"pando.dev/pando/actors"
	"pando.dev/pando/actors/cert"
	"pando.dev/pando/actors/httpapi"
	"pando.dev/pando/partition"
)

// newFiles makes an authority's certificate in a directory of its own.
func newFiles(t testing.TB, ca *cert.Authority, name string, role cert.Role) *cert.Files {
	t.Helper()
	id, err := ca.Issue(name, role, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := id.Write(dir); err != nil {
		t.Fatal(err)
	}
	f, err := cert.Open(dir, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func newAuthority(t testing.TB) *cert.Authority {
	t.Helper()
	ca, err := cert.NewAuthority("c", time.Hour, nil)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// TestSecured: over real TLS a good certificate gets what its role may have,
// another authority's gets nothing, and health is for everybody.
func TestSecured(t *testing.T) {
	ca, foreign := newAuthority(t), newAuthority(t)
	files := newFiles(t, ca, "n1", cert.Node)
	s, err := httpapi.Listen(httpapi.ServerConfig{Addr: "127.0.0.1:0", TLS: httpapi.ServerTLS(files)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	}()
	s.SetHandler(newHandler(t, newTwin("t"), func(c *httpapi.Config) { c.Authorize = httpapi.AuthorizeCertificates(files) }))
	as := func(f *cert.Files, withCert bool) *httpapi.Client {
		cfg := f.Client("")
		if !withCert {
			cfg.Certificates = nil
		}
		return &httpapi.Client{Addrs: []string{s.Addr()}, TLS: true, HTTP: &http.Client{Transport: &http.Transport{TLSClientConfig: cfg, DisableKeepAlives: true}}}
	}
	client, admin := newFiles(t, ca, "ann", cert.Client), newFiles(t, ca, "bob", cert.Admin)
	spec := actors.TableSpec{Name: "u"}
	if _, err := as(client, true).Status(t.Context()); err != nil {
		t.Errorf("client asks: %v", err)
	}
	if _, err := as(client, true).CreateTable(t.Context(), spec); partition.CodeOf(err) != partition.CodeUnauthorized {
		t.Errorf("client changes the catalog: %v", err)
	}
	if _, err := as(admin, true).CreateTable(t.Context(), spec); err != nil {
		t.Errorf("admin changes the catalog: %v", err)
	}
	if _, err := as(client, false).Status(t.Context()); partition.CodeOf(err) != partition.CodeUnauthorized {
		t.Errorf("without a certificate: %v", err)
	}
	if _, err := as(newFiles(t, foreign, "eve", cert.Admin), true).Status(t.Context()); partition.CodeOf(err) != partition.CodeUnauthorized {
		t.Errorf("another authority's server and certificate: %v", err)
	}
	if err := admitForeign(t, s.Addr(), newFiles(t, foreign, "eve", cert.Admin)); err == nil {
		t.Error("another authority's certificate is taken")
	}
	resp, err := as(client, false).HTTP.Get("https://" + s.Addr() + "/readyz")
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("health without a certificate: %v %v", resp, err)
	}
	resp.Body.Close()
	if _, err := (&httpapi.Client{Addrs: []string{s.Addr()}}).Status(t.Context()); partition.CodeOf(err) != partition.CodeInvalid {
		t.Errorf("plain HTTP to a secured node: %v", err)
	}
}

// admitForeign asks with a certificate of another authority, and does not mind
// whose the server's is.
func admitForeign(t testing.TB, addr string, f *cert.Files) error {
	t.Helper()
	cfg := f.Client("")
	cfg.VerifyConnection = nil
	resp, err := (&http.Client{Transport: &http.Transport{TLSClientConfig: cfg}}).Get("https://" + addr + "/livez")
	if err == nil {
		resp.Body.Close()
	}
	return err
}
