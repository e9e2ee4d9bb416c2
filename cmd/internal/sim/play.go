// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/cmd/internal/agent/turn"
	"github.com/flotilla-dev/flotilla/sequencer"
)

// Play is one rollout as somebody wrote it, in a fleet in virtual time. Strategy and delivery are the rollout's own;
// its payload is one that any cluster can run, and that gets well or does not as the weather says.
type Play struct {
	Name fleet.RolloutName
	Spec v1alpha1.FleetRolloutSpec
	// Fleet is every member there is, Targets those of them that the rollout is for.
	Fleet, Targets []fleet.Member
	Weather        Weather
	// eager members take a turn at all news, as the agent does; the others not where it cannot matter.
	eager bool
}

// Weather of a play. Shares are 0 to 1 of the targets, rounded to whole members; one at least where a share is not 0.
// No member has two of them.
type Weather struct {
	// Offline members are heard by nobody and hear nobody, OfflineFor so long from the beginning; 0 is the whole time.
	Offline    float64       `json:"offline"`
	OfflineFor time.Duration `json:"-"`
	// Fail is the share where the payload never gets well, Slow where it takes ten times as long as elsewhere.
	Fail float64 `json:"fail"`
	Slow float64 `json:"slow"`
	// RTT between two members, give or take 10 %; Loss of messages, 0 to 1.
	RTT  time.Duration `json:"-"`
	Loss float64       `json:"loss"`
	// ApplyTime from the first write until the payload is well, give or take a quarter.
	ApplyTime time.Duration `json:"-"`
}

const (
	// horizon of a play: what has not happened by then does not.
	horizon = 10 * 365 * 24 * time.Hour
	// never is after the horizon. Nothing drifts in a play, so nobody looks without a cause.
	never = 2 * horizon
	// slowness of a slow cluster.
	slowness = 10
)

// Fault says what makes no sense in a play.
func (p *Play) Fault() error {
	w := &p.Weather
	away, _, _ := p.Shares()
	switch {
	case len(p.Targets) == 0:
		return errors.New("no member is targeted")
	case w.Offline+w.Fail+w.Slow > 1:
		return errors.New("the shares of members that are offline, fail and are slow are more than 100% together")
	case away == len(p.Targets) && w.OfflineFor == 0:
		return errors.New("all members are offline the whole time: nobody plays")
	case w.Slow > 0 && w.ApplyTime == 0:
		return errors.New("a slow cluster takes ten times the apply time, and there is none")
	}
	return nil
}

// part of one member in a play.
type part uint8

const (
	ordinary part = iota
	offline
	fails
	slow
)

// playing is a play with one seed.
type playing struct {
	*Play
	seed  uint64
	parts map[fleet.MemberID]part
	takes map[fleet.MemberID]time.Duration
	truth *truth
	// read pages of the book, and what they said of whom.
	read int
	said map[fleet.MemberID]uint16
	// asleep members compare with nobody until something is said.
	asleep []bool
	played Played
	// exposed now.
	exposed int
	failed  bool
}

// Run one seed to its end: until nothing would ever happen again. A story tells what happened, line by line.
func (p *Play) Run(ctx context.Context, seed uint64, story bool) (Played, error) {
	if err := p.Fault(); err != nil {
		return Played{}, err
	}
	one := &playing{Play: p, seed: seed, said: map[fleet.MemberID]uint16{}, asleep: make([]bool, len(p.Fleet))}
	one.cast()
	w, err := newWorld(seed, one.params(), Bug{})
	if err != nil {
		return Played{}, fmt.Errorf("seed %d: %w", seed, err)
	}
	w.telling = story
	one.begin(w)
	events, ended := 0, false
	w.until(horizon, func() bool {
		one.look(w)
		if events++; events%1024 == 0 {
			ended = ctx.Err() != nil
		}
		return ended || w.broken()
	})
	switch {
	case ctx.Err() != nil:
		return Played{}, ctx.Err()
	case w.broken():
		return Played{}, fmt.Errorf("seed %d breaks a rule, which is a fault of flotilla itself and worth a report: %s", seed, w.violations[0])
	}
	w.now = w.lastWord // at rest: nothing has happened since
	one.end(ctx, w)
	return one.played, nil
}

