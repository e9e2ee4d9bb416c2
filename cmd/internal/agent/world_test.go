// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/cmd/internal/agent/turn"
	"github.com/flotilla-dev/flotilla/delivery"
	"github.com/flotilla-dev/flotilla/delivery/deliverytest"
	"github.com/flotilla-dev/flotilla/sequencer"
	"github.com/flotilla-dev/flotilla/source/sourcetest"
)

// world is a fleet in one process: real turns, virtual clocks, clusters in maps, and a mesh that tells
// everyone at once unless a member is cut off.
type world struct {
	t       *testing.T
	fleet   fleet.Digest
	now     time.Duration
	git     *sourcetest.Memory
	blobs   map[fleet.Digest][]byte
	members []*site
	spec    v1alpha1.FleetRolloutSpec
	name    fleet.RolloutName
	number  uint64
	sealed  turn.Rollout
}

// site is one member with its cluster, its promises and its agent.
type site struct {
	*turn.Agent
	world    *world
	key      ed25519.PrivateKey
	member   fleet.Member
	cluster  *deliverytest.Memory
	promises *memoryPromises
	inputs   *memoryInputs
	records  map[fleet.Digest]fleet.Record // what reached it
	seq      uint64
	cut      bool // hears and is heard by nobody
	// beforeCommit, if set, is asked before a record is stored: a crash between promise and publication.
	beforeCommit func(fleet.Record) error
	bad          map[string]bool // images that do not get healthy here
	last         turn.Report
}

const payload = `
-- app/web.yaml --
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec: {template: {spec: {containers: [{name: web, image: "web:%s"}]}}}
`

func files(image string) fs.FS { return sourcetest.Txtar(fmt.Sprintf(payload, image)) }

// newWorld with members canary, eu-1, eu-2, us-1 and a rollout in three stages.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{
		t: t, fleet: FleetID("test"), git: &sourcetest.Memory{}, blobs: map[fleet.Digest][]byte{},
		name: fleet.RolloutName{Namespace: "shop", Name: "web"}, now: time.Hour,
	}
	for _, m := range []struct{ name, region, ring string }{
		{"ams", "eu", "canary"}, {"fra", "eu", ""}, {"par", "eu", ""}, {"nyc", "us", ""},
	} {
		w.add(m.name, m.region, m.ring)
	}
	spec := `{"source": {"git": {"url": "https://git.example.com/web"}, "path": "app"}, "targets": {"names": ["*"]},
	  "strategy": {"minReadyTime": "5s", "progressDeadline": "30s", "stages": [
	    {"name": "canary", "matchLabels": {"ring": "canary"}, "soak": "10s"},
	    {"name": "eu", "matchLabels": {"region": "eu"}, "maxConcurrency": 1}, {"name": "us"}]},
	  "delivery": {"retryInterval": "20s", "retries": 1}}`
	if err := json.Unmarshal([]byte(spec), &w.spec); err != nil {
		t.Fatal(err)
	}
	w.seal()
	return w
}

func (w *world) add(name, region, ring string) {
	key := keyOf(name)
	s := &site{
		world: w, key: key, records: map[fleet.Digest]fleet.Record{}, bad: map[string]bool{},
		member:   fleet.Member{ID: IDOf(key), Name: fleet.Name(name), Incarnation: 1, Labels: map[string]string{"region": region, "ring": ring}},
		promises: &memoryPromises{}, inputs: &memoryInputs{version: "v1.37.0"},
	}
	s.cluster = &deliverytest.Memory{HealthOf: s.health}
	s.restart()
	w.members = append(w.members, s)
}

