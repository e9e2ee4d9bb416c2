// SPDX-License-Identifier: Apache-2.0

package mesh

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/lattice"
	"github.com/flotilla-dev/flotilla/sequencer/store"
)

// The reconciliations in this file run over a pipe: two nodes, no host, and whatever the wire does is the test's doing.

type members map[fleet.MemberID]fleet.Member

func (m members) Member(id fleet.MemberID) (fleet.Member, bool) {
	member, ok := m[id]
	return member, ok
}

func (m members) Members() (all []fleet.Member) {
	for _, member := range m {
		all = append(all, member)
	}
	return all
}

func keyOf(i int) ed25519.PrivateKey {
	seed := fleet.DigestOf("flotilla.dev/session-test-key", []byte{byte(i >> 8), byte(i)})
	return ed25519.NewKeyFromSeed(seed[:])
}

func idOf(i int) fleet.MemberID { return fleet.MemberIDOf(keyOf(i).Public().(ed25519.PublicKey)) }

var testFleet = fleet.DigestOf("flotilla.dev/session-test")

// rosterOf members in these zones, in the order of their keys.
func rosterOf(zones ...string) members {
	m := members{}
	for i, zone := range zones {
		m[idOf(i)] = fleet.Member{ID: idOf(i), Zone: zone}
	}
	return m
}

