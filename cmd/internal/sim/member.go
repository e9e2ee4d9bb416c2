// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/go-logr/logr"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/cmd/internal/agent/turn"
	"github.com/flotilla-dev/flotilla/delivery"
	"github.com/flotilla-dev/flotilla/sequencer/lattice"
	"github.com/flotilla-dev/flotilla/source"
	"github.com/flotilla-dev/flotilla/specialize"
)

var (
	simFleet = fleet.DigestOf("flotilla.dev/sim-fleet")
	unsigned = make([]byte, ed25519.SignatureSize)
)

// errCrash ends a turn where the agent's process died.
var errCrash = errors.New("the process died here")

// errAPI is what an API server in trouble answers.
var errAPI = errors.New("the API server did not answer")

// errStore is what a full disk answers.
var errStore = errors.New("the store did not take the record")

// member is one cluster with its agent, its API, its store and its clocks.
type member struct {
	*turn.Agent
	*World
	index int
	// store: what it has heard, and its own last position.
	heard heard
	set   *lattice.Set
	// marks are how far each writer's words go, for a planted bug.
	marks      map[fleet.MemberID]turn.Position
	epoch, seq uint64
	outbox     []page
	flushing   bool
	statuses   map[fleet.RolloutName]fleet.Status
	// api: promises as JSON, and as they read back.
	api  map[fleet.RolloutName][]byte
	kept map[fleet.RolloutName]turn.Promise
	// late: what is in the API while a planted bug has written nothing newer.
	late map[fleet.RolloutName]*turn.Promise
	// found in the API: that it was restored. told are the milestones that went out.
	found turn.Restoration
	told  []ownFact
	// lost are those that a restored API does not know of.
	lost []ownFact
	// saidBefore are the records in promises that were looked at already.
	saidBefore map[string]bool
	// positions of what it said, in its promises.
	positions map[turn.Position]string
	// lying: it keeps to no rule. nextLie is when.
	lying   bool
	nextLie time.Duration
	// running is what each rollout has in the cluster, by rollout.
	running []running
	// due is when each rollout's next turn is; zero is none.
	due []time.Duration
	// down until, paused until: no process, a process that gets no time.
	down, paused time.Duration
	// rate of its clock, boot and when it began.
	rate float64
	boot string
	wall time.Duration
	// seen of git: how far behind its mirror is, and whether it follows the sibling branch.
	lag    time.Duration
	forked bool
	frozen time.Duration
	// shown in the story, by rollout.
	shown map[int]shown
}

// running is one rollout's payload in one cluster.
type running struct {
	revision fleet.Revision
	wellAt   time.Duration // healthy from then on; negative is never
	sickAt   time.Duration // and sick again from then on; zero is never
}

func (w *World) newMember(i int) *member {
	m := &member{
		World: w, index: i, epoch: 1, rate: 1, boot: "boot 1",
		api: map[fleet.RolloutName][]byte{}, kept: map[fleet.RolloutName]turn.Promise{}, late: map[fleet.RolloutName]*turn.Promise{},
		saidBefore: map[string]bool{}, positions: map[turn.Position]string{}, shown: map[int]shown{}, statuses: map[fleet.RolloutName]fleet.Status{},
		running: make([]running, len(w.rollouts)), due: make([]time.Duration, len(w.rollouts)),
	}
	self := fleet.Member{
		ID: simulatedID(i), Name: fleet.Name(fmt.Sprintf("c%05d", i)), Incarnation: 1,
		Zone: fmt.Sprintf("z%02d", i%max(1, w.params.Zones)),
	}
	if p := w.params.play; p != nil {
		self = p.Fleet[i]
	}
	w.book.members[self.ID] = i
	m.Agent = &turn.Agent{
		Self: self, Rollouts: declared{m}, Heads: heads{m}, Renderer: renderer{}, Inputs: inputs{}, Deliverer: cluster{m},
		Promises: promises{m}, Ledger: ledger{m}, Plans: &w.compiled, Clock: m.moment, Log: logr.Discard(),
	}
	m.begin()
	return m
}

// moment by the member's own clocks.
func (m *member) moment() fleet.Moment {
	elapsed := time.Duration(float64(m.now) * m.rate)
	wall := elapsed + m.wall
	if m.bug.wallClock {
		elapsed = max(wall, 0)
	}
	return fleet.Moment{
		Wall: time.Unix(1_800_000_000, 0).Add(wall), Elapsed: elapsed, Boot: m.boot,
	}
}

// wake asks for a turn of a rollout after a while, by the world's clock.
func (m *member) wake(rollout int, wait time.Duration) {
	at := m.now + max(wait, turnGap)
	if m.due[rollout] != 0 && m.due[rollout] <= at {
		return
	}
	m.due[rollout] = at
	m.after(at-m.now, func() {
		if m.due[rollout] == at {
			m.due[rollout] = 0
			m.turn(rollout)
		}
	})
}

