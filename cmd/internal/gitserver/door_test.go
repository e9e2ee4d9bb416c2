// SPDX-License-Identifier: Apache-2.0

package gitserver

import (
	"context"
	"crypto/tls"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-dev/flotilla/source/sourcetest"
)

func TestPassword(t *testing.T) {
	s := start(t)
	commit(t, s, "main", map[string]string{"a": "1"})
	s.Require("ada", "s3cret")
	if out, err := tryRun(t, ".", "ls-remote", s.URL("web")); err == nil {
		t.Errorf("nobody was let in: %s", out)
	}
	if s.Refused() == 0 {
		t.Error("no request was refused")
	}
	run(t, ".", "ls-remote", strings.Replace(s.URL("web"), "://", "://ada:s3cret@", 1))
	if out, err := tryRun(t, ".", "ls-remote", strings.Replace(s.URL("web"), "://", "://ada:wrong@", 1)); err == nil {
		t.Errorf("a wrong password: %s", out)
	}
	s.Require("", "")
	run(t, ".", "ls-remote", s.URL("web"))
}

func TestMove(t *testing.T) {
	s, other := start(t), start(t)
	commit(t, s, "main", map[string]string{"a": "1"})
	head := commit(t, other, "main", map[string]string{"a": "2"})
	s.Move("web", other.URL("web"))
	if out := run(t, ".", "ls-remote", s.URL("web"), "main"); !strings.Contains(out, head) {
		t.Errorf("%s, want %s", out, head)
	}
	s.Move("web", "")
	if out := run(t, ".", "ls-remote", s.URL("web"), "main"); strings.Contains(out, head) {
		t.Errorf("it still sends elsewhere: %s", out)
	}
}

func TestTag(t *testing.T) {
	s := start(t)
	first := commit(t, s, "main", map[string]string{"a": "1"})
	second := commit(t, s, "main", map[string]string{"a": "2"})
	for _, at := range []string{first, second} {
		if err := s.Tag(t.Context(), "web", "v1.0.0", at); err != nil {
			t.Fatal(err)
		}
		if out := run(t, ".", "ls-remote", s.URL("web"), "refs/tags/v1.0.0"); !strings.HasPrefix(out, at) {
			t.Errorf("%s, want %s", out, at)
		}
	}
	for _, bad := range []struct{ repository, tag, commit string }{{"none", "v1", first}, {"web", "a..b", first}, {"web", "v1", strings.Repeat("12", 20)}} {
		if err := s.Tag(t.Context(), bad.repository, bad.tag, bad.commit); err == nil {
			t.Errorf("%v is tagged", bad)
		}
	}
}

// TestSecure: over TLS, with certificates on both sides.
func TestSecure(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed; it is what this package runs")
	}
	ca, dir := sourcetest.NewAuthority(t), t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	serverCert, serverKey := ca.Issue("127.0.0.1", time.Now().Add(time.Hour))
	pair, err := tls.X509KeyPair([]byte(serverCert), []byte(serverKey))
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(filepath.Join(dir, "repositories"))
	if err != nil {
		t.Fatal(err)
	}
	s.Secure(&tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool(), MinVersion: tls.VersionTLS12})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- s.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	head := commit(t, s, "main", map[string]string{"a": "1"})
	clientCert, clientKey := ca.Issue("client", time.Now().Add(time.Hour))
	t.Setenv("GIT_SSL_CAINFO", file("ca", ca.PEM()))
	if out, err := tryRun(t, ".", "ls-remote", s.URL("web")); err == nil {
		t.Errorf("without a certificate: %s", out)
	}
	t.Setenv("GIT_SSL_CERT", file("cert", clientCert))
	t.Setenv("GIT_SSL_KEY", file("key", clientKey))
	out := run(t, ".", "ls-remote", s.URL("web"), "main")
	if !strings.HasPrefix(out, head) {
		t.Errorf("%s, want %s", out, head)
	}
}
