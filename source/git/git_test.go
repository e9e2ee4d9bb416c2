// SPDX-License-Identifier: Apache-2.0

package git

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/source"
	"github.com/flotilla-dev/flotilla/source/disk"
)

func wantFile(t testing.TB, snap source.Snapshot, name, content string) {
	t.Helper()
	got, err := fs.ReadFile(snap.Files, name)
	if err != nil || string(got) != content {
		t.Errorf("%s: file %s is %q, %v; want %q", snap.Revision, name, got, err, content)
	}
}

// wantError checks kind, reason and a part of the message.
func wantError(t testing.TB, err error, kind fleet.ErrorKind, reason, part string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", part)
	}
	if fleet.KindOf(err) != kind || fleet.ReasonOf(err, "") != reason || !strings.Contains(err.Error(), part) {
		t.Errorf("error of kind %d, reason %s:\n%v\nwant kind %d, reason %s, and in it %q", fleet.KindOf(err), fleet.ReasonOf(err, "none"), err, kind, reason, part)
	}
}

func latest(t testing.TB, m *Mirrors, src source.Origin) source.Snapshot {
	t.Helper()
	snap, err := m.Latest(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	return snap
}

func TestLatestFollowsABranch(t *testing.T) {
	o, m := newOrigin(t), newMirrors(t, Limits{})
	first := o.push(files{"app.yaml": "one", "base/a.yaml": "a"})
	snap := latest(t, m, o.src())
	if snap.Revision != onMain(first) || snap.Subject != "change 1" || snap.Author != "Ada <ada@example.com>" {
		t.Errorf("snapshot %q %q %q", snap.Revision, snap.Subject, snap.Author)
	}
	wantFile(t, snap, "app.yaml", "one")
	wantFile(t, snap, "base/a.yaml", "a")
	if got := o.asked(); got != oneFetch {
		t.Errorf("the first look asked %q", got)
	}

	again := latest(t, m, o.src())
	if got := o.asked(); got != oneLook {
		t.Errorf("an unchanged source was asked %q, want one request", got)
	}
	if again.Revision != snap.Revision {
		t.Errorf("unchanged, but %s became %s", snap.Revision, again.Revision)
	}

	second := o.push(files{"app.yaml": "two", "base/a.yaml": "a"})
	snap2 := latest(t, m, o.src())
	if got := o.asked(); got != oneFetch {
		t.Errorf("a new head asked %q", got)
	}
	if snap2.Revision != onMain(second) {
		t.Errorf("head is %s, want %s", snap2.Revision, onMain(second))
	}
	wantFile(t, snap2, "app.yaml", "two")
	wantFile(t, snap, "app.yaml", "one") // a snapshot never changes
}

func TestFetchIsIncremental(t *testing.T) {
	o, m := newOrigin(t), newMirrors(t, Limits{})
	all := files{}
	for i := range 200 {
		all[fmt.Sprintf("f%d/file.yaml", i)] = strings.Repeat(fmt.Sprintf("line %d %d\n", i, i*i), 20)
	}
	o.push(all)
	latest(t, m, o.src())
	mir := m.mirror(parsed(t, o.src()))
	before := mir.store.bytes()
	all["f7/file.yaml"] = "changed"
	o.push(all)
	latest(t, m, o.src())
	if len(mir.store.packs) != 2 {
		t.Fatalf("%d packs, want 2", len(mir.store.packs))
	}
	if grown := mir.store.bytes() - before; grown > before/4 {
		t.Errorf("one changed file brought %d bytes to %d", grown, before)
	}
	if len(mir.store.tips) != 1 {
		t.Errorf("tips %v, want the newest alone", mir.store.tips)
	}
}

func parsed(t testing.TB, src source.Origin) request {
	t.Helper()
	r, err := parse(src)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestForcePushIsUnrelatedAndLosesNothing(t *testing.T) {
	o, m := newOrigin(t), newMirrors(t, Limits{})
	root := o.push(files{"a": "root"})
	running := o.push(files{"a": "running"})
	latest(t, m, o.src())
	rewritten := o.commit(files{"a": "rewritten"}, root)
	o.set("main", rewritten)
	o.git("reflog", "expire", "--expire=now", "--all")
	o.git("prune", "--expire=now")
	snap := latest(t, m, o.src())
	if snap.Revision != onMain(rewritten) {
		t.Fatalf("head is %s", snap.Revision)
	}
	for _, tc := range []struct {
		from, to plumbing.Hash
		want     source.Relation
	}{
		{running, rewritten, source.Unrelated},
		{rewritten, running, source.Unrelated},
		{root, rewritten, source.Descends},
		{running, root, source.Precedes},
		{running, running, source.Same},
		{root, plumbing.NewHash(strings.Repeat("12", 20)), source.Unrelated},
	} {
		got, err := m.Relation(t.Context(), o.src(), onMain(tc.from), onMain(tc.to))
		if err != nil || got != tc.want {
			t.Errorf("%s to %s: %v, %v; want %v", tc.from, tc.to, got, err, tc.want)
		}
	}
	o.asked()
	old, err := m.At(t.Context(), o.src(), onMain(running))
	if err != nil {
		t.Fatal(err)
	}
	wantFile(t, old, "a", "running")
	if got := o.asked(); got != "" {
		t.Errorf("the revision that was pushed away was asked of the server: %q", got)
	}

	// git itself must see both, so that its gc would keep them.
	mir := m.mirror(parsed(t, o.src()))
	gitDir := mir.store.dir
	o.git("--git-dir="+gitDir, "fsck", "--full", "--strict")
	if refs := o.git("--git-dir="+gitDir, "for-each-ref", "--format=%(refname)"); !strings.Contains(refs, running.String()) || !strings.Contains(refs, rewritten.String()) {
		t.Errorf("references of the mirror:\n%s", refs)
	}

	// The server has forgotten the old tip: the next fetch still builds on what both know.
	o.push(files{"a": "next"})
	latest(t, m, o.src())
}

func TestRelationThroughMerges(t *testing.T) {
	o, m := newOrigin(t), newMirrors(t, Limits{})
	root := o.push(files{"a": "1"})
	side := o.commit(files{"a": "1", "b": "side"}, root)
	trunk := o.push(files{"a": "2"})
	merge := o.commit(files{"a": "2", "b": "side"}, trunk, side)
	o.set("main", merge)
	latest(t, m, o.src())
	for _, tc := range []struct {
		from, to plumbing.Hash
		want     source.Relation
	}{{side, merge, source.Descends}, {root, merge, source.Descends}, {merge, side, source.Precedes}, {side, trunk, source.Unrelated}} {
		if got, err := m.Relation(t.Context(), o.src(), onMain(tc.from), onMain(tc.to)); err != nil || got != tc.want {
			t.Errorf("%s to %s: %v, %v; want %v", tc.from, tc.to, got, err, tc.want)
		}
	}
	// Two spellings of one commit are the same revision.
	if got, err := m.Relation(t.Context(), o.src(), onMain(side), fleet.Revision("sha1:"+side.String())); err != nil || got != source.Same {
		t.Errorf("one commit, two spellings: %v, %v", got, err)
	}
}

func TestRelationIsBounded(t *testing.T) {
	o, m := newOrigin(t), newMirrors(t, Limits{MaxCommits: 5})
	first := o.push(files{"a": "0"})
	last := first
	for i := range 20 {
		last = o.push(files{"a": fmt.Sprint(i)})
	}
	latest(t, m, o.src())
	if got, err := m.Relation(t.Context(), o.src(), onMain(first), onMain(last)); err != nil || got != source.Unrelated {
		t.Errorf("over the bound: %v, %v", got, err)
	}
}

func TestPinnedCommit(t *testing.T) {
	for _, allowed := range []bool{true, false} {
		t.Run(fmt.Sprintf("server allows hashes %v", allowed), func(t *testing.T) {
			o, m := newOrigin(t), newMirrors(t, Limits{})
			o.git("config", "uploadpack.allowReachableSHA1InWant", fmt.Sprint(allowed))
			old := o.push(files{"a": "old"})
			o.push(files{"a": "new"})
			snap := latest(t, m, o.pinned(old))
			if want := fleet.Revision("sha1:" + old.String()); snap.Revision != want {
				t.Errorf("revision %s, want %s", snap.Revision, want)
			}
			wantFile(t, snap, "a", "old")
			o.asked()
			latest(t, m, o.pinned(old))
			if got := o.asked(); got != "" {
				t.Errorf("a pinned commit that is here was asked for: %q", got)
			}
		})
	}
}

func TestAtFromTheOrigin(t *testing.T) {
	o, m := newOrigin(t), newMirrors(t, Limits{})
	o.git("config", "uploadpack.allowReachableSHA1InWant", "true")
	old := o.push(files{"a": "old"})
	o.push(files{"a": "new"})
	snap, err := m.At(t.Context(), o.src(), onMain(old))
	if err != nil {
		t.Fatal(err)
	}
	wantFile(t, snap, "a", "old")
	if snap.Revision != onMain(old) {
		t.Errorf("revision %s", snap.Revision)
	}
	// A revision of a branch that the source does not follow any more.
	other := o.commit(files{"a": "other"})
	o.set("release/1.0", other)
	o.git("config", "uploadpack.allowReachableSHA1InWant", "false")
	snap, err = m.At(t.Context(), o.src(), fleet.Revision("release/1.0@sha1:"+other.String()))
	if err != nil {
		t.Fatal(err)
	}
	wantFile(t, snap, "a", "other")

	_, err = m.At(t.Context(), o.src(), onMain(plumbing.NewHash(strings.Repeat("77", 20))))
	wantError(t, err, fleet.Retryable, v1alpha1.ReasonRefNotFound, "does not give commit 7777")
	for _, rev := range []fleet.Revision{"", "main", "main@sha1:", "main@sha256:" + fleet.Revision(strings.Repeat("0", 64)), "../x@sha1:" + fleet.Revision(old.String()), "main@sha1:" + fleet.Revision(strings.Repeat("0", 40))} {
		_, err = m.At(t.Context(), o.src(), rev)
		wantError(t, err, fleet.Terminal, v1alpha1.ReasonRefNotFound, "revision")
	}
}

func TestServerAway(t *testing.T) {
	o, m := newOrigin(t), newMirrors(t, Limits{})
	first := o.push(files{"a": "one"})
	snap := latest(t, m, o.src())
	o.breakWith(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusServiceUnavailable) })
	_, err := m.Latest(t.Context(), o.src())
	wantError(t, err, fleet.Retryable, v1alpha1.ReasonFetchFailed, "503 Service Unavailable")
	wantError(t, err, fleet.Retryable, v1alpha1.ReasonFetchFailed, o.url()+" (branch main)")
	held, err := m.At(t.Context(), o.src(), onMain(first))
	if err != nil {
		t.Fatalf("with the server away: %v", err)
	}
	wantFile(t, held, "a", "one")
	wantFile(t, snap, "a", "one")

	// And after a restart of the agent.
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := fs.ReadFile(snap.Files, "a"); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("a snapshot of closed mirrors: %v", err)
	}
	held, err = m.At(t.Context(), o.src(), onMain(first))
	if err != nil {
		t.Fatalf("after a restart: %v", err)
	}
	wantFile(t, held, "a", "one")
}