// turnGap is the least time between news and the turn that reads it: many come at once.
const turnGap = 200 * time.Millisecond

func (m *member) turn(rollout int) {
	if until := max(m.down, m.paused); until > m.now {
		m.wake(rollout, until-m.now)
		return
	}
	if m.lying {
		m.lie(rollout)
		return
	}
	m.turns++
	name := m.rollouts[rollout].name
	report, err := m.Turn(context.Background(), name)
	switch {
	case errors.Is(err, errCrash):
		m.story(m, "the agent dies in the middle of a turn")
		m.crash(m.between(time.Second, 30*time.Second))
		if m.strikes(m.params.Wrecked) {
			m.loseStore()
		}
		m.wake(rollout, m.down-m.now)
		return
	case err != nil:
		m.wake(rollout, m.between(time.Second, 10*time.Second))
		return
	}
	m.reported(&report)
	m.tellWait(rollout, &report)
	next := m.params.Interval
	if report.Next > 0 {
		next = min(next, report.Next)
	}
	m.wake(rollout, max(next, turnGap))
}

// crash the process: what is in memory is gone, what is stored is there.
func (m *member) crash(away time.Duration) {
	m.down = m.now + away
	m.outbox = nil
	m.epoch, m.seq = m.epoch+1, 0
	for name, held := range m.late {
		b, _ := json.Marshal(held)
		m.api[name] = b
		delete(m.late, name)
	}
	m.reread()
	m.begin()
	m.count("crash")
	if m.strikes(m.params.Torn) {
		m.tear()
	}
	m.reload()
}

// reread the promises as an agent does that begins: from their JSON.
func (m *member) reread() {
	for name, b := range m.api {
		var read turn.Promise
		if err := json.Unmarshal(b, &read); err != nil {
			m.violate(m, "a promise cannot be read back: %v", err)
		}
		m.kept[name] = read
	}
}

// tell everyone of something said here.
func (m *member) tell(p page) {
	m.hear([]page{p})
}

// news wakes whom it concerns.
func (m *member) news(p page) {
	m.notice(p)
	if m.params.play != nil && m.params.play.idle(m) {
		return
	}
	if m.book.idle[p] && !m.params.Eager && m.book.records[p].Writer != m.Self.ID {
		return
	}
	if about := m.book.about[p]; about >= 0 {
		m.wake(about, turnGap)
	}
	if m.book.records[p].Kind == fleet.KindProof {
		for i := range m.rollouts {
			m.wake(i, turnGap)
		}
	}
}

// renderer gives a revision's name for its manifest.
type renderer struct{}

func (renderer) Render(_ context.Context, r turn.RenderRequest) (specialize.Manifest, error) {
	return specialize.Manifest{Digest: fleet.DigestOf("flotilla.dev/sim-manifest", []byte(r.Revision)), Engine: specialize.Plain, Path: r.Path}, nil
}

type inputs struct{ turn.Inputs }

// promises are the member's own API.
type promises struct{ *member }

// Load is in turn.Promises.
func (p promises) Load(_ context.Context, name fleet.RolloutName) (turn.Promise, error) {
	if p.strikes(p.params.APIFails) {
		p.count("api read failed")
		return turn.Promise{}, errAPI
	}
	promise, ok := p.kept[name]
	if !ok {
		return turn.Promise{Rollout: name}, nil
	}
	read := duplicate(promise)
	if p.bug.promise != nil {
		p.bug.promise(p.member, &read)
	}
	return read, nil
}

// duplicate a promise, so that nobody changes the other one's.
func duplicate(p turn.Promise) turn.Promise {
	p.Said, p.Plans = slices.Clone(p.Said), slices.Clone(p.Plans)
	for _, i := range []**turn.Installed{&p.Installed, &p.LastGood} {
		if *i != nil {
			copied := **i
			*i = &copied
		}
	}
	return p
}

// Save is in turn.Promises: it fails before, or after, or the process dies before or after.
func (p promises) Save(_ context.Context, promise turn.Promise) error {
	b, err := json.Marshal(promise)
	if err != nil || string(b) == string(p.api[promise.Rollout]) {
		return err
	}
	switch {
	case p.crashes(beforePromise):
		return errCrash
	case p.strikes(p.params.APIFails):
		p.count("api write failed")
		return errAPI
	}
	if p.bug.lateWrites && p.late[promise.Rollout] == nil {
		held := p.kept[promise.Rollout]
		p.late[promise.Rollout] = &held
	}
	p.api[promise.Rollout], p.kept[promise.Rollout] = b, duplicate(promise)
	p.bound(p.member, &promise)
	switch {
	case p.crashes(afterPromise):
		return errCrash
	case p.strikes(p.params.APIFails / 2):
		p.count("api write without an answer")
		return errAPI
	}
	return nil
}