// nodeOf is a member that does not run, on a disk of its own.
func nodeOf(t testing.TB, i int, roster Roster, options ...func(*Config)) *Node {
	t.Helper()
	s, err := store.Open(filepath.Join(t.TempDir(), "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	cfg := LAN()
	cfg.Key, cfg.Fleet, cfg.Roster, cfg.Store = keyOf(i), testFleet, roster, s
	for _, option := range options {
		option(&cfg)
	}
	n, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func zoned(c *Config) { c.Flat = 1 }

// signed is a record of the i-th member.
func signed(t testing.TB, i int, r fleet.Record) fleet.Record {
	t.Helper()
	r.Fleet = testFleet
	if err := r.Sign(keyOf(i)); err != nil {
		t.Fatal(err)
	}
	return r
}

// registers of the i-th member, of about so many bytes each.
func registers(t testing.TB, i, count, size int) (all []fleet.Record) {
	t.Helper()
	for k := range count {
		all = append(all, signed(t, i, fleet.Record{
			Epoch: 1, Seq: uint64(k + 1), Kind: fleet.KindRegister, Key: fmt.Sprintf("%d/%d", i, k), Body: make([]byte, size),
		}))
	}
	return all
}

func commit(t testing.TB, n *Node, records ...fleet.Record) {
	t.Helper()
	if _, err := n.commit(records...); err != nil {
		t.Fatal(err)
	}
}

func factOf(t testing.TB, i int, epoch, seq uint64, plan byte) fleet.Record {
	t.Helper()
	f := fleet.Fact{Plan: fleet.Digest{plan}, Kind: fleet.Started}
	return signed(t, i, fleet.Record{Epoch: epoch, Seq: seq, Kind: fleet.KindFact, Key: fleet.FactKey(f.Plan, f.Kind), Body: f.Encode()})
}

// wiring is what a test does to the two ends of a pipe.
type wiring func(net.Conn) net.Conn

func direct(c net.Conn) net.Conn { return c }

// session of a with b, to its end, whoever ends it.
func session(a, b *Node, wire wiring) (*asker, *answerer, error) {
	return sessionOf(&asker{Node: a}, b, wire)
}

func sessionOf(ask *asker, b *Node, wire wiring) (*asker, *answerer, error) {
	a := ask.Node
	here, there := net.Pipe()
	nobody := func(lifeID, fleet.Digest) {}
	answer := &answerer{Node: b, talk: newTalk(wire(there), b.cfg.StreamTimeout), peer: a.id, met: nobody, offered: func(int) error { return nil }}
	ask.talk, ask.peer, ask.met = newTalk(wire(here), a.cfg.StreamTimeout), b.id, nobody
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = answer.run() // what became of it the asking side says
		_ = there.Close()
	}()
	err := ask.run()
	_ = here.Close()
	<-ended
	if err == nil && ask.left+ask.unsaid == 0 {
		a.told.reconciled(b.id)
	}
	return ask, answer, err
}

// scissors cut a pipe after so many frames, counted in both directions: each is one write.
type scissors struct {
	net.Conn
	left *atomic.Int64
}

var errCut = errors.New("cut")

func (s scissors) Write(b []byte) (int, error) {
	if s.left.Add(-1) < 0 {
		_ = s.Close()
		return 0, errCut
	}
	return s.Conn.Write(b)
}

func cutAfter(frames int) wiring {
	left := new(atomic.Int64)
	left.Store(int64(frames))
	return func(c net.Conn) net.Conn { return scissors{c, left} }
}

// TestSessionCutAtEveryFrame: whichever frame is the last one that gets through, the next session goes on from there:
// the sets are equal, and every record crossed the wire once.
func TestSessionCutAtEveryFrame(t *testing.T) {
	const each, size = 24, 1500
	roster := rosterOf("lab", "lab")
	ours, theirs := registers(t, 0, each, size), registers(t, 1, each, size)
	for frames := 1; ; frames++ {
		a, b := nodeOf(t, 0, roster), nodeOf(t, 1, roster)
		commit(t, a, ours...)
		commit(t, b, theirs...)
		asked, answered, err := session(a, b, cutAfter(frames))
		whole := err == nil
		crossed := len(asked.learnt) + len(answered.learnt)
		asked, answered, err = session(a, b, direct)
		if err != nil {
			t.Fatalf("after %d frames: %v", frames, err)
		}
		if a.Root() != b.Root() || a.Root().IsZero() {
			t.Fatalf("after %d frames: roots differ", frames)
		}
		crossed += asked.records + answered.records - len(asked.learnt) - len(answered.learnt)
		// What the one side sent the other counted as received: each record is in both counts, once.
		if crossed != 2*each {
			t.Errorf("after %d frames: %d records crossed, want %d", frames, crossed, 2*each)
		}
		if whole {
			if frames < 12 {
				t.Errorf("%d frames in all: the test shows little", frames)
			}
			return
		}
	}
}

// pass lets time go by in a bubble, where that takes none. It does without a timer's channel: with the race detector, the
// runtime of Go 1.26.8 has crashed over those in a bubble.
func pass(d time.Duration) {
	over := make(chan struct{})
	time.AfterFunc(d, func() { close(over) })
	<-over
}

// line is a wire of so many bytes a second, each way.
type line struct {
	net.Conn
	rate int
}

func (l line) Write(b []byte) (sent int, err error) {
	for len(b) > 0 {
		part := b[:min(len(b), 512)]
		pass(time.Duration(len(part)) * time.Second / time.Duration(l.rate))
		n, err := l.Conn.Write(part)
		sent, b = sent+n, b[n:]
		if err != nil {
			return sent, err
		}
	}
	return sent, nil
}

// lasting cuts a pipe after a time, as the end of a session does.
func lasting(d time.Duration, inner wiring) wiring {
	return func(c net.Conn) net.Conn {
		time.AfterFunc(d, func() { _ = c.Close() })
		return inner(c)
	}
}

// TestSessionsAt64kbit: LAN's times, and a site whose line has 64 kbit/s, of which something else takes half, or nearly
// all. Each session ends in its time, the next one goes on, and nothing comes twice.
func TestSessionsAt64kbit(t *testing.T) {
	for name, rate := range map[string]int{"64 kbit/s": 8000, "half of it": 4100, "an eighth of it": 1000} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				roster := rosterOf("lab", "lab")
				a, b := nodeOf(t, 0, roster), nodeOf(t, 1, roster)
				const count = 500
				commit(t, b, registers(t, 1, count, 3900)...)
				slow := func(c net.Conn) net.Conn { return line{c, rate} }
				begin, sessions, crossed := time.Now(), 0, 0
				for a.Root() != b.Root() {
					before := length(a)
					asked, _, err := session(a, b, lasting(a.cfg.SessionTimeout, slow))
					crossed += asked.records
					if length(a) == before && err != nil {
						t.Fatalf("session %d brought nothing: %v", sessions, err)
					}
					sessions++
				}
				if crossed != count {
					t.Errorf("%d records crossed, want %d", crossed, count)
				}
				if sessions < 2 {
					t.Error("one session did it all: the test shows nothing")
				}
				t.Logf("%d bytes of records in %d sessions, %s", count*4000, sessions, time.Since(begin))
			})
		})
	}
}