func TestErrorsOfServers(t *testing.T) {
	answer := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, strings.Repeat("<html>secret page</html>\n", 500), status)
		}
	}
	for _, tc := range []struct {
		name   string
		fault  http.HandlerFunc
		kind   fleet.ErrorKind
		reason string
		part   string
	}{
		{"401", answer(401), fleet.Refused, v1alpha1.ReasonAuthFailed, "401 Unauthorized"},
		{"403", answer(403), fleet.Refused, v1alpha1.ReasonAuthFailed, "name their Secret in spec.source.secretRef"},
		{"404", answer(404), fleet.Retryable, v1alpha1.ReasonFetchFailed, "404 Not Found"},
		{"429", answer(429), fleet.Retryable, v1alpha1.ReasonFetchFailed, "raise spec.source.interval"},
		{"500", answer(500), fleet.Retryable, v1alpha1.ReasonFetchFailed, "500 Internal Server Error"},
		{"a web page", answer(200), fleet.Retryable, v1alpha1.ReasonFetchFailed, "is there a git repository at this URL?"},
		{"nothing", func(http.ResponseWriter, *http.Request) {}, fleet.Retryable, v1alpha1.ReasonFetchFailed, "does not answer as git does"},
		{"hangs up", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, fleet.Retryable, v1alpha1.ReasonFetchFailed, "cannot be reached"},
		{"redirect to another host", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://localhost:1/team/repo.git/info/refs?service=git-upload-pack", http.StatusFound)
		}, fleet.Refused, v1alpha1.ReasonRedirected, `sends to another place, "http://localhost:1"`},
		{"redirect to another port", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/team/repo.git/info/refs?service=git-upload-pack", http.StatusFound)
		}, fleet.Refused, v1alpha1.ReasonRedirected, `sends to another place, "http://127.0.0.1:1"`},
		{"redirect in a circle", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.String(), http.StatusFound)
		}, fleet.Retryable, v1alpha1.ReasonFetchFailed, "more than 10 redirects"},
		{"endless references", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
			fmt.Fprintf(w, "001e# service=git-upload-pack\n0000")
			for i := 0; ; i++ {
				line := fmt.Sprintf("%040x refs/heads/%030000d\n", i+1, i)
				if i == 0 {
					line = fmt.Sprintf("%040x refs/heads/%030000d\x00agent=x\n", i+1, i)
				}
				if _, err := fmt.Fprintf(w, "%04x%s", len(line)+4, line); err != nil {
					return
				}
			}
		}, fleet.Terminal, v1alpha1.ReasonTooLarge, "list of references is larger than 32 MiB"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o, m := newOrigin(t), newMirrors(t, Limits{})
			o.breakWith(tc.fault)
			_, err := m.Latest(t.Context(), o.src())
			wantError(t, err, tc.kind, tc.reason, tc.part)
			if err != nil && (len(err.Error()) > 700 || strings.Contains(err.Error(), "\n")) {
				t.Errorf("the error is a page: %v", err)
			}
			o.breakWith(nil)
			o.push(files{"a": "1"})
			wantFile(t, latest(t, m, o.src()), "a", "1")
		})
	}
}

