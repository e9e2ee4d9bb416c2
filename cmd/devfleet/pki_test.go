// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"os"
	"testing"
)

func TestKeysAreMadeOnceAndFitTogether(t *testing.T) {
	f := testFolder(t)
	if err := createPKI(f); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		ca, file, user, group, host string
		usage                       x509.ExtKeyUsage
	}{
		{ca: "ca", file: "apiserver", user: "kube-apiserver", host: "127.0.0.1", usage: x509.ExtKeyUsageServerAuth},
		{ca: "ca", file: "admin", user: "devfleet:admin", group: "system:masters", usage: x509.ExtKeyUsageClientAuth},
		{ca: "front-proxy-ca", file: "front-proxy", user: "front-proxy-client", usage: x509.ExtKeyUsageClientAuth},
	} {
		pair, err := tls.LoadX509KeyPair(f.pki(tc.file+".crt"), f.pki(tc.file+".key"))
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		ca, err := os.ReadFile(f.pki(tc.ca + ".crt"))
		if err != nil || !roots.AppendCertsFromPEM(ca) {
			t.Fatal(tc.ca, err)
		}
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: tc.host, KeyUsages: []x509.ExtKeyUsage{tc.usage}}); err != nil {
			t.Errorf("%s: %v", tc.file, err)
		}
		subject := pair.Leaf.Subject
		if subject.CommonName != tc.user || (tc.group != "" && (len(subject.Organization) != 1 || subject.Organization[0] != tc.group)) {
			t.Errorf("%s: subject %v", tc.file, subject)
		}
	}
	if info, err := os.Stat(f.pki("ca.key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("ca.key: %v, %v; want readable by its owner only", info.Mode(), err)
	}

	before := readCA(t, f)
	if err := createPKI(f); err != nil || !bytes.Equal(before, readCA(t, f)) {
		t.Errorf("a second start made new keys (%v): kubeconfigs given out would be void", err)
	}
	if err := os.Remove(f.pki("complete")); err != nil {
		t.Fatal(err)
	}
	if err := createPKI(f); err != nil || bytes.Equal(before, readCA(t, f)) {
		t.Errorf("keys of a start that was cut short were kept (%v)", err)
	}
}

func readCA(t *testing.T, f folder) []byte {
	t.Helper()
	raw, err := os.ReadFile(f.pki("ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
