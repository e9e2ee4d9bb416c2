// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// folder is where one member keeps everything it has: DIR/NAME. Nothing is written outside it.
type folder struct {
	dir  string // absolute
	name string
}

// ports is what ports.json holds: a member that starts again answers where it answered before.
type ports struct {
	API int `json:"api"`
}

func newFolder(dir, name string) (folder, error) {
	if err := checkMemberName(name); err != nil {
		return folder{}, err
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return folder{}, fmt.Errorf("--dir %s: %w", dir, err)
	}
	return folder{dir: abs, name: name}, nil
}

func (f folder) path(parts ...string) string {
	return filepath.Join(append([]string{f.dir, f.name}, parts...)...)
}

func (f folder) kubeconfig() string { return f.path("kubeconfig") }

func (f folder) pki(file string) string { return f.path("pki", file) }

// url is where the member's API server answers.
func (f folder) url() (string, error) {
	p, known, err := f.readPorts()
	if err != nil {
		return "", err
	}
	if !known {
		return "", fmt.Errorf("member %s: never started in %s", f.name, f.path())
	}
	return "https://" + loopback(p.API), nil
}

func (f folder) runningError(pid int) error {
	return fmt.Errorf("member %s: already running in %s as process %d: stop it with: devfleet down --dir %s --member %s",
		f.name, f.path(), pid, f.dir, f.name)
}

// create makes the folder and proves that it can be written and has room for a start.
func (f folder) create() error {
	for _, sub := range []string{"etcd", "pki"} {
		if err := os.MkdirAll(f.path(sub), 0o700); err != nil {
			return fmt.Errorf("member %s: cannot make its folder: %w: choose another place with --dir", f.name, err)
		}
	}
	if err := writeFile(f.path("writable"), nil); err != nil {
		return fmt.Errorf("member %s: cannot write to its folder: %w: choose another place with --dir", f.name, err)
	}
	_ = os.Remove(f.path("writable"))
	var disk syscall.Statfs_t
	if err := syscall.Statfs(f.path(), &disk); err != nil {
		return fmt.Errorf("member %s: %w", f.name, err)
	}
	return roomFor(f, disk.Bavail*uint64(disk.Bsize))
}

// leastRoom is the free space in bytes below which a member does not start: two write-ahead segments,
// their spare and the database need about half of it in the first minute.
const leastRoom = 128 << 20

func roomFor(f folder, free uint64) error {
	if free < leastRoom {
		return fmt.Errorf("member %s: disk full: %d MiB free at %s, %d MiB needed: free some space or choose another place with --dir",
			f.name, free>>20, f.path(), leastRoom>>20)
	}
	return nil
}

// readPorts reports whether the member has started here before, and on which ports.
func (f folder) readPorts() (ports, bool, error) {
	raw, err := os.ReadFile(f.path("ports.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return ports{}, false, nil
	}
	if err != nil {
		return ports{}, false, fmt.Errorf("member %s: %w", f.name, err)
	}
	var p ports
	if err := json.Unmarshal(raw, &p); err != nil {
		return ports{}, false, fmt.Errorf("member %s: %s: %w: remove the file to have a port picked anew", f.name, f.path("ports.json"), err)
	}
	if p.API < 1 || p.API > 65535 {
		return ports{}, false, fmt.Errorf("member %s: %s: api port %d is not a port: remove the file to have one picked anew",
			f.name, f.path("ports.json"), p.API)
	}
	return p, true, nil
}

func (f folder) writePorts(p ports) error {
	raw, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("member %s: %w", f.name, err)
	}
	if err := writeFile(f.path("ports.json"), append(raw, '\n')); err != nil {
		return fmt.Errorf("member %s: %w", f.name, err)
	}
	return nil
}

// readPid is what the pid file says; 0 if there is none. It says who ran here last, not who runs now.
func (f folder) readPid() (int, error) {
	raw, err := os.ReadFile(f.path("pid"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("member %s: %w", f.name, err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil || pid <= 0 {
		return 0, fmt.Errorf("member %s: %s does not hold a process id", f.name, f.path("pid"))
	}
	return pid, nil
}

// writeFile replaces a file in one step, so that a reader or a crash never sees half of it.
func writeFile(file string, content []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+"-*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(content)
	if err := errors.Join(err, tmp.Close()); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", file, err), os.Remove(tmp.Name()))
	}
	return os.Rename(tmp.Name(), file)
}