func TestRedirectOnTheSameHost(t *testing.T) {
	o, m := newOrigin(t), newMirrors(t, Limits{})
	o.push(files{"a": "1"})
	src := o.src()
	o.breakAt("/old/", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, strings.Replace(r.URL.String(), "/old/", "/team/", 1), http.StatusMovedPermanently)
	})
	src.Git.URL = o.address + "/old/repo.git"
	wantFile(t, latest(t, m, src), "a", "1")
	if got := o.asked(); got != "GET refs, GET refs, POST git-upload-pack" {
		t.Errorf("asked %q", got)
	}
}

func TestTLS(t *testing.T) {
	o := newOrigin(t)
	o.push(files{"a": "1"})
	at, err := url.Parse(o.address)
	if err != nil {
		t.Fatal(err)
	}
	inner := &http.Transport{DisableKeepAlives: true}
	front := httptest.NewTLSServer(&httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(at) },
		Transport: inner,
		ErrorLog:  log.New(io.Discard, "", 0),
	})
	front.Config.ErrorLog = log.New(io.Discard, "", 0)
	t.Cleanup(front.Close)
	src := o.src()
	src.Git.URL = front.URL + "/team/repo.git"
	_, err = newMirrors(t, Limits{}).Latest(t.Context(), src)
	wantError(t, err, fleet.Refused, v1alpha1.ReasonServerNotTrusted, "authority that is not trusted here")
	trusting := newMirrors(t, Limits{})
	trusting.RootCAs = x509.NewCertPool()
	trusting.RootCAs.AddCert(front.Certificate())
	wantFile(t, latest(t, trusting, src), "a", "1")
}

