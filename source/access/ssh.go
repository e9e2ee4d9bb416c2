// SPDX-License-Identifier: Apache-2.0

package access

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// DefaultUser of ssh servers, where the URL names none.
const DefaultUser = "git"

// SSH connects to the server of base, ssh://[user@]host[:port]. Its host key has to be in the login's
// KnownHosts; there is no trust on first use. Roots are for an https proxy. Whoever gets the client closes it.
func (l Login) SSH(ctx context.Context, base *url.URL, roots *x509.CertPool) (*ssh.Client, error) {
	if l.Identity == nil || len(l.KnownHosts) == 0 {
		err := missing("ssh needs a Secret with the keys identity and known_hosts, in spec.source.secretRef", "no key to log in with is given")
		if l.secret != "" {
			err = named(l.secret, missing("", "ssh needs its keys identity and known_hosts"))
		}
		return nil, err
	}
	addr := strings.TrimPrefix(Place(base), "ssh://")
	hosts, err := l.hosts(addr)
	if err != nil {
		return nil, err
	}
	user := base.User.Username()
	if user == "" {
		user = DefaultUser
	}
	conn, err := dialer{login: l, proxyTLS: l.tlsConfig(roots)}.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() }) //nolint:errcheck // whoever waits for it notices
	c, channels, requests, err := ssh.NewClientConn(conn, addr, &ssh.ClientConfig{
		User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(l.Identity)}, ClientVersion: "SSH-2.0-" + userAgent,
		HostKeyCallback: hosts.check, HostKeyAlgorithms: hosts.algorithms,
	})
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close() //nolint:errcheck // it failed already
		return nil, l.sshFailed(hosts, err)
	}
	return ssh.NewClient(c, channels, requests), nil
}

func (l Login) sshFailed(hosts *hosts, err error) error {
	var negotiation *ssh.AlgorithmNegotiationError
	switch {
	case hosts.refused != nil:
		return hosts.refused
	case errors.As(err, &negotiation) && negotiation.What == "host key":
		return notTrusted(hosts.hint("add a line for one of the types that the server has"),
			"the server %s has no host key of the types that known_hosts has for it: it offers %.300q", hosts.addr, strings.Join(negotiation.RequestedAlgorithms, " "))
	case strings.Contains(err.Error(), "unable to authenticate"):
		return l.AuthFailed(fmt.Errorf("the server does not take the key %s", ssh.FingerprintSHA256(l.Identity.PublicKey())))
	}
	return err
}

// hosts is what known_hosts says of one server.
type hosts struct {
	addr, secret string
	known        ssh.HostKeyCallback
	algorithms   []string
	refused      *fleet.Error
}

// hosts reads KnownHosts. Its reader wants a file, so there is one for a moment.
func (l Login) hosts(addr string) (*hosts, error) {
	f, err := os.CreateTemp("", "known_hosts_*")
	if err != nil {
		return nil, fmt.Errorf("reading known_hosts: %w", err)
	}
	defer os.Remove(f.Name()) //nolint:errcheck // it holds nothing secret
	_, err = f.Write(l.KnownHosts)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("reading known_hosts: %w", err)
	}
	known, err := knownhosts.New(f.Name())
	if err != nil {
		return nil, named(l.secret, missing("a line of it is host, type of key, key; ssh-keyscan writes such", "its key known_hosts is no known_hosts file"))
	}
	h := &hosts{addr: addr, secret: l.secret, known: known}
	if err := h.choose(bytes.Contains(l.KnownHosts, []byte("@cert-authority"))); err != nil {
		return nil, err
	}
	return h, nil
}

// choose the algorithms to ask for: of the types of key that are known, so that a server with several keys
// shows the one that can be checked.
func (h *hosts) choose(authorities bool) error {
	var want *knownhosts.KeyError
	if err := h.known(h.addr, nowhere{}, noKey{}); !errors.As(err, &want) || len(want.Want) == 0 {
		return notTrusted(h.hint("add its line, from a source you trust"), "known_hosts has no key of the server %s", knownhosts.Normalize(h.addr))
	}
	if authorities {
		h.algorithms = append(h.algorithms, ssh.CertAlgoED25519v01, ssh.CertAlgoECDSA256v01, ssh.CertAlgoECDSA384v01,
			ssh.CertAlgoECDSA521v01, ssh.CertAlgoRSASHA512v01, ssh.CertAlgoRSASHA256v01)
	}
	for _, k := range want.Want {
		types := []string{k.Key.Type()}
		if k.Key.Type() == ssh.KeyAlgoRSA {
			types = []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
		}
		for _, t := range types {
			if !slices.Contains(h.algorithms, t) {
				h.algorithms = append(h.algorithms, t)
			}
		}
	}
	return nil
}

func (h *hosts) check(hostname string, remote net.Addr, key ssh.PublicKey) error {
	err := h.known(hostname, remote, key)
	if err == nil {
		return nil
	}
	var revoked *knownhosts.RevokedError
	shown := key.Type() + " " + ssh.FingerprintSHA256(key)
	refused := notTrusted(h.hint("somebody may be in between; if the server's key was changed, and you have it from a source you trust, write the new line"),
		"the server %s shows the host key %s, which is not the one in known_hosts", h.addr, shown)
	if errors.As(err, &revoked) {
		refused = notTrusted(h.hint("the server needs another key"), "the server %s shows the host key %s, which known_hosts has revoked", h.addr, shown)
	}
	errors.As(refused, &h.refused)
	return refused
}

func (h *hosts) hint(what string) string {
	if h.secret == "" {
		return what
	}
	return what + ": key known_hosts of the Secret " + h.secret
}

// noKey is no key of any server.
type noKey struct{}

func (noKey) Type() string                        { return "none" }
func (noKey) Marshal() []byte                     { return []byte("none") }
func (noKey) Verify([]byte, *ssh.Signature) error { return errors.New("no key") }

// nowhere is the address that noKey comes from.
type nowhere struct{}

func (nowhere) Network() string { return "tcp" }
func (nowhere) String() string  { return "0.0.0.0:0" }