// RunAll runs so many seeds from the first on, several at a time, and gives them in order. done, if not nil, is told
// how many are through; it may be called from several goroutines.
func (p *Play) RunAll(ctx context.Context, first uint64, seeds int, done func(int)) ([]Played, error) {
	out := make([]Played, seeds)
	var through atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i := range out {
		group.Go(func() (err error) {
			if out[i], err = p.Run(ctx, first+uint64(i), false); err == nil && done != nil {
				done(int(through.Add(1)))
			}
			return err
		})
	}
	return out, group.Wait()
}

// Shares of the targets that are offline, fail and are slow, in whole members: one at least where a share is not 0, as
// long as there are any left.
func (p *Play) Shares() (offline, fail, slow int) {
	left := len(p.Targets)
	take := func(of float64) int {
		n := int(math.Round(of * float64(len(p.Targets))))
		if of > 0 {
			n = max(n, 1)
		}
		n = min(n, left)
		left -= n
		return n
	}
	return take(p.Weather.Offline), take(p.Weather.Fail), take(p.Weather.Slow)
}

// cast the parts, and how long the payload takes where: whom the seed draws.
func (p *playing) cast() {
	p.parts, p.takes = map[fleet.MemberID]part{}, map[fleet.MemberID]time.Duration{}
	r := rand.New(rand.NewPCG(p.seed, 0x706c6179))
	drawn := r.Perm(len(p.Targets))
	away, failing, slowed := p.Shares()
	for _, share := range []struct {
		part    part
		members int
	}{{offline, away}, {fails, failing}, {slow, slowed}} {
		for _, i := range drawn[:share.members] {
			p.parts[p.Targets[i].ID] = share.part
		}
		drawn = drawn[share.members:]
	}
	for i := range p.Targets {
		id := p.Targets[i].ID
		p.takes[id] = p.Weather.ApplyTime*3/4 + time.Duration(r.Float64()*float64(p.Weather.ApplyTime)/2)
		if p.parts[id] == slow {
			p.takes[id] *= slowness
		}
	}
}

func (p *playing) params() Params {
	params := calm(len(p.Fleet))
	params.Interval, params.Loss = never, p.Weather.Loss
	params.OneWay, params.Jitter = p.Weather.RTT/2, p.Weather.RTT/20
	params.play = p
	return params
}

// declare the rollout: its strategy and delivery as they are written. The payload is the simulator's.
func (p *playing) declare(w *World) error {
	r := &rollout{name: p.Name, spec: p.Spec, commits: []commit{{0, revision(0, 0, 0), revision(0, 0, 1)}}}
	r.spec.Source = v1alpha1.Source{Git: &v1alpha1.GitSource{URL: "https://git.example.com/payload"}, Path: "app"}
	r.spec.Specialize = nil
	w.rollouts[0] = r
	w.book.names[r.name], w.sources[r.spec.Source.Git.URL] = 0, 0
	// Which members a stage of limited size takes is drawn by the seal's digest, which the term is part of.
	s, err := sequencer.Seal(r.name, sequencer.Position{Author: fleet.AuthorGit, Term: p.seed, Number: 1}, r.spec, p.Targets)
	if err != nil {
		return err
	}
	r.seals = append(r.seals, sealed{0, turn.Rollout{
		Sealed: s, Origin: v1alpha1.Origin{Type: "Repository", Name: "simulated"}, Settings: turn.SettingsOf(p.Spec),
	}})
	return w.compileAll(0, s)
}

// begin: who is offline is, and the mesh is wired around them.
func (p *playing) begin(w *World) {
	p.truth = w.plansWith(0, revision(0, 0, 0))[0]
	p.played = Played{Seed: p.seed, Members: len(p.Targets)}
	for i := range p.truth.plan.Stages {
		s := &p.truth.plan.Stages[i]
		p.played.Stages = append(p.played.Stages, PlayedStage{Name: s.Name, Clusters: len(s.Members)})
	}
	away := never
	if p.Weather.OfflineFor > 0 {
		away = p.Weather.OfflineFor
	}
	for i, m := range w.members {
		if p.parts[m.Self.ID] != offline {
			continue
		}
		m.down = away
		w.story(m, "is offline")
		if away < horizon {
			w.after(away, func() {
				w.story(m, "is back")
				m.wake(0, 0)
				p.asleep[i] = true // to be roused with the others
				p.rouse(w)
			})
		}
	}
	p.wire(w)
}