// TestUserAgent: servers see who asks, and nothing of the library or the environment.
func TestUserAgent(t *testing.T) {
	o, m := newOrigin(t), newMirrors(t, Limits{})
	o.push(files{"a": "1"})
	agents := make(chan string, 1)
	o.breakWith(func(w http.ResponseWriter, r *http.Request) {
		agents <- r.Header.Get("User-Agent")
		http.NotFound(w, r)
	})
	_, err := m.Latest(t.Context(), o.src())
	wantError(t, err, fleet.Retryable, v1alpha1.ReasonFetchFailed, "404")
	if got := <-agents; got != "flotilla" {
		t.Errorf("user agent %q", got)
	}
}

func TestUnreachable(t *testing.T) {
	closed := httptest.NewServer(nil)
	closed.Close()
	m := newMirrors(t, Limits{})
	_, err := m.Latest(t.Context(), source.Origin{Source: v1alpha1.Source{Git: &v1alpha1.GitSource{URL: closed.URL + "/x"}}})
	wantError(t, err, fleet.Retryable, v1alpha1.ReasonFetchFailed, "cannot be reached")
	_, err = m.Latest(t.Context(), source.Origin{Source: v1alpha1.Source{Git: &v1alpha1.GitSource{URL: "http://169.254.169.254/latest/meta-data"}}})
	wantError(t, err, fleet.Refused, v1alpha1.ReasonFetchFailed, "metadata services")
}

