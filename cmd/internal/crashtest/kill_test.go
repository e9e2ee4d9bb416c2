// SPDX-License-Identifier: Apache-2.0

package crashtest

import (
	"bufio"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/lattice"
	"github.com/flotilla-dev/flotilla/sequencer/mesh"
	"github.com/flotilla-dev/flotilla/sequencer/mesh/meshtest"
	"github.com/flotilla-dev/flotilla/sequencer/store"
)

var kills = flag.Int("kills", 30, "how often TestKill kills the member; 2,000 with FLOTILLA_SOAK=1")

func idOf(i int) fleet.MemberID {
	return fleet.MemberIDOf(meshtest.Key(i).Public().(ed25519.PublicKey))
}

// pair is a member that dies again and again, and one that stays and remembers.
type pair struct {
	t *testing.T
	// path of the store of the one that dies.
	path  string
	stays *mesh.Node
	peer  []string
	lives int
	// timeout of both, zero for that of mesh.Test.
	timeout time.Duration
	// asked counts how often the one that stays was asked whether it lets the other in.
	asked atomic.Int64

	mu sync.Mutex
	// heard is every record of the one that dies, by position, from wherever it came.
	heard map[[2]uint64]fleet.Digest
	// said is what it acknowledged last under every key.
	said map[key]fleet.Record
}

type key struct {
	kind fleet.Kind
	name string
}

func newPair(t *testing.T, timeout time.Duration) *pair {
	t.Helper()
	p := &pair{
		t: t, path: filepath.Join(t.TempDir(), "state.db"), timeout: timeout,
		heard: map[[2]uint64]fleet.Digest{}, said: map[key]fleet.Record{},
	}
	network := meshtest.New(t, 1, config(timeout), func(c *mesh.Config) {
		c.OnNews = func(news []fleet.Record) { p.meet(news...) }
		c.Allow = func(fleet.MemberID) bool { p.asked.Add(1); return true }
	})
	p.stays, p.peer = network.Node(0), network.Member(0).Addresses
	p.stays.SetRoster(roster(p.peer))
	return p
}

// meet records of the one that dies: two with one position and other bytes would be a proof against an honest member.
func (p *pair) meet(records ...fleet.Record) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range records {
		r := &records[i]
		if r.Writer != idOf(dies) {
			continue
		}
		at, digest := [2]uint64{r.Epoch, r.Seq}, r.Digest()
		if before, ok := p.heard[at]; ok && before != digest {
			p.t.Errorf("two records in position %d.%d", r.Epoch, r.Seq)
		}
		p.heard[at] = digest
	}
}

func (p *pair) acknowledged(r fleet.Record) {
	p.meet(r)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.said[key{r.Kind, r.Key}] = r
}

// child is one life of the member that dies.
type child struct {
	p     *pair
	cmd   *exec.Cmd
	stdin io.WriteCloser
	// acks counts what it acknowledged; each also wakes who waits at acked.
	acks  atomic.Int64
	acked chan struct{}
	// root is what it showed last: the root, and whether it takes itself for a duplicate.
	root  atomic.Pointer[[2]string]
	quiet sync.WaitGroup
}

func (p *pair) start(talks bool) *child {
	p.t.Helper()
	return p.live(life{Talks: talks})
}

func (p *pair) live(l life) *child {
	p.t.Helper()
	p.lives++
	l.Store, l.Peer, l.Number, l.Timeout = p.path, p.peer, p.lives, p.timeout
	text, err := json.Marshal(l)
	must(p.t, err)
	self, err := os.Executable()
	must(p.t, err)
	c := &child{p: p, cmd: exec.Command(self), acked: make(chan struct{}, 1)}
	c.cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	var complaints strings.Builder
	c.cmd.Stderr = &complaints
	c.stdin, err = c.cmd.StdinPipe()
	must(p.t, err)
	out, err := c.cmd.StdoutPipe()
	must(p.t, err)
	must(p.t, c.cmd.Start())
	c.quiet.Go(func() { c.listen(out) })
	p.t.Cleanup(func() {
		c.kill()
		if complaints.Len() > 0 {
			p.t.Errorf("life %s: %s", text, complaints.String())
		}
	})
	return c
}

// listen to whole lines: the last one may have been cut by the kill.
func (c *child) listen(out io.Reader) {
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return
		}
		words := strings.Fields(line)
		switch words[0] {
		case "said":
			b, err := hex.DecodeString(words[1])
			if err != nil {
				c.p.t.Errorf("line %q: %v", line, err)
				continue
			}
			r, err := fleet.DecodeRecord(b)
			if err != nil {
				c.p.t.Errorf("line %q: %v", line, err)
			}
			c.p.acknowledged(r)
			c.acks.Add(1)
			select {
			case c.acked <- struct{}{}:
			default:
			}
		case "root":
			c.root.Store(&[2]string{words[1], words[2]})
		}
	}
}

