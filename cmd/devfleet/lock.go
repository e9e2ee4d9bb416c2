// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"syscall"
)

// A running member holds a record lock on DIR/NAME/lock. The kernel drops it when the process ends, however it ends,
// and tells anybody who asks which process holds it: unlike a pid file it cannot point at a stranger.

// claim takes the member's lock and writes its pid file. The lock lasts as long as the returned file is open;
// opening and closing the lock file elsewhere in this process would drop it.
func (f folder) claim() (*os.File, error) {
	lock, err := os.OpenFile(f.path("lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("member %s: %w", f.name, err)
	}
	if err := syscall.FcntlFlock(lock.Fd(), syscall.F_SETLK, &syscall.Flock_t{Type: syscall.F_WRLCK}); err != nil {
		_ = lock.Close()
		if holder, _ := f.holder(); holder > 0 {
			return nil, f.runningError(holder)
		}
		return nil, fmt.Errorf("member %s: cannot lock %s: %w", f.name, f.path("lock"), err)
	}
	if err := writeFile(f.path("pid"), []byte(strconv.Itoa(os.Getpid())+"\n")); err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("member %s: %w", f.name, err)
	}
	return lock, nil
}

// holder is the process that runs this member now, 0 if none does. Never asked by the member itself.
func (f folder) holder() (int, error) {
	lock, err := os.OpenFile(f.path("lock"), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("member %s: %w", f.name, err)
	}
	defer func() { _ = lock.Close() }()
	asked := syscall.Flock_t{Type: syscall.F_WRLCK}
	if err := syscall.FcntlFlock(lock.Fd(), syscall.F_GETLK, &asked); err != nil {
		return 0, fmt.Errorf("member %s: %w", f.name, err)
	}
	if asked.Type == syscall.F_UNLCK {
		return 0, nil
	}
	return int(asked.Pid), nil
}

// signal sends to the process that runs the member, and to no other: the handle is taken before the lock is asked again,
// so a process id that was given away in between is never hit. It reports whether the member ran.
func (f folder) signal(signals ...os.Signal) (bool, error) {
	pid, err := f.holder()
	if err != nil || pid == 0 {
		return false, err
	}
	process, err := os.FindProcess(pid)
	if err != nil {
		return false, fmt.Errorf("member %s: process %d: %w", f.name, pid, err)
	}
	defer func() { _ = process.Release() }()
	if again, err := f.holder(); err != nil || again != pid {
		return false, err
	}
	for _, s := range signals {
		if err := process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return false, fmt.Errorf("member %s: process %d: %w", f.name, pid, err)
		}
	}
	return true, nil
}