func TestSlowServer(t *testing.T) {
	o, m := newOrigin(t), newMirrors(t, Limits{})
	o.push(files{"a": "1"})
	for _, at := range []string{"refs", "git-upload-pack"} {
		slow := func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusOK)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}
		o.breakAt(at, slow)
		src := o.src()
		src.Timeout = &v1alpha1.Duration{Duration: metav1.Duration{Duration: 200 * time.Millisecond}}
		start := time.Now()
		_, err := m.Latest(t.Context(), src)
		wantError(t, err, fleet.Retryable, v1alpha1.ReasonFetchFailed, "no complete answer in time")
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v does not wrap the deadline", err)
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("gave up after %v", took)
		}
	}
	o.breakWith(nil)
	wantFile(t, latest(t, m, o.src()), "a", "1")
}

func TestEmptyAndMissing(t *testing.T) {
	o, m := newOrigin(t), newMirrors(t, Limits{})
	_, err := m.Latest(t.Context(), o.src())
	wantError(t, err, fleet.Retryable, v1alpha1.ReasonEmptySource, "has no commit")
	o.set("trunk", o.commit(files{"a": "1"}))
	o.git("symbolic-ref", "HEAD", "refs/heads/trunk")
	_, err = m.Latest(t.Context(), o.src())
	wantError(t, err, fleet.Retryable, v1alpha1.ReasonRefNotFound, `HEAD is branch "trunk"`)
	wantFile(t, latest(t, m, o.branch("trunk")), "a", "1")
	_, err = m.Latest(t.Context(), o.pinned(plumbing.NewHash(strings.Repeat("01", 20))))
	wantError(t, err, fleet.Retryable, v1alpha1.ReasonRefNotFound, "does not give commit")
	src := o.src()
	src.Git.URL = o.address + "/team/none.git"
	_, err = m.Latest(t.Context(), src)
	wantError(t, err, fleet.Retryable, v1alpha1.ReasonFetchFailed, "404")
}

