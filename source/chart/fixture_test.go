// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	ociregistry "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"go.uber.org/goleak"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/source"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// member of an archive.
type member struct {
	name, content string
	kind          byte // a file where it is 0
	link          string
}

// pack makes an archive.
func pack(t testing.TB, members ...member) []byte {
	t.Helper()
	var out bytes.Buffer
	zip := gzip.NewWriter(&out)
	to := tar.NewWriter(zip)
	for _, m := range members {
		h := &tar.Header{Name: m.name, Typeflag: m.kind, Linkname: m.link, Mode: 0o644, Size: int64(len(m.content))}
		if m.kind == 0 {
			h.Typeflag = tar.TypeReg
		}
		if m.kind == tar.TypeXGlobalHeader {
			h = &tar.Header{Typeflag: m.kind, PAXRecords: map[string]string{"comment": m.link}}
		}
		if err := to.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(to, m.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(to.Close(), zip.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// chartOf makes the archive of a chart: its Chart.yaml, and files besides.
func chartOf(t testing.TB, name, version string, files map[string]string) []byte {
	t.Helper()
	top := path.Base(name)
	members := []member{{name: top + "/Chart.yaml", content: fmt.Sprintf("apiVersion: v2\nname: %s\nversion: %s\ndescription: a chart for tests\n", top, version)}}
	for _, file := range slices.Sorted(maps.Keys(files)) {
		members = append(members, member{name: top + "/" + file, content: files[file]})
	}
	return pack(t, members...)
}

// front is a real server whose requests are counted, and which a test can let fail.
type front struct {
	*httptest.Server
	t testing.TB

	mu       sync.Mutex
	requests []string
	seen     []*http.Request
	fault    func(w http.ResponseWriter, r *http.Request) bool
}

// newFront serves plain http where config is nil.
func newFront(t testing.TB, config *tls.Config, h http.Handler) *front {
	t.Helper()
	f := &front{t: t}
	f.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		f.requests = append(f.requests, r.Method+" "+r.URL.Path)
		f.seen = append(f.seen, r)
		fault := f.fault
		f.mu.Unlock()
		if fault == nil || !fault(w, r) {
			h.ServeHTTP(w, r)
		}
	}))
	f.Config.ErrorLog = log.New(io.Discard, "", 0)
	if config == nil {
		f.Start()
	} else {
		f.TLS = config
		f.StartTLS()
	}
	t.Cleanup(f.Close)
	return f
}

// asked is what was asked since the last call.
func (f *front) asked() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := strings.Join(f.requests, ", ")
	f.requests, f.seen = nil, nil
	return out
}

// headers of the requests since the last call of asked.
func (f *front) headers(key string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for _, r := range f.seen {
		out = append(out, r.Header.Get(key))
	}
	return out
}

// breakWith answers every request with a handler; nil mends.
func (f *front) breakWith(h http.HandlerFunc) { f.breakAt("", h) }

// breakAt answers the requests whose path has a part.
func (f *front) breakAt(part string, h http.HandlerFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fault = nil; h == nil {
		return
	}
	f.fault = func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, part) {
			return false
		}
		h(w, r)
		return true
	}
}

// origin is a repository on a real server, of either kind.
type origin interface {
	// publish a version; one that is there is replaced.
	publish(version string, files map[string]string) fleet.Revision
	src(version string) source.Origin
	server() *front
}

// indexOrigin has an index.yaml.
type indexOrigin struct {
	t    testing.TB
	name string
	*front

	lock       sync.Mutex
	files      map[string][]byte
	order      []indexLine
	bodies     int // of the index that were sent
	noDigest   bool
	noETag     bool
	archiveURL func(file string) string
}

type indexLine struct{ version, digest, file string }

func newIndex(t testing.TB, config *tls.Config) *indexOrigin {
	x := &indexOrigin{t: t, name: "podinfo", files: map[string][]byte{}, archiveURL: func(file string) string { return "archives/" + file }}
	x.front = newFront(t, config, x)
	return x
}

