// SPDX-License-Identifier: Apache-2.0

package readapi

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"time"
)

// certificateLife is longer than an agent runs: both certificates are made anew at every start.
const certificateLife = 10 * 365 * 24 * time.Hour

// Certificates of one run of an agent. The authority's key signs the one serving certificate and is
// forgotten; who wants to talk to the agent reads the authority from the agent's ConfigMap.
type Certificates struct {
	// CA is the authority's certificate, PEM.
	CA []byte
	// Config serves with the certificate and asks for the client's. It verifies none of those: the
	// authority that they must come from may change while the agent runs, so [Delegated] does.
	Config *tls.Config
}

// NewCertificates makes an authority and a serving certificate for host names and IP addresses.
func NewCertificates(now time.Time, hosts ...string) (*Certificates, error) {
	if len(hosts) == 0 {
		return nil, errors.New("serving certificate: no host name or address to make it for")
	}
	made, err := newCertificates(now, hosts)
	if err != nil {
		return nil, fmt.Errorf("serving certificate for %q: %w", hosts, err)
	}
	return made, nil
}

func newCertificates(now time.Time, hosts []string) (*Certificates, error) {
	authority, err := template(now, "flotilla-agent-ca")
	if err != nil {
		return nil, err
	}
	authority.IsCA, authority.BasicConstraintsValid, authority.MaxPathLenZero = true, true, true
	authority.KeyUsage = x509.KeyUsageCertSign
	authorityKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	authorityDER, err := x509.CreateCertificate(rand.Reader, authority, authority, authorityKey.Public(), authorityKey)
	if err != nil {
		return nil, err
	}
	serving, err := template(now, "flotilla-agent")
	if err != nil {
		return nil, err
	}
	serving.KeyUsage, serving.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			serving.IPAddresses = append(serving.IPAddresses, ip)
		} else {
			serving.DNSNames = append(serving.DNSNames, host)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, serving, authority, key.Public(), authorityKey)
	if err != nil {
		return nil, err
	}
	return &Certificates{
		CA: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authorityDER}),
		Config: &tls.Config{
			MinVersion:   tls.VersionTLS13,
			Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
			ClientAuth:   tls.RequestClientCert,
			NextProtos:   []string{"h2", "http/1.1"},
		},
	}, nil
}

func template(now time.Time, name string) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    now.Add(-time.Hour), // a client's clock may be behind
		NotAfter:     now.Add(certificateLife),
	}, nil
}