func TestTooLarge(t *testing.T) {
	noise := func(n int) string {
		var b strings.Builder
		for i := uint64(1); b.Len() < n; i++ {
			fmt.Fprintf(&b, "%x", i*0x9e3779b97f4a7c15)
		}
		return b.String()[:n]
	}
	many := files{}
	for i := range 60 {
		many[fmt.Sprintf("d%d/f", i)] = fmt.Sprint(i)
	}
	for _, tc := range []struct {
		name   string
		limits Limits
		files  files
		part   string
	}{
		{"pack", Limits{MaxBytes: 10_000}, files{"a": noise(50_000)}, "the history is larger than 10000 bytes"},
		{"object", Limits{MaxObjectBytes: 1000}, files{"a": strings.Repeat("a", 1001)}, "1001 bytes is in the history"},
		{"objects", Limits{MaxObjects: 50}, many, "objects to fetch, at most 50"},
		{"files", Limits{MaxFiles: 100}, many, "more than 100 files"},
		{"tree", Limits{MaxTreeBytes: 1000}, files{"a": noise(600), "b": noise(600)}, "larger than 1000 bytes together"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o, m := newOrigin(t), newMirrors(t, tc.limits)
			o.push(tc.files)
			_, err := m.Latest(t.Context(), o.src())
			wantError(t, err, fleet.Terminal, v1alpha1.ReasonTooLarge, tc.part)
			o.asked()
			_, err = m.Latest(t.Context(), o.src())
			wantError(t, err, fleet.Terminal, v1alpha1.ReasonTooLarge, tc.part)
			if got := o.asked(); got != oneLook {
				t.Errorf("what is too large is fetched again: %q", got)
			}
			leftovers, err := filepath.Glob(filepath.Join(m.Dir, "*", "*", packFolder, disk.TempPrefix+"*"))
			if err != nil || len(leftovers) > 0 {
				t.Errorf("left behind: %v, %v", leftovers, err)
			}
		})
	}
}

func TestOversizeFile(t *testing.T) {
	o, m := newOrigin(t), newMirrors(t, Limits{MaxFileBytes: 100})
	o.push(files{"small": "ok", "docs/big": strings.Repeat("x", 101)})
	snap := latest(t, m, o.src())
	wantFile(t, snap, "small", "ok")
	for _, read := range []func() error{
		func() error { _, err := fs.ReadFile(snap.Files, "docs/big"); return err },
		func() error { _, err := snap.Files.Open("docs/big"); return err },
	} {
		wantError(t, read(), fleet.Terminal, v1alpha1.ReasonTooLarge, `"big" has 101 bytes, at most 100`)
	}
	if info, err := fs.Stat(snap.Files, "docs/big"); err != nil || info.Size() != 101 {
		t.Errorf("stat: %v, %v", info, err)
	}
}

func TestHostileNames(t *testing.T) {
	for _, name := range []string{"..", ".", "a/b", ".git", ".GIT", "x\xff"} {
		t.Run(fmt.Sprintf("%q", name), func(t *testing.T) {
			o, m := newOrigin(t), newMirrors(t, Limits{})
			blob := o.object(plumbing.BlobObject, "evil")
			sub := o.rawTree(rawEntry{"100644", name, blob})
			o.set("main", o.commitTree(o.rawTree(rawEntry{"40000", "sub", sub})))
			_, err := m.Latest(t.Context(), o.src())
			wantError(t, err, fleet.Terminal, v1alpha1.ReasonFetchFailed, "which is refused")
		})
	}
	t.Run("twice", func(t *testing.T) {
		o, m := newOrigin(t), newMirrors(t, Limits{})
		blob := o.object(plumbing.BlobObject, "x")
		o.set("main", o.commitTree(o.rawTree(rawEntry{"100644", "a", blob}, rawEntry{"40000", "a", o.tree(files{"b": "c"})})))
		_, err := m.Latest(t.Context(), o.src())
		wantError(t, err, fleet.Terminal, v1alpha1.ReasonFetchFailed, `"a" is there twice`)
	})
}

