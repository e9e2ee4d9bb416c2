// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/source"
	"github.com/flotilla-dev/flotilla/source/disk"
)

func TestLatestFollowsARange(t *testing.T) {
	ofBothKinds(t, func(t *testing.T, o origin) {
		r := newRepositories(t)
		o.publish("1.0.0", map[string]string{"a": "one"})
		first := o.publish("1.4.2", map[string]string{"a": "two"})
		o.publish("2.0.0", map[string]string{"a": "three"})
		o.publish("1.5.0-rc.1", map[string]string{"a": "four"})
		snap := latest(t, r, o.src("1.x"))
		if snap.Revision != first || snap.Subject != "a chart for tests" {
			t.Errorf("latest is %s %q, want %s", snap.Revision, snap.Subject, first)
		}
		wantFile(t, snap, "a", "two")

		second := o.publish("1.10.0", map[string]string{"a": "five"})
		moved := latest(t, r, o.src("1.x"))
		if moved.Revision != second {
			t.Errorf("latest is %s, want %s", moved.Revision, second)
		}
		wantFile(t, moved, "a", "five")
		wantFile(t, snap, "a", "two") // a snapshot never changes
		if rel, err := r.Relation(t.Context(), o.src("1.x"), first, second); rel != source.Descends || err != nil {
			t.Errorf("1.4.2 to 1.10.0: %v, %v", rel, err)
		}
		if pre := latest(t, r, o.src(">=1.5.0-0 <1.6.0")); !strings.HasPrefix(string(pre.Revision), "1.5.0-rc.1@") {
			t.Errorf("a range that names a pre-release gives %s", pre.Revision)
		}
		if exact := latest(t, r, o.src("1.4.2")); exact.Revision != first {
			t.Errorf("version 1.4.2 is %s", exact.Revision)
		}
	})
}

// TestUnchanged: what a look costs where nothing changed.
func TestUnchanged(t *testing.T) {
	ofBothKinds(t, func(t *testing.T, o origin) {
		r := newRepositories(t)
		o.publish("1.4.2", nil)
		for _, tc := range []struct{ version, index, registry string }{
			{"1.x", "GET /charts/index.yaml", "GET /v2/team/charts/podinfo/tags/list, HEAD /v2/team/charts/podinfo/manifests/1.4.2"},
			{"1.4.2", "GET /charts/index.yaml", "HEAD /v2/team/charts/podinfo/manifests/1.4.2"},
		} {
			first := latest(t, r, o.src(tc.version))
			o.server().asked()
			x, isIndex := o.(*indexOrigin)
			if isIndex {
				x.bodies = 0
			}
			for range 3 {
				if again := latest(t, r, o.src(tc.version)); again.Revision != first.Revision {
					t.Errorf("unchanged, but %s became %s", first.Revision, again.Revision)
				}
				want := tc.registry
				if isIndex {
					want = tc.index
				}
				if isIndex && x.bodies != 0 {
					t.Errorf("%s: an unchanged index was sent", tc.version)
				}
				if got := o.server().asked(); got != want {
					t.Errorf("%s: an unchanged repository was asked %q, want %q", tc.version, got, want)
				}
			}
		}
	})
}

func TestFirstLookAsks(t *testing.T) {
	index, oci := newIndex(t, nil), newRegistry(t, nil)
	index.publish("1.4.2", nil)
	oci.publish("1.4.2", nil)
	r := newRepositories(t)
	latest(t, r, index.src("1.x"))
	if got, want := index.asked(), "GET /charts/index.yaml, GET /charts/archives/podinfo-1.4.2.tgz"; got != want {
		t.Errorf("asked %q, want %q", got, want)
	}
	latest(t, r, oci.src("1.4.2"))
	// The first is on this machine only: does it speak http or https?
	got := oci.asked()
	if want := "GET /v2/team/charts/podinfo/manifests/1.4.2, GET /v2/team/charts/podinfo/blobs/sha256:"; !strings.HasPrefix(got, want) || strings.Contains(got, "tags") {
		t.Errorf("an exact version asked %q, want %q and no tags", got, want)
	}
}

