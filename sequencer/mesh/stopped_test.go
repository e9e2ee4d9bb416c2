// SPDX-License-Identifier: Apache-2.0

package mesh_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/mesh"
	"github.com/flotilla-dev/flotilla/sequencer/mesh/meshtest"
	"github.com/flotilla-dev/flotilla/sequencer/store"
)

// childAddresses makes this test binary a member of its own: the last of three, which dials the others at these
// addresses.
const childAddresses = "FLOTILLA_MESH_CHILD"

// child runs a member until its input ends. It prints its address, and at every line of input how many losses it has
// told and how many lives it doubts.
func child(folder string, dial [][]string) error {
	s, err := store.Open(filepath.Join(folder, "child.db"))
	if err != nil {
		return err
	}
	cfg := mesh.Test()
	rarely(&cfg)
	cfg.Key, cfg.Fleet, cfg.Store = meshtest.Key(2), meshtest.Fleet(), s
	var roster meshtest.Roster
	for i := range 3 {
		m := fleet.Member{ID: memberID(i), Name: fleet.Name(fmt.Sprintf("member-%03d", i)), Zone: "lab"}
		if i < len(dial) {
			m.Addresses = dial[i]
		}
		roster = append(roster, m)
	}
	cfg.Roster = roster
	n, err := mesh.New(cfg)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		doubted := 0
		for _, p := range n.Peers() {
			if p.Doubted {
				doubted++
			}
		}
		fmt.Println(n.Stats().Notices, doubted)
	}
	cancel()
	return <-ended
}

// TestStoppedAndGoneOn: a member's process is stopped for longer than others wait, goes on, and is killed at last. It
// is doubted twice, it is no clone, and it never says of the others that they were away.
func TestStoppedAndGoneOn(t *testing.T) {
	t.Parallel()
	w := meshtest.New(t, 3, rarely)
	w.Stop(2)
	var addresses []string
	for i := range 2 {
		addresses = append(addresses, strings.Join(w.Member(i).Addresses, ","))
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childAddresses+"="+t.TempDir()+";"+strings.Join(addresses, ";"))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
	})
	answers := bufio.NewReader(out)
	ask := func() (told, doubted int) {
		_, err := io.WriteString(in, "\n")
		must(t, err)
		_, err = fmt.Fscanln(answers, &told, &doubted)
		must(t, err)
		return told, doubted
	}
	awaitPresence(t, w, 2, mesh.Heard, 0, 1)
	beats := w.Node(0).Stats().Beats
	meshtest.Await(t, "beats", func() bool { return w.Node(0).Stats().Beats > beats+4 && w.Node(1).Stats().Beats > 4 })
	if told, _ := ask(); told != 0 {
		t.Fatalf("it told %d losses before", told)
	}

	must(t, cmd.Process.Signal(syscall.SIGSTOP))
	awaitPresence(t, w, 2, mesh.Doubted, 0, 1)
	must(t, cmd.Process.Signal(syscall.SIGCONT))
	awaitPresence(t, w, 2, mesh.Heard, 0, 1)
	meshtest.Await(t, "its own judgement", func() bool { _, doubted := ask(); return doubted == 0 })
	if told, _ := ask(); told != 0 {
		t.Errorf("it told %d losses: it was slow, and said that others are dead", told)
	}
	if peerOf(w.Node(0), w.Member(2).ID).Duplicate || peerOf(w.Node(1), w.Member(2).ID).Duplicate {
		t.Error("a process that went on is taken for a clone")
	}

	must(t, cmd.Process.Kill())
	awaitPresence(t, w, 2, mesh.Doubted, 0, 1)
}
