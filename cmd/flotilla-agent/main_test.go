// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/cmd/internal/agent"
	"github.com/flotilla-dev/flotilla/sequencer/mesh/meshtest"
	"github.com/flotilla-dev/flotilla/sequencer/store"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"flotilla-agent": func() { os.Exit(run(context.Background(), os.Args[1:])) },
	})
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
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "fill": fill, "flip": flip, "hold": hold,
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

// fill FILE FLEET makes a store with four facts and a register of each of two members, and a blob.
func fill(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: fill FILE FLEET")
	}
	s, err := store.Open(ts.MkAbs(args[0]))
	ts.Check(err)
	var records []fleet.Record
	say := func(writer int, r fleet.Record) {
		r.Fleet, r.Epoch, r.Seq = agent.FleetID(args[1]), uint64(100+writer), uint64(len(records)+1)
		ts.Check(r.Sign(meshtest.Key(writer)))
		records = append(records, r)
	}
	for writer := range 2 {
		for kind := fleet.Accepted; kind <= fleet.Soaked; kind++ {
			fact := fleet.Fact{Plan: fleet.Digest{1}, Kind: kind}
			say(writer, fleet.Record{Kind: fleet.KindFact, Key: fleet.FactKey(fact.Plan, kind), Body: fact.Encode()})
		}
		say(writer, fleet.Record{Kind: fleet.KindRegister, Key: "inventory", Body: []byte("this is what register " + args[1] + " says")})
	}
	ts.Check(s.Put(records...))
	_, err = s.PutBlob([]byte("the body of a seal"))
	ts.Check(err)
	ts.Check(s.Close())
}

// flip FILE TEXT changes one bit where a text stands in the file.
func flip(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: flip FILE TEXT")
	}
	content, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	flipped := 0
	for at := range len(content) - len(args[1]) {
		if string(content[at:at+len(args[1])]) == args[1] {
			content[at] ^= 1
			flipped++
		}
	}
	if flipped == 0 {
		ts.Fatalf("%q is not in %s", args[1], args[0])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), content, 0o600))
}

// hold FILE as an agent that is at work does, until the script ends.
func hold(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: hold FILE")
	}
	s, err := store.Open(ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Defer(func() { _ = s.Close() })
}
