// SPDX-License-Identifier: Apache-2.0

package mesh_test

import (
	"bufio"
	"crypto/ed25519"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/lattice"
	"github.com/flotilla-dev/flotilla/sequencer/mesh"
	"github.com/flotilla-dev/flotilla/sequencer/mesh/meshtest"
)

// What another replicated store was seen to do, and this one must not: a stranger's write wins over the owner's; the owner's
// own past wins over its present, which is TestReimagedMemberWins; and one piece that nobody can fetch, or one slow
// member, stops everything.

func TestOnlyItsOwnerWritesAKey(t *testing.T) {
	n := newAlone(t).start(t)
	owned := by(t, 1, fleet.Record{Epoch: 5, Seq: 5, Kind: fleet.KindRegister, Key: "k", Body: []byte("owner's")})
	must(t, n.Admit(owned.Encode()))
	root := n.Root()
	for name, key := range map[string]ed25519.PrivateKey{"a stranger": meshtest.Key(99), "another member": meshtest.Key(0)} {
		r := signedBy(t, key, fleet.Record{Epoch: 1 << 63, Seq: 1, Kind: fleet.KindRegister, Key: "k", Body: []byte("mine")})
		r.Writer = owned.Writer // under the owner's name, signed by somebody else
		_ = n.Admit(r.Encode())
		if n.Root() != root {
			t.Errorf("%s wrote the owner's key", name)
		}
	}
	stranger := signedBy(t, meshtest.Key(99), fleet.Record{Epoch: 1 << 63, Seq: 1, Kind: fleet.KindRegister, Key: "k", Body: []byte("mine")})
	_ = n.Admit(stranger.Encode())
	if n.Root() != root || n.Stats().Stranger != 1 {
		t.Error("a stranger's own key is taken")
	}
}

// waiting is a network of two honest members, of which the first asks the second and nobody else asks anybody, and of
// others that are played by the test. No session ends by time.
func waiting(t *testing.T, others int) *meshtest.Network {
	t.Helper()
	first := fleet.MemberIDOf(meshtest.Key(0).Public().(ed25519.PublicKey))
	w := meshtest.New(t, 2+others, func(c *mesh.Config) {
		c.NoGossip, c.Heartbeat, c.SyncEvery, c.StreamTimeout, c.SessionTimeout = true, time.Hour, time.Hour, 5*time.Second, time.Hour
		if fleet.MemberIDOf(c.Key.Public().(ed25519.PublicKey)) == first {
			c.SyncEvery = 50 * time.Millisecond
		}
	})
	w.AwaitConnected()
	return w
}

// TestSlowMembersDelayNobody: more members than are asked at once answer every question so late that it is just in time, and
// never come to an end.
func TestSlowMembersDelayNobody(t *testing.T) {
	t.Parallel()
	const slow = 6
	w := waiting(t, slow)
	endless := lattice.Summary{Divided: true}
	for i := range endless.Parts {
		endless.Parts[i] = lattice.Tag{byte(i), 1}
	}
	asked := make(chan int, 1<<16)
	for i := range slow {
		h := intruder(t, w, 2+i)
		answers := badAnswer{answer: func(kind byte, body []byte) []byte {
			switch kind {
			case 1:
				return mesh.DiffersFrame(fleet.Digest{9})
			case 10:
				return mesh.SharesFrame(lattice.Share{Scope: fleet.ScopeDetail, Zone: "lab"}, fleet.Digest{9})
			}
			asked <- i
			select {
			case <-time.After(500 * time.Millisecond):
			case <-t.Context().Done():
			}
			return mesh.SummaryFrame(body, endless)
		}}
		h.SetStreamHandler(mesh.SyncProtocol, answers.serve)
	}
	busy := map[int]bool{}
	meshtest.Await(t, "questions to all slow members", func() bool {
		for len(asked) > 0 {
			busy[<-asked] = true
		}
		return len(busy) == slow
	})
	r := say(t, w.Node(1), "k", "x")
	meshtest.Await(t, "what the honest one says", func() bool { return hears(w.Node(0), r) })
}

// TestUnfetchableRecordStopsNothing: a member shows that it holds something, and never gives it.
func TestUnfetchableRecordStopsNothing(t *testing.T) {
	t.Parallel()
	w := waiting(t, 1)
	h := intruder(t, w, 2)
	missing := fleet.Record{Writer: w.Member(2).ID, Kind: fleet.KindRegister, Key: "missing"}
	asked := make(chan struct{}, 1024)
	detail := lattice.Share{Scope: fleet.ScopeDetail, Zone: "lab"}
	answers := badAnswer{answer: func(kind byte, body []byte) []byte {
		switch kind {
		case 10:
			return mesh.SharesFrame(detail, fleet.Digest{9})
		case 4:
			return mesh.SummaryFrame(body, lattice.Summary{Entries: []lattice.Entry{{
				Position: lattice.Position(missing.Writer, missing.Kind, missing.Key), Tag: lattice.Tag{1},
			}}})
		case 6:
			select {
			case asked <- struct{}{}:
			default: // enough were counted
			}
			return mesh.RecordsFrame(1)
		case 8:
			return mesh.TakenFrame()
		}
		return mesh.DiffersFrame(fleet.Digest{9})
	}}
	h.SetStreamHandler(mesh.SyncProtocol, answers.serve)
	meshtest.Await(t, "a question for it", func() bool { return len(asked) > 0 })
	r := say(t, w.Node(1), "k", "x")
	meshtest.Await(t, "what the other one says", func() bool { return hears(w.Node(0), r) })
	if hears(w.Node(0), missing) {
		t.Error("it came after all")
	}
}

