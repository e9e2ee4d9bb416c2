// SPDX-License-Identifier: Apache-2.0

package access_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/source"
	"github.com/flotilla-dev/flotilla/source/access"
	"github.com/flotilla-dev/flotilla/source/sourcetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// secretData of strings.
func secretData(pairs ...string) map[string][]byte {
	out := map[string][]byte{}
	for i := 0; i < len(pairs); i += 2 {
		out[pairs[i]] = []byte(pairs[i+1])
	}
	return out
}

func wantError(t testing.TB, err error, kind fleet.ErrorKind, reason, part string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", part)
	}
	if fleet.KindOf(err) != kind || fleet.ReasonOf(err, "") != reason || !strings.Contains(err.Error(), part) {
		t.Errorf("error of kind %d, reason %s:\n%v\nwant kind %d, reason %s, and in it %q", fleet.KindOf(err), fleet.ReasonOf(err, "none"), err, kind, reason, part)
	}
}

func TestParse(t *testing.T) {
	ca := sourcetest.NewAuthority(t)
	cert, key := ca.Issue("client", time.Now().Add(time.Hour))
	_, otherKey := ca.Issue("client", time.Now().Add(time.Hour))
	identity, signer := sourcetest.NewKey(t, "")
	locked, lockedSigner := sourcetest.NewKey(t, "pa55phrase")
	hosts := "git.example ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl\n"

	good := map[string]struct {
		secret, proxy map[string][]byte
		check         func(access.Login) bool
	}{
		"nothing":            {check: func(l access.Login) bool { return l.Username == "" && l.Proxy == nil && l.Same(access.Login{}) }},
		"basic":              {secret: secretData("username", "ada\n", "password", "s3cret"), check: func(l access.Login) bool { return l.Username == "ada" && l.Password == "s3cret" }},
		"token as username":  {secret: secretData("username", "tok", "password", ""), check: func(l access.Login) bool { return l.Username == "tok" }},
		"bearer":             {secret: secretData("bearerToken", "tok\n"), check: func(l access.Login) bool { return l.BearerToken == "tok" }},
		"ca alone":           {secret: secretData("ca.crt", ca.PEM()), check: func(l access.Login) bool { return string(l.CA) == ca.PEM() }},
		"client certificate": {secret: secretData("tls.crt", cert, "tls.key", key), check: func(l access.Login) bool { return l.Certificate != nil }},
		"ssh": {secret: secretData("identity", identity, "known_hosts", hosts), check: func(l access.Login) bool {
			return string(l.Identity.PublicKey().Marshal()) == string(signer.PublicKey().Marshal())
		}},
		"ssh with a passphrase": {secret: secretData("identity", locked, "known_hosts", "# mine\n"+hosts, "password", "pa55phrase\n"), check: func(l access.Login) bool {
			return string(l.Identity.PublicKey().Marshal()) == string(lockedSigner.PublicKey().Marshal())
		}},
		"proxy":                  {proxy: secretData("address", "http://proxy.example:3128/"), check: func(l access.Login) bool { return l.Proxy.String() == "http://proxy.example:3128" }},
		"proxy with credentials": {proxy: secretData("address", "socks5://10.0.0.9:1080", "username", "ada", "password", "s3cret"), check: func(l access.Login) bool { return l.Proxy.User.String() == "ada:s3cret" }},
	}
	for name, tc := range good {
		if l, err := access.Parse(tc.secret, tc.proxy); err != nil || !tc.check(l) {
			t.Errorf("%s: %v", name, err)
		}
	}

	bad := map[string]struct {
		secret, proxy map[string][]byte
		part          string
	}{
		"empty":              {secret: secretData(), part: "none of the keys"},
		"other keys":         {secret: secretData("user", "s3cret"), part: "none of the keys"},
		"no password":        {secret: secretData("username", "s3cret"), part: "key password is missing"},
		"no username":        {secret: secretData("password", "s3cret"), part: "key username is missing"},
		"empty username":     {secret: secretData("username", "\n", "password", "s3cret"), part: "username is empty"},
		"colon":              {secret: secretData("username", "s3cret:x", "password", "s3cret"), part: "key username holds a character"},
		"both":               {secret: secretData("username", "s3cret", "password", "s3cret", "bearerToken", "s3cret"), part: "username and bearerToken"},
		"empty token":        {secret: secretData("bearerToken", ""), part: "bearerToken is empty"},
		"two lines of token": {secret: secretData("bearerToken", "s3cret\nX-Evil: 1"), part: "bearerToken holds a space or a control"},
		"ca":                 {secret: secretData("ca.crt", "s3cret"), part: "ca.crt holds no certificate"},
		"no key":             {secret: secretData("tls.crt", cert), part: "tls.key is missing"},
		"no certificate":     {secret: secretData("tls.key", key), part: "tls.crt is missing"},
		"another key":        {secret: secretData("tls.crt", cert, "tls.key", otherKey), part: "not a certificate and its key"},
		"no known hosts":     {secret: secretData("identity", identity), part: "known_hosts is missing"},
		"no identity":        {secret: secretData("known_hosts", hosts), part: "identity is missing"},
		"no hosts in it":     {secret: secretData("identity", identity, "known_hosts", "# s3cret\n"), part: "no known_hosts file"},
		"not a line":         {secret: secretData("identity", identity, "known_hosts", hosts+"s3cret\n"), part: "no known_hosts file"},
		"not a private key":  {secret: secretData("identity", "s3cret", "known_hosts", hosts), part: "identity is no private key"},
		"no passphrase":      {secret: secretData("identity", locked, "known_hosts", hosts), part: "key password is missing"},
		"wrong passphrase":   {secret: secretData("identity", locked, "known_hosts", hosts, "password", "s3cret"), part: "password does not open"},
		"no address":         {proxy: secretData("username", "s3cret"), part: "address is missing"},
		"no URL":             {proxy: secretData("address", "s3cret"), part: "no URL of a proxy"},
		"a path":             {proxy: secretData("address", "http://proxy.example/s3cret"), part: "no URL of a proxy"},
		"other proxy":        {proxy: secretData("address", "ftp://s3cret.example"), part: "kind of proxy"},
		"proxy in the URL":   {proxy: secretData("address", "http://ada:s3cret@proxy.example"), part: "address holds credentials"},
		"metadata":           {proxy: secretData("address", "http://169.254.169.254"), part: "link-local"},
		"proxy username":     {proxy: secretData("address", "http://proxy.example", "password", "s3cret"), part: "username is missing"},
	}
	for name, tc := range bad {
		t.Run(name, func(t *testing.T) {
			_, err := access.Parse(tc.secret, tc.proxy)
			wantError(t, err, fleet.Refused, v1alpha1.ReasonCredentialsMissing, tc.part)
			for _, secret := range []string{"s3cret", "pa55phrase", "AAAAC3"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("the error tells a value: %v", err)
				}
			}
		})
	}
}

