// SPDX-License-Identifier: Apache-2.0

package mesh_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/lattice"
	"github.com/flotilla-dev/flotilla/sequencer/mesh"
	"github.com/flotilla-dev/flotilla/sequencer/mesh/meshtest"
	"github.com/flotilla-dev/flotilla/sequencer/store"
)

// consumerEnv makes the test's binary an agent whose consumer dies of a record, on the store that it names.
const consumerEnv = "MESH_TEST_CONSUMER"

// diedOfIt is how that agent ends when its consumer dies.
const diedOfIt = 3

// TestConsumerProcess is no test: it is the agent of TestRecordThatKills.
func TestConsumerProcess(t *testing.T) {
	path := os.Getenv(consumerEnv)
	if path == "" {
		t.Skip("run by another test")
	}
	s, err := store.Open(path)
	must(t, err)
	seen := 0
	look := func(records []fleet.Record) {
		for i := range records {
			if strings.HasPrefix(records[i].Key, "poison") {
				os.Exit(diedOfIt) // at once, as a crash is
			}
		}
		seen += len(records)
	}
	told := make(chan struct{})
	cfg := mesh.Test()
	cfg.Key, cfg.Fleet, cfg.Store = meshtest.Key(0), meshtest.Fleet(), s
	cfg.Roster = meshtest.Roster{{ID: memberID(0), Name: "a"}}
	cfg.OnNews = func(records []fleet.Record) {
		look(records)
		close(told)
	}
	n, err := mesh.New(cfg)
	must(t, err)
	n.Held(look)
	held := seen
	if held == 0 {
		var batch []fleet.Record
		for i := range 40 {
			key := fmt.Sprint("key", i)
			if i%20 == 7 {
				key = fmt.Sprint("poison", i)
			}
			r := fleet.Record{Fleet: meshtest.Fleet(), Epoch: 1, Seq: uint64(i + 1), Kind: fleet.KindRegister, Key: key}
			must(t, r.Sign(meshtest.Key(0)))
			batch = append(batch, r)
		}
		for _, r := range batch {
			must(t, n.Adopt(r))
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- n.Run(ctx) }()
		<-told // dies there
		cancel()
		must(t, <-ended)
	}
	fmt.Printf("shown %d of %d, withheld %d, root %s\n", held, length(n), n.Stats().Withheld, n.Root())
	must(t, s.Close())
}

// TestRecordThatKills: an agent dies of two records. It does so twice for each, and then never again: they stay in the set,
// and what else there is, it is shown.
func TestRecordThatKills(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state.db")
	run := func() (out string, died bool) {
		t.Helper()
		agent := exec.Command(os.Args[0], "-test.run=^TestConsumerProcess$")
		agent.Env = append(os.Environ(), consumerEnv+"="+path)
		b, err := agent.CombinedOutput()
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.ExitCode() == diedOfIt {
			return "", true
		}
		if err != nil {
			t.Fatalf("%v: %s", err, b)
		}
		return string(b), false
	}
	deaths := 0
	for {
		out, died := run()
		if !died {
			if deaths != 3 {
				t.Errorf("%d deaths, want the one of the news, and one of each record alone", deaths)
			}
			if !strings.Contains(out, "shown 38 of 40, withheld 2,") {
				t.Errorf("in the end: %s", out)
			}
			break
		}
		if deaths++; deaths > 10 {
			t.Fatal("it goes on dying")
		}
	}
	if out, died := run(); died || !strings.Contains(out, "shown 38 of 40") {
		t.Errorf("at the next start: died %v, %s", died, out)
	}
}

// TestOneDeathIsNoProof: a process also dies of what is not its record's fault. What it was looking at is shown again.
func TestOneDeathIsNoProof(t *testing.T) {
	a := newAlone(t)
	r := say(t, a.start(t), "stop", "everything")
	kill := func(records []fleet.Record) { panic("the machine went down") }
	func() {
		defer func() { _ = recover() }()
		a.start(t).Held(kill)
	}()
	for range 2 {
		shown := 0
		a.start(t).Held(func(records []fleet.Record) {
			if len(records) != 1 || records[0].Digest() != r.Digest() {
				t.Errorf("shown %d records", len(records))
			}
			shown += len(records)
		})
		if shown != 1 {
			t.Errorf("shown %d times", shown)
		}
	}
}