// wire the members as the mesh does, which holds no connection to who is offline: each online one to a few others, in
// one piece, and each offline one to a few of those for when it is back.
func (p *playing) wire(w *World) {
	n := &w.network
	n.near = make([][]int, len(w.members))
	var online []int
	for i, m := range w.members {
		if m.down == 0 {
			online = append(online, i)
		}
	}
	n.weave(w, online)
	for i, m := range w.members {
		if m.down == 0 {
			continue
		}
		if len(online) == 0 {
			n.link(i, (i+1)%len(w.members))
		}
		for len(n.near[i]) < min(degree, len(online)) {
			n.link(i, online[w.rand.IntN(len(online))])
		}
	}
}

// fate of the payload in a cluster.
func (p *playing) fate(m *member, rev fleet.Revision) running {
	if p.parts[m.Self.ID] == fails {
		m.story(m, "applies %s, which will not get well here", rev.Short())
		return running{revision: rev, wellAt: -1}
	}
	m.story(m, "applies %s", rev.Short())
	return running{revision: rev, wellAt: m.now + p.takes[m.Self.ID]}
}

// sleeps says that a member has nobody to compare with who holds other things: it compares again when something is said.
func (p *playing) sleeps(m *member) bool {
	p.asleep[m.index] = true
	if len(m.network.near[m.index]) == 0 || m.down > m.now {
		return true
	}
	for _, other := range m.members {
		if other.down <= m.now && !m.heard.equal(&other.heard) {
			p.asleep[m.index] = false
			return false
		}
	}
	return true
}

// idle says that no news of another member can matter to this one: it has the release in view, and is through or a
// stage before its own is not passed, whatever it has heard of it. Most news is of that kind.
func (p *playing) idle(m *member) bool {
	at, target := p.truth.index[m.Self.ID]
	said := p.said[m.Self.ID]
	if p.eager || !target || said&bit(fleet.Accepted) == 0 {
		return false
	}
	for j := range at.stage {
		if p.played.Stages[j].Passed == nil {
			return true
		}
	}
	return said&(bit(fleet.Soaked)|bit(fleet.GaveUp)) != 0
}

func (p *playing) rouse(w *World) {
	for i, m := range w.members {
		if p.asleep[i] && m.down <= w.now {
			p.asleep[i] = false
			m.after(m.between(0, m.params.Beat), m.beat)
		}
	}
}

// look at what was said since the last event.
func (p *playing) look(w *World) {
	if p.read == len(w.book.records) {
		return
	}
	for ; p.read < len(w.book.records); p.read++ {
		r := &w.book.records[p.read]
		if f, err := fleet.DecodeFact(r); err == nil {
			if at, ok := p.truth.index[f.Member]; ok && f.Plan == p.truth.plan.Digest {
				p.note(w, f, at)
			}
		}
	}
	p.rouse(w)
}

// note a milestone at its time.
func (p *playing) note(w *World, f fleet.Fact, at place) {
	before := p.said[f.Member]
	p.said[f.Member] = before | bit(f.Kind)
	out, now := &p.played, w.now.Round(time.Millisecond).Seconds()
	stage := &out.Stages[at.stage]
	switch f.Kind {
	case fleet.Started:
		stage.start(now)
		p.exposed++
		out.Started++
		out.MostExposed = max(out.MostExposed, p.exposed)
	case fleet.Succeeded:
		if before&bit(fleet.Started) != 0 {
			p.exposed--
		}
		stage.Succeeded++
		out.Succeeded++
	case fleet.Soaked:
		stage.Soaked++
	case fleet.GaveUp:
		stage.GaveUp++
		out.GaveUp++
	}
	if !p.failed && (f.Kind == fleet.Failed || f.Kind == fleet.GaveUp) {
		p.failed = true
		out.FirstFailure, out.StartedByFirstFailure = &now, out.Started
	}
	if s := &p.truth.plan.Stages[at.stage]; stage.Passed == nil && stage.Soaked >= max(len(s.Members)-s.Tolerance, sequencer.MinSuccess) {
		stage.Passed = &now
		w.story(nil, "stage %s is passed", s.Name)
	}
	out.Seconds = now
}
