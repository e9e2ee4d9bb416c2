// SPDX-License-Identifier: Apache-2.0

package readapi

import (
	"crypto/x509"
	"testing"
	"time"
)

func TestCertificates(t *testing.T) {
	made, err := NewCertificates(began, "127.0.0.1", "::1", "agent.flotilla-system.svc")
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(made.Config.Certificates[0].Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	other, err := NewCertificates(began, "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	verify := func(ca []byte, host string, at time.Time) error {
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(ca) {
			t.Fatal("the CA is no PEM")
		}
		_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: host, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
		return err
	}
	for _, host := range []string{"127.0.0.1", "::1", "agent.flotilla-system.svc"} {
		if err := verify(made.CA, host, began); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	for name, err := range map[string]error{
		"another host":        verify(made.CA, "10.0.0.1", began),
		"another authority":   verify(other.CA, "127.0.0.1", began),
		"before it was made":  verify(made.CA, "127.0.0.1", began.Add(-2*time.Hour)),
		"after its last day":  verify(made.CA, "127.0.0.1", began.Add(certificateLife+time.Hour)),
		"as a client's":       verifyAsClient(leaf, made.CA),
		"the leaf signs none": leaf.CheckSignatureFrom(leaf),
	} {
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if verify(made.CA, "127.0.0.1", began.Add(-time.Minute)) != nil {
		t.Error("a client whose clock is a minute behind is refused")
	}
	if _, err := NewCertificates(began); err == nil {
		t.Error("a certificate for nobody")
	}
}

func verifyAsClient(leaf *x509.Certificate, ca []byte) error {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: began, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	return err
}