func TestAtWorksWhileTheServerIsAway(t *testing.T) {
	ofBothKinds(t, func(t *testing.T, o origin) {
		r := newRepositories(t)
		first := o.publish("1.0.0", map[string]string{"a": "one"})
		latest(t, r, o.src("*"))
		second := o.publish("1.1.0", map[string]string{"a": "two"})
		latest(t, r, o.src("*"))
		o.server().Close()
		for range 2 {
			for rev, content := range map[fleet.Revision]string{first: "one", second: "two"} {
				snap, err := r.At(t.Context(), o.src("*"), rev)
				if err != nil {
					t.Fatalf("what is held cannot be read: %v", err)
				}
				if snap.Revision != rev {
					t.Errorf("at %s: %s", rev, snap.Revision)
				}
				wantFile(t, snap, "a", content)
			}
			_, err := r.Latest(t.Context(), o.src("*"))
			wantError(t, err, fleet.Retryable, v1alpha1.ReasonFetchFailed, "the server cannot be reached", "check the URL")
			// The next round is of an agent that was started anew.
			r = &Repositories{Dir: r.Dir}
			t.Cleanup(func() { _ = r.Close() })
		}
	})
}

func TestAtFetchesWhatIsNotHeld(t *testing.T) {
	ofBothKinds(t, func(t *testing.T, o origin) {
		old := o.publish("1.0.0", map[string]string{"a": "one"})
		o.publish("1.1.0", nil)
		r := newRepositories(t)
		snap, err := r.At(t.Context(), o.src("1.x"), old)
		if err != nil || snap.Revision != old {
			t.Fatalf("at %s: %s, %v", old, snap.Revision, err)
		}
		wantFile(t, snap, "a", "one")
		o.server().asked()
		if _, err := r.At(t.Context(), o.src("1.x"), old); err != nil {
			t.Error(err)
		}
		if got := o.server().asked(); got != "" {
			t.Errorf("what is held was asked for with %q", got)
		}
		for rev, part := range map[fleet.Revision]string{
			"no revision":          "want <version>@sha256:",
			"1.0.0@sha256:123":     "64 lower-case hex digits",
			"x@sha256:" + old[13:]: "not a version",
		} {
			_, err := r.At(t.Context(), o.src("1.x"), rev)
			wantError(t, err, fleet.Terminal, v1alpha1.ReasonRefNotFound, part)
		}
		_, err = r.At(t.Context(), o.src("1.x"), fleet.Revision(strings.Replace(string(old), "1.0.0", "1.0.7", 1)))
		if _, ok := o.(*indexOrigin); ok {
			wantError(t, err, fleet.Retryable, v1alpha1.ReasonRefNotFound, "no version 1.0.7", "its newest are 1.1.0, 1.0.0")
		}
		_, err = r.At(t.Context(), o.src("1.x"), fleet.Revision("1.0.0@sha256:"+strings.Repeat("5", 64)))
		wantError(t, err, fleet.Refused, v1alpha1.ReasonVersionMoved, "version 1.0.0", strings.Repeat("5", 64))
	})
}

// TestPublishedAgain: a version that is published again is another revision, unrelated to what it was, and
// whoever asks for the version gets what it was.
func TestPublishedAgain(t *testing.T) {
	ofBothKinds(t, func(t *testing.T, o origin) {
		r := newRepositories(t)
		was := o.publish("1.4.2", map[string]string{"a": "was"})
		latest(t, r, o.src("1.x"))
		is := o.publish("1.4.2", map[string]string{"a": "is"})
		snap := latest(t, r, o.src("1.x"))
		if snap.Revision != is {
			t.Errorf("latest is %s, want %s", snap.Revision, is)
		}
		if rel, err := r.Relation(t.Context(), o.src("1.x"), was, is); rel != source.Unrelated || err != nil {
			t.Errorf("%s to %s: %v, %v", was, is, rel, err)
		}
		held, err := r.At(t.Context(), o.src("1.x"), was)
		if err != nil {
			t.Fatal(err)
		}
		wantFile(t, held, "a", "was")
		exact, err := r.Chart(t.Context(), source.Reader{}, chartAt(o, "1.4.2", ""))
		if err != nil || exact.Revision != was {
			t.Errorf("the version stays what it was: %s, %v", exact.Revision, err)
		}
		// Where the archive is gone from disk, the version does not silently become another one: a registry
		// still has what it was, a repository has it no more.
		small := &Repositories{Dir: r.Dir, Limits: Limits{MaxArchives: 1}}
		defer small.Close()
		o.publish("1.4.3", nil)
		latest(t, small, o.src("1.x"))
		exact, err = small.Chart(t.Context(), source.Reader{}, chartAt(o, "1.4.2", ""))
		if _, ok := o.(*indexOrigin); ok {
			wantError(t, err, fleet.Refused, v1alpha1.ReasonVersionMoved, "version 1.4.2", "publish the change as another version")
		} else if err != nil || exact.Revision != was {
			t.Errorf("the version stays what it was: %s, %v", exact.Revision, err)
		}
	})
}

