// SPDX-License-Identifier: Apache-2.0

package git

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fluxcd/pkg/gittestserver"
	gogit "github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"
	"go.uber.org/goleak"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/source"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// origin is a repository on a real server: git itself behind HTTP.
type origin struct {
	t       testing.TB
	root    string // of all repositories
	dir     string
	address string
	handler http.Handler // of a modern one
	repo    *gogit.Repository
	clock   atomic.Int64

	mu       sync.Mutex
	requests []string
	fault    http.HandlerFunc
	only     string // part of the path that the fault is for
}

func newOrigin(t testing.TB) *origin {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed; it serves the repositories of this test")
	}
	o := &origin{t: t}
	// It speaks version 0 of git's protocol.
	srv := gittestserver.NewGitServer(t.TempDir())
	srv.AddHTTPMiddlewares(o.watch)
	if err := srv.StartHTTP(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.StopHTTP)
	o.address = srv.HTTPAddress()
	o.init(srv.Root(), "repo")
	return o
}

func (o *origin) init(root, name string) {
	o.t.Helper()
	o.root, o.dir = root, filepath.Join(root, "team", name+".git")
	repo, err := gogit.PlainInit(o.dir, true)
	if err != nil {
		o.t.Fatal(err)
	}
	o.repo = repo
}

// newModern is an origin that also speaks version 2.
func newModern(t testing.TB) *origin {
	t.Helper()
	program, err := exec.LookPath("git")
	if err != nil {
		t.Skip("git is not installed; it serves the repositories of this test")
	}
	o := &origin{t: t}
	root := t.TempDir()
	o.init(root, "repo")
	o.handler = o.watch(&cgi.Handler{
		Path: program, Args: []string{"http-backend"}, Dir: root, Stderr: io.Discard, Logger: log.New(io.Discard, "", 0),
		Env: []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_NOSYSTEM=1", "HOME=" + root},
	})
	srv := httptest.NewServer(o.handler)
	t.Cleanup(srv.Close)
	o.address = srv.URL
	return o
}

// beside is another repository on the same server.
func (o *origin) beside(name string) *origin {
	o.t.Helper()
	other := &origin{t: o.t, address: o.address, handler: o.handler}
	other.init(o.root, name)
	return other
}