func origin(secret, proxy string) source.Origin {
	o := source.Origin{Reader: source.Reader{Namespace: "team", ServiceAccount: "flotilla"}}
	if secret != "" {
		o.SecretRef = &v1alpha1.LocalReference{Name: secret}
	}
	if proxy != "" {
		o.ProxySecretRef = &v1alpha1.LocalReference{Name: proxy}
	}
	return o
}

func TestOf(t *testing.T) {
	var secrets sourcetest.Secrets
	secrets.Put("team", "git", map[string]string{"username": "ada", "password": "s3cret"})
	secrets.Put("team", "proxy", map[string]string{"address": "http://proxy.example"})
	secrets.Put("team", "bad", map[string]string{"username": "ada"})
	secrets.Put("team", "empty", map[string]string{})
	if l, err := access.Of(t.Context(), nil, origin("", "")); err != nil || !l.Same(access.Login{}) {
		t.Errorf("without references: %v", err)
	}
	l, err := access.Of(t.Context(), &secrets, origin("git", "proxy"))
	if err != nil || l.Username != "ada" || l.Proxy == nil {
		t.Errorf("%v", err)
	}
	again, err := access.Of(t.Context(), &secrets, origin("git", "proxy"))
	if err != nil || !again.Same(l) {
		t.Errorf("read twice, and not the same: %v", err)
	}
	if same, err := l.Again(t.Context(), &secrets, origin("git", "proxy")); err != nil || !same.Same(l) || same.Username != "ada" {
		t.Errorf("read again: %v", err)
	}
	secrets.Put("team", "git", map[string]string{"username": "ada", "password": "other"})
	if changed, err := l.Again(t.Context(), &secrets, origin("git", "proxy")); err != nil || changed.Password != "other" {
		t.Errorf("read again: %v", err)
	}
	if none, err := l.Again(t.Context(), &secrets, origin("", "")); err != nil || none.Username != "" {
		t.Errorf("without references: %v", err)
	}
	if changed, err := access.Of(t.Context(), &secrets, origin("git", "proxy")); err != nil || changed.Same(l) {
		t.Errorf("a changed Secret is the same login: %v", err)
	}
	for _, tc := range []struct{ secret, proxy, part string }{
		{"none", "", "secret team/none: it is not there"},
		{"bad", "", "secret team/bad: its key password is missing"},
		{"empty", "", "secret team/empty: it has none of the keys"},
		{"git", "none", "secret team/none: it is not there"},
		{"git", "bad", "secret team/bad: its key address is missing"},
	} {
		_, err := access.Of(t.Context(), &secrets, origin(tc.secret, tc.proxy))
		wantError(t, err, fleet.Refused, v1alpha1.ReasonCredentialsMissing, tc.part)
	}
	_, err = access.Of(t.Context(), nil, origin("git", ""))
	wantError(t, err, fleet.Refused, v1alpha1.ReasonCredentialsMissing, "team/git: no Secrets can be read here")
	wantError(t, l.AuthFailed(errors.New("no")), fleet.Refused, v1alpha1.ReasonAuthFailed, "Secret team/git")
}

