// SPDX-License-Identifier: Apache-2.0

package git

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/source"
)

const (
	envURL = "FLOTILLA_TEST_URL"
	envDir = "FLOTILLA_TEST_DIR"
)

// TestKilled kills an agent in the middle of whatever it does to its mirror, again and again. Each time
// the next one goes on from there, and git finds nothing to say about what is left.
func TestKilled(t *testing.T) {
	if url := os.Getenv(envURL); url != "" {
		fetchForEver(t, url, os.Getenv(envDir))
		return
	}
	o, m := newOrigin(t), newMirrors(t, Limits{})
	random := rand.New(rand.NewPCG(7, 8))
	for range 8 {
		for range 5 {
			evolveOnce(o, random)
		}
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$")
		cmd.Env = append(os.Environ(), envURL+"="+o.url(), envDir+"="+m.Dir)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		asked := func() bool { o.mu.Lock(); defer o.mu.Unlock(); return len(o.requests) > 1 }
		waitFor(t, asked)
		o.asked()
		timer := time.NewTimer(time.Duration(random.IntN(40)) * time.Millisecond)
		<-timer.C
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Fatalf("it ended by itself: %v", err)
		}
		head := evolveOnce(o, random)
		snap := latest(t, m, o.src())
		if snap.Revision != onMain(head) {
			t.Errorf("head %s, want %s", snap.Revision, onMain(head))
		}
		o.git("--git-dir="+m.mirror(parsed(t, o.src())).store.dir, "fsck", "--full", "--strict")
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func fetchForEver(t *testing.T, url, dir string) {
	for {
		m := &Mirrors{Dir: dir}
		if _, err := m.Latest(t.Context(), source.Origin{Source: v1alpha1.Source{Git: &v1alpha1.GitSource{URL: url}}}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(3)
		}
		m.mirror(parsed(t, source.Origin{Source: v1alpha1.Source{Git: &v1alpha1.GitSource{URL: url}}})).damaged.Store(true) // rebuild as well
		if _, err := m.Latest(t.Context(), source.Origin{Source: v1alpha1.Source{Git: &v1alpha1.GitSource{URL: url}}}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(3)
		}
		if err := m.Close(); err != nil {
			os.Exit(3)
		}
	}
}