func chartAt(o origin, version, digest string) v1alpha1.HelmChart {
	h := o.src(version).Helm
	return v1alpha1.HelmChart{URL: h.URL, Chart: h.Chart, Version: h.Version, Digest: digest}
}

func TestChart(t *testing.T) {
	ofBothKinds(t, func(t *testing.T, o origin) {
		r := newRepositories(t)
		rev := o.publish("1.4.2", map[string]string{"a": "one"})
		digest := string(rev)[len("1.4.2@"):]
		_, err := r.Chart(t.Context(), source.Reader{}, chartAt(o, "1.4.2", "sha256:"+strings.Repeat("5", 64)))
		wantError(t, err, fleet.Refused, v1alpha1.ReasonVersionMoved, digest, strings.Repeat("5", 64))
		for _, pin := range []string{"", digest} {
			snap, err := r.Chart(t.Context(), source.Reader{}, chartAt(o, "1.4.2", pin))
			if err != nil || snap.Revision != rev {
				t.Fatalf("%s, %v", snap.Revision, err)
			}
			wantFile(t, snap, "a", "one")
		}
		o.server().asked()
		for _, pin := range []string{"", digest} {
			if _, err := r.Chart(t.Context(), source.Reader{}, chartAt(o, "1.4.2", pin)); err != nil {
				t.Error(err)
			}
		}
		if got := o.server().asked(); got != "" {
			t.Errorf("a chart that is held was asked for with %q", got)
		}
		_, err = r.Chart(t.Context(), source.Reader{}, chartAt(o, "1.x", ""))
		wantError(t, err, fleet.Terminal, v1alpha1.ReasonRefNotFound, "not one version in full")
		_, err = r.Chart(t.Context(), source.Reader{}, chartAt(o, "1.4.2", "md5:12"))
		wantError(t, err, fleet.Terminal, v1alpha1.ReasonRefNotFound, "md5:12")
		_, err = r.Chart(t.Context(), source.Reader{}, chartAt(o, "7.0.0", ""))
		wantError(t, err, fleet.Retryable, v1alpha1.ReasonRefNotFound, "no version 7.0.0", "its newest are 1.4.2")
	})
}

// TestDigestBindsNoVersion: who asks for an archive by its digest, under the version of another, does not decide
// what that version is for those who ask without a digest.
func TestDigestBindsNoVersion(t *testing.T) {
	ofBothKinds(t, func(t *testing.T, o origin) {
		r := newRepositories(t)
		old := o.publish("1.0.0", map[string]string{"a": "old"})
		rev := o.publish("1.4.2", map[string]string{"a": "new"})
		digest := string(old)[len("1.0.0@"):]
		// A registry gives layers by their digest alone; a repository knows whose they are.
		_, err := r.Chart(t.Context(), source.Reader{}, chartAt(o, "1.4.2", digest))
		if _, ok := o.(*indexOrigin); ok {
			wantError(t, err, fleet.Refused, v1alpha1.ReasonVersionMoved, "version 1.4.2")
		}
		for range 2 {
			snap, err := r.Chart(t.Context(), source.Reader{}, chartAt(o, "1.4.2", ""))
			if err != nil || snap.Revision != rev {
				t.Fatalf("%s, %v; want %s", snap.Revision, err, rev)
			}
			wantFile(t, snap, "a", "new")
		}
		// What is held is not fetched again to be told which version it is.
		other := newRepositories(t)
		if _, err := other.At(t.Context(), o.src("1.x"), rev); err != nil {
			t.Fatal(err)
		}
		o.server().asked()
		if snap, err := other.Chart(t.Context(), source.Reader{}, chartAt(o, "1.4.2", "")); err != nil || snap.Revision != rev {
			t.Errorf("%s, %v", snap.Revision, err)
		}
		if asked := o.server().asked(); strings.Contains(asked, ".tgz") || strings.Contains(asked, "/blobs/") {
			t.Errorf("asked %q", asked)
		}
	})
}

// TestSpellings: a leading v and build metadata.
func TestSpellings(t *testing.T) {
	ofBothKinds(t, func(t *testing.T, o origin) {
		r := newRepositories(t)
		v := o.publish("v1.2.0", nil)
		plus := o.publish("1.3.0+build.7", nil)
		newer := o.publish("1.3.0+build.10", nil)
		for asked, want := range map[string]fleet.Revision{"v1.2.0": v, "1.2.0": v, "1.3.0+build.7": plus, "1.x": newer, "~1.2.0": v} {
			if snap := latest(t, r, o.src(asked)); snap.Revision != want {
				t.Errorf("%s is %s, want %s", asked, snap.Revision, want)
			}
		}
		if rel, err := r.Relation(t.Context(), o.src("1.x"), plus, newer); rel != source.Descends || err != nil {
			t.Errorf("build 7 to build 10: %v, %v", rel, err)
		}
	})
}