func (x *indexOrigin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x.lock.Lock()
	defer x.lock.Unlock()
	if r.URL.Path == "/charts/index.yaml" {
		body := x.index()
		if tag := `"` + digestOf(body)[:12] + `"`; !x.noETag {
			w.Header().Set("ETag", tag)
			if r.Header.Get("If-None-Match") == tag {
				w.WriteHeader(http.StatusNotModified)
				return
			}
		}
		x.bodies++
		_, _ = w.Write(body)
		return
	}
	content, ok := x.files[strings.TrimPrefix(r.URL.Path, "/charts/archives/")]
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/gzip")
	_, _ = w.Write(content)
}

func (x *indexOrigin) index() []byte {
	var b strings.Builder
	b.WriteString("apiVersion: v1\nentries:\n  another:\n    - version: 9.9.9\n      urls: [none.tgz]\n")
	if len(x.order) > 0 {
		fmt.Fprintf(&b, "  %s:\n", x.name)
	}
	for _, line := range x.order {
		fmt.Fprintf(&b, "    - name: %s\n      version: %s\n      urls:\n        - %s\n", x.name, line.version, x.archiveURL(line.file))
		if !x.noDigest {
			fmt.Fprintf(&b, "      digest: %s\n", line.digest)
		}
	}
	b.WriteString("generated: \"2026-11-21T00:00:00Z\"\n")
	return []byte(b.String())
}

func (x *indexOrigin) publish(version string, files map[string]string) fleet.Revision {
	return x.put(version, chartOf(x.t, x.name, version, files))
}

func (x *indexOrigin) put(version string, archive []byte) fleet.Revision {
	x.lock.Lock()
	defer x.lock.Unlock()
	line := indexLine{version: version, digest: digestOf(archive), file: x.name + "-" + version + ".tgz"}
	x.files[line.file] = archive
	x.order = slices.DeleteFunc(x.order, func(l indexLine) bool { return l.version == version })
	x.order = append(x.order, line)
	return fleet.Revision(version + "@sha256:" + line.digest)
}

func (x *indexOrigin) server() *front { return x.front }

func (x *indexOrigin) src(version string) source.Origin {
	return sourceOf(x.URL+"/charts", x.name, version)
}

func sourceOf(url, chart, version string) source.Origin {
	return source.Origin{Source: v1alpha1.Source{
		Helm:    &v1alpha1.HelmSource{URL: url, Chart: chart, Version: version},
		Timeout: &v1alpha1.Duration{Duration: metav1.Duration{Duration: 20 * time.Second}},
	}}
}

// registryOrigin is a registry.
type registryOrigin struct {
	t    testing.TB
	name string
	real http.Handler
	*front
}

func newRegistry(t testing.TB, config *tls.Config) *registryOrigin {
	o := &registryOrigin{t: t, name: "podinfo", real: ociregistry.New(ociregistry.Logger(log.New(io.Discard, "", 0)))}
	o.front = newFront(t, config, o.real)
	return o
}

func (o *registryOrigin) server() *front { return o.front }

func (o *registryOrigin) src(version string) source.Origin {
	return sourceOf("oci://"+o.Listener.Addr().String()+"/team/charts", o.name, version)
}

// put something into the registry, past its front.
func (o *registryOrigin) put(method, path, kind string, body []byte) {
	o.t.Helper()
	r := httptest.NewRequest(method, "/v2/team/charts/"+o.name+"/"+path, bytes.NewReader(body))
	r.Header.Set("Content-Type", kind)
	w := httptest.NewRecorder()
	o.real.ServeHTTP(w, r)
	if w.Code != http.StatusCreated {
		o.t.Fatalf("%s %s: %d %s", method, path, w.Code, w.Body)
	}
}

func (o *registryOrigin) blob(kind string, content []byte) v1.Descriptor {
	o.t.Helper()
	digest := "sha256:" + digestOf(content)
	o.put(http.MethodPost, "blobs/uploads/?digest="+url.QueryEscape(digest), "application/octet-stream", content)
	return v1.Descriptor{MediaType: types.MediaType(kind), Size: int64(len(content)), Digest: v1.Hash{Algorithm: "sha256", Hex: digestOf(content)}}
}

func (o *registryOrigin) publish(version string, files map[string]string) fleet.Revision {
	o.t.Helper()
	return o.push(version, chartOf(o.t, o.name, version, files))
}

