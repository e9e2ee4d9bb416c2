// SPDX-License-Identifier: Apache-2.0

package mesh_test

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"go.etcd.io/bbolt"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/lattice"
	"github.com/flotilla-dev/flotilla/sequencer/mesh"
	"github.com/flotilla-dev/flotilla/sequencer/mesh/meshtest"
	"github.com/flotilla-dev/flotilla/sequencer/store"
)

func TestMemberIDIsThePeerID(t *testing.T) {
	random := rand.NewChaCha8([32]byte{1})
	for range 1000 {
		public, _, err := ed25519.GenerateKey(random)
		must(t, err)
		key, err := crypto.UnmarshalEd25519PublicKey(public)
		must(t, err)
		id, err := peer.IDFromPublicKey(key)
		must(t, err)
		if member := fleet.MemberIDOf(public); string(member) != id.String() {
			t.Fatalf("member ID %s, peer ID %s", member, id)
		}
		if back, err := fleet.MemberID(id.String()).PublicKey(); err != nil || !back.Equal(public) {
			t.Fatalf("%s: %v", id, err)
		}
	}
}

// alone is a node that never runs, on a store that lasts.
type alone struct {
	key   ed25519.PrivateKey
	path  string
	store *store.Store
	cfg   mesh.Config
}

func newAlone(t *testing.T) *alone {
	t.Helper()
	a := &alone{key: meshtest.Key(0), path: filepath.Join(t.TempDir(), "state.db")}
	a.cfg = mesh.Test()
	a.cfg.Key, a.cfg.Fleet = a.key, meshtest.Fleet()
	a.cfg.Roster = meshtest.Roster{{ID: memberID(0), Name: "a"}, {ID: memberID(1), Name: "b"}}
	t.Cleanup(func() { a.close(t) })
	return a
}

func memberID(i int) fleet.MemberID {
	return fleet.MemberIDOf(meshtest.Key(i).Public().(ed25519.PublicKey))
}

func (a *alone) close(t *testing.T) {
	t.Helper()
	if a.store != nil {
		must(t, a.store.Close())
	}
	a.store = nil
}

// start ends the last life and begins another one.
func (a *alone) start(t *testing.T) *mesh.Node {
	t.Helper()
	a.close(t)
	s, err := store.Open(a.path)
	must(t, err)
	a.store, a.cfg.Store = s, s
	n, err := mesh.New(a.cfg)
	must(t, err)
	return n
}

// stored is how many records are on disk, as they lie there.
func (a *alone) stored(t *testing.T) (count int) {
	t.Helper()
	must(t, a.store.Close())
	a.store = nil
	db, err := bbolt.Open(a.path, 0o600, &bbolt.Options{ReadOnly: true})
	must(t, err)
	must(t, db.View(func(tx *bbolt.Tx) error { count = tx.Bucket([]byte("packed")).Stats().KeyN; return nil }))
	must(t, db.Close())
	return count
}

func TestPublishIsOnDiskWhenItReturns(t *testing.T) {
	a := newAlone(t)
	r := say(t, a.start(t), "k", "x")
	if r.Writer != memberID(0) || r.Verify(meshtest.Fleet()) != nil {
		t.Errorf("record by %s", r.Writer)
	}
	if n := a.start(t); !hears(n, r) {
		t.Error("it is gone after a restart")
	}
}

func TestPublishingAgainWritesNothing(t *testing.T) {
	n := newAlone(t).start(t)
	fact := fleet.Fact{Plan: fleet.Digest{1}, Kind: fleet.Started, Time: 1}
	key := fleet.FactKey(fact.Plan, fact.Kind)
	first, err := n.Publish(fleet.KindFact, key, fact.Encode())
	must(t, err)
	root := n.Root()
	fact.Time = 2
	again, err := n.Publish(fleet.KindFact, key, fact.Encode())
	must(t, err)
	if again.Digest() != first.Digest() || n.Root() != root {
		t.Error("a milestone was said twice")
	}
	r := say(t, n, "k", "x")
	if same := say(t, n, "k", "x"); same.Digest() != r.Digest() {
		t.Error("a register was written with the body it had")
	}
	if other := say(t, n, "k", "y"); !other.Newer(&r) {
		t.Error("a register with another body is not newer")
	}
	if got := n.Stats().Published; got != 3 {
		t.Errorf("published %d, want 3", got)
	}
}

