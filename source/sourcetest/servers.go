// SPDX-License-Identifier: Apache-2.0

package sourcetest

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// Authority issues certificates for tests.
type Authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	next int64
}

// NewAuthority makes one.
func NewAuthority(t testing.TB) *Authority {
	t.Helper()
	a := &Authority{t: t, next: 2}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err == nil {
		a.cert, err = x509.ParseCertificate(raw)
	}
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// PEM of the authority itself.
func (a *Authority) PEM() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}))
}

// Pool that trusts it.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// Issue a certificate for a host, and its key, both in PEM, good until a time.
func (a *Authority) Issue(host string, until time.Time) (cert, key string) {
	a.t.Helper()
	a.next++
	template := &x509.Certificate{
		SerialNumber: big.NewInt(a.next), Subject: pkix.Name{CommonName: host}, NotBefore: until.Add(-48 * time.Hour), NotAfter: until,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if ip := net.ParseIP(host); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{host}
	}
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, a.cert, &own.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(own)
	if err != nil {
		a.t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// ServeTLS answers on loopback with a certificate of the authority, for host until a time. With clients, it
// wants a certificate of that authority from whoever asks.
func (a *Authority) ServeTLS(host string, until time.Time, clients *Authority, h http.Handler) *httptest.Server {
	a.t.Helper()
	cert, key := a.Issue(host, until)
	pair, err := tls.X509KeyPair([]byte(cert), []byte(key))
	if err != nil {
		a.t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(h)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if clients != nil {
		server.TLS.ClientAuth, server.TLS.ClientCAs = tls.RequireAndVerifyClientCert, clients.Pool()
	}
	server.StartTLS()
	a.t.Cleanup(server.Close)
	return server
}

// Proxy is an http proxy on loopback, which tunnels and passes plain requests on. Where it has a username
// it wants that and its password.
type Proxy struct {
	URL                string
	Username, Password string

	tunnels, requests atomic.Int64
}

// NewProxy starts one; with an authority it speaks TLS.
func NewProxy(t testing.TB, username, password string, secured *Authority) *Proxy {
	t.Helper()
	p := &Proxy{Username: username, Password: password}
	if secured != nil {
		// CONNECT takes the connection over, which HTTP/2 does not allow.
		server := secured.ServeTLS("127.0.0.1", time.Now().Add(time.Hour), nil, p)
		p.URL = server.URL
		return p
	}
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	p.URL = server.URL
	return p
}

// Tunnels that were let through.
func (p *Proxy) Tunnels() int64 { return p.tunnels.Load() }

// Requests that were passed on as such.
func (p *Proxy) Requests() int64 { return p.requests.Load() }

func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	given := http.Request{Header: http.Header{"Authorization": r.Header["Proxy-Authorization"]}}
	if user, password, _ := given.BasicAuth(); user != p.Username || password != p.Password {
		w.Header().Set("Proxy-Authenticate", "Basic")
		w.WriteHeader(http.StatusProxyAuthRequired)
		return
	}
	if r.Method != http.MethodConnect {
		p.pass(w, r)
		return
	}
	server, err := net.Dial("tcp", r.Host)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	p.tunnels.Add(1)
	client, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		shut(server)
		return
	}
	fmt.Fprint(client, "HTTP/1.1 200 Connection established\r\n\r\n")
	join(client, buffered.Reader, server)
}

func (p *Proxy) pass(w http.ResponseWriter, r *http.Request) {
	r.Header.Del("Proxy-Authorization")
	r.RequestURI = ""
	res, err := (&http.Transport{DisableKeepAlives: true, Proxy: nil}).RoundTrip(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer res.Body.Close()
	p.requests.Add(1)
	for key, values := range res.Header {
		w.Header()[key] = values
	}
	w.WriteHeader(res.StatusCode)
	io.Copy(w, res.Body) //nolint:errcheck // whoever asked notices
}

// join two connections until one ends.
func join(a net.Conn, from io.Reader, b net.Conn) {
	var both sync.WaitGroup
	both.Go(func() {
		defer shut(a, b)
		io.Copy(b, from) //nolint:errcheck // one of them ended
	})
	both.Go(func() {
		defer shut(a, b)
		io.Copy(a, b) //nolint:errcheck // one of them ended
	})
	both.Wait()
}

// shut connections of which nothing more is expected.
func shut(all ...io.Closer) {
	for _, c := range all {
		c.Close() //nolint:errcheck // see above
	}
}

// Socks is a SOCKS5 proxy on loopback, with a username and password.
type Socks struct {
	Addr    string
	tunnels atomic.Int64
}

// Tunnels that were let through.
func (s *Socks) Tunnels() int64 { return s.tunnels.Load() }

// NewSocks starts one.
func NewSocks(t testing.TB, username, password string) *Socks {
	t.Helper()
	s := &Socks{}
	s.Addr = serve(t, func(conn net.Conn) { s.serve(conn, username, password) })
	return s
}

func (s *Socks) serve(conn net.Conn, username, password string) {
	in := bufio.NewReader(conn)
	field := func() []byte {
		n, err := in.ReadByte()
		if err != nil {
			return nil
		}
		b := make([]byte, n)
		io.ReadFull(in, b) //nolint:errcheck // it is compared with what is expected
		return b
	}
	in.ReadByte()            //nolint:errcheck // the version
	field()                  // what the client can do
	conn.Write([]byte{5, 2}) //nolint:errcheck // username and password
	in.ReadByte()            //nolint:errcheck // the version
	user, secret := field(), field()
	if string(user) != username || string(secret) != password {
		conn.Write([]byte{1, 1}) //nolint:errcheck // no
		return
	}
	conn.Write([]byte{1, 0}) //nolint:errcheck // yes
	var head [4]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return
	}
	var host string
	if head[3] == 3 {
		host = string(field())
	} else {
		ip := make([]byte, map[byte]int{1: 4, 4: 16}[head[3]])
		io.ReadFull(in, ip) //nolint:errcheck // dialling fails then
		host = net.IP(ip).String()
	}
	var port [2]byte
	io.ReadFull(in, port[:]) //nolint:errcheck // dialling fails then
	server, err := net.Dial("tcp", net.JoinHostPort(host, fmt.Sprint(int(port[0])<<8|int(port[1]))))
	if err != nil {
		conn.Write([]byte{5, 1, 0, 1, 0, 0, 0, 0, 0, 0}) //nolint:errcheck // no
		return
	}
	s.tunnels.Add(1)
	conn.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0}) //nolint:errcheck // yes
	join(conn, in, server)
}