func (o *registryOrigin) push(version string, archive []byte) fleet.Revision {
	o.t.Helper()
	o.manifest(version, v1.Manifest{
		SchemaVersion: 2,
		MediaType:     types.OCIManifestSchema1,
		Config:        o.blob(configType, []byte(`{"name":"podinfo"}`)),
		Layers: []v1.Descriptor{
			o.blob("application/vnd.cncf.helm.chart.provenance.v1.prov", []byte("signed "+version)),
			o.blob(contentType, archive),
		},
	})
	return fleet.Revision(version + "@sha256:" + digestOf(archive))
}

func (o *registryOrigin) manifest(version string, m v1.Manifest) {
	o.t.Helper()
	body, err := json.Marshal(m)
	if err != nil {
		o.t.Fatal(err)
	}
	o.put(http.MethodPut, "manifests/"+strings.ReplaceAll(version, "+", "_"), string(types.OCIManifestSchema1), body)
}

// kinds of repositories; what is promised of both is tested of both.
var kinds = map[string]func(t testing.TB) origin{
	"index":    func(t testing.TB) origin { return newIndex(t, nil) },
	"registry": func(t testing.TB) origin { return newRegistry(t, nil) },
}

func ofBothKinds(t *testing.T, test func(t *testing.T, o origin)) {
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		t.Run(kind, func(t *testing.T) { test(t, kinds[kind](t)) })
	}
}

func newRepositories(t testing.TB) *Repositories {
	r := &Repositories{Dir: t.TempDir(), RootCAs: authority().pool}
	t.Cleanup(func() { r.Close() })
	return r
}

func latest(t testing.TB, r *Repositories, o source.Origin) source.Snapshot {
	t.Helper()
	snap, err := r.Latest(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return snap
}

func wantFile(t testing.TB, snap source.Snapshot, name, content string) {
	t.Helper()
	if snap.Files == nil {
		t.Fatalf("%s has no files", snap.Revision)
	}
	got, err := fs.ReadFile(snap.Files, name)
	if err != nil || string(got) != content {
		t.Errorf("%s: file %s is %q, %v; want %q", snap.Revision, name, got, err, content)
	}
}

// wantError checks kind, reason and parts of the message.
func wantError(t testing.TB, err error, kind fleet.ErrorKind, reason string, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", parts)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error:\n%v\nwant in it %q", err, part)
		}
	}
	if fleet.KindOf(err) != kind || fleet.ReasonOf(err, "") != reason {
		t.Errorf("error of kind %d, reason %s:\n%v\nwant kind %d, reason %s", fleet.KindOf(err), fleet.ReasonOf(err, "none"), err, kind, reason)
	}
}

// secrets by name, as anybody may read them.
type secrets map[string]map[string][]byte

func (s secrets) Secret(_ context.Context, as source.Reader, name string) (map[string][]byte, error) {
	if data, ok := s[name]; ok && as == reader {
		return data, nil
	}
	return nil, &fleet.Error{Kind: fleet.Refused, Reason: v1alpha1.ReasonCredentialsMissing, Err: fmt.Errorf("secret %s is not there for %v", name, as)}
}

var reader = source.Reader{Namespace: "apps", ServiceAccount: "flotilla"}

// with lets an origin be opened with a Secret.
func with(o source.Origin, secret string) source.Origin {
	o.SecretRef, o.Reader = &v1alpha1.LocalReference{Name: secret}, reader
	return o
}

// ca signs certificates.
type ca struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
	pem  []byte
}

var authority = sync.OnceValue(func() *ca { return newCA("flotilla tests") })

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func newCA(name string) *ca {
	c := &ca{key: must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), pool: x509.NewCertPool()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der := must(x509.CreateCertificate(rand.Reader, template, template, &c.key.PublicKey, c.key))
	c.cert = must(x509.ParseCertificate(der))
	c.pool.AddCert(c.cert)
	c.pem = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return c
}

// pair is a certificate for this machine, and its key, in PEM.
func (c *ca) pair(notAfter time.Time) (cert, key []byte) {
	private := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "this machine"}, NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: notAfter,
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der := must(x509.CreateCertificate(rand.Reader, template, c.cert, &private.PublicKey, c.key))
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(private))})
}

// config of a server.
func (c *ca) config(notAfter time.Time) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{must(tls.X509KeyPair(c.pair(notAfter)))}}
}

func tomorrow() time.Time { return time.Now().Add(24 * time.Hour) }