// All is in turn.Promises.
func (p promises) All(context.Context) ([]fleet.RolloutName, error) { return nil, nil }

// cluster is where payloads run.
type cluster struct{ *member }

// Check is in delivery.Deliverer.
func (c cluster) Check(context.Context, delivery.Release) error {
	if c.strikes(c.params.Ineligible) {
		c.count("ineligible")
		return &fleet.Error{Kind: fleet.Terminal, Reason: v1alpha1.ReasonNamespaceMissing, Err: errors.New("no namespace")}
	}
	return nil
}

// Deliver is in delivery.Deliverer.
func (c cluster) Deliver(ctx context.Context, r delivery.Release) (delivery.Outcome, error) {
	if err := r.Fence(ctx); err != nil {
		return delivery.Outcome{}, err
	}
	if c.strikes(c.params.ApplyFails) {
		c.count("apply failed")
		return delivery.Outcome{}, &fleet.Error{Kind: fleet.Retryable, Err: errAPI}
	}
	rollout := c.book.names[r.Rollout]
	now := &c.running[rollout]
	outcome := delivery.Outcome{Objects: 1, Changes: []delivery.Change{{Action: delivery.Unchanged}}}
	if now.revision == r.Revision {
		return outcome, nil
	}
	c.applied(c.member, rollout, r)
	*now = c.fate(c.member, r.Revision)
	outcome.Changes[0].Action = delivery.Configured
	if c.crashes(afterApply) {
		return outcome, errCrash
	}
	return outcome, nil
}

// Health is in delivery.Deliverer.
func (c cluster) Health(_ context.Context, name fleet.RolloutName, _ string) (delivery.Health, error) {
	now := c.running[c.book.names[name]]
	health := delivery.Health{Total: 1}
	switch {
	case now.wellAt < 0 || c.now < now.wellAt:
		health.Because = "not ready"
		if now.wellAt > c.now {
			c.wake(c.book.names[name], now.wellAt-c.now)
		}
	case now.sickAt > 0 && c.now >= now.sickAt:
		health.Because = "sick"
	default:
		health.State, health.Ready = delivery.Healthy, 1
		if now.sickAt > c.now {
			c.wake(c.book.names[name], now.sickAt-c.now)
		}
	}
	return health, nil
}

// heads is git as this member sees it.
type heads struct{ *member }

// folder is the payload of every revision: the engine is asked for, and not run.
type folder struct{}

var payload folder

// Open is in fs.FS.
func (folder) Open(name string) (fs.File, error) {
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

// Stat is in fs.StatFS: there is the folder "app", and nothing in it.
func (f folder) Stat(name string) (fs.FileInfo, error) {
	if name == "." || name == "app" {
		return f, nil
	}
	return nil, fs.ErrNotExist
}

// The folder as fs.FileInfo.
func (folder) Name() string       { return "app" }
func (folder) Size() int64        { return 0 }
func (folder) Mode() fs.FileMode  { return fs.ModeDir | 0o755 }
func (folder) ModTime() time.Time { return time.Time{} }
func (folder) IsDir() bool        { return true }
func (folder) Sys() any           { return nil }

// Latest is in turn.Heads.
func (h heads) Latest(_ context.Context, src source.Origin, _ turn.Settings) (source.Snapshot, time.Duration, error) {
	at := h.now - h.lag
	if h.frozen > 0 {
		at = min(at, h.frozen)
	}
	revision := h.rolloutOf(src).head(at, h.forked)
	if revision == "" {
		return source.Snapshot{}, h.params.Interval, nil
	}
	return source.Snapshot{Revision: revision, Files: payload}, h.params.Interval, nil
}

// At is in turn.Heads.
func (h heads) At(_ context.Context, _ source.Origin, rev fleet.Revision) (source.Snapshot, error) {
	return source.Snapshot{Revision: rev, Files: payload}, nil
}

// Relation is in turn.Heads.
func (h heads) Relation(_ context.Context, src source.Origin, from, to fleet.Revision) (source.Relation, error) {
	relation := h.rolloutOf(src).relation(from, to)
	if h.bug.relation != nil {
		relation = h.bug.relation(relation)
	}
	return relation, nil
}

// declared is the fleet repository as this member has read it.
type declared struct{ *member }

// Rollout is in turn.Rollouts.
func (d declared) Rollout(_ context.Context, name fleet.RolloutName) (turn.Rollout, bool, error) {
	seal := d.rollouts[d.book.names[name]].seal(d.now - d.lag)
	return seal, seal.Author != "", nil
}

// Gone is in turn.Rollouts.
func (d declared) Gone(fleet.RolloutName) bool { return false }
