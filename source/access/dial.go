// SPDX-License-Identifier: Apache-2.0

package access

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/net/proxy"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

const dialTimeout = 15 * time.Second

// direct dials without a proxy, and never a metadata service.
var direct = &net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second, Control: refuseMetadata}

// dialer opens connections to a server: through the login's proxy where it has one.
type dialer struct {
	login    Login
	proxyTLS *tls.Config
}

// DialContext dials host:port.
func (d dialer) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	if d.login.Proxy == nil {
		return direct.DialContext(ctx, network, addr)
	}
	host, _, err := net.SplitHostPort(addr)
	if err == nil {
		err = refuseTarget(host)
	}
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*dialTimeout)
	defer cancel()
	if d.login.Proxy.Scheme == "socks5" {
		return d.socks(ctx, network, addr)
	}
	conn, err := d.tunnel(ctx, addr)
	if err != nil {
		return nil, d.failed(err)
	}
	return conn, nil
}

func (d dialer) failed(err error) error {
	var known *fleet.Error
	if errors.As(err, &known) {
		return err
	}
	return fmt.Errorf("proxy %s: %w", Place(d.login.Proxy), err)
}

func (d dialer) socks(ctx context.Context, network, addr string) (net.Conn, error) {
	var auth *proxy.Auth
	if user := d.login.Proxy.User; user != nil {
		password, _ := user.Password()
		auth = &proxy.Auth{User: user.Username(), Password: password}
	}
	through, err := proxy.SOCKS5("tcp", proxyAddress(d.login.Proxy), auth, direct)
	if err != nil {
		return nil, d.failed(err)
	}
	contextual, ok := through.(proxy.ContextDialer)
	if !ok {
		return nil, d.failed(errors.New("it cannot be given up"))
	}
	conn, err := contextual.DialContext(ctx, network, addr)
	if err != nil && strings.Contains(err.Error(), "authentication") {
		return nil, d.login.proxyAuthFailed(errors.New("the proxy wants other credentials"))
	}
	if err != nil {
		return nil, d.failed(err)
	}
	return conn, nil
}

// tunnel through an http proxy.
func (d dialer) tunnel(ctx context.Context, addr string) (_ net.Conn, err error) {
	conn, err := direct.DialContext(ctx, "tcp", proxyAddress(d.login.Proxy))
	if err != nil {
		return nil, err
	}
	below := conn
	stop := context.AfterFunc(ctx, func() { below.Close() }) //nolint:errcheck // whoever waits for it notices
	defer func() {
		if !stop() && err == nil {
			err = ctx.Err()
		}
		if err != nil {
			conn.Close() //nolint:errcheck // it failed already
		}
	}()
	if d.login.Proxy.Scheme == "https" {
		config := d.proxyTLS.Clone()
		config.ServerName = d.login.Proxy.Hostname()
		config.NextProtos = []string{"http/1.1"}
		secured := tls.Client(conn, config)
		if err := secured.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		conn = secured
	}
	req := (&http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: addr}, Host: addr, Header: http.Header{"User-Agent": {userAgent}}}).WithContext(ctx)
	if user := d.login.Proxy.User; user != nil {
		password, _ := user.Password()
		basic := http.Request{Header: http.Header{}}
		basic.SetBasicAuth(user.Username(), password)
		req.Header["Proxy-Authorization"] = basic.Header["Authorization"]
	}
	if err := req.Write(conn); err != nil {
		return nil, err
	}
	// One byte at a time: what follows the answer is the server's.
	res, err := http.ReadResponse(bufio.NewReaderSize(&oneByOne{conn: conn, left: 64 << 10}, 16), req) //nolint:bodyclose // an answer to CONNECT has none
	if err != nil {
		return nil, err
	}
	switch res.StatusCode {
	case http.StatusOK:
		return conn, nil
	case http.StatusProxyAuthRequired, http.StatusUnauthorized:
		return nil, d.login.proxyAuthFailed(fmt.Errorf("the proxy wants other credentials: it answers %d %s", res.StatusCode, http.StatusText(res.StatusCode)))
	}
	return nil, fmt.Errorf("it answers %d %s", res.StatusCode, http.StatusText(res.StatusCode))
}

// oneByOne reads no byte more than it is asked for, and at most left.
type oneByOne struct {
	conn net.Conn
	left int
}

func (o *oneByOne) Read(p []byte) (int, error) {
	if o.left--; o.left < 0 {
		return 0, errors.New("an answer without an end")
	}
	return o.conn.Read(p[:min(1, len(p))])
}

func proxyAddress(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443", "socks5": "1080"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

var errMetadata = &fleet.Error{Kind: fleet.Refused, Reason: v1alpha1.ReasonFetchFailed,
	Err: errors.New("link-local addresses, where metadata services are, are refused")}

// metadata services that are not on link-local addresses.
var metadata = []netip.Addr{
	netip.MustParseAddr("fd00:ec2::254"),   // AWS
	netip.MustParseAddr("fd00:ec2::23"),    // AWS, identities of pods
	netip.MustParseAddr("fd20:ce::254"),    // Google
	netip.MustParseAddr("fd00:42::42"),     // Scaleway
	netip.MustParseAddr("100.100.100.200"), // Alibaba
	netip.MustParseAddr("192.0.0.192"),     // Oracle
	netip.MustParseAddr("168.63.129.16"),   // Azure
}

// carriers of an IPv4 address, and where in them it is: what is behind NAT64, IPv6's first notation, 6to4.
var carriers = []struct {
	netip.Prefix
	at int
}{
	{netip.MustParsePrefix("64:ff9b::/96"), 12},
	{netip.MustParsePrefix("64:ff9b:1::/48"), 12},
	{netip.MustParsePrefix("::/96"), 12},
	{netip.MustParsePrefix("2002::/16"), 2},
}

func refuseAddress(ip netip.Addr) error {
	ip = ip.WithZone("").Unmap()
	for _, c := range carriers {
		if all := ip.As16(); c.Contains(ip) && !ip.IsLoopback() {
			ip = netip.AddrFrom4([4]byte(all[c.at:]))
		}
	}
	if ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.IsUnspecified() || slices.Contains(metadata, ip) {
		return fmt.Errorf("address %s: %w", ip, errMetadata)
	}
	return nil
}

// refuseMetadata sees every address after its name was resolved: whoever may write a rollout must not
// reach the machine's metadata service through the agent.
func refuseMetadata(_, addr string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(addr)
	if err != nil {
		return fmt.Errorf("address %q: %w", addr, err)
	}
	return refuseAddress(at.Addr())
}

// refuseTarget refuses what names such a service by itself, for where a proxy resolves names: its addresses,
// also as the single numbers that some programs take for addresses, and the names that clouds give it.
func refuseTarget(host string) error {
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if ip, err := netip.ParseAddr(host); err == nil {
		return refuseAddress(ip)
	}
	last := host[strings.LastIndexByte(host, '.')+1:]
	if last == "" || strings.Trim(last, "0123456789") == "" || strings.HasPrefix(last, "0x") {
		return &fleet.Error{Kind: fleet.Refused, Reason: v1alpha1.ReasonFetchFailed, Hint: "write the host's name, or its address as four numbers",
			Err: fmt.Errorf("host %.100q is neither a name nor an address", host)}
	}
	switch host {
	case "metadata", "metadata.google.internal", "instance-data", "instance-data.ec2.internal":
		return fmt.Errorf("host %q: %w", host, errMetadata)
	}
	return nil
}
