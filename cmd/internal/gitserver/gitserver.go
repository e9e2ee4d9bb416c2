// SPDX-License-Identifier: Apache-2.0

// Package gitserver answers: where does a real git server on this machine come from?
//
// It serves bare repositories over smart http, through git's own http-backend, on loopback. People
// clone from it and push to it with their own git; tests and the demo commit with [Server.Commit]. It can
// want a password, speak TLS, and send people elsewhere, as servers do.
package gitserver

import (
	"context"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/cgi"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// maxPush bounds what one request may bring.
const maxPush = 1 << 30

// Server of bare repositories. Whoever is on this machine may read and push; nobody else reaches it.
type Server struct {
	dir      string
	listener net.Listener
	backend  http.Handler
	requests atomic.Int64
	outage   outage
	refused  atomic.Int64
	secured  *tls.Config

	door               sync.Mutex // guards the next three
	username, password string
	moved              map[string]string

	mu  sync.Mutex // one commit at a time
	now func() time.Time
}

// New server of the repositories in dir. Its address is taken at once; it answers once Run runs. It
// fails where git is not installed.
func New(dir string) (*Server, error) {
	program, err := exec.LookPath("git")
	if err != nil {
		return nil, fmt.Errorf("git server: %w; install git", err)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return &Server{
		dir: dir, listener: listener, now: time.Now,
		backend: &cgi.Handler{
			Path: program, Args: []string{"http-backend"}, Dir: dir,
			// Neither the machine's nor the user's git configuration changes what it serves.
			Env:    []string{"GIT_PROJECT_ROOT=" + dir, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_NOSYSTEM=1", "HOME=" + dir, "XDG_CONFIG_HOME=" + dir},
			Stderr: io.Discard, Logger: log.New(io.Discard, "", 0),
		},
	}, nil
}

// Run answers until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	server := &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	listener := s.listener
	if s.secured != nil {
		listener = tls.NewListener(listener, s.secured)
		server.ErrorLog = log.New(io.Discard, "", 0) // whoever does not trust it says so himself
	}
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// ServeHTTP counts a request and passes it on to git, where nothing is against it.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !local(r.Host) {
		http.Error(w, "this server is called by its address on loopback only", http.StatusForbidden)
		return
	}
	s.requests.Add(1)
	if s.outage.refuses(r) {
		http.Error(w, "out of order", http.StatusServiceUnavailable)
		return
	}
	if !s.admit(w, r) {
		s.refused.Add(1)
		return
	}
	spooled, err := s.spool(w, r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if spooled != nil {
		defer os.Remove(spooled.Name()) //nolint:errcheck // in a folder that goes with the server's
		defer spooled.Close()           //nolint:errcheck // it was read
	}
	s.backend.ServeHTTP(w, r)
}

// Secure lets it speak TLS, with the certificates of config; ask for those of clients there as well. Call it
// before Run.
func (s *Server) Secure(config *tls.Config) { s.secured = config.Clone() }

// Require a username and password of everybody, from now on; "" lets everybody in again.
func (s *Server) Require(username, password string) {
	s.door.Lock()
	defer s.door.Unlock()
	s.username, s.password = username, password
}

// Move sends whoever asks for a repository to a URL, from now on; "" stops that.
func (s *Server) Move(repository, to string) {
	s.door.Lock()
	defer s.door.Unlock()
	if s.moved == nil {
		s.moved = map[string]string{}
	}
	if s.moved[repository] = to; to == "" {
		delete(s.moved, repository)
	}
}

// admit a request, or answer it.
func (s *Server) admit(w http.ResponseWriter, r *http.Request) bool {
	s.door.Lock()
	defer s.door.Unlock()
	username, password, _ := r.BasicAuth()
	right := subtle.ConstantTimeCompare([]byte(username), []byte(s.username)) & subtle.ConstantTimeCompare([]byte(password), []byte(s.password))
	if s.username != "" && right == 0 {
		w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
		http.Error(w, "log in", http.StatusUnauthorized)
		return false
	}
	repository, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), ".git/")
	if to := s.moved[repository]; to != "" {
		target := to + "/" + rest
		if r.URL.RawQuery != "" {
			target += "?" + r.URL.RawQuery
		}
		http.Redirect(w, r, target, http.StatusTemporaryRedirect)
		return false
	}
	return true
}

// local says whether a request was meant for loopback: a page in a browser that lets its own name point
// here must not push.
func local(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = host
	}
	ip, err := netip.ParseAddr(strings.Trim(name, "[]"))
	return name == "localhost" || err == nil && ip.IsLoopback()
}

// spool writes a body of unknown length to a file first: git sends large pushes in chunks, which CGI
// does not know.
func (s *Server) spool(w http.ResponseWriter, r *http.Request) (*os.File, error) {
	if r.ContentLength >= 0 {
		return nil, nil
	}
	f, err := os.CreateTemp(s.dir, "push-*")
	if err != nil {
		return nil, err
	}
	n, err := io.Copy(f, http.MaxBytesReader(w, r.Body, maxPush))
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	r.Body, r.ContentLength, r.TransferEncoding = f, n, nil
	return f, nil
}

// Requests so far.
func (s *Server) Requests() int64 { return s.requests.Load() }

// Refused requests: without the right password, or sent elsewhere.
func (s *Server) Refused() int64 { return s.refused.Load() }

// Dir of the repositories, for another server to serve as well.
func (s *Server) Dir() string { return s.dir }

// URL of a repository.
func (s *Server) URL(repository string) string {
	scheme := "http"
	if s.secured != nil {
		scheme = "https"
	}
	return fmt.Sprintf("%s://%s/%s.git", scheme, s.listener.Addr(), repository)
}
