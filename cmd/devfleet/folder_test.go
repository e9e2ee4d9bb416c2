// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// testFolder is a member's folder in a place of its own.
func testFolder(t *testing.T) folder {
	t.Helper()
	f, err := newFolder(t.TempDir(), "one")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.create(); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestPortIsKept(t *testing.T) {
	f := testFolder(t)
	first, err := f.listen()
	if err != nil {
		t.Fatal(err)
	}
	where := first.Addr().String()
	if url, err := f.url(); err != nil || url != "https://"+where {
		t.Fatalf("url %q, %v; want https://%s", url, err, where)
	}

	if _, err := f.listen(); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), f.path("ports.json")) {
		t.Fatalf("listening twice: %v, want address in use and what to do about it", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := f.listen()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = again.Close() }()
	if again.Addr().String() != where {
		t.Fatalf("came back on %s, was on %s", again.Addr(), where)
	}
}

func TestPortsFileThatIsNoUse(t *testing.T) {
	for _, content := range []string{"", "{", `{"api":0}`, `{"api":70000}`, `{"api":"x"}`, "null"} {
		f := testFolder(t)
		if err := os.WriteFile(f.path("ports.json"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if l, err := f.listen(); err == nil || !strings.Contains(err.Error(), "remove the file") {
			t.Errorf("ports.json %q: listener %v, error %v", content, l, err)
		}
	}
}

func TestListenAnywhereKeepsOffEphemeralPorts(t *testing.T) {
	l, err := listenAnywhere(20001)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if got := l.Addr().String(); got != "127.0.0.1:20000" {
		t.Skipf("port 20000 is in use here, got %s", got)
	}
	other, err := listenAnywhere(20001)
	if err != nil {
		t.Fatalf("the only port below is taken, any other will do: %v", err)
	}
	_ = other.Close()
}

func TestFirstEphemeral(t *testing.T) {
	file := filepath.Join(t.TempDir(), "range")
	if got := firstEphemeral(file); got != 0 {
		t.Errorf("no file: %d, want 0", got)
	}
	if err := os.WriteFile(file, []byte("32768\t60999\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := firstEphemeral(file); got != 32768 {
		t.Errorf("got %d, want 32768", got)
	}
}

func TestFolderErrorsSayWhatToDo(t *testing.T) {
	if _, err := newFolder("x", "../y"); err == nil {
		t.Error("a name that leaves the folder was taken")
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f := folder{dir: file, name: "one"}
	if err := f.create(); !errors.Is(err, syscall.ENOTDIR) || !strings.Contains(err.Error(), "--dir") {
		t.Errorf("folder inside a file: %v", err)
	}
	if err := roomFor(f, leastRoom-1); err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Errorf("too little room: %v", err)
	}
	if err := roomFor(f, leastRoom); err != nil {
		t.Errorf("enough room: %v", err)
	}
}

func TestDefaultDir(t *testing.T) {
	for _, tc := range []struct{ xdg, home, want string }{
		{"/state", "/home/u", "/state/flotilla/devfleet"},
		{"", "/home/u", "/home/u/.local/state/flotilla/devfleet"},
		{"relative", "/home/u", "/home/u/.local/state/flotilla/devfleet"},
		{"", "", ""},
	} {
		got, err := defaultDir(func(key string) string {
			return map[string]string{"XDG_STATE_HOME": tc.xdg, "HOME": tc.home}[key]
		})
		if got != tc.want || (err == nil) != (tc.want != "") {
			t.Errorf("XDG_STATE_HOME=%q HOME=%q: %q, %v; want %q", tc.xdg, tc.home, got, err, tc.want)
		}
	}
}