func TestPublishRefuses(t *testing.T) {
	a := newAlone(t)
	n := a.start(t)
	for name, c := range map[string]struct {
		kind fleet.Kind
		key  string
		body []byte
		want error
	}{
		"key too long":     {fleet.KindRegister, strings.Repeat("k", fleet.MaxKey+1), nil, fleet.ErrTooLarge},
		"body too long":    {fleet.KindRegister, "k", make([]byte, fleet.MaxRecord), fleet.ErrTooLarge},
		"key no text":      {fleet.KindRegister, "\xff", nil, fleet.ErrMalformed},
		"no fact":          {fleet.KindFact, "k", []byte{1}, fleet.ErrMalformed},
		"no seal":          {fleet.KindSeal, "k", []byte{1}, fleet.ErrMalformed},
		"no command":       {fleet.KindCommand, "k", []byte{1}, fleet.ErrMalformed},
		"no status":        {fleet.KindRegister, "status/a/b", []byte("{"), fleet.ErrMalformed},
		"another's status": {fleet.KindRegister, "status/a/b", []byte(`{"rollout":{"namespace":"a","name":"c"}}`), fleet.ErrMalformed},
	} {
		if _, err := n.Publish(c.kind, c.key, c.body); !errors.Is(err, c.want) || fleet.KindOf(err) != fleet.Terminal {
			t.Errorf("%s: %v", name, err)
		}
	}
	n.SetRoster(meshtest.Roster{{ID: memberID(1)}})
	if _, err := n.Publish(fleet.KindRegister, "k", nil); !errors.Is(err, fleet.ErrStranger) || fleet.KindOf(err) != fleet.Refused {
		t.Errorf("off the roster: %v", err)
	}
	if !n.Root().IsZero() || length(n) != 0 {
		t.Error("something was kept")
	}
}

func TestDiskThatDoesNotTakeIt(t *testing.T) {
	a := newAlone(t)
	n := a.start(t)
	first := say(t, n, "k", "x")
	root := n.Root()
	a.close(t)
	if _, err := n.Publish(fleet.KindRegister, "k", []byte("y")); err == nil || fleet.KindOf(err) != fleet.Retryable {
		t.Errorf("a write without a disk: %v", err)
	}
	if n.Root() != root || !hears(n, first) || n.Stats().Unstored != 1 {
		t.Error("memory is ahead of the disk")
	}
}

// TestEpochsGoUp: the upper bits are seconds; whatever the clock does, each start is above all before it.
func TestEpochsGoUp(t *testing.T) {
	a := newAlone(t)
	now := time.Unix(1_800_000_000, 0)
	a.cfg.Now = func() time.Time { return now }
	var last uint64
	for i, c := range []struct {
		clock    int64
		from, to uint64 // the epoch's seconds
		before   func()
	}{
		{1_800_000_000, 1_800_000_000, 1_800_000_000, func() {}},
		{1_800_000_000, 1_800_000_000, 1_800_000_001, func() {}},                                              // at once
		{1_700_000_000, 1_800_000_000, 1_800_000_002, func() {}},                                              // the clock set back
		{1_700_000_000, 1_800_000_000, 1_800_000_003, func() { must(t, a.store.SetMeta("mesh.epoch", nil)) }}, // forgotten
		{1_900_000_000, 1_900_000_000, 1_900_000_000, func() {}},
		{1_900_000_000 + 31_536_000, 1_931_536_000, 1_931_536_000, func() {}}, // a year ahead
		{1_900_000_000, 1_931_536_000, 1_931_536_001, func() {}},              // and back
		{-5, 1_931_536_000, 1_931_536_002, func() {}},
	} {
		c.before()
		now = time.Unix(c.clock, 0)
		r := say(t, a.start(t), "k", fmt.Sprint(i))
		if seconds := r.Epoch >> 30; r.Epoch <= last || seconds < c.from || seconds > c.to {
			t.Errorf("start %d: epoch %d after %d, its second %d", i, r.Epoch, last, seconds)
		}
		last = r.Epoch
	}
}