func TestFileSystem(t *testing.T) {
	ofBothKinds(t, func(t *testing.T, o origin) {
		r := newRepositories(t)
		files := map[string]string{
			"a": "1", "a.yaml": "between a and a/", "b/c/d.yaml": strings.Repeat("line\n", 5000), "b/c.yaml": "2", "empty": "", "ü/ß": "3",
			"templates/_helpers.tpl": "", "charts/sub/Chart.yaml": "name: sub",
		}
		o.publish("1.0.0", files)
		snap := latest(t, r, o.src("1.0.0"))
		var names []string
		for name, content := range files {
			wantFile(t, snap, name, content)
			names = append(names, name)
		}
		if err := fstest.TestFS(snap.Files, names...); err != nil {
			t.Error(err)
		}
		content, err := fs.ReadFile(snap.Files, "a")
		if err != nil {
			t.Fatal(err)
		}
		content[0] = '!' // the reader's own copy
		wantFile(t, snap, "a", "1")
	})
}

// TestOneFetchForAll: many who want a chart at once cost one fetch.
func TestOneFetchForAll(t *testing.T) {
	ofBothKinds(t, func(t *testing.T, o origin) {
		r := newRepositories(t)
		rev := o.publish("1.4.2", map[string]string{"a": "one"})
		var all sync.WaitGroup
		for i := range 16 {
			all.Go(func() {
				var snap source.Snapshot
				var err error
				switch i % 3 {
				case 0:
					snap, err = r.Latest(t.Context(), o.src("1.x"))
				case 1:
					snap, err = r.At(t.Context(), o.src("1.x"), rev)
				default:
					snap, err = r.Chart(t.Context(), source.Reader{}, chartAt(o, "1.4.2", ""))
				}
				if err != nil || snap.Revision != rev {
					t.Errorf("%d: %s, %v", i, snap.Revision, err)
					return
				}
				wantFile(t, snap, "a", "one")
			})
		}
		all.Wait()
		if asked := o.server().asked(); strings.Count(asked, ".tgz")+strings.Count(asked, "/blobs/") != 1 {
			t.Errorf("asked %q, want one archive", asked)
		}
	})
}

func TestTimeoutAndCancel(t *testing.T) {
	ofBothKinds(t, func(t *testing.T, o origin) {
		r := newRepositories(t)
		o.publish("1.4.2", nil)
		hold := make(chan struct{})
		defer close(hold)
		o.server().breakWith(func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-hold:
			case <-r.Context().Done():
			}
		})
		src := o.src("1.x")
		src.Timeout.Duration.Duration = 50 * time.Millisecond
		_, err := r.Latest(t.Context(), src)
		wantError(t, err, fleet.Retryable, v1alpha1.ReasonFetchFailed, "no complete answer in time")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err = r.Latest(ctx, o.src("1.x"))
		wantError(t, err, fleet.Retryable, v1alpha1.ReasonFetchFailed, "canceled")
	})
}

// TestPlacesApart: what was opened with a Secret is not shown to whoever names none.
func TestPlacesApart(t *testing.T) {
	x := newIndex(t, authority().config(tomorrow()))
	rev := x.publish("1.4.2", nil)
	r := newRepositories(t)
	r.Secrets = secrets{"login": {"username": []byte("ada"), "password": []byte("pw")}}
	latest(t, r, with(x.src("1.4.2"), "login"))
	x.Close()
	if _, err := r.At(t.Context(), with(x.src("1.4.2"), "login"), rev); err != nil {
		t.Error(err)
	}
	_, err := r.At(t.Context(), x.src("1.4.2"), rev)
	wantError(t, err, fleet.Retryable, v1alpha1.ReasonFetchFailed, "cannot be reached")
}

func TestDamagedArchiveIsFetchedAgain(t *testing.T) {
	ofBothKinds(t, func(t *testing.T, o origin) {
		r := newRepositories(t)
		rev := o.publish("1.4.2", map[string]string{"a": "one"})
		latest(t, r, o.src("1.4.2"))
		held, err := filepath.Glob(filepath.Join(r.Dir, "*", "*.tgz"))
		if err != nil || len(held) != 1 {
			t.Fatalf("%v, %v", held, err)
		}
		for _, damage := range []string{"", "not what was written"} {
			if err := os.WriteFile(held[0], []byte(damage), 0o600); err != nil {
				t.Fatal(err)
			}
			o.server().asked()
			snap, err := r.At(t.Context(), o.src("1.4.2"), rev)
			if err != nil {
				t.Fatal(err)
			}
			wantFile(t, snap, "a", "one")
			if o.server().asked() == "" {
				t.Error("a damaged archive was believed")
			}
		}
	})
}