func length(n *Node) (size int) {
	n.View(func(s *lattice.Set) { size = s.Len() })
	return size
}

// trickle writes the last bytes of a frame one by one, with a pause before each.
type trickle struct{ net.Conn }

func (s trickle) Write(b []byte) (int, error) {
	for i := range b {
		pass(time.Second)
		if _, err := s.Conn.Write(b[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(b), nil
}

// TestTricklingIsCutOff: who answers, or asks, a byte a second does not hold the other side for a session's time.
func TestTricklingIsCutOff(t *testing.T) {
	for name, asking := range map[string]bool{"asking": true, "answering": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				roster := rosterOf("lab", "lab")
				a, b := nodeOf(t, 0, roster), nodeOf(t, 1, roster)
				commit(t, b, registers(t, 1, 3, 100)...)
				ends, begin := 0, time.Now()
				_, _, err := session(a, b, func(c net.Conn) net.Conn {
					ends++
					if (ends == 2) == asking { // the answering end is wired first
						return trickle{c}
					}
					return c
				})
				if err == nil {
					t.Error("it ended well")
				}
				if took := time.Since(begin); took > a.cfg.SessionTimeout/2 { // by the bubble's clock
					t.Errorf("cut off after %s", took)
				}
			})
		})
	}
}

// TestIdleCost: what a session costs between members that hold the same of what both carry. The first one may have
// to find out what that is.
func TestIdleCost(t *testing.T) {
	roster := rosterOf("eu", "eu", "us", "ap")
	for name, c := range map[string]struct {
		options []func(*Config)
		ask     int
		other   int
		carry   []string
	}{
		"flat":                                  {nil, 0, 2, nil},
		"zones: the same zone":                  {[]func(*Config){zoned}, 0, 1, nil},
		"zones: same zone, one carries another": {[]func(*Config){zoned}, 0, 1, []string{"us", "ap"}},
		"zones: another zone":                   {[]func(*Config){zoned}, 0, 2, nil},
		"zones: carries the other's":            {[]func(*Config){zoned}, 0, 2, []string{"us"}},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := nodeOf(t, c.ask, roster, c.options...), nodeOf(t, c.other, roster, c.options...)
			a.Carry(c.carry)
			var records []fleet.Record
			for i := range 4 {
				records = append(records, registers(t, i, 5, 100)...)
				records = append(records, factOf(t, i, 2, 1, 1), signed(t, i, fleet.Record{Epoch: 2, Seq: 2, Kind: 77, Key: "fleet"}))
			}
			for _, n := range []*Node{a, b} {
				for i := range records {
					if n.carriesRecord(&records[i]) {
						commit(t, n, records[i])
					}
				}
			}
			first, _, err := session(a, b, direct)
			if err != nil || first.records > 0 {
				t.Fatalf("%d records, %v", first.records, err)
			}
			for _, way := range []struct{ ask, answer *Node }{{a, b}, {b, a}} {
				next, _, err := session(way.ask, way.answer, direct)
				if err != nil || next.bytes > 64 {
					t.Errorf("%d bytes, %v", next.bytes, err)
				}
				t.Logf("%d bytes, the first one %d", next.bytes, first.bytes)
			}
			// A difference in what both carry is found all the same, at once.
			more := signed(t, 3, fleet.Record{Epoch: 2, Seq: 3, Kind: 77, Key: "more"})
			commit(t, b, more)
			if asked, _, err := session(a, b, direct); err != nil || len(asked.learnt) != 1 {
				t.Errorf("%d records learnt, %v", len(asked.learnt), err)
			}
		})
	}
}

