// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/flotilla-dev/flotilla/cmd/internal/readapi/readapitest"
)

// now of every transcript: an hour after the first fact could have been signed.
func now() time.Time { return readapitest.Began().Add(time.Hour) }

func TestMain(m *testing.M) {
	run := func() {
		a := newApp(os.Args[0])
		a.now, a.version = now, "v0.1.0"
		os.Exit(a.run(context.Background(), os.Args[1:]))
	}
	testscript.Main(m, map[string]func(){"flotilla": run, "kubectl-flotilla": run, "deaf": deaf})
}

// deaf looks at no context, as who waits for standard input.
func deaf() {
	_, stop := interruptible()
	defer stop()
	fmt.Println("ready")
	select {}
}

// TestScript runs the transcripts. UPDATE_GOLDEN=1 rewrites the files that they compare with.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       os.Getenv("UPDATE_GOLDEN") != "",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("TZ", "UTC")
			env.Setenv("KUBECONFIG", env.WorkDir+"/kubeconfig")
			env.Values[member{}] = &site{}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":   exits,
			"cluster": startCluster,
			"tell":    tell,
			"agent":   agentCommand,
			"members": writeMembers,
			"kubeapi": startKubeAPI,
		},
	})
}

// exits CODE COMMAND... runs a command and wants that exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}