func keyOf(name string) ed25519.PrivateKey {
	seed := fleet.DigestOf("test", []byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

// restart the agent: what it held in memory is gone, what it stored is there.
func (s *site) restart() {
	ledger := NewMeshLedger(s)
	for _, r := range s.records {
		ledger.Learn(r)
	}
	clock := func() fleet.Moment {
		return fleet.Moment{Wall: time.Unix(1_800_000_000, 0).Add(s.world.now), Elapsed: s.world.now, Boot: "boot"}
	}
	s.Agent = &turn.Agent{
		Self: s.member, Rollouts: s.world, Clock: clock, Log: logr.Discard(),
		Heads:    &PolledHeads{Source: s.world.git, Clock: clock, Seed: s.member.ID},
		Renderer: &CachedRenderer{}, Inputs: s.inputs, Deliverer: s.cluster, Promises: s.promises, Ledger: ledger,
	}
}

func (s *site) ledger() *MeshLedger { return s.Ledger.(*MeshLedger) }

func (s *site) health(i delivery.Inventory) delivery.Health {
	for _, id := range i.Objects {
		object := s.cluster.Get(id)
		if object == nil {
			return delivery.Health{State: delivery.Progressing, Total: len(i.Objects), Because: id.String() + " is missing"}
		}
		if body, _ := object.MarshalJSON(); s.isBad(string(body)) {
			return delivery.Health{State: delivery.Progressing, Total: len(i.Objects), Because: "0 of 1 ready"}
		}
	}
	return delivery.Health{State: delivery.Healthy, Ready: len(i.Objects), Total: len(i.Objects)}
}

func (s *site) isBad(body string) bool {
	for image, bad := range s.bad {
		if bad && strings.Contains(body, image) {
			return true
		}
	}
	return false
}

var deploymentID = delivery.ObjectID{Group: "apps", Version: "v1", Kind: "Deployment", Namespace: "shop", Name: "web"}

// image that runs here.
func (s *site) image() string {
	object := s.cluster.Get(deploymentID)
	if object == nil {
		return ""
	}
	body, _ := object.MarshalJSON()
	_, rest, _ := strings.Cut(string(body), `"web:`)
	image, _, _ := strings.Cut(rest, `"`)
	return image
}

// Prepare is in Mesh.
func (s *site) Prepare(kind fleet.Kind, key string, body []byte) (fleet.Record, error) {
	s.seq++
	r := fleet.Record{Fleet: s.world.fleet, Epoch: 1, Seq: s.seq, Kind: kind, Key: key, Body: body}
	return r, r.Sign(s.key)
}

// Adopt is in Mesh: the record is stored here and reaches everyone who is not cut off.
func (s *site) Adopt(r fleet.Record) error {
	if s.beforeCommit != nil {
		if err := s.beforeCommit(r); err != nil {
			return err
		}
	}
	s.learn(r)
	for _, other := range s.world.members {
		if other != s && !s.cut && !other.cut {
			other.learn(r)
		}
	}
	return nil
}

func (s *site) learn(r fleet.Record) {
	s.records[r.Digest()] = r
	s.ledger().Learn(r)
}

// heal the cut: both sides get what they missed.
func (s *site) heal() {
	s.cut = false
	for _, other := range s.world.members {
		for _, r := range other.records {
			s.learn(r)
		}
		for _, r := range s.records {
			other.learn(r)
		}
	}
}

// seal the spec for the members there are, as the fleet repository does.
func (w *world) seal() {
	w.t.Helper()
	w.number++
	var targets []fleet.Member
	for _, s := range w.members {
		targets = append(targets, s.member)
	}
	sealed, err := sequencer.Seal(w.name, sequencer.Position{Author: fleet.AuthorGit, Number: w.number}, w.spec, targets)
	if err != nil {
		w.t.Fatal(err)
	}
	w.sealed = turn.Rollout{Sealed: sealed, Settings: turn.SettingsOf(w.spec), Origin: v1alpha1.Origin{Type: "Repository", Name: "test"}}
}

// Rollout is in turn.Rollouts.
func (w *world) Rollout(_ context.Context, name fleet.RolloutName) (turn.Rollout, bool, error) {
	return w.sealed, name == w.name && w.sealed.Author != "", nil
}

// Gone is in turn.Rollouts.
func (w *world) Gone(fleet.RolloutName) bool { return false }

func (w *world) site(name string) *site {
	for _, s := range w.members {
		if string(s.member.Name) == name {
			return s
		}
	}
	w.t.Fatalf("no member %s", name)
	return nil
}

// turns gives every member one turn a second for a while.
func (w *world) turns(span time.Duration) {
	w.t.Helper()
	for end := w.now + span; w.now < end; w.now += time.Second {
		for _, s := range w.members {
			s.turn()
		}
	}
}

func (s *site) turn() {
	s.world.t.Helper()
	report, err := s.Turn(s.world.t.Context(), s.world.name)
	if err != nil && !errors.Is(err, errCrash) {
		s.world.t.Fatalf("%s: %v", s.member.Name, err)
	}
	s.last = report
}

// look lets everyone look at the source in the next turn, whenever that would be due.
func (w *world) look() {
	for _, s := range w.members {
		s.Heads.(*PolledHeads).Ask(turn.OriginOf(w.name, w.spec.Source, w.spec.Delivery))
	}
}

// images that run, member by member.
func (w *world) images() string {
	var out []string
	for _, s := range w.members {
		out = append(out, fmt.Sprintf("%s=%s", s.member.Name, s.image()))
	}
	return strings.Join(out, " ")
}

func (w *world) want(images string) {
	w.t.Helper()
	if have := w.images(); have != images {
		w.t.Fatalf("after %s: %s, want %s", w.now, have, images)
	}
}

// said tells whether a member stated a milestone of its accepted plan, as another member knows it.
func (w *world) said(by, as string, kind fleet.FactKind) bool {
	plan := w.site(as).last.Promise.Accepted.Plan()
	_, ok := w.site(as).Ledger.Fact(plan, w.site(by).member.ID, kind)
	return ok
}

var errCrash = errors.New("crash")

// memoryPromises are promises as an API server keeps them: as JSON, with a count of writes.
type memoryPromises struct {
	held   map[fleet.RolloutName][]byte
	writes int
	fail   error
}

// Load is in turn.Promises.
func (m *memoryPromises) Load(_ context.Context, name fleet.RolloutName) (turn.Promise, error) {
	p := turn.Promise{Rollout: name}
	if m.fail != nil {
		return p, m.fail
	}
	if b := m.held[name]; b != nil {
		return p, json.Unmarshal(b, &p)
	}
	return p, nil
}

// Save is in turn.Promises.
func (m *memoryPromises) Save(_ context.Context, p turn.Promise) error {
	if m.fail != nil {
		return m.fail
	}
	b, err := json.Marshal(p)
	if err != nil || string(b) == string(m.held[p.Rollout]) {
		return err
	}
	if m.held == nil {
		m.held = map[fleet.RolloutName][]byte{}
	}
	m.held[p.Rollout] = b
	m.writes++
	return nil
}

// All is in turn.Promises.
func (m *memoryPromises) All(context.Context) ([]fleet.RolloutName, error) { return nil, nil }
