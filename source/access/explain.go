// SPDX-License-Identifier: Apache-2.0

package access

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// Explain takes the envelopes of net/http off an error that a client or connection of this package gave, and
// says of one of TLS what it means: Refused, with the reason ServerNotTrusted where the server cannot show who
// it is. Others stay as they are.
func Explain(err error) error { return Login{}.Explain(err) }

// Explain is the same, and names the login's Secret where the server does not take its certificate.
func (l Login) Explain(err error) error {
	// The alerts of TLS have no type; whoever sends one of these wants another certificate of the client.
	if said := alert(err); strings.Contains(said, "certificate") || strings.Contains(said, "access denied") {
		if l.Certificate == nil {
			return &fleet.Error{Kind: fleet.Refused, Reason: v1alpha1.ReasonAuthFailed, Err: errors.New("the server wants a certificate of the client"),
				Hint: l.hint("put one into the keys tls.crt and tls.key of the source's Secret")}
		}
		return l.AuthFailed(fmt.Errorf("the server does not take the client's certificate (%.100s)", said))
	}
	return explain(err)
}

// alert that the other side ended TLS with.
func alert(err error) string {
	if err == nil {
		return ""
	}
	_, said, _ := strings.Cut(err.Error(), "remote error: tls: ")
	return said
}

func explain(err error) error {
	var known *fleet.Error
	if errors.As(err, &known) {
		return known
	}
	var (
		authority   x509.UnknownAuthorityError
		invalid     x509.CertificateInvalidError
		name        x509.HostnameError
		unverified  *tls.CertificateVerificationError
		whichServer string
	)
	if errors.As(err, &unverified) && len(unverified.UnverifiedCertificates) > 0 {
		cert := unverified.UnverifiedCertificates[0]
		whichServer = fmt.Sprintf(" %.100q, issued by %.100q", cert.Subject.CommonName, cert.Issuer.CommonName)
	}
	switch {
	case errors.As(err, &authority):
		return notTrusted("put the certificate of the authority that issued it into ca.crt of the source's Secret",
			"the server's certificate%s is of an authority that is not trusted here", whichServer)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return notTrusted("renew the server's certificate, or set this machine's clock",
			"the server's certificate%s is valid from %s to %s only", whichServer,
			invalid.Cert.NotBefore.UTC().Format("2006-01-02"), invalid.Cert.NotAfter.UTC().Format("2006-01-02"))
	case errors.As(err, &invalid):
		return notTrusted("the server needs a certificate that is made for servers", "the server's certificate%s is not valid: %w", whichServer, invalid)
	case errors.As(err, &name):
		return notTrusted("write the host as the certificate names it", "the server's certificate%s is not for the host %q", whichServer, name.Host)
	case unverified != nil:
		return notTrusted("", "the server's certificate%s is not valid: %w", whichServer, unverified.Err)
	}
	return err
}

func notTrusted(hint, format string, args ...any) error {
	return &fleet.Error{Kind: fleet.Refused, Reason: v1alpha1.ReasonServerNotTrusted, Hint: hint, Err: fmt.Errorf(format, args...)}
}