// kill with SIGKILL and read what it said before. Twice is once.
func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	c.quiet.Wait()
	_ = c.cmd.Wait()
	_ = c.stdin.Close()
}

// await so many acknowledgements.
func (c *child) await(n int64) {
	c.p.t.Helper()
	deadline := time.After(time.Minute)
	for c.acks.Load() < n {
		select {
		case <-c.acked:
		case <-deadline:
			c.p.t.Fatalf("life %d: %d words in a minute, want %d", c.p.lives, c.acks.Load(), n)
		}
	}
}

// pass some time, as a kill at any moment needs.
func pass(d time.Duration) { <-time.After(d) }

// verify that the file is sound and holds all that was acknowledged, unchanged or followed by something newer.
func (p *pair) verify() {
	p.t.Helper()
	s, err := store.Open(p.path)
	must(p.t, err)
	defer func() { must(p.t, s.Close()) }()
	set, bad, err := s.Load()
	must(p.t, err)
	if s.Opened().Recovered || bad != 0 {
		p.t.Errorf("life %d left a damaged file: %+v, %d records", p.lives, s.Opened(), bad)
	}
	p.meet(slices.Collect(set.All())...)
	p.mu.Lock()
	defer p.mu.Unlock()
	for at, said := range p.said {
		held, ok := set.Get(said.Writer, at.kind, at.name)
		switch {
		case !ok:
			p.t.Errorf("life %d: %s %q was acknowledged and is gone", p.lives, at.kind, at.name)
		case held.Digest() != said.Digest() && !(at.kind.IsRegister() && held.Newer(&said)):
			p.t.Errorf("life %d: %s %q was acknowledged and is another one now", p.lives, at.kind, at.name)
		}
	}
}

// settle waits until a life that listens and the one that stays hold the same, with all that was acknowledged in it.
func (p *pair) settle(c *child) {
	p.t.Helper()
	meshtest.Await(p.t, "equal roots, with every acknowledged record", func() bool {
		shown := c.root.Load()
		return shown != nil && shown[0] == p.stays.Root().String() && p.missing() == ""
	})
	if shown := c.root.Load(); shown[1] != "false" {
		p.t.Error("it takes itself for two")
	}
	for _, peer := range p.stays.Peers() {
		if peer.Duplicate || peer.Forked {
			p.t.Errorf("%s: duplicate %v, forked %v", peer.Member.Name, peer.Duplicate, peer.Forked)
		}
	}
}

// missing is a key under which the one that stays does not hold what was acknowledged, or newer.
func (p *pair) missing() (name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stays.View(func(set *lattice.Set) {
		for at, said := range p.said {
			if held, ok := set.Get(said.Writer, at.kind, at.name); !ok || held.Digest() != said.Digest() && !held.Newer(&said) {
				name = at.name
			}
		}
	})
	return name
}

// TestKill kills a member's process again and again, while it starts and while it writes. What it acknowledged is there
// after every kill, no position is used twice, and in the end the one that stayed holds the same.
func TestKill(t *testing.T) {
	times := *kills
	if os.Getenv("FLOTILLA_SOAK") != "" {
		times = 2000
	}
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 1))
	p := newPair(t, 0)
	var starting time.Duration // how long the last start took, to its first word
	early := 0
	for i := range times {
		began := time.Now()
		c := p.start(true)
		if i > 0 && random.IntN(3) == 0 {
			pass(time.Duration(random.Int64N(int64(starting) + 1)))
			early++
		} else {
			c.await(1)
			starting = time.Since(began)
			c.await(1 + random.Int64N(25))
			pass(time.Duration(random.Int64N(int64(5 * time.Millisecond))))
		}
		c.kill()
		p.verify()
		if t.Failed() {
			t.Fatalf("after %d kills, seed %d", i+1, seed)
		}
	}
	c := p.start(false)
	_, err := fmt.Fprintln(c.stdin, "say")
	must(t, err)
	c.await(1)
	p.settle(c)
	c.kill()
	p.verify()
	p.mu.Lock()
	defer p.mu.Unlock()
	t.Logf("%d kills, %d of them while it started; %d positions, %d keys", times, early, len(p.heard), len(p.said))
}

// TestKilledWhileLooking: what a process was looking at when it was killed, the next one knows, until it is cleared.
func TestKilledWhileLooking(t *testing.T) {
	p := newPair(t, 0)
	c := p.live(life{Marks: 3})
	meshtest.Await(t, "the marks", func() bool { return c.root.Load() != nil })
	c.kill()
	for _, want := range []int{3, 0} {
		s, err := store.Open(p.path)
		must(t, err)
		if got := s.Suspects(); !slices.Equal(got, marked(want)) {
			t.Errorf("%d suspects, want %d", len(got), want)
		}
		must(t, s.Cleared())
		must(t, s.Close())
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