// TestEpochAboveOldOnes: a store of before epochs had random bits holds plain seconds.
func TestEpochAboveOldOnes(t *testing.T) {
	a := newAlone(t)
	a.start(t)
	must(t, a.store.SetMeta("mesh.epoch", binary.BigEndian.AppendUint64(nil, 1_999_999_999)))
	old := fleet.Record{Fleet: meshtest.Fleet(), Epoch: 2_000_000_000, Seq: 1, Kind: fleet.KindRegister, Key: "k", Body: []byte("old")}
	must(t, old.Sign(meshtest.Key(0)))
	must(t, a.store.Put(old))
	if r := say(t, a.start(t), "k", "new"); !r.Newer(&old) || r.Epoch>>30 < 1_700_000_000 {
		t.Errorf("epoch %d", r.Epoch)
	}
}

// TestRestoredDisksAreNotConvicted: over many restarts the disk is now and then one that was copied earlier, and the
// clock goes a year back and forth. No position is used for two records, so nobody can accuse the member.
func TestRestoredDisksAreNotConvicted(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 11))
	a := newAlone(t)
	now := time.Unix(1_800_000_000, 0)
	a.cfg.Now = func() time.Time { return now }
	type position struct{ epoch, seq uint64 }
	used := map[position]int{}
	var copies [][]byte
	for i := range 100 {
		if len(copies) > 0 && random.IntN(3) == 0 {
			a.close(t)
			must(t, os.WriteFile(a.path, copies[random.IntN(len(copies))], 0o600))
		}
		switch random.IntN(4) {
		case 0:
			now = now.Add(-time.Duration(random.Int64N(365*24)) * time.Hour)
		case 1:
			now = now.Add(time.Duration(random.Int64N(365*24)) * time.Hour)
		}
		r := say(t, a.start(t), "k", fmt.Sprint(i))
		at := position{r.Epoch, r.Seq}
		if first, met := used[at]; met {
			t.Fatalf("start %d writes at the position of start %d: %v", i, first, at)
		}
		used[at] = i
		if random.IntN(10) == 0 {
			a.close(t)
			disk, err := os.ReadFile(a.path)
			must(t, err)
			copies = append(copies, disk)
		}
	}
	if len(copies) < 5 {
		t.Errorf("%d copies: the test shows nothing", len(copies))
	}
}

func TestAdopt(t *testing.T) {
	a := newAlone(t)
	n := a.start(t)
	fact := fleet.Fact{Plan: fleet.Digest{1}, Kind: fleet.Started}
	said := fleet.Record{
		Fleet: meshtest.Fleet(), Epoch: 5, Seq: 7, Kind: fleet.KindFact,
		Key: fleet.FactKey(fact.Plan, fact.Kind), Body: fact.Encode(),
	}
	must(t, said.Sign(meshtest.Key(0)))
	must(t, n.Adopt(said))
	must(t, n.Adopt(said))
	if !hears(n, said) || !hears(a.start(t), said) {
		t.Error("it is not kept")
	}

	foreign := said
	must(t, foreign.Sign(meshtest.Key(1)))
	flipped := said
	flipped.Body = append([]byte(nil), said.Body...)
	flipped.Body[40] ^= 1
	elsewhere := said
	elsewhere.Fleet = fleet.Digest{9}
	must(t, elsewhere.Sign(meshtest.Key(0)))
	for name, r := range map[string]fleet.Record{"another's": foreign, "changed": flipped, "of another fleet": elsewhere, "empty": {}} {
		if err := n.Adopt(r); fleet.KindOf(err) != fleet.Terminal {
			t.Errorf("%s: %v", name, err)
		}
	}
	if length(n) != 1 {
		t.Errorf("%d records", length(n))
	}
}

