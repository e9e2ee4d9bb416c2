// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/cmd/internal/agent/turn"
)

// World is one fleet in one run.
type World struct {
	timeline
	params   Params
	bug      Bug
	rand     *rand.Rand
	book     *book
	members  []*member
	rollouts []*rollout
	sources  map[string]int
	plans    map[fleet.Digest]*truth
	// left are the revisions that a member applied and went on from.
	left     map[leaving]bool
	compiled turn.Plans
	network  network
	// liars among the members, and what they said twice in one position.
	liars []*member
	twins map[page]twin
	// faults that happened, by type; turns taken; violations found.
	faults     map[string]int
	seen       map[string]int
	turns      int
	violations []string
	// telling keeps a transcript.
	telling bool
	lines   []string
	stormy  bool
	// lastWord is when something was last bound: where a rollout ended.
	lastWord time.Duration
	// restarted is how long an agent took to be current again; zero where none was waited for.
	restarted time.Duration
}

// crash points: each is where something is kept or told.
type crashPoint string

const (
	beforePromise crashPoint = "crash before the promise is kept"
	afterPromise  crashPoint = "crash after the promise is kept"
	beforePublish crashPoint = "crash before publication"
	afterPublish  crashPoint = "crash after publication"
	afterApply    crashPoint = "crash in the middle of a delivery"
)

func newWorld(seed uint64, p Params, bug Bug) (*World, error) {
	w := &World{
		params: p, bug: bug, rand: rand.New(rand.NewPCG(seed, 0x666c6f74)), book: newBook(p.Clusters), sources: map[string]int{},
		plans: map[fleet.Digest]*truth{}, faults: map[string]int{}, seen: map[string]int{}, stormy: true,
		rollouts: make([]*rollout, p.Rollouts), twins: map[page]twin{}, left: map[leaving]bool{},
	}
	w.book.commands = make([][]command, p.Rollouts)
	for i := range p.Clusters {
		w.members = append(w.members, w.newMember(i))
	}
	for _, m := range w.members {
		m.reload()
	}
	w.network.wire(w)
	for i := range p.Rollouts {
		if err := w.declare(i); err != nil {
			return nil, err
		}
	}
	w.corrupt()
	for _, m := range w.members {
		w.settle(m)
	}
	w.plan()
	return w, nil
}

// settle a member: its quirks, and its first turns.
func (w *World) settle(m *member) {
	if w.params.Drift > 0 {
		m.rate = 1 + w.params.Drift*(2*w.rand.Float64()-1)
		w.count("clock drift")
	}
	m.lag = w.between(0, time.Second)
	if w.strikes(w.params.Forked) {
		m.forked = true
		w.count("forked git")
	}
	for i, r := range w.rollouts {
		for _, c := range r.commits { // it looks at its source some time after each commit
			w.after(c.at+m.lag+w.between(0, look), func() { m.wake(i, 0) })
		}
	}
	m.after(w.between(0, w.params.Beat), m.beat)
}

// look is how long it takes until everyone has looked at a source after a commit: news of it travels.
const look = 2 * time.Second

func (w *World) between(a, b time.Duration) time.Duration {
	if b <= a {
		return a
	}
	return a + time.Duration(w.rand.Int64N(int64(b-a)))
}

// strikes with a probability, while the storm lasts.
func (w *World) strikes(p float64) bool { return w.stormy && p > 0 && w.rand.Float64() < p }

func (w *World) crashes(at crashPoint) bool {
	if !w.strikes(w.params.Crash) {
		return false
	}
	w.count(string(at))
	return true
}

func (w *World) count(fault string) { w.faults[fault]++ }

// strategy of one to three stages for this run's targets.
func (w *World) strategy() *v1alpha1.Strategy {
	if w.params.Strategy != nil {
		return w.params.Strategy
	}
	left := w.params.Targets
	if left == 0 {
		left = w.params.Clusters
	}
	s := &v1alpha1.Strategy{Pacing: v1alpha1.Pacing{
		MinReadyTime: seconds(w.rand.IntN(20)), ProgressDeadline: seconds(60 + w.rand.IntN(120)),
	}}
	for i := range w.rand.IntN(3) {
		size := 1 + w.rand.IntN(max(1, left/3))
		if left-size < 1 {
			break
		}
		left -= size
		n := intstr.FromInt(size)
		stage := v1alpha1.Stage{Name: fmt.Sprintf("s%d", i+1), Size: &n, Pacing: pacing(1+w.rand.IntN(size), w.rand.IntN(min(size, 3)))}
		stage.Soak = seconds(w.rand.IntN(60))
		s.Stages = append(s.Stages, stage)
	}
	s.Stages = append(s.Stages, v1alpha1.Stage{Name: "last", Pacing: pacing(1+w.rand.IntN(left), w.rand.IntN(min(left, 4)))})
	return s
}

func seconds(n int) *v1alpha1.Duration {
	return &v1alpha1.Duration{Duration: v1.Duration{Duration: time.Duration(n) * time.Second}}
}

// fate of a revision in a cluster.
func (w *World) fate(m *member, rev fleet.Revision) running {
	if w.params.play != nil {
		return w.params.play.fate(m, rev)
	}
	takes := w.between(100*time.Millisecond, 10*time.Second)
	if w.params.Instant {
		takes = 0
	}
	if w.strikesEver(w.params.Slow) {
		takes *= 10
		w.count("slow cluster")
	}
	next := running{revision: rev, wellAt: w.now + takes}
	r := w.rollouts[w.rolloutWith(rev)]
	first := rev == r.commits[0].revision && len(r.commits) > 1
	switch {
	case r.hopeless[rev]:
		next.wellAt = -1
		w.count("hopeless release")
	case !first && w.strikes(w.params.Bad):
		next.wellAt = -1
		w.count("release bad in one cluster")
	case w.strikes(w.params.Sick):
		next.sickAt = next.wellAt + w.between(time.Second, 5*time.Minute)
		w.count("sick after success")
	}
	w.story(m, "applies %s, which %s", rev.Short(), next.becomes(w.now))
	return next
}

// strikesEver is strikes, storm or not.
func (w *World) strikesEver(p float64) bool { return p > 0 && w.rand.Float64() < p }

func (w *World) rolloutWith(rev fleet.Revision) int {
	for i, r := range w.rollouts {
		if at, _ := r.place(rev); at >= 0 {
			return i
		}
	}
	return 0
}
