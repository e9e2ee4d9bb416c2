// SPDX-License-Identifier: Apache-2.0

package gitserver

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// The first clone works, whoever it is by; then nothing does, until the server recovers.
func TestOutage(t *testing.T) {
	s := start(t)
	commit(t, s, "main", map[string]string{"a": "1"})
	clone := func() error {
		return exec.CommandContext(t.Context(), "git", "clone", "-q", s.URL("web"), filepath.Join(t.TempDir(), "work")).Run() //nolint:gosec // of this test
	}
	s.FailAfter(1)
	if s.Failed() {
		t.Error("failed before anything was asked")
	}
	if err := clone(); err != nil {
		t.Errorf("the one that is allowed: %v", err)
	}
	if !s.Failed() || clone() == nil {
		t.Error("a second one was served")
	}
	s.Recover()
	if err := clone(); err != nil || s.Failed() {
		t.Errorf("after it recovered: %v", err)
	}
}
