// SPDX-License-Identifier: Apache-2.0

package disk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// A write that fails leaves the file as it was, and nothing beside it.
func TestWriteFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := WriteFile(path, Content("whole")); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("the wire broke")
	err := WriteFile(path, func(w io.Writer) error {
		return errors.Join(Content([]byte("half"))(w), broken)
	})
	if !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	if content, err := os.ReadFile(path); err != nil || string(content) != "whole" {
		t.Errorf("%q %v", content, err)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("%v %v", entries, err)
	}
	if err := SyncFolder(filepath.Dir(path)); err != nil {
		t.Error(err)
	}
}

func TestFailed(t *testing.T) {
	if err := Failed("writing", nil); err != nil {
		t.Error(err)
	}
	err := Failed("writing the index", fmt.Errorf("write: %w", syscall.ENOSPC))
	if fleet.KindOf(err) != fleet.Retryable || fleet.ReasonOf(err, "") != v1alpha1.ReasonFetchFailed ||
		!strings.HasPrefix(err.Error(), "writing the index: ") || !strings.Contains(err.Error(), "free some space") {
		t.Error(err)
	}
}
