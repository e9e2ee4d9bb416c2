// SPDX-License-Identifier: Apache-2.0

package access_test

import (
	"context"
	"errors"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/source/access"
	"github.com/flotilla-dev/flotilla/source/sourcetest"
)

func dial(t testing.TB, l access.Login, addr string) error {
	t.Helper()
	client, err := l.SSH(t.Context(), parse(t, "ssh://git@"+addr+"/x"), nil)
	if err == nil {
		client.Close()
	}
	return err
}

func TestSSH(t *testing.T) {
	_, host := sourcetest.NewKey(t, "")
	_, otherHost := sourcetest.NewKey(t, "")
	ecdsaHost := sourcetest.NewECDSAKey(t)
	identity, key := sourcetest.NewKey(t, "")
	server := sourcetest.NewSSHServer(t, t.TempDir(), ecdsaHost, host)
	server.Allow(key)
	with := func(hosts string) access.Login { return login(t, "identity", identity, "known_hosts", hosts) }

	// A server with two keys is asked for the one that is known, whichever it would rather show.
	for _, known := range []string{server.KnownHosts(host), server.KnownHosts(ecdsaHost), "# both\n" + server.KnownHosts(host) + server.KnownHosts(ecdsaHost)} {
		if err := dial(t, with(known), server.Addr); err != nil {
			t.Error(err)
		}
	}
	err := dial(t, with(server.KnownHosts(otherHost)), server.Addr)
	wantError(t, err, fleet.Refused, v1alpha1.ReasonServerNotTrusted, "which is not the one in known_hosts")
	err = dial(t, with("other.example "+strings.SplitN(server.KnownHosts(host), " ", 2)[1]), server.Addr)
	wantError(t, err, fleet.Refused, v1alpha1.ReasonServerNotTrusted, "known_hosts has no key of the server")
	err = dial(t, with("@revoked "+server.KnownHosts(host)+server.KnownHosts(host)), server.Addr)
	wantError(t, err, fleet.Refused, v1alpha1.ReasonServerNotTrusted, "which known_hosts has revoked")
	server.SetHosts(ecdsaHost)
	err = dial(t, with(server.KnownHosts(host)), server.Addr)
	wantError(t, err, fleet.Refused, v1alpha1.ReasonServerNotTrusted, "no host key of the types that known_hosts has")
	server.SetHosts(host)

	_, strangersKey := sourcetest.NewKey(t, "")
	server.Allow(strangersKey)
	err = dial(t, with(server.KnownHosts(host)), server.Addr)
	wantError(t, err, fleet.Refused, v1alpha1.ReasonAuthFailed, "does not take the key SHA256:")
	err = dial(t, access.Login{}, server.Addr)
	wantError(t, err, fleet.Refused, v1alpha1.ReasonCredentialsMissing, "identity and known_hosts")
	link := with(strings.Replace(server.KnownHosts(host), "127.0.0.1", "169.254.169.254", 1))
	err = dial(t, link, strings.Replace(server.Addr, "127.0.0.1", "169.254.169.254", 1))
	wantError(t, access.Explain(err), fleet.Refused, v1alpha1.ReasonFetchFailed, "metadata services are")
}

func TestSSHNamesTheSecret(t *testing.T) {
	_, host := sourcetest.NewKey(t, "")
	_, other := sourcetest.NewKey(t, "")
	identity, _ := sourcetest.NewKey(t, "")
	server := sourcetest.NewSSHServer(t, t.TempDir(), host)
	var secrets sourcetest.Secrets
	for hosts, part := range map[string]string{
		server.KnownHosts(host):  "Secret team/key",
		server.KnownHosts(other): "known_hosts of the Secret team/key",
	} {
		secrets.Put("team", "key", map[string]string{"identity": identity, "known_hosts": hosts})
		l, err := access.Of(t.Context(), &secrets, origin("key", ""))
		if err != nil {
			t.Fatal(err)
		}
		if err := dial(t, l, server.Addr); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%v, want %q in it", err, part)
		}
	}
}

func TestSSHThroughProxies(t *testing.T) {
	_, host := sourcetest.NewKey(t, "")
	identity, key := sourcetest.NewKey(t, "")
	server := sourcetest.NewSSHServer(t, t.TempDir(), host)
	server.Allow(key)
	l := login(t, "identity", identity, "known_hosts", server.KnownHosts(host))
	tunnel, socks := sourcetest.NewProxy(t, "ada", "s3cret", nil), sourcetest.NewSocks(t, "ada", "s3cret")
	for _, address := range []string{tunnel.URL, "socks5://" + socks.Addr} {
		if err := dial(t, through(t, l, address, "ada", "s3cret"), server.Addr); err != nil {
			t.Error(err)
		}
		err := dial(t, through(t, l, address, "ada", "wrong"), server.Addr)
		wantError(t, err, fleet.Refused, v1alpha1.ReasonAuthFailed, "proxy wants other credentials")
	}
	// The server counts a connection a moment after its client has it.
	for deadline := time.Now().Add(10 * time.Second); server.Connections() < 2 && time.Now().Before(deadline); {
		runtime.Gosched()
	}
	if tunnel.Tunnels() != 1 || socks.Tunnels() != 1 || server.Connections() != 2 {
		t.Errorf("tunnels %d %d, connections %d", tunnel.Tunnels(), socks.Tunnels(), server.Connections())
	}
}

// TestSSHEnds: a server that takes the connection and says nothing holds nobody beyond the context.
func TestSSHEnds(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, host := sourcetest.NewKey(t, "")
	identity, _ := sourcetest.NewKey(t, "")
	known := sourcetest.NewSSHServer(t, t.TempDir(), host)
	l := login(t, "identity", identity, "known_hosts", strings.Replace(known.KnownHosts(host), known.Addr[strings.LastIndex(known.Addr, ":"):], listener.Addr().String()[strings.LastIndex(listener.Addr().String(), ":"):], 1))
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := l.SSH(ctx, parse(t, "ssh://"+listener.Addr().String()+"/x"), nil); err == nil || !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		t.Errorf("%v, %v", err, ctx.Err())
	}
}