// TestQuarantineEndsWithItsRecord: a newer register in the place of a poisonous one is shown.
func TestQuarantineEndsWithItsRecord(t *testing.T) {
	a := newAlone(t)
	bad := say(t, a.start(t), "k", "poison")
	for range 2 {
		func() {
			defer func() { _ = recover() }()
			a.start(t).Held(func([]fleet.Record) { panic("poison") })
		}()
	}
	n := a.start(t)
	n.Held(func(records []fleet.Record) { t.Errorf("shown %q", records[0].Body) })
	if !hears(n, bad) || n.Stats().Withheld != 1 {
		t.Errorf("held: %v, withheld: %d", hears(n, bad), n.Stats().Withheld)
	}
	say(t, n, "k", "cured")
	shown := ""
	a.start(t).Held(func(records []fleet.Record) { shown += string(records[0].Body) })
	if shown != "cured" {
		t.Errorf("shown %q", shown)
	}
}

// TestDecoderThatPanics: the record is refused and counted; the process, the session and what else comes go on.
func TestDecoderThatPanics(t *testing.T) {
	a := newAlone(t)
	n := a.start(t)
	n.Decode(func(r *fleet.Record) error {
		if string(r.Body) == "poison" {
			panic("a nil map")
		}
		return nil
	})
	if _, err := n.Publish(fleet.KindRegister, "k", []byte("poison")); fleet.KindOf(err) != fleet.Terminal {
		t.Errorf("own words: %v", err)
	}
	poison := fleet.Record{Fleet: meshtest.Fleet(), Epoch: 1, Seq: 1, Kind: fleet.KindRegister, Key: "k", Body: []byte("poison")}
	must(t, poison.Sign(meshtest.Key(1)))
	good := poison
	good.Seq, good.Key, good.Body = 2, "good", nil
	must(t, good.Sign(meshtest.Key(1)))
	must(t, n.Admit(poison.Encode(), good.Encode()))
	if !hears(n, good) || length(n) != 1 || n.Stats().Poisoned != 2 {
		t.Errorf("%d records, %d poisoned", length(n), n.Stats().Poisoned)
	}
	var roots int
	n.View(func(s *lattice.Set) { roots = len(s.Shares()) })
	if roots != 1 {
		t.Errorf("%d shares", roots)
	}
}

// heads that a consumer was told in place of records.
type heads struct{ now, gone []mesh.Withheld }

func (h *heads) told(now, gone []mesh.Withheld) {
	h.now, h.gone = append(h.now, now...), append(h.gone, gone...)
}

// is says what was told, and clears it.
func (h *heads) is(t *testing.T, what string, now, gone []fleet.Record) {
	t.Helper()
	for _, c := range []struct {
		what string
		got  []mesh.Withheld
		want []fleet.Record
	}{{"withheld", h.now, now}, {"gone", h.gone, gone}} {
		if len(c.got) != len(c.want) {
			t.Errorf("%s: %d are %s, want %d", what, len(c.got), c.what, len(c.want))
			continue
		}
		for i, w := range c.got {
			if w.Head.Writer != c.want[i].Writer || w.Head.Kind != c.want[i].Kind || w.Head.Key != c.want[i].Key || len(w.Head.Body)+len(w.Head.Sig) > 0 || w.ID.IsZero() {
				t.Errorf("%s: %s: %+v", what, c.what, w)
			}
		}
	}
	*h = heads{}
}

func pause(t *testing.T, n *mesh.Node, key string) fleet.Record {
	t.Helper()
	name := fleet.RolloutName{Namespace: "shop", Name: "web"}
	r, err := n.Publish(fleet.KindCommand, key, fleet.Command{Rollout: name, Verb: fleet.Pause, Reason: "because", Time: 1}.Encode())
	must(t, err)
	return r
}

// running is a node that runs until its consumer was told of something.
func running(t *testing.T, n *mesh.Node, told func() bool) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	meshtest.Await(t, "the consumer was told", told)
	cancel()
	must(t, <-ended)
}

// closed polls a channel.
func closed(c chan struct{}) func() bool {
	return func() bool {
		select {
		case <-c:
			return true
		default:
			return false
		}
	}
}

