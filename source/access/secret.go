// SPDX-License-Identifier: Apache-2.0

package access

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/url"
	"strings"

	"golang.org/x/crypto/ssh"
)

// Keys of a Secret.
const (
	keyUsername    = "username"
	keyPassword    = "password"
	keyBearerToken = "bearerToken"
	keyCA          = "ca.crt"
	keyCertificate = "tls.crt"
	keyKey         = "tls.key"
	keyIdentity    = "identity"
	keyKnownHosts  = "known_hosts"
	keyAddress     = "address"
)

// Parse reads the data of the two Secrets; nil is a Secret that is not named. An error names the key that
// is not as it has to be, never its value.
func Parse(secret, proxy map[string][]byte) (Login, error) {
	l, err := parseSecret(secret)
	if err == nil {
		l.Proxy, err = parseProxy(proxy)
	}
	if err != nil {
		return Login{}, err
	}
	l.sum = digest(secret, proxy)
	return l, nil
}

func parseSecret(data map[string][]byte) (Login, error) {
	if data == nil {
		return Login{}, nil
	}
	known := false
	for _, key := range []string{keyUsername, keyPassword, keyBearerToken, keyCA, keyCertificate, keyKey, keyIdentity, keyKnownHosts} {
		known = known || data[key] != nil
	}
	if !known {
		return Login{}, missing("keys are username and password, bearerToken, ca.crt, tls.crt and tls.key, or identity and known_hosts", "it has none of the keys that open a server")
	}
	l := Login{Username: text(data, keyUsername), Password: text(data, keyPassword), BearerToken: text(data, keyBearerToken)}
	for _, part := range []func(*Login, map[string][]byte) error{(*Login).basic, (*Login).bearer, (*Login).tls, (*Login).ssh} {
		if err := part(&l, data); err != nil {
			return Login{}, err
		}
	}
	return l, nil
}

// text of a key, without the newline that a file ends in.
func text(data map[string][]byte, key string) string {
	return strings.TrimRight(string(data[key]), "\r\n")
}

func (l *Login) basic(data map[string][]byte) error {
	switch {
	case data[keyUsername] != nil && l.Username == "":
		return missing("", "its key username is empty")
	case l.Username != "" && data[keyPassword] == nil:
		return missing("add it; it may be empty where the server wants a token as username", "its key password is missing")
	case l.Username == "" && data[keyPassword] != nil && data[keyIdentity] == nil:
		return missing("add it; most servers that take a token take any name", "its key username is missing")
	case strings.Contains(l.Username, ":") || control(l.Username):
		return missing("", "its key username holds a character that no user name can have")
	}
	return nil
}

func (l *Login) bearer(data map[string][]byte) error {
	switch {
	case data[keyBearerToken] == nil:
		return nil
	case l.BearerToken == "":
		return missing("", "its key bearerToken is empty")
	case l.Username != "":
		return missing("leave one of them out", "it has the keys username and bearerToken, and a request can carry one")
	case control(l.BearerToken) || strings.ContainsAny(l.BearerToken, " \t"):
		return missing("it is the token alone, on one line", "its key bearerToken holds a space or a control character")
	}
	return nil
}

func control(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}

func (l *Login) tls(data map[string][]byte) error {
	if ca := data[keyCA]; ca != nil {
		if !x509.NewCertPool().AppendCertsFromPEM(ca) {
			return missing("it is one certificate or more in PEM", "its key ca.crt holds no certificate")
		}
		l.CA = bytes.Clone(ca)
	}
	crt, key := data[keyCertificate], data[keyKey]
	switch {
	case crt == nil && key == nil:
		return nil
	case crt == nil:
		return missing("a client certificate is tls.crt and tls.key", "its key tls.crt is missing")
	case key == nil:
		return missing("a client certificate is tls.crt and tls.key", "its key tls.key is missing")
	}
	pair, err := tls.X509KeyPair(crt, key)
	if err != nil {
		return missing("both in PEM, the key without a passphrase", "its keys tls.crt and tls.key are not a certificate and its key")
	}
	l.Certificate = &pair
	return nil
}

func (l *Login) ssh(data map[string][]byte) error {
	identity, hosts := data[keyIdentity], data[keyKnownHosts]
	switch {
	case identity == nil && hosts == nil:
		return nil
	case hosts == nil:
		return missing("add the server's line of a known_hosts file, from a source you trust: without it anybody could be the server", "its key known_hosts is missing")
	case identity == nil:
		return missing("add the private key, as ssh-keygen writes it", "its key identity is missing")
	}
	if err := checkKnownHosts(hosts); err != nil {
		return err
	}
	signer, err := ssh.ParsePrivateKey(identity)
	var locked *ssh.PassphraseMissingError
	if errors.As(err, &locked) {
		if l.Password == "" {
			return missing("add the passphrase as password", "its key identity has a passphrase, and its key password is missing")
		}
		if signer, err = ssh.ParsePrivateKeyWithPassphrase(identity, []byte(l.Password)); err != nil {
			return missing("", "its key password does not open its key identity")
		}
	}
	if err != nil {
		return missing("it is a private key in PEM, as ssh-keygen writes it", "its key identity is no private key")
	}
	l.Identity, l.KnownHosts = signer, bytes.Clone(hosts)
	return nil
}

// checkKnownHosts sees that every line is one, which its parser does not: it passes over what it cannot read.
func checkKnownHosts(in []byte) error {
	lines := 0
	for line := range bytes.Lines(in) {
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '#' {
			lines++
		}
	}
	for n := 0; ; n++ {
		_, _, _, _, rest, err := ssh.ParseKnownHosts(in)
		switch {
		case errors.Is(err, io.EOF) && n == lines && n > 0:
			return nil
		case err != nil:
			return missing("a line of it is host, type of key, key; ssh-keyscan writes such", "its key known_hosts is no known_hosts file")
		}
		in = rest
	}
}

func parseProxy(data map[string][]byte) (*url.URL, error) {
	if data == nil {
		return nil, nil
	}
	address := text(data, keyAddress)
	if address == "" {
		return nil, missing("it is a URL such as http://proxy.example:3128", "its key address is missing")
	}
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Opaque != "" || u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" || u.Path != "" && u.Path != "/":
		return nil, missing("it is a URL such as http://proxy.example:3128", "its key address is no URL of a proxy")
	case u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "socks5":
		return nil, missing("write http://, https:// or socks5://", "its key address names a kind of proxy that is not known here")
	case u.User != nil:
		return nil, missing("write them in the keys username and password", "its key address holds credentials")
	case refuseTarget(u.Hostname()) != nil:
		return nil, missing("", "its key address names a link-local address, where metadata services are")
	}
	username, password := text(data, keyUsername), text(data, keyPassword)
	switch {
	case username == "" && password != "":
		return nil, missing("", "its key username is missing")
	case control(username) || strings.Contains(username, ":"):
		return nil, missing("", "its key username holds a character that no user name can have")
	case username != "":
		u.User = url.UserPassword(username, password)
	}
	u.Path = ""
	return u, nil
}
