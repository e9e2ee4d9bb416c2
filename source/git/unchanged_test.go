// SPDX-License-Identifier: Apache-2.0

package git

import (
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// TestUnchangedCostsOneRequest: of a branch, a tag and a range of versions, in each version of the protocol.
func TestUnchangedCostsOneRequest(t *testing.T) {
	for name, tc := range map[string]struct {
		fresh             func(testing.TB) *origin
		first, look, news string
	}{
		"version 0": {newOrigin, oneFetch, oneLook, oneFetch},
		"version 2": {newModern, "GET refs, POST git-upload-pack, POST git-upload-pack", "POST git-upload-pack", "POST git-upload-pack, POST git-upload-pack"},
	} {
		t.Run(name, func(t *testing.T) {
			o := tc.fresh(t)
			h := o.push(files{"a": "1"})
			for i, ref := range []v1alpha1.GitRef{{Branch: "main"}, {Tag: "v1.0.0"}, {SemVer: "1.x"}} {
				o.tag("v1.0.0", h, true)
				m := newMirrors(t, Limits{})
				for _, want := range []string{tc.first, tc.look, tc.look} {
					latest(t, m, o.at(ref))
					if got := o.asked(); got != want {
						t.Errorf("%v: asked %q, want %q", ref, got, want)
					}
				}
				h = o.push(files{"a": fmt.Sprint(i)})
				o.tag("v1.0.0", h, true)
				latest(t, m, o.at(ref))
				if got := o.asked(); got != tc.news {
					t.Errorf("%v: something new asked %q, want %q", ref, got, tc.news)
				}
			}
		})
	}
}

// TestConditionalRequest: where a server names its list of references by an ETag, an unchanged one is not sent again.
func TestConditionalRequest(t *testing.T) {
	o, m := newOrigin(t), newMirrors(t, Limits{})
	o.push(files{"a": "1"})
	var full, unchanged atomic.Int64
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, kind, err := fetched(o.address + r.URL.String())
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		sum := sha1.Sum(body)
		tag := `"` + hex.EncodeToString(sum[:]) + `"`
		w.Header().Set("ETag", tag)
		if r.Header.Get("If-None-Match") == tag {
			unchanged.Add(1)
			w.WriteHeader(http.StatusNotModified)
			return
		}
		full.Add(1)
		w.Header().Set("Content-Type", kind)
		_, _ = w.Write(body)
	}))
	t.Cleanup(front.Close)
	src := o.src()
	src.Git.URL = front.URL + "/team/repo.git"
	ask := parsed(t, src)
	for i, want := range []struct{ full, unchanged int64 }{{1, 0}, {1, 1}, {1, 2}} {
		a, err := m.mirror(ask).remote.look(t.Context(), ask.ref)
		if err != nil {
			t.Fatal(err)
		}
		if _, h, err := a.find(ask.ref); err != nil || h.String() != strings.TrimSpace(o.git("rev-parse", "main")) {
			t.Errorf("look %d: %s, %v", i, h, err)
		}
		if full.Load() != want.full || unchanged.Load() != want.unchanged {
			t.Errorf("look %d: %d full and %d conditional answers, want %v", i, full.Load(), unchanged.Load(), want)
		}
	}
	h := o.push(files{"a": "2"})
	a, err := m.mirror(ask).remote.look(t.Context(), ask.ref)
	if err != nil {
		t.Fatal(err)
	}
	if _, got, err := a.find(ask.ref); err != nil || got != h || full.Load() != 2 {
		t.Errorf("after a push: %s, %v, %d full answers", got, err, full.Load())
	}
}

func fetched(url string) (body []byte, kind string, err error) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Get(url)
	if err != nil {
		return nil, "", err
	}
	defer res.Body.Close()
	body, err = io.ReadAll(res.Body)
	return body, res.Header.Get("Content-Type"), err
}

// TestServerChangesItsProtocol: a server that is replaced by one that speaks another version is asked anew.
func TestServerChangesItsProtocol(t *testing.T) {
	modern, old, m := newModern(t), newOrigin(t), newMirrors(t, Limits{})
	modern.push(files{"a": "1"})
	old.push(files{"a": "other"})
	now := atomic.Pointer[string]{}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		passOn(w, r, *now.Load())
	}))
	t.Cleanup(front.Close)
	src := old.src()
	src.Git.URL = front.URL + "/team/repo.git"
	for _, step := range []struct{ at, want string }{{modern.address, "1"}, {old.address, "other"}, {old.address, "other"}, {modern.address, "1"}} {
		now.Store(&step.at)
		wantFile(t, latest(t, m, src), "a", step.want)
	}
}

// BenchmarkUnchanged measures a look that finds nothing new: requests and bytes of the answers.
func BenchmarkUnchanged(b *testing.B) {
	for _, version := range []struct {
		name  string
		fresh func(testing.TB) *origin
	}{{"v0", newOrigin}, {"v2", newModern}} {
		for _, refs := range []int{1, 1000, 10_000} {
			b.Run(fmt.Sprintf("%s/refs=%d", version.name, refs), func(b *testing.B) {
				o, m := version.fresh(b), newMirrors(b, Limits{})
				h := o.push(files{"a": "1"})
				var packed strings.Builder
				packed.WriteString("# pack-refs with: peeled fully-peeled sorted\n")
				for i := range refs - 1 {
					fmt.Fprintf(&packed, "%s refs/heads/feature/%05d\n", h, i)
				}
				if err := os.WriteFile(filepath.Join(o.dir, "packed-refs"), []byte(packed.String()), 0o644); err != nil {
					b.Fatal(err)
				}
				var requests, bytes atomic.Int64
				front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					requests.Add(1)
					passOn(&counting{ResponseWriter: w, n: &bytes}, r, o.address)
				}))
				defer front.Close()
				src := o.src()
				src.Git.URL = front.URL + "/team/repo.git"
				latest(b, m, src)
				requests.Store(0)
				bytes.Store(0)
				for b.Loop() {
					latest(b, m, src)
				}
				b.ReportMetric(float64(requests.Load())/float64(b.N), "requests/op")
				b.ReportMetric(float64(bytes.Load())/float64(b.N), "bytes/op")
			})
		}
	}
}

type counting struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (c *counting) Write(b []byte) (int, error) {
	c.n.Add(int64(len(b)))
	return c.ResponseWriter.Write(b)
}

// TestSharedLookCoversWhatIsAsked: who waited for another reference does not take an answer without it.
func TestSharedLookCoversWhatIsAsked(t *testing.T) {
	o, m := newModern(t), newMirrors(t, Limits{})
	h := o.push(files{"a": "1"})
	o.tag("v1.0.0", h, true)
	latest(t, m, o.src())
	mir := m.mirror(parsed(t, o.src()))
	mir.turn <- struct{}{} // somebody has the turn
	var all sync.WaitGroup
	for _, ref := range []v1alpha1.GitRef{{Branch: "main"}, {Tag: "v1.0.0"}, {SemVer: "1.x"}, {Name: "refs/heads/main"}, {Commit: h.String()}} {
		for range 3 {
			all.Go(func() {
				if snap, err := m.Latest(t.Context(), o.at(ref)); err != nil || snap.Revision.Commit() != h.String() {
					t.Errorf("%+v: %s, %v", ref, snap.Revision, err)
				}
			})
		}
	}
	waitFor(t, func() bool { return mir.waiting.Load() == 12 }) // a commit that is held waits for nobody
	<-mir.turn
	all.Wait()
}