// TestCarryIsAnnounced: a member that begins to carry a zone gets it from who it reconciled with before, although what both
// remember of each other says that they are equal.
func TestCarryIsAnnounced(t *testing.T) {
	roster := rosterOf("eu", "us")
	a, b := nodeOf(t, 0, roster, zoned), nodeOf(t, 1, roster, zoned)
	commit(t, b, append(registers(t, 1, 3, 100), factOf(t, 1, 2, 1, 1), factOf(t, 1, 2, 2, 2))...)
	reconciled := func(want int) {
		t.Helper()
		if _, _, err := session(a, b, direct); err != nil {
			t.Fatal(err)
		}
		if got := length(a); got != want {
			t.Errorf("%d records, want %d", got, want)
		}
	}
	reconciled(0)
	reconciled(0)
	a.Carry([]string{"us"})
	if wants := a.told.wants(a.carries); len(wants) != 1 || wants[0] != (lattice.Share{Scope: fleet.ScopeMilestones, Zone: "us"}) {
		t.Errorf("wants %v", wants)
	}
	reconciled(2)
	if wants := a.told.wants(a.carries); len(wants) > 0 {
		t.Errorf("wants %v after it was fetched", wants)
	}
	root := a.Root()
	a.Carry([]string{"us"})
	if wants := a.told.wants(a.carries); len(wants) > 0 || a.Root() != root {
		t.Error("asking again did something")
	}
}

// TestMovedTogether: two members come into one zone. What each remembers of the other has nothing of that zone in it; all
// the same they find what the zone says.
func TestMovedTogether(t *testing.T) {
	before, after := rosterOf("eu", "us", "ap"), rosterOf("ap", "ap", "ap")
	a, b := nodeOf(t, 0, before, zoned), nodeOf(t, 1, before, zoned)
	for range 2 {
		if _, _, err := session(a, b, direct); err != nil {
			t.Fatal(err)
		}
	}
	a.SetRoster(after)
	b.SetRoster(after)
	commit(t, b, factOf(t, 2, 1, 1, 1))
	if _, _, err := session(a, b, direct); err != nil || length(a) != 1 {
		t.Errorf("%d records, %v", length(a), err)
	}
}

// TestFailingMembersWait: each failure makes the pause before the next attempt longer, up to the clock's; one that taught
// something is none, and goes on.
func TestFailingMembersWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{Node: nodeOf(t, 0, rosterOf("lab"))}
		s := scheduler{running: map[peer.ID]time.Time{}, again: map[peer.ID]bool{}, failing: map[peer.ID]failures{}}
		for times := 1; times <= 12; times++ {
			w.judgeEnd(&s, ended{id: "p", err: errCut})
			pause := min(w.cfg.SyncGap<<times, w.cfg.SyncEvery)
			if wait := time.Until(s.failing["p"].until); wait < pause/2 || wait > pause*3/2+1 {
				t.Errorf("failure %d: %s", times, wait)
			}
		}
		for range 3 * sessionsMost {
			id := peer.ID(fmt.Sprint("failing", len(s.running)))
			w.judgeEnd(&s, ended{id: id, err: errCut})
			if s.mayStart(id, w.cfg.SyncGap) {
				s.running[id] = time.Now()
			}
			pass(w.cfg.SyncGap)
		}
		if len(s.running) != sessionsMost/2 || !s.mayStart("other", w.cfg.SyncGap) {
			t.Errorf("%d members that fail have room", len(s.running))
		}
		w.judgeEnd(&s, ended{id: "p"})
		if s.failing["p"].times != 0 {
			t.Error("it ended well, and still fails")
		}
	})
}

// TestSharesOnManyPages: a fleet that carries everything with a zone for each member has more shares than fit a frame.
func TestSharesOnManyPages(t *testing.T) {
	const zones = 700
	var names []string
	for i := range zones {
		names = append(names, fmt.Sprintf("zone-%04d-%s", i, "of-a-fleet-with-long-names"))
	}
	roster := rosterOf(names...)
	a, b := nodeOf(t, 0, roster), nodeOf(t, 1, roster)
	var all []fleet.Record
	for i := range zones {
		all = append(all, factOf(t, i, 1, 1, 1))
	}
	commit(t, a, all[:zones-3]...)
	commit(t, b, all[3:]...)
	if pages := len(a.carried().shares) / sharesAtOnce; pages < 1 {
		t.Fatalf("%d shares", len(a.carried().shares))
	}
	if _, _, err := session(a, b, direct); err != nil {
		t.Fatal(err)
	}
	if a.Root() != b.Root() || length(a) != zones {
		t.Errorf("%d and %d records", length(a), length(b))
	}
}