// TestEarlierProtocolIsRefused: a member that speaks only the first version of reconciliation is counted, and the others do
// not wait for it.
func TestEarlierProtocolIsRefused(t *testing.T) {
	t.Parallel()
	w := waiting(t, 1)
	h := intruder(t, w, 2, func(h host.Host) {
		h.SetStreamHandler(protocol.ID("/flotilla/sync/1"), func(s network.Stream) { _ = s.Reset() })
	})
	r := say(t, w.Node(1), "k", "x")
	meshtest.Await(t, "the count", func() bool { return w.Node(0).Stats().SessionsUnspoken > 0 })
	meshtest.Await(t, "what the other one says", func() bool { return hears(w.Node(0), r) })
	// And the other way: it asks, and is told that nobody speaks that here.
	if s, err := h.NewStream(t.Context(), infoOf(t, w.Member(0)).ID, protocol.ID("/flotilla/sync/1")); err == nil {
		_ = s.Reset()
		t.Error("the first version is served")
	}
}

// TestVersionBeforeIsSpoken with who knows no later one: an introduction has the life alone, and a beat no flag of later. It
// took anything else for malformed, and blamed who sent it.
func TestVersionBeforeIsSpoken(t *testing.T) {
	t.Parallel()
	const life, root = 8, 32
	w := waiting(t, 1)
	hellos, beats := make(chan int, 64), make(chan byte, 64)
	answers := badAnswer{answer: func(_ byte, body []byte) []byte {
		select {
		case hellos <- len(body):
		default: // enough were counted
		}
		return append([]byte{1 + life, 2}, make([]byte, life)...)
	}}
	h := intruder(t, w, 2, func(h host.Host) {
		h.SetStreamHandler("/flotilla/sync/2", answers.serve)
		h.SetStreamHandler("/flotilla/beat/1", func(s network.Stream) {
			_, body, err := mesh.ReadFrame(bufio.NewReader(s))
			if err == nil && len(body) > 0 && len(beats) < cap(beats) {
				beats <- body[0]
			}
			_, _ = io.Copy(io.Discard, s)
		})
	})
	meshtest.Await(t, "a question", func() bool { return len(hellos) > 0 })
	meshtest.Await(t, "a beat", func() bool { return len(beats) > 0 })
	if size := <-hellos; size != root+life {
		t.Errorf("a hello of %d bytes, want %d", size, root+life)
	}
	if flags := <-beats; flags > 0xf {
		t.Errorf("a beat with flags %x", flags)
	}
	s, err := h.NewStream(t.Context(), infoOf(t, w.Member(0)).ID, "/flotilla/sync/2")
	must(t, err)
	_, err = s.Write(mesh.HelloFrame(fleet.Digest{1}))
	must(t, err)
	if kind, body, err := mesh.ReadFrame(bufio.NewReader(s)); err != nil || kind != 3 || len(body) != root+life {
		t.Errorf("answer %d of %d bytes, %v", kind, len(body), err)
	}
	_ = s.Close()
	if stats := w.Node(0).Stats(); stats.Blamed != 0 || stats.Malformed != 0 {
		t.Errorf("blamed %d, malformed %d", stats.Blamed, stats.Malformed)
	}
}

// TestMixedVersionsConverge: kinds that this version does not know, of every scope and both ways to merge, and bodies of a later
// version of kinds that it does know, are carried: roots are equal. A record of a later version cannot be, as nobody
// here could say where it lies; it keeps nothing else from coming.
func TestMixedVersionsConverge(t *testing.T) {
	t.Parallel()
	w := meshtest.New(t, 3, func(c *mesh.Config) { c.SyncEvery = 200 * time.Millisecond })
	w.AwaitConnected()
	var all []fleet.Record
	var encoded [][]byte
	for i, r := range []fleet.Record{
		{Kind: 5, Key: "milestone"}, {Kind: 77, Key: "milestone of the fleet"}, {Kind: 140, Key: "register"}, {Kind: 200, Key: "register of the fleet"},
		{Kind: fleet.KindFact, Key: "a later fact", Body: []byte{9, 1, 2, 3}}, {Kind: fleet.KindCommand, Key: "a later command", Body: []byte{9}},
		{Kind: fleet.KindProof, Key: "a later proof", Body: []byte{9}},
	} {
		r.Epoch, r.Seq = 5, uint64(i+1)
		r = by(t, 2, r)
		all = append(all, r)
		encoded = append(encoded, r.Encode())
	}
	later := slices.Insert(slices.Clone(encoded), 3, laterVersion(encoded[0]))
	must(t, w.Node(0).Admit(later...))
	if got := w.Node(0).Stats().Version; got != 1 {
		t.Errorf("%d records of a later version", got)
	}
	for i := range 3 {
		meshtest.Await(t, "what is not known", func() bool { return hearsAll(w.Node(i), all) })
	}
	w.AwaitEqualRoots()
}

// laterVersion is the same record as a later version may write it.
func laterVersion(record []byte) []byte {
	later := append([]byte(nil), record...)
	later[2]++
	return later
}