// serve connections on loopback until the test ends.
func serve(t testing.TB, each func(net.Conn)) (addr string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	all.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[conn] = true
			mu.Unlock()
			all.Go(func() {
				defer shut(conn)
				each(conn)
				mu.Lock()
				delete(open, conn)
				mu.Unlock()
			})
		}
	})
	t.Cleanup(func() {
		shut(listener)
		mu.Lock()
		for conn := range open {
			shut(conn)
		}
		mu.Unlock()
		all.Wait()
	})
	return listener.Addr().String()
}

// SSHServer runs git's upload-pack on the repositories below a folder, for whoever has one of its keys.
type SSHServer struct {
	Addr string
	// Version2 lets git see which version of its protocol is asked for.
	Version2 bool

	dir     string
	mu      sync.Mutex
	hosts   []ssh.Signer
	allowed []ssh.PublicKey
	conns   atomic.Int64
}

// NewKey is a private key for ssh in PEM, its passphrase "" for none, and the key.
func NewKey(t testing.TB, passphrase string) (string, ssh.Signer) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var block *pem.Block
	if passphrase == "" {
		block, err = ssh.MarshalPrivateKey(key, "")
	} else {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte(passphrase))
	}
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(block)), signer
}

// NewECDSAKey is a host key of another type.
func NewECDSAKey(t testing.TB) ssh.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

