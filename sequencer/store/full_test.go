// SPDX-License-Identifier: Apache-2.0

//go:build linux || darwin

package store_test

import (
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// limitFiles lets no file of this process grow beyond size: writes fail as on a full disk.
func limitFiles(t *testing.T, size uint64) (lift func()) {
	t.Helper()
	signal.Ignore(syscall.SIGXFSZ)
	var before syscall.Rlimit
	must(t, syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before))
	must(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: size, Max: before.Max}))
	lifted := false
	lift = func() {
		if !lifted {
			lifted = true
			must(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before))
			signal.Reset(syscall.SIGXFSZ)
		}
	}
	t.Cleanup(lift)
	return lift
}

// TestFullDisk runs in a process of its own: the limit is the whole process's, and go test writes files as well.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	const inChild = "FLOTILLA_FULL_DISK"
	if os.Getenv(inChild) == "" {
		self, err := os.Executable()
		must(t, err)
		child := exec.Command(self, "-test.run=^TestFullDisk$", "-test.v")
		child.Env = append(os.Environ(), inChild+"=1")
		if out, err := child.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestFullDisk") {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	path := file(t)
	s := open(t, path)
	records := many(t, 1200)
	must(t, s.Put(records[:100]...))
	before, _ := load(t, s)
	info, err := os.Stat(path)
	must(t, err)

	lift := limitFiles(t, uint64(info.Size()))
	if err := s.Put(records...); err == nil || fleet.KindOf(err) != fleet.Retryable {
		t.Errorf("a put on a full disk: %v", err)
	}
	if after, _ := load(t, s); after.Root() != before.Root() {
		t.Error("half of a transaction is there")
	}
	lift()

	must(t, s.Put(records...))
	must(t, s.Close())
	s = open(t, path)
	if set, _ := load(t, s); set.Len() != len(records) || s.Opened().Recovered {
		t.Errorf("%d records after there was room again, want %d", set.Len(), len(records))
	}
}