// TestFormerLifeAhead: what an earlier life said at higher positions does not win over what this one says, and
// what this one said already is said again.
func TestFormerLifeAhead(t *testing.T) {
	n := newAlone(t).start(t)
	said := say(t, n, "k", "this life")
	former := fleet.Record{Fleet: meshtest.Fleet(), Epoch: said.Epoch + 100<<30, Seq: 9, Kind: fleet.KindRegister, Key: "k", Body: []byte("former life")}
	must(t, former.Sign(meshtest.Key(0)))
	must(t, n.Adopt(former))
	body := func(key string) (got string, epoch uint64) {
		n.View(func(s *lattice.Set) {
			r, _ := s.Get(memberID(0), fleet.KindRegister, key)
			got, epoch = string(r.Body), r.Epoch
		})
		return got, epoch
	}
	if got, epoch := body("k"); got != "this life" || epoch <= former.Epoch {
		t.Errorf("%q at epoch %d", got, epoch)
	}
	if n.Self().Duplicate {
		t.Error("a former life is taken for another agent")
	}
	// Somebody who goes on and on is another agent with this key: no race with it.
	for i := range 10 {
		former.Epoch += 1000 << 30
		former.Body = []byte{byte(i)}
		must(t, former.Sign(meshtest.Key(0)))
		must(t, n.Adopt(former))
	}
	if got, epoch := body("k"); got != "\x09" || epoch != former.Epoch {
		t.Errorf("%q at epoch %d: the race goes on", got, epoch)
	}
	if !n.Self().Duplicate {
		t.Error("not flagged")
	}
}

func TestConfigIsChecked(t *testing.T) {
	good := func() mesh.Config {
		a := newAlone(t)
		a.start(t)
		return a.cfg
	}
	for name, change := range map[string]func(*mesh.Config){
		"no key":            func(c *mesh.Config) { c.Key = nil },
		"no fleet":          func(c *mesh.Config) { c.Fleet = fleet.Digest{} },
		"no roster":         func(c *mesh.Config) { c.Roster = nil },
		"no store":          func(c *mesh.Config) { c.Store = nil },
		"no address":        func(c *mesh.Config) { c.Listen = []string{"127.0.0.1:4001"} },
		"negative duration": func(c *mesh.Config) { c.SyncGap = -1 },
	} {
		cfg := good()
		change(&cfg)
		if _, err := mesh.New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestRunOnce(t *testing.T) {
	w := meshtest.New(t, 1)
	if err := w.Node(0).Run(t.Context()); err == nil {
		t.Error("ran twice")
	}
}

func TestAddressInUse(t *testing.T) {
	for _, address := range []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"} {
		w := meshtest.New(t, 1, func(c *mesh.Config) { c.Listen = []string{address} })
		a := newAlone(t)
		a.cfg.Listen = w.Node(0).Addresses()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		if err := a.start(t).Run(ctx); err == nil {
			t.Errorf("listened at %v, which is in use", a.cfg.Listen)
		}
		cancel()
	}
}

func TestFetchBlobWithoutAMesh(t *testing.T) {
	n := newAlone(t).start(t)
	digest, err := n.PutBlob([]byte("x"))
	must(t, err)
	if content, err := n.FetchBlob(t.Context(), digest); err != nil || string(content) != "x" {
		t.Errorf("%q %v", content, err)
	}
	if _, err := n.FetchBlob(t.Context(), fleet.Digest{1}); !errors.Is(err, mesh.ErrNoBlob) || fleet.KindOf(err) != fleet.Retryable {
		t.Errorf("a blob nobody has: %v", err)
	}
}