// NewSSHServer starts one.
func NewSSHServer(t testing.TB, dir string, hosts ...ssh.Signer) *SSHServer {
	t.Helper()
	s := &SSHServer{dir: dir, hosts: hosts}
	s.Addr = serve(t, s.serve)
	return s
}

// Allow these keys to log in, and no other.
func (s *SSHServer) Allow(keys ...ssh.Signer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.allowed = nil
	for _, k := range keys {
		s.allowed = append(s.allowed, k.PublicKey())
	}
}

// SetHosts changes the server's own keys.
func (s *SSHServer) SetHosts(hosts ...ssh.Signer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hosts = hosts
}

// Connections that were logged in.
func (s *SSHServer) Connections() int64 { return s.conns.Load() }

// KnownHosts is the line for one of its keys.
func (s *SSHServer) KnownHosts(key ssh.Signer) string {
	return knownhosts.Line([]string{s.Addr}, key.PublicKey()) + "\n"
}

func (s *SSHServer) serve(conn net.Conn) {
	s.mu.Lock()
	config := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, a := range s.allowed {
			if string(a.Marshal()) == string(key.Marshal()) {
				return nil, nil
			}
		}
		return nil, errors.New("not allowed")
	}}
	for _, h := range s.hosts {
		config.AddHostKey(h)
	}
	s.mu.Unlock()
	server, channels, requests, err := ssh.NewServerConn(conn, config)
	if err != nil {
		return
	}
	defer shut(server)
	s.conns.Add(1)
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() { ssh.DiscardRequests(requests) })
	for c := range channels {
		if c.ChannelType() != "session" {
			c.Reject(ssh.UnknownChannelType, "sessions only") //nolint:errcheck // the client goes away
			continue
		}
		channel, inner, err := c.Accept()
		if err != nil {
			return
		}
		all.Go(func() { s.session(channel, inner) })
	}
}

func (s *SSHServer) session(channel ssh.Channel, requests <-chan *ssh.Request) {
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	var protocol string
	for r := range requests {
		var env struct{ Name, Value string }
		var exec struct{ Command string }
		switch {
		case r.Type == "env" && ssh.Unmarshal(r.Payload, &env) == nil && env.Name == "GIT_PROTOCOL" && s.Version2:
			protocol = env.Value
		case r.Type == "exec" && ssh.Unmarshal(r.Payload, &exec) == nil:
			r.Reply(true, nil) //nolint:errcheck // the client notices
			all.Go(func() {
				defer shut(channel)
				s.run(ctx, channel, exec.Command, protocol)
			})
		}
	}
}

func (s *SSHServer) run(ctx context.Context, channel ssh.Channel, command, protocol string) {
	path, ok := strings.CutPrefix(command, "git-upload-pack '")
	path = filepath.Join(s.dir, filepath.FromSlash(strings.TrimSuffix(path, "'")))
	if _, err := os.Stat(path); err != nil || !ok {
		fmt.Fprintln(channel.Stderr(), "ERROR: Repository not found.")
		channel.SendRequest("exit-status", false, []byte{0, 0, 0, 1}) //nolint:errcheck // the client notices
		return
	}
	git := exec.CommandContext(ctx, "git", "upload-pack", path)
	git.Env = append(os.Environ(), "GIT_PROTOCOL="+protocol, "GIT_CONFIG_NOSYSTEM=1")
	git.Stdout, git.Stderr = channel, channel.Stderr()
	in, err := git.StdinPipe()
	if err != nil {
		return
	}
	if err := git.Start(); err != nil {
		return
	}
	var copied sync.WaitGroup
	copied.Go(func() {
		defer shut(in)
		io.Copy(in, channel) //nolint:errcheck // git notices
	})
	status := byte(0)
	if git.Wait() != nil {
		status = 1
	}
	channel.SendRequest("exit-status", false, []byte{0, 0, 0, status}) //nolint:errcheck // the client notices
	shut(channel)
	copied.Wait()
}