func TestOldArchivesGo(t *testing.T) {
	o := newIndex(t, nil)
	r := newRepositories(t)
	r.Limits.MaxArchives = 3
	var all []fleet.Revision
	for i := range 6 {
		all = append(all, o.publish(fmt.Sprintf("1.%d.0", i), nil))
		latest(t, r, o.src("1.x"))
		o.asked()
		if _, err := r.At(t.Context(), o.src("1.x"), all[0]); err != nil {
			t.Fatal(err)
		}
		if got := o.asked(); got != "" {
			t.Errorf("what is asked for all the time went first: asked %q", got)
		}
	}
	for i, want := range []bool{true, false, false, false, true, true} {
		_, err := r.At(t.Context(), o.src("1.x"), all[i])
		if held := o.asked() == ""; err != nil || held != want {
			t.Errorf("1.%d.0: held %t, want %t; %v", i, held, want, err)
		}
		if !want {
			break // asking for it pushed another out
		}
	}
	left, err := filepath.Glob(filepath.Join(r.Dir, "*", "*"+archiveSuffix))
	if err != nil || len(left) != 3 {
		t.Errorf("%d archives, %v", len(left), err)
	}
	// Half-written files of an agent that was killed go, too.
	half := filepath.Join(filepath.Dir(left[0]), disk.TempPrefix+"123")
	if err := os.WriteFile(half, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	again := &Repositories{Dir: r.Dir}
	defer again.Close()
	latest(t, again, o.src("1.x"))
	if _, err := os.Stat(half); !os.IsNotExist(err) {
		t.Errorf("a half-written file is left: %v", err)
	}
}

func TestDiskTrouble(t *testing.T) {
	o := newIndex(t, nil)
	o.publish("1.0.0", nil)
	dir := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := &Repositories{Dir: dir}
	defer r.Close()
	_, err := r.Latest(t.Context(), o.src("1.0.0"))
	wantError(t, err, fleet.Retryable, v1alpha1.ReasonFetchFailed, "not a directory")
}

func TestRequestsAreChecked(t *testing.T) {
	r := newRepositories(t)
	for _, tc := range []struct {
		url, chart, version string
		kind                fleet.ErrorKind
		reason, part        string
	}{
		{"ftp://x/y", "a", "1.x", fleet.Refused, v1alpha1.ReasonFetchFailed, "only https, http and oci"},
		{"https://ada:hunter2@x/y", "a", "1.x", fleet.Refused, v1alpha1.ReasonFetchFailed, "it holds credentials"},
		{"https://x/y?token=hunter2", "a", "1.x", fleet.Refused, v1alpha1.ReasonFetchFailed, "a query"},
		{"https:///y", "a", "1.x", fleet.Refused, v1alpha1.ReasonFetchFailed, "names no host"},
		{"https://x\x7f/hunter2", "a", "1.x", fleet.Refused, v1alpha1.ReasonFetchFailed, "does not parse"},
		{"https://x/y", "../a", "", fleet.Terminal, v1alpha1.ReasonRefNotFound, "it is empty"},
		{"https://x/y", "a b", "1.x", fleet.Terminal, v1alpha1.ReasonRefNotFound, "not a name of a chart"},
		{"https://x/y", "a", "one", fleet.Terminal, v1alpha1.ReasonRefNotFound, "neither a version nor a range"},
		{"https://x/y", "a", strings.Repeat("1", 200), fleet.Terminal, v1alpha1.ReasonRefNotFound, "longer than 128 bytes"},
		{"oci://x/y", "Podinfo", "1.x", fleet.Terminal, v1alpha1.ReasonRefNotFound, "no name of a repository in a registry"},
		{"oci://x/../y", "a", "1.x", fleet.Terminal, v1alpha1.ReasonRefNotFound, "no name of a repository in a registry"},
	} {
		_, err := r.Latest(t.Context(), sourceOf(tc.url, tc.chart, tc.version))
		wantError(t, err, tc.kind, tc.reason, tc.part)
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error shows a secret: %v", err)
		}
	}
	_, err := r.Latest(t.Context(), source.Origin{})
	wantError(t, err, fleet.Refused, v1alpha1.ReasonFetchFailed, "spec.source.helm")
	_, err = r.Relation(t.Context(), sourceOf("https://x", "a", "1.x"), "1.0.0", "x")
	wantError(t, err, fleet.Terminal, v1alpha1.ReasonRefNotFound, "want <version>@sha256:")
}
