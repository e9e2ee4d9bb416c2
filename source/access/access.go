// SPDX-License-Identifier: Apache-2.0

// Package access answers: as whom, and how, is a server reached?
//
// A [Login] is what the Secrets of one source say. It opens one server over http or ssh: its certificate or
// host key is checked, credentials go to it and to no other, and no name leads to a metadata service.
package access

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"

	"golang.org/x/crypto/ssh"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/source"
)

// Login is what opens a server: parsed from the data of the Secrets that spec.source.secretRef and
// proxySecretRef name. The zero Login is nobody's: it reads what everyone may read.
type Login struct {
	Username, Password string
	// BearerToken is sent over https only.
	BearerToken string
	// CA is the PEM of ca.crt: authorities that are trusted besides the others, not instead of them.
	CA []byte
	// Certificate of the client, where the server asks for one.
	Certificate *tls.Certificate
	// Identity and KnownHosts are for ssh.
	Identity   ssh.Signer
	KnownHosts []byte
	// Proxy to go through, with its own credentials in it.
	Proxy *url.URL

	secret, proxySecret string // their names, for hints
	sum                 [sha256.Size]byte
}

// Format hides what is in a login from every format: it must not get into a log by %v.
func (Login) Format(f fmt.State, _ rune) { fmt.Fprint(f, "login") }

// MarshalLog hides it from loggers that look into values, MarshalJSON from the rest.
func (Login) MarshalLog() any { return "login" }

// MarshalJSON gives no more than Format.
func (Login) MarshalJSON() ([]byte, error) { return []byte(`"login"`), nil }

// Same says that two logins come from the same data, so that connections opened with one serve the other.
func (l Login) Same(other Login) bool { return l.sum == other.sum }

// Of reads the login that o names, as its reader may. Without references it is the zero Login.
func Of(ctx context.Context, secrets source.Secrets, o source.Origin) (Login, error) {
	return Login{}.Again(ctx, secrets, o)
}

// Again reads it again, and is the same login where nothing changed: to open a key with a passphrase takes
// a tenth of a second on purpose.
func (l Login) Again(ctx context.Context, secrets source.Secrets, o source.Origin) (Login, error) {
	data, name, err := read(ctx, secrets, o.Reader, o.SecretRef)
	if err != nil {
		return Login{}, named(name, err)
	}
	proxy, proxyName, err := read(ctx, secrets, o.Reader, o.ProxySecretRef)
	if err != nil {
		return Login{}, named(proxyName, err)
	}
	sum := digest(data, proxy)
	if l.sum == sum && l.secret == name && l.proxySecret == proxyName {
		return l, nil
	}
	if l, err = parseSecret(data); err != nil {
		return Login{}, named(name, err)
	}
	if l.Proxy, err = parseProxy(proxy); err != nil {
		return Login{}, named(proxyName, err)
	}
	l.secret, l.proxySecret, l.sum = name, proxyName, sum
	return l, nil
}

// read one Secret; nil where none is named.
func read(ctx context.Context, secrets source.Secrets, as source.Reader, ref *v1alpha1.LocalReference) (data map[string][]byte, name string, err error) {
	if ref == nil {
		return nil, "", nil
	}
	name = as.Namespace + "/" + ref.Name
	if secrets == nil {
		return nil, name, missing("name no Secret in this source", "no Secrets can be read here")
	}
	data, err = secrets.Secret(ctx, as, ref.Name)
	var known *fleet.Error
	if err != nil && !errors.As(err, &known) {
		err = &fleet.Error{Kind: fleet.Retryable, Reason: v1alpha1.ReasonCredentialsMissing, Err: err}
	}
	if err == nil && data == nil {
		data = map[string][]byte{} // there, and empty: not the same as not named
	}
	return data, name, err
}

func named(secret string, err error) error {
	var known *fleet.Error
	if !errors.As(err, &known) {
		return fmt.Errorf("secret %s: %w", secret, err)
	}
	return &fleet.Error{Kind: known.Kind, Reason: known.Reason, Hint: known.Hint, Err: fmt.Errorf("secret %s: %w", secret, known.Err)}
}

// digest tells data from other data; it is kept instead of it.
func digest(maybe ...map[string][]byte) (sum [sha256.Size]byte) {
	h := sha256.New()
	for _, data := range maybe {
		fmt.Fprintf(h, "%d\n", len(data))
		for _, key := range slices.Sorted(maps.Keys(data)) {
			fmt.Fprintf(h, "%q %q\n", key, data[key])
		}
	}
	if !slices.ContainsFunc(maybe, func(m map[string][]byte) bool { return m != nil }) {
		return sum
	}
	h.Sum(sum[:0])
	return sum
}

// missing says that a Secret is not what it has to be. No word of it comes from a value.
func missing(hint, format string, args ...any) error {
	return &fleet.Error{Kind: fleet.Refused, Reason: v1alpha1.ReasonCredentialsMissing, Hint: hint, Err: fmt.Errorf(format, args...)}
}

// AuthFailed is the error for a server that wants other credentials than these: what it said, and which
// Secret to look at.
func (l Login) AuthFailed(said error) error {
	hint := "it may need credentials: name their Secret in spec.source.secretRef"
	if l.secret != "" {
		hint = fmt.Sprintf("it does not take the credentials of the Secret %s, or they may not read this; check its keys, and the URL", l.secret)
	}
	return &fleet.Error{Kind: fleet.Refused, Reason: v1alpha1.ReasonAuthFailed, Hint: hint, Err: said}
}

// hint says what to do, and to which Secret.
func (l Login) hint(what string) string {
	if l.secret == "" {
		return what
	}
	return what + ", " + l.secret
}

// proxyAuthFailed is the same for the proxy.
func (l Login) proxyAuthFailed(said error) error {
	hint := "check the username and password of the proxy's Secret"
	if l.proxySecret != "" {
		hint = fmt.Sprintf("check username and password in the Secret %s of spec.source.proxySecretRef", l.proxySecret)
	}
	return &fleet.Error{Kind: fleet.Refused, Reason: v1alpha1.ReasonAuthFailed, Hint: hint, Err: said}
}
