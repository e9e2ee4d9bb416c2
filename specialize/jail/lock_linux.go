// SPDX-License-Identifier: Apache-2.0

//go:build linux && (amd64 || arm64)

package jail

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// allowed are the system calls of a Go program that computes, reads and writes what it has open. Everything else fails
// with EPERM. tgkill is for preemption of its own threads.
var allowed = slices.Concat([]uintptr{
	unix.SYS_READ, unix.SYS_WRITE, unix.SYS_CLOSE, unix.SYS_FSTAT, unix.SYS_FCNTL,
	unix.SYS_MMAP, unix.SYS_MUNMAP, unix.SYS_MPROTECT, unix.SYS_MADVISE, unix.SYS_MREMAP, unix.SYS_MINCORE,
	unix.SYS_FUTEX, unix.SYS_CLONE, unix.SYS_SET_ROBUST_LIST, unix.SYS_RSEQ, unix.SYS_MEMBARRIER,
	unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_SIGALTSTACK,
	unix.SYS_GETTID, unix.SYS_GETPID, unix.SYS_SCHED_YIELD, unix.SYS_SCHED_GETAFFINITY, unix.SYS_RESTART_SYSCALL,
	unix.SYS_NANOSLEEP, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_CLOCK_GETTIME, unix.SYS_GETTIMEOFDAY, unix.SYS_GETRANDOM,
	unix.SYS_EPOLL_CREATE1, unix.SYS_EPOLL_CTL, unix.SYS_EPOLL_PWAIT, unix.SYS_EVENTFD2, unix.SYS_PIPE2,
	unix.SYS_EXIT, unix.SYS_EXIT_GROUP,
}, allowedHere)

// What a filter looks at, in struct seccomp_data, and what it says.
const (
	offsetCall  = 0
	offsetArch  = 4
	offsetArg0  = 16
	mostCalls   = 120 // jumps go over at most 255 instructions
	foreignCall = 0x40000000

	doAllow  = 0x7fff0000
	doErrno  = 0x00050000
	doKill   = 0x80000000
	setTSync = 1
)

// lock this process up for good: all its threads, and those to come.
func lock(memory, seconds uint64) error {
	for resource, most := range map[int]uint64{
		unix.RLIMIT_DATA: memory, unix.RLIMIT_CPU: seconds, unix.RLIMIT_CORE: 0, unix.RLIMIT_FSIZE: 0,
	} {
		if err := unix.Setrlimit(resource, &unix.Rlimit{Cur: most, Max: most}); err != nil {
			return fmt.Errorf("limit %d: %w", resource, err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no new privileges: %w", err)
	}
	program := filter(uint32(os.Getpid()))                                                                                //nolint:gosec // process ids are small
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}                                                //nolint:gosec // bounded by mostCalls
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, setTSync, uintptr(unsafe.Pointer(&prog))) //nolint:gosec // the kernel's way
	runtime.KeepAlive(program)
	if errno != 0 {
		return fmt.Errorf("seccomp: %w", errno)
	}
	return nil
}

// filter of system calls for the process pid.
func filter(pid uint32) []unix.SockFilter {
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	jump := func(how uint16, k uint32, yes, no int) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_K | how, K: k, Jt: uint8(yes), Jf: uint8(no)} //nolint:gosec // bounded by mostCalls
	}
	answer := func(k uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k}
	}
	n := min(len(allowed), mostCalls)
	out := []unix.SockFilter{
		load(offsetArch),
		jump(unix.BPF_JEQ, auditArch, 1, 0),
		answer(doKill),
		load(offsetCall),
		jump(unix.BPF_JGE, foreignCall, n+5, 0), // calls of another convention on the same processor
	}
	for i, call := range allowed[:n] {
		out = append(out, jump(unix.BPF_JEQ, uint32(call), n-i+5, 0)) //nolint:gosec // numbers of calls are small
	}
	return append(out,
		jump(unix.BPF_JEQ, unix.SYS_CLONE3, 0, 1),
		answer(doErrno|uint32(unix.ENOSYS)), // its flags cannot be looked at; everyone falls back to clone
		jump(unix.BPF_JEQ, unix.SYS_TGKILL, 0, 2),
		load(offsetArg0),
		jump(unix.BPF_JEQ, pid, 1, 0),
		answer(doErrno|uint32(unix.EPERM)),
		answer(doAllow),
	)
}