// watch counts requests and lets a test answer instead of git.
func (o *origin) watch(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.mu.Lock()
		o.requests = append(o.requests, r.Method+" "+filepath.Base(r.URL.Path))
		fault := o.fault
		if !strings.Contains(r.URL.Path, o.only) {
			fault = nil
		}
		o.mu.Unlock()
		if fault != nil {
			fault(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// breakWith answers every request with a handler; nil mends.
func (o *origin) breakWith(h http.HandlerFunc) { o.breakAt("", h) }

// breakAt answers the requests whose path has a part.
func (o *origin) breakAt(part string, h http.HandlerFunc) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.only, o.fault = part, h
}

// asked is what was asked since the last call.
func (o *origin) asked() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	out := strings.Join(o.requests, ", ")
	o.requests = nil
	return out
}

const (
	oneLook  = "GET refs"
	oneFetch = "GET refs, POST git-upload-pack"
)

func (o *origin) url() string { return o.address + "/team/" + filepath.Base(o.dir) }

func (o *origin) src() source.Origin {
	return source.Origin{Source: v1alpha1.Source{Git: &v1alpha1.GitSource{URL: o.url()}, Timeout: &v1alpha1.Duration{Duration: metav1.Duration{Duration: 20 * time.Second}}}}
}

func (o *origin) branch(name string) source.Origin {
	src := o.src()
	src.Git.Ref = &v1alpha1.GitRef{Branch: name}
	return src
}

func (o *origin) pinned(h plumbing.Hash) source.Origin {
	src := o.src()
	src.Git.Ref = &v1alpha1.GitRef{Commit: h.String()}
	return src
}

func (o *origin) object(typ plumbing.ObjectType, content string) plumbing.Hash {
	o.t.Helper()
	obj := o.repo.Storer.NewEncodedObject()
	obj.SetType(typ)
	w, err := obj.Writer()
	if err == nil {
		_, err = w.Write([]byte(content))
	}
	if err != nil {
		o.t.Fatal(err)
	}
	h, err := o.repo.Storer.SetEncodedObject(obj)
	if err != nil {
		o.t.Fatal(err)
	}
	return h
}

// files by path. A name that ends in @ is a symbolic link to its content, in ! a program, in # a submodule.
type files map[string]string

func (o *origin) tree(all files) plumbing.Hash {
	o.t.Helper()
	var list []rawEntry
	folders := map[string]files{}
	for name, content := range all {
		if dir, rest, ok := strings.Cut(name, "/"); ok {
			if folders[dir] == nil {
				folders[dir] = files{}
			}
			folders[dir][rest] = content
			continue
		}
		e := rawEntry{"100644", name, plumbing.ZeroHash}
		switch name[len(name)-1] {
		case '@':
			e.mode, e.name = "120000", name[:len(name)-1]
		case '!':
			e.mode, e.name = "100755", name[:len(name)-1]
		case '#':
			h := plumbing.NewHash(content)
			if content == "" {
				h = plumbing.NewHash(strings.Repeat("ab", 20))
			}
			list = append(list, rawEntry{"160000", name[:len(name)-1], h})
			continue
		}
		e.hash = o.object(plumbing.BlobObject, content)
		list = append(list, e)
	}
	for name, sub := range folders {
		list = append(list, rawEntry{"40000", name, o.tree(sub)})
	}
	return o.rawTree(list...)
}

type rawEntry struct {
	mode, name string
	hash       plumbing.Hash
}

// rawTree writes entries in git's order and checks nothing.
func (o *origin) rawTree(list ...rawEntry) plumbing.Hash {
	o.t.Helper()
	key := func(e rawEntry) string {
		if e.mode == "40000" {
			return e.name + "/"
		}
		return e.name
	}
	slices.SortStableFunc(list, func(a, b rawEntry) int { return strings.Compare(key(a), key(b)) })
	var raw strings.Builder
	for _, e := range list {
		fmt.Fprintf(&raw, "%s %s\x00%s", e.mode, e.name, e.hash[:])
	}
	return o.object(plumbing.TreeObject, raw.String())
}

// commitTree makes a commit that no branch points at yet.
func (o *origin) commitTree(tree plumbing.Hash, parents ...plumbing.Hash) plumbing.Hash {
	o.t.Helper()
	n := o.clock.Add(1)
	when := object.Signature{Name: "Ada", Email: "ada@example.com", When: time.Unix(1_700_000_000+60*n, 0).UTC()}
	c := object.Commit{Author: when, Committer: when, Message: fmt.Sprintf("change %d\n\nand why", n), TreeHash: tree, ParentHashes: parents}
	obj := o.repo.Storer.NewEncodedObject()
	if err := c.Encode(obj); err != nil {
		o.t.Fatal(err)
	}
	h, err := o.repo.Storer.SetEncodedObject(obj)
	if err != nil {
		o.t.Fatal(err)
	}
	return h
}

func (o *origin) commit(all files, parents ...plumbing.Hash) plumbing.Hash {
	o.t.Helper()
	return o.commitTree(o.tree(all), parents...)
}

func (o *origin) set(branch string, h plumbing.Hash) {
	o.t.Helper()
	if err := o.repo.Storer.SetReference(plumbing.NewHashReference(plumbing.NewBranchReferenceName(branch), h)); err != nil {
		o.t.Fatal(err)
	}
}

// tag a commit; annotated with an object of its own.
func (o *origin) tag(name string, h plumbing.Hash, annotated bool) {
	o.t.Helper()
	if annotated {
		h = o.object(plumbing.TagObject, fmt.Sprintf("object %s\ntype commit\ntag %s\ntagger Ada <ada@example.com> 1700000000 +0000\n\nrelease\n", h, name))
	}
	o.setRef("refs/tags/"+name, h)
}

func (o *origin) setRef(name string, h plumbing.Hash) {
	o.t.Helper()
	if err := o.repo.Storer.SetReference(plumbing.NewHashReference(plumbing.ReferenceName(name), h)); err != nil {
		o.t.Fatal(err)
	}
}

// at is the source with a reference.
func (o *origin) at(ref v1alpha1.GitRef) source.Origin {
	src := o.src()
	src.Git.Ref = &ref
	return src
}

// push commits on top of main.
func (o *origin) push(all files) plumbing.Hash {
	o.t.Helper()
	var parents []plumbing.Hash
	if ref, err := o.repo.Reference("refs/heads/main", true); err == nil {
		parents = append(parents, ref.Hash())
	}
	h := o.commit(all, parents...)
	o.set("main", h)
	return h
}

// git runs git in the repository.
func (o *origin) git(args ...string) string {
	o.t.Helper()
	return o.gitIn("", args...)
}

// gitIn runs git with an input.
func (o *origin) gitIn(in string, args ...string) string {
	o.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir, cmd.Stdin = o.dir, strings.NewReader(in)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "HOME="+o.t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil {
		o.t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return string(out)
}

func newMirrors(t testing.TB, limits Limits) *Mirrors {
	t.Helper()
	m := &Mirrors{Dir: t.TempDir(), Limits: limits}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func onMain(h plumbing.Hash) fleet.Revision { return fleet.Revision("main@sha1:" + h.String()) }

// passOn a request to another server.
func passOn(w http.ResponseWriter, r *http.Request, to string) {
	at, err := url.Parse(to)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	(&httputil.ReverseProxy{
		Rewrite:   func(p *httputil.ProxyRequest) { p.SetURL(at) },
		Transport: &http.Transport{DisableKeepAlives: true},
		ErrorLog:  log.New(io.Discard, "", 0),
	}).ServeHTTP(w, r)
}