// TestWhoSettles: a member of the own zone, or, where there is no other one, anybody.
func TestWhoSettles(t *testing.T) {
	over := func(n *Node) bool {
		select {
		case <-n.Settled():
			return true
		default:
			return false
		}
	}
	n := nodeOf(t, 0, rosterOf("eu", "us", "eu"), zoned)
	n.reconciling(idOf(1))(true)
	if over(n) {
		t.Error("settled by a member of another zone")
	}
	n.reconciling(idOf(2))(false)
	if over(n) {
		t.Error("settled by a reconciliation that broke off")
	}
	n.reconciling(idOf(2))(true)
	if !over(n) {
		t.Error("not settled by a member of the zone")
	}
	if n = nodeOf(t, 0, rosterOf("eu", "us"), zoned); n.settles(idOf(1)) == false {
		t.Error("nobody else has the zone, and another member does not do")
	}
	// The grace ends while a reconciliation is under way.
	ended := n.reconciling(idOf(1))
	n.settle.expire()
	if over(n) {
		t.Error("what has begun is not waited for")
	}
	ended(false)
	if !over(n) {
		t.Error("the grace is over, and nothing under way")
	}
	n = nodeOf(t, 0, rosterOf("eu", "us"), zoned)
	n.reconciling(idOf(1))
	n.settle.expire()
	n.settle.expire()
	if !over(n) {
		t.Error("what never ends is waited for")
	}
}

// differ makes two members that hold so many keys alike and some not, and reconciles them.
func differ(t testing.TB, keys, differences int) (bytes, records int) {
	t.Helper()
	roster := rosterOf("lab", "lab")
	a, b := nodeOf(t, 0, roster), nodeOf(t, 1, roster)
	for i := range keys { // held by both: nobody looks at the signatures
		r := fleet.Record{Writer: idOf(i % 2), Fleet: testFleet, Epoch: 1, Seq: uint64(i), Kind: fleet.KindRegister, Key: fmt.Sprint(i), Sig: make([]byte, 64)}
		a.set.Add(r)
		b.set.Add(r)
	}
	a.set.Root()
	b.set.Root()
	for i, r := range registers(t, 1, differences, 300) {
		commit(t, []*Node{a, b}[i%2], r)
		records += len(r.Encode())
	}
	asked, _, err := session(a, b, direct)
	if err != nil || a.Root() != b.Root() {
		t.Fatal("not equal", err)
	}
	return asked.bytes, records
}

func TestBytesPerDifference(t *testing.T) {
	bytes, records := differ(t, 3000, 10)
	t.Logf("%d bytes, of which records %d", bytes, records)
	if beside := bytes - records; beside > 20_000 {
		t.Errorf("%d bytes beside the records", beside)
	}
}

// BenchmarkDifferences: ten differences in 60,000 keys.
func BenchmarkDifferences(b *testing.B) {
	var bytes, records int
	for b.Loop() {
		bytes, records = differ(b, 60_000, 10)
	}
	b.ReportMetric(float64(bytes-records), "bytes-beside-records")
	b.ReportMetric(float64(bytes), "bytes")
}

// TestCommitOfWhatIsNotCarriedAnyMore: between the check of a record and its commit somebody stopped asking for its zone.
func TestCommitOfWhatIsNotCarriedAnyMore(t *testing.T) {
	n := nodeOf(t, 0, rosterOf("eu", "us"), zoned)
	n.Carry([]string{"us"})
	theirs, own := factOf(t, 1, 1, 1, 1), factOf(t, 0, 1, 1, 1)
	if _, v := n.examine(theirs.Encode(), always); v != news {
		t.Fatalf("verdict %d", v)
	}
	n.Carry(nil)
	commit(t, n, theirs, own)
	onDisk, _, err := n.cfg.Store.Load()
	if err != nil {
		t.Fatal(err)
	}
	for _, set := range []*lattice.Set{n.set, onDisk} {
		if _, ok := set.Get(own.Writer, own.Kind, own.Key); !ok || set.Len() != 1 {
			t.Errorf("%d records, its own: %v", set.Len(), ok)
		}
	}
}
