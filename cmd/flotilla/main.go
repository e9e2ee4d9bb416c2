// SPDX-License-Identifier: Apache-2.0

// Flotilla shows what a fleet of Kubernetes clusters is doing, explains why, and stops it when asked.
//
//	flotilla get rollouts -A           what goes where, in one line each
//	flotilla watch web                 a rollout, line by line, until it is everywhere or halted
//	flotilla explain web eu-3          why that member may or may not go now
//	flotilla pause web --reason "..."  nobody starts anything new; resume lifts it
//	flotilla lint                      what is wrong in a fleet repository, before it is pushed
//	flotilla diff -f rollout.yaml --payload NEW --against OLD   what a change would do to every member
//	flotilla plan -f rollout.yaml --members members/      what would happen, without a cluster
//	flotilla simulate -f rollout.yaml --offline 8%         how it would go, in virtual time
//	flotilla render -f rollout.yaml --member eu-3 ...     what that member would run, without a cluster
//
// It takes kubectl's flags and works as kubectl-flotilla too. It asks one member of the fleet, any one;
// there is no other server.
package main

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"
	"k8s.io/cli-runtime/pkg/genericiooptions"
)

func main() {
	ctx, stop := interruptible()
	code := newApp(os.Args[0]).run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// interruptible gives the context that the first interrupt ends. The second one ends the process: whoever waits for standard
// input, or counts through a large export, does not look at a context.
func interruptible() (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// newApp on this process's streams and clock.
func newApp(argv0 string) *app {
	_, plain := os.LookupEnv("NO_COLOR")
	return &app{
		IOStreams: genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr},
		name:      nameFor(argv0),
		now:       time.Now,
		color:     !plain && os.Getenv("TERM") != "dumb" && term.IsTerminal(int(os.Stdout.Fd())),
		version:   buildVersion(),
	}
}

// nameFor the help texts: kubectl calls its plugins kubectl-NAME.
func nameFor(argv0 string) string {
	base := strings.TrimSuffix(filepath.Base(argv0), ".exe")
	if plugin, ok := strings.CutPrefix(base, "kubectl-"); ok {
		return "kubectl " + plugin
	}
	return "flotilla"
}