// TestHeadsOfTheQuarantineAreTold: of a record that nobody is shown the consumer knows that it is there, and that it is gone;
// never what is in it.
func TestHeadsOfTheQuarantineAreTold(t *testing.T) {
	a := newAlone(t)
	stop := pause(t, a.start(t), "shop/web/Pause/1")
	for range 2 {
		func() {
			defer func() { _ = recover() }()
			a.start(t).Held(func([]fleet.Record) { panic("poison") })
		}()
	}
	var h heads
	var dropped []fleet.Record
	done := make(chan struct{})
	a.cfg.OnWithheld = h.told
	a.cfg.OnDropped = func(records []fleet.Record) { dropped = append(dropped, records...) }
	a.cfg.OnNews = func([]fleet.Record) { close(done) }
	for range 2 {
		a.start(t).Held(func([]fleet.Record) { t.Error("it is shown") })
		h.is(t, "at a start", []fleet.Record{stop}, nil)
	}
	n := a.start(t)
	n.Held(func([]fleet.Record) {})
	h.is(t, "at the last start", []fleet.Record{stop}, nil)
	_, err := n.Publish(fleet.KindFloor, fleet.FloorKey(fleet.KindCommand), fleet.Floor{Kind: fleet.KindCommand, Epoch: stop.Epoch, Seq: stop.Seq + 1}.Encode())
	must(t, err)
	running(t, n, closed(done))
	h.is(t, "when its writer retired it", nil, []fleet.Record{stop})
	if len(dropped) != 0 {
		t.Error("a record in quarantine is shown when it goes")
	}
}

// TestHeadOfWhatDidNotReadBackIsTold, at every start, until the record itself is back.
func TestHeadOfWhatDidNotReadBackIsTold(t *testing.T) {
	a := newAlone(t)
	stop := pause(t, a.start(t), "shop/web/Pause/1")
	must(t, a.store.Close())
	a.store = nil
	content, err := os.ReadFile(a.path)
	must(t, err)
	must(t, os.WriteFile(a.path, bytes.ReplaceAll(content, []byte("because"), []byte("becausf")), 0o600))
	var h heads
	news := make(chan struct{})
	a.cfg.OnWithheld = h.told
	a.cfg.OnNews = func([]fleet.Record) { close(news) }
	var n *mesh.Node
	for range 2 {
		n = a.start(t)
		n.Held(func([]fleet.Record) { t.Error("it is shown") })
		h.is(t, "at a start", []fleet.Record{stop}, nil)
	}
	must(t, n.Admit(stop.Encode()))
	running(t, n, closed(news))
	h.is(t, "when it came again", nil, []fleet.Record{stop})
	shown := 0
	a.start(t).Held(func(records []fleet.Record) { shown += len(records) })
	h.is(t, "at the next start", nil, nil)
	if shown != 1 {
		t.Errorf("%d records are shown", shown)
	}
}

// TestCommandThatNoDecoderReadsIsTold, once, if its writer signed it. What else makes a decoder panic is refused in silence.
func TestCommandThatNoDecoderReadsIsTold(t *testing.T) {
	var h heads
	told := make(chan struct{}, 8)
	a := newAlone(t)
	a.cfg.OnWithheld = func(now, gone []mesh.Withheld) { h.told(now, gone); told <- struct{}{} }
	n := a.start(t)
	n.Decode(func(*fleet.Record) error { panic("a nil map") })
	said := func(kind fleet.Kind, key string) fleet.Record {
		r := fleet.Record{Fleet: meshtest.Fleet(), Epoch: 1, Seq: 1, Kind: kind, Key: key}
		must(t, r.Sign(meshtest.Key(1)))
		return r
	}
	stop, forged := said(fleet.KindCommand, "shop/web/Pause/1"), said(fleet.KindCommand, "shop/web/Pause/2")
	forged.Sig = make([]byte, 64)
	register := said(fleet.KindRegister, "k")
	must(t, n.Admit(forged.Encode(), register.Encode(), stop.Encode(), stop.Encode()))
	running(t, n, func() bool { return len(told) > 0 })
	h.is(t, "refused", []fleet.Record{stop}, nil)
	if got := n.Stats().Poisoned; got != 4 {
		t.Errorf("%d poisoned, want 4", got)
	}
}