// TestTreeBomb: a small pack that holds a tree of 10^9 names costs no more than a small one.
func TestTreeBomb(t *testing.T) {
	o, m := newOrigin(t), newMirrors(t, Limits{})
	level := o.tree(files{"leaf": "x"})
	for range 9 {
		var list []rawEntry
		for i := range 10 {
			list = append(list, rawEntry{"40000", fmt.Sprint(i), level})
		}
		level = o.rawTree(list...)
	}
	o.set("main", o.commitTree(level))
	_, err := m.Latest(t.Context(), o.src())
	wantError(t, err, fleet.Terminal, v1alpha1.ReasonTooLarge, "more than 50000 files")
}

// TestConcurrentLooks: any number of callers cost one fetch and at most two looks.
func TestConcurrentLooks(t *testing.T) {
	o, m := newOrigin(t), newMirrors(t, Limits{})
	head := o.push(files{"a": "1"})
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			snap, err := m.Latest(t.Context(), o.src())
			if err != nil || snap.Revision != onMain(head) {
				t.Errorf("%s, %v", snap.Revision, err)
				return
			}
			wantFile(t, snap, "a", "1")
		})
	}
	all.Wait()
	asked := strings.Split(o.asked(), ", ")
	looks, fetches := 0, 0
	for _, a := range asked {
		if a == "GET refs" {
			looks++
		} else {
			fetches++
		}
	}
	if looks > 20 || fetches != 1 {
		t.Errorf("20 callers cost %d looks and %d fetches", looks, fetches)
	}
}

// TestSharedLook: callers that wait while a look is under way share the next one.
func TestSharedLook(t *testing.T) {
	o, m := newOrigin(t), newMirrors(t, Limits{})
	o.push(files{"a": "1"})
	latest(t, m, o.src())
	o.asked()
	mir := m.mirror(parsed(t, o.src()))
	mir.turn <- struct{}{} // somebody has the turn
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			if _, err := m.Latest(t.Context(), o.src()); err != nil {
				t.Error(err)
			}
		})
	}
	waitFor(t, func() bool { return mir.waiting.Load() == 10 })
	<-mir.turn
	all.Wait()
	if got := o.asked(); got != oneLook {
		t.Errorf("ten callers that waited asked %q, want one request", got)
	}
}

// TestWaitingForTheTurnEnds: who waits behind a look that hangs is not held longer than its own timeout,
// and what is mirrored is read meanwhile.
func TestWaitingForTheTurnEnds(t *testing.T) {
	o, m := newOrigin(t), newMirrors(t, Limits{})
	head := o.push(files{"a": "1"})
	latest(t, m, o.src())
	mir := m.mirror(parsed(t, o.src()))
	mir.turn <- struct{}{}
	defer func() { <-mir.turn }()
	src := o.src()
	src.Timeout = &v1alpha1.Duration{Duration: metav1.Duration{Duration: 50 * time.Millisecond}}
	_, err := m.Latest(t.Context(), src)
	wantError(t, err, fleet.Retryable, v1alpha1.ReasonFetchFailed, "another look at this repository is under way")
	snap, err := m.At(t.Context(), src, onMain(head))
	if err != nil {
		t.Fatal(err)
	}
	wantFile(t, snap, "a", "1")
}

func waitFor(t testing.TB, what func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for !what() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("it did not come about in 20 s")
		}
	}
}

func TestReadOnlyFolder(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root may write everywhere")
	}
	o := newOrigin(t)
	o.push(files{"a": "1"})
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	m := &Mirrors{Dir: filepath.Join(dir, "mirrors")}
	defer m.Close() //nolint:errcheck // a test
	_, err := m.Latest(t.Context(), o.src())
	wantError(t, err, fleet.Retryable, v1alpha1.ReasonFetchFailed, "permission denied")
}
