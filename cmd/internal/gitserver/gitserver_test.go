// SPDX-License-Identifier: Apache-2.0

package gitserver

import (
	"context"
	"crypto/rand"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T) *Server {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed; it is what this package runs")
	}
	s, err := New(filepath.Join(t.TempDir(), "repositories"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return s
}

// run runs a person's git in a folder.
func run(t *testing.T, dir string, args ...string) string {
	t.Helper()
	out, err := tryRun(t, dir, args...)
	if err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return out
}

func tryRun(t *testing.T, dir string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", append([]string{"-c", "user.name=Bob", "-c", "user.email=bob@example.com"}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_TERMINAL_PROMPT=0", "NO_PROXY=127.0.0.1")
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func commit(t *testing.T, s *Server, branch string, files map[string]string) string {
	t.Helper()
	hash, err := s.Commit(t.Context(), "web", branch, "change", files)
	if err != nil {
		t.Fatal(err)
	}
	return hash
}

func wantFile(t *testing.T, path, want string) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Errorf("%s: %q, %v; want %q", filepath.Base(path), got, err, want)
	}
}

func TestCloneAndPull(t *testing.T) {
	s := start(t)
	first := commit(t, s, "main", map[string]string{"a.yaml": "1", "a/b/c.yaml": "2", "a-b": "3"})
	work := filepath.Join(t.TempDir(), "work")
	run(t, ".", "clone", "-q", s.URL("web"), work)
	if head := run(t, work, "rev-parse", "HEAD"); head != first {
		t.Errorf("HEAD is %s, want %s", head, first)
	}
	wantFile(t, filepath.Join(work, "a/b/c.yaml"), "2")
	second := commit(t, s, "main", map[string]string{"a.yaml": "1 more"})
	run(t, work, "pull", "-q")
	if parent := run(t, work, "rev-parse", "HEAD^"); parent != first {
		t.Errorf("the parent of %s is %s, want %s", second, parent, first)
	}
	wantFile(t, filepath.Join(work, "a.yaml"), "1 more")
	if _, err := os.Stat(filepath.Join(work, "a/b/c.yaml")); !os.IsNotExist(err) {
		t.Errorf("a file that the commit leaves out is there: %v", err)
	}
	run(t, work, "fsck", "--full", "--strict")
	if s.Requests() < 4 {
		t.Errorf("%d requests", s.Requests())
	}
}

func TestPush(t *testing.T) {
	s := start(t)
	commit(t, s, "main", map[string]string{"a": "1"})
	work := filepath.Join(t.TempDir(), "work")
	run(t, ".", "clone", "-q", s.URL("web"), work)
	// More than git sends in one piece.
	noise := make([]byte, 3<<20)
	rand.Read(noise) //nolint:errcheck // it never fails
	if err := os.WriteFile(filepath.Join(work, "large"), noise, 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, work, "add", "large")
	run(t, work, "commit", "-qm", "A large file")
	run(t, work, "push", "-q")
	pushed := run(t, work, "rev-parse", "HEAD")
	if head, err := s.Head(t.Context(), "web", "main"); err != nil || head != pushed {
		t.Errorf("head %s, %v; want %s", head, err, pushed)
	}
	if left, err := filepath.Glob(filepath.Join(s.dir, "push-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}

	// Commits of both sides go on top of each other.
	ours := commit(t, s, "main", map[string]string{"a": "2"})
	run(t, work, "pull", "-q")
	if parent := run(t, work, "rev-parse", "HEAD^"); run(t, work, "rev-parse", "HEAD") != ours || parent != pushed {
		t.Errorf("the parent of %s is %s, want %s", ours, parent, pushed)
	}

	// A push to a new branch, a forced one, and one that is behind.
	run(t, work, "push", "-q", "origin", "HEAD:release/1.0")
	run(t, work, "reset", "-q", "--hard", "HEAD^")
	if out, err := tryRun(t, work, "push", "-q", "origin", "HEAD:release/1.0"); err == nil {
		t.Errorf("a push that loses commits was taken: %s", out)
	}
	run(t, work, "push", "-qf", "origin", "HEAD:release/1.0")
	if head, err := s.Head(t.Context(), "web", "release/1.0"); err != nil || head != pushed {
		t.Errorf("head %s, %v; want %s", head, err, pushed)
	}
}

func TestReset(t *testing.T) {
	s := start(t)
	first := commit(t, s, "main", map[string]string{"a": "1"})
	second := commit(t, s, "main", map[string]string{"a": "2"})
	if err := s.Reset(t.Context(), "web", "main", first); err != nil {
		t.Fatal(err)
	}
	if refs := run(t, ".", "ls-remote", s.URL("web"), "refs/heads/main"); !strings.HasPrefix(refs, first) {
		t.Errorf("references %q, want %s", refs, first)
	}
	// What no branch leads to any more can still be asked for by its hash where one did.
	if err := s.Reset(t.Context(), "web", "old", second); err != nil {
		t.Fatal(err)
	}
	work := t.TempDir()
	run(t, work, "init", "-q")
	run(t, work, "fetch", "-q", s.URL("web"), second)
	if err := s.Reset(t.Context(), "web", "main", strings.Repeat("1", 40)); err == nil {
		t.Error("a branch was reset to a commit that is not there")
	}
}

func TestRefusals(t *testing.T) {
	s := start(t)
	for _, name := range []string{"", "..", "a/b", "../x", "A", "-x", "a.git"} {
		if err := s.Create(name); err == nil {
			t.Errorf("repository %q was made", name)
		}
	}
	for _, path := range []string{"", ".", "../x", "/x", "a//b", "a/"} {
		if _, err := s.Commit(t.Context(), "web", "main", "m", map[string]string{path: "x"}); err == nil {
			t.Errorf("file %q was committed", path)
		}
	}
	if _, err := s.Commit(t.Context(), "web", "main", "m", map[string]string{"a": "file", "a/b": "folder"}); err == nil {
		t.Error("a file that is a folder was committed")
	}
	if _, err := s.Commit(t.Context(), "web", "../main", "m", map[string]string{"a": "x"}); err == nil {
		t.Error("a branch outside was made")
	}
	if _, err := s.Head(t.Context(), "none", "main"); err == nil {
		t.Error("a repository that is not there has a head")
	}
	if err := s.Create("empty"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Head(t.Context(), "empty", "main"); err == nil {
		t.Error("an empty repository has a head")
	}
	work := filepath.Join(t.TempDir(), "work")
	run(t, ".", "clone", "-q", s.URL("empty"), work)
	if branch := run(t, work, "symbolic-ref", "HEAD"); branch != "refs/heads/main" {
		t.Errorf("an empty clone is on %s", branch)
	}
	if err := s.Create("empty"); err != nil {
		t.Errorf("making it once more: %v", err)
	}
}

// TestOnlyByLoopbackNames: a browser that was led here by another name is turned away.
func TestOnlyByLoopbackNames(t *testing.T) {
	s := start(t)
	commit(t, s, "main", map[string]string{"a": "1"})
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for host, want := range map[string]int{"": 200, "localhost:1": 200, "127.0.0.1": 200, "[::1]:80": 200, "evil.example": 403, "127.0.0.1.evil.example:80": 403, "192.0.2.1": 403} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL("web")+"/info/refs?service=git-upload-pack", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if err := res.Body.Close(); err != nil {
			t.Error(err)
		}
		if res.StatusCode != want {
			t.Errorf("as %q: %d, want %d", host, res.StatusCode, want)
		}
	}
}