// TestNoFormatTells: a login in a log says nothing.
func TestNoFormatTells(t *testing.T) {
	l, err := access.Parse(secretData("username", "ada", "password", "s3cret"), secretData("address", "http://proxy.example", "username", "ada", "password", "s3cret"))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(struct{ L access.Login }{l})
	if err != nil {
		t.Fatal(err)
	}
	for _, shown := range []string{fmt.Sprintf("%v %+v %#v %s %q %d", l, l, l, l, l, l), fmt.Sprintf("%+v", &l), fmt.Sprintf("%+v", struct{ L access.Login }{l}), string(raw), fmt.Sprint(l.MarshalLog())} {
		if strings.Contains(shown, "s3cret") || strings.Contains(shown, "115 51") {
			t.Errorf("it shows %s", shown)
		}
	}
}

func FuzzParse(f *testing.F) {
	identity, _ := sourcetest.NewKey(f, "")
	f.Add([]byte("ada"), []byte("x"), []byte(identity), []byte("git.example ssh-ed25519 AAAA"), "http://proxy.example:1")
	f.Add([]byte("a:b"), []byte("\n"), []byte("-----BEGIN OPENSSH PRIVATE KEY-----\n-----END OPENSSH PRIVATE KEY-----"), []byte("|1|x|y ssh-rsa A"), "socks5://[::1%25lo]:0")
	f.Fuzz(func(t *testing.T, username, password, identity, hosts []byte, address string) {
		l, err := access.Parse(map[string][]byte{"username": username, "password": password}, map[string][]byte{"address": []byte(address)})
		if err == nil && (strings.ContainsAny(l.Username, ":\r\n") || l.Proxy == nil || l.Proxy.Hostname() == "") {
			t.Errorf("%q %q", username, address)
		}
		_, err = access.Parse(map[string][]byte{"identity": identity, "known_hosts": hosts, "tls.crt": hosts, "tls.key": identity, "password": password}, nil)
		if err != nil && fleet.ReasonOf(err, "") != v1alpha1.ReasonCredentialsMissing {
			t.Error(err)
		}
	})
}
