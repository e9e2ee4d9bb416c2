// SPDX-License-Identifier: Apache-2.0

package crashtest

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/mesh"
	"github.com/flotilla-dev/flotilla/sequencer/mesh/meshtest"
	"github.com/flotilla-dev/flotilla/sequencer/store"
)

// childEnv holds a life in JSON, in the process that is to live it.
const childEnv = "FLOTILLA_CRASHTEST_LIFE"

// The member that dies, and the one that stays, of meshtest's keys.
const (
	stays = 0
	dies  = 1
)

// factsALife of one process: 2,000 lives stay below the quota of a writer.
const factsALife = 2

// registers that each life writes over and over.
const registers = 8

// life of a child: what it finds, and what it does.
type life struct {
	// Store is its file, Peer where the other member listens.
	Store string
	Peer  []string
	// Number of the life, from 1: no two say the same.
	Number int
	// Talks says that it publishes until it is killed. Otherwise it says one word for each line that it reads.
	Talks bool
	// Timeouts of the mesh; zero means those of mesh.Test.
	Timeout time.Duration
}

func TestMain(m *testing.M) {
	if text := os.Getenv(childEnv); text != "" {
		var l life
		err := json.Unmarshal([]byte(text), &l)
		if err == nil {
			err = l.live()
		}
		fmt.Fprintln(os.Stderr, "child:", err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// config of both members.
func config(timeout time.Duration) func(*mesh.Config) {
	return func(c *mesh.Config) {
		if timeout > 0 {
			c.StreamTimeout, c.SessionTimeout, c.DialTimeout = timeout, timeout, timeout
		}
	}
}

// live until somebody kills the process, or nobody holds its standard input any more.
func (l *life) live() error {
	signal.Ignore(syscall.SIGPIPE)
	s, err := store.Open(l.Store)
	if err != nil {
		return err
	}
	if s.Opened().Recovered {
		return fmt.Errorf("life %d found its file damaged: %s", l.Number, s.Opened().Detail)
	}
	cfg := mesh.Test()
	cfg.Key, cfg.Fleet, cfg.Store = meshtest.Key(dies), meshtest.Fleet(), s
	cfg.Roster = roster(l.Peer)
	config(l.Timeout)(&cfg)
	node, err := mesh.New(cfg)
	if err != nil {
		return err
	}
	ended := make(chan error, 2)
	go func() { ended <- node.Run(context.Background()) }()
	go func() { ended <- l.talk(node) }()
	return <-ended
}

func (l *life) talk(node *mesh.Node) error {
	if !l.Talks {
		return l.obey(node)
	}
	go func() {
		_, _ = bufio.NewReader(os.Stdin).ReadByte()
		os.Exit(1) // nobody is there to kill it
	}()
	// Before the mesh is up as well as after it.
	for i := 0; ; i++ {
		if err := l.say(node, i); err != nil {
			return err
		}
	}
}

// obey says a word for every line, and at once what it holds.
func (l *life) obey(node *mesh.Node) error {
	lines, told := make(chan string), bufio.NewScanner(os.Stdin)
	go func() {
		for told.Scan() {
			lines <- told.Text()
		}
		os.Exit(1)
	}()
	tick := time.NewTicker(20 * time.Millisecond)
	for i := 0; ; i++ {
		select {
		case <-lines:
			if err := l.say(node, i); err != nil {
				return err
			}
		case <-tick.C:
			tell("root", node.Root().String(), fmt.Sprint(node.Self().Duplicate))
		}
	}
}

// say the i-th word of this life, and acknowledge it when Publish returned.
func (l *life) say(node *mesh.Node, i int) error {
	kind, key := fleet.KindRegister, fmt.Sprint("register ", i%registers)
	body := fmt.Appendf(nil, "word %d of life %d", i, l.Number)
	if i%5 == 0 && i/5 < factsALife {
		fact := fleet.Fact{Plan: fleet.DigestOf("crashtest", body), Kind: fleet.Started}
		kind, key, body = fleet.KindFact, fleet.FactKey(fact.Plan, fact.Kind), fact.Encode()
	}
	r, err := node.Publish(kind, key, body)
	if err != nil {
		return err
	}
	tell("said", hex.EncodeToString(r.Encode()))
	return nil
}

// tell in one write, so that a line that ends with a newline is whole.
func tell(words ...string) {
	line := ""
	for _, w := range words {
		line += w + " "
	}
	_, _ = os.Stdout.WriteString(line[:len(line)-1] + "\n")
}

// roster of the two; only the one that stays can be dialled.
func roster(addresses []string) meshtest.Roster {
	var both meshtest.Roster
	for i, name := range []fleet.Name{stays: "stays", dies: "dies"} {
		m := fleet.Member{ID: idOf(i), Name: name, Zone: "lab"}
		if i == stays {
			m.Addresses = addresses
		}
		both = append(both, m)
	}
	return both
}
