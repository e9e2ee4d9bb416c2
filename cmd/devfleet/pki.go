// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"time"
)

// pkiLife is how long a development cluster's certificates hold.
const pkiLife = 10 * 365 * 24 * time.Hour

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// certificate says what a key pair is for.
type certificate struct {
	file   string // without .crt and .key
	user   string // common name
	groups []string
	usage  x509.ExtKeyUsage
	hosts  []string
	ips    []net.IP
}

// createPKI makes the member's keys on its first start and leaves them alone afterwards,
// so that kubeconfigs and tokens given out stay good when the member starts again.
func createPKI(f folder) error {
	if _, err := os.Stat(f.pki("complete")); err == nil {
		return nil
	}
	ca, err := newAuthority(f, "ca", f.name)
	if err != nil {
		return err
	}
	frontProxy, err := newAuthority(f, "front-proxy-ca", f.name+"-front-proxy")
	if err != nil {
		return err
	}
	for _, c := range []certificate{
		{file: "apiserver", user: "kube-apiserver", usage: x509.ExtKeyUsageServerAuth,
			hosts: []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"},
			ips:   []net.IP{net.IPv4(127, 0, 0, 1), net.IPv4(10, 0, 0, 1)}},
		{file: "admin", user: "devfleet:admin", groups: []string{"system:masters"}, usage: x509.ExtKeyUsageClientAuth},
	} {
		if err := ca.issue(f, c); err != nil {
			return err
		}
	}
	if err := frontProxy.issue(f, certificate{file: "front-proxy", user: "front-proxy-client", usage: x509.ExtKeyUsageClientAuth}); err != nil {
		return err
	}
	if err := newServiceAccountKey(f); err != nil {
		return err
	}
	// Written last: a start that was cut short begins again with fresh keys.
	return writeFile(f.pki("complete"), nil)
}

func newAuthority(f folder, file, name string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", file, err)
	}
	template := x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
	}
	der, err := sign(&template, &template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("certificate %s: %w", file, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("certificate %s: %w", file, err)
	}
	return &authority{cert: cert, key: key}, writePair(f, file, der, key)
}

func (a *authority) issue(f folder, c certificate) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("key %s: %w", c.file, err)
	}
	template := x509.Certificate{
		Subject:     pkix.Name{CommonName: c.user, Organization: c.groups},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{c.usage},
		DNSNames:    c.hosts, IPAddresses: c.ips,
	}
	der, err := sign(&template, a.cert, key.Public(), a.key)
	if err != nil {
		return fmt.Errorf("certificate %s: %w", c.file, err)
	}
	return writePair(f, c.file, der, key)
}

// sign completes the template with a serial number and a life that starts a little early, for clocks that differ.
func sign(template, parent *x509.Certificate, public crypto.PublicKey, signer crypto.Signer) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	template.NotBefore = time.Now().Add(-time.Hour)
	template.NotAfter = time.Now().Add(pkiLife)
	return x509.CreateCertificate(rand.Reader, template, parent, public, signer)
}

func newServiceAccountKey(f folder) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("service account key: %w", err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return fmt.Errorf("service account key: %w", err)
	}
	if err := writePEM(f.pki("service-account.pub"), "PUBLIC KEY", public); err != nil {
		return err
	}
	return writeKey(f.pki("service-account.key"), key)
}

func writePair(f folder, file string, der []byte, key *ecdsa.PrivateKey) error {
	if err := writePEM(f.pki(file+".crt"), "CERTIFICATE", der); err != nil {
		return err
	}
	return writeKey(f.pki(file+".key"), key)
}

func writeKey(file string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return fmt.Errorf("key %s: %w", file, err)
	}
	return writePEM(file, "EC PRIVATE KEY", der)
}

func writePEM(file, kind string, der []byte) error {
	return writeFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}
