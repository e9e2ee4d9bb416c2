// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// Scenario is a kind of run: a seed makes one of it.
type Scenario struct {
	Name, About string
	// Clusters where nobody says how many.
	Clusters int
	params   func(r *rand.Rand, clusters int) Params
	// also does more than the parameters say.
	also func(*World)
}

// Scenarios by name.
var Scenarios = []Scenario{
	{
		Name: "swarm", About: "weather of every kind, each kind as strong as the seed says",
		Clusters: 30, params: swarm,
	},
	{
		Name: "kubefleet", About: "stages of 20, 30 and 50 %, half of a stage at a time, 100 of the clusters, no-op payload, no soak",
		Clusters: 1000, params: func(_ *rand.Rand, clusters int) Params { return kubefleet(clusters, 1) },
	},
	{
		Name: "kubefleet-100", About: "a hundred such rollouts at once",
		Clusters: 1000, params: func(_ *rand.Rand, clusters int) Params { return kubefleet(clusters, 100) },
	},
	{
		Name: "select", About: "100 of the clusters selected and delivered to at once, no stages, no-op payload",
		Clusters: 1000, params: func(_ *rand.Rand, clusters int) Params {
			p := kubefleet(clusters, 1)
			p.Strategy = &v1alpha1.Strategy{Type: "AllAtOnce", Pacing: v1alpha1.Pacing{MinReadyTime: seconds(0), Soak: seconds(0)}}
			return p
		},
	},
	{
		Name: "restart", About: "as kubefleet, and the agent of a cluster in it is killed at the commit and begins again half a minute later",
		Clusters: 1000, params: func(_ *rand.Rand, clusters int) Params { return kubefleet(clusters, 1) },
		also: func(w *World) { w.after(w.rollouts[0].commits[0].at, w.restart) },
	},
	{
		Name: "cut-the-cable", About: "the network is cut in the middle of a rollout, in a form that the seed draws, and heals ten minutes later",
		Clusters: 30, params: func(_ *rand.Rand, clusters int) Params {
			p := calm(clusters)
			p.Releases, p.Storm = 2, 25*time.Minute
			return p
		},
		also: func(w *World) {
			second := w.rollouts[0].commits[1].at
			w.after(second+w.between(0, time.Minute), func() { w.partition(10 * time.Minute) })
		},
	},
}

// restart a member of the rollout's last stage, and wait until it is where the others are: it has heard all that was
// said by anyone when it began again, and its own cluster runs the release.
func (w *World) restart() {
	plan := w.plansWith(0, w.rollouts[0].commits[0].revision)[0].plan
	last := plan.Stages[len(plan.Stages)-1].Members
	m := w.members[w.book.members[last[w.rand.IntN(len(last))].ID]]
	const away = 30 * time.Second
	m.crash(away)
	began := w.now + away
	said := 0 // pages that there were when it began again
	var look func()
	look = func() {
		if m.down > w.now {
			w.after(m.down-w.now, look)
			return
		}
		if said == 0 {
			said = len(w.book.records)
		}
		current := m.running[0].revision == plan.Release.Revision
		for i := 1; i < said && current; i++ {
			current = m.heard.has(page(i))
		}
		if !current {
			w.after(50*time.Millisecond, look)
			return
		}
		w.restarted = w.now - began
		w.story(m, "is current again %s after its agent began", w.restarted)
	}
	look()
}

// kubefleet is the run that KubeFleet published figures of.
func kubefleet(clusters, rollouts int) Params {
	p := calm(clusters)
	p.Rollouts, p.Targets, p.Instant = rollouts, min(100, clusters), true
	size := func(percent int) *intstr.IntOrString {
		n := intstr.FromInt(p.Targets * percent / 100)
		return &n
	}
	half := intstr.FromString("50%")
	p.Strategy = &v1alpha1.Strategy{
		Pacing: v1alpha1.Pacing{MaxConcurrency: &half, MinReadyTime: seconds(0), Soak: seconds(0)},
		Stages: []v1alpha1.Stage{{Name: "first", Size: size(20)}, {Name: "second", Size: size(30)}, {Name: "third"}},
	}
	return p
}

// Find a scenario by name.
func Find(name string) (Scenario, error) {
	var names []string
	for _, s := range Scenarios {
		if s.Name == name {
			return s, nil
		}
		names = append(names, s.Name)
	}
	return Scenario{}, fmt.Errorf("no scenario %q; there are %v", name, names)
}

// Run one seed. A story tells what happened, line by line.
func (s Scenario) Run(seed uint64, clusters int, story bool) (Result, error) {
	return s.run(seed, clusters, story, Bug{})
}

func (s Scenario) run(seed uint64, clusters int, story bool, bug Bug) (Result, error) {
	if clusters < 2 {
		return Result{}, fmt.Errorf("scenario %s: %d clusters: at least 2", s.Name, clusters)
	}
	w, err := s.world(seed, clusters, bug)
	if err != nil {
		return Result{}, fmt.Errorf("scenario %s, seed %d: %w", s.Name, seed, err)
	}
	w.telling = story
	w.introduce()
	if s.also != nil {
		s.also(w)
	}
	w.run()
	return w.result(s.Name, seed), nil
}

// world of a seed, before anything happens in it.
func (s Scenario) world(seed uint64, clusters int, bug Bug) (*World, error) {
	params := s.params(rand.New(rand.NewPCG(seed, 0x7377)), clusters)
	if bug.class != nil {
		bug.class(&params)
	}
	return newWorld(seed, params, bug)
}
