// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"fmt"
	"slices"
	"time"
)

// degree is how many members each one gossips with, as the mesh does.
const degree = 6

// network is who can reach whom, now.
type network struct {
	near [][]int
	// cut says whether a message from i to j is lost; nil is nobody.
	cut func(i, j int) bool
	// epoch goes up with each partition and each healing, so that an old healing ends no new partition.
	epoch int
	// latest arrival of what one member sends to another.
	latest map[[2]int]time.Duration
	// sent is how many bytes of records went out, however many arrived.
	sent uint64
}

// wire the members: each knows a few others, and the graph is connected by a ring.
func (n *network) wire(w *World) {
	n.near, n.latest = make([][]int, len(w.members)), map[[2]int]time.Duration{}
	all := make([]int, len(w.members))
	for i := range all {
		all[i] = i
	}
	n.weave(w, all)
}

// weave these members into one piece.
func (n *network) weave(w *World, these []int) {
	for at, i := range these {
		n.link(i, these[(at+1)%len(these)])
		for len(n.near[i]) < min(degree, len(these)-1) {
			n.link(i, these[w.rand.IntN(len(these))])
		}
	}
}

func (n *network) link(i, j int) {
	if i != j && !slices.Contains(n.near[i], j) {
		n.near[i], n.near[j] = append(n.near[i], j), append(n.near[j], i)
	}
}

func (n *network) reaches(i, j int) bool { return n.cut == nil || !n.cut(i, j) }

// send something to another member, which gets it some time later, or never, or twice.
func (m *member) send(j, size int, arrive func(*member)) {
	m.network.sent += uint64(size)
	if !m.network.reaches(m.index, j) {
		m.count("message cut off")
		return
	}
	copies := 1
	switch {
	case m.rand.Float64() < m.params.Loss:
		m.count("message lost")
		return
	case m.strikes(m.params.Double):
		m.count("message doubled")
		copies = 2
	}
	to := m.members[j]
	for range copies {
		delay := m.params.OneWay + m.between(-m.params.Jitter, m.params.Jitter)
		if m.strikes(m.params.Late) {
			m.count("message late")
			delay += m.between(0, m.params.LateBy)
		}
		link := [2]int{m.index, j}
		if at := m.now + delay; at < m.network.latest[link] {
			m.count("message overtaken")
		} else {
			m.network.latest[link] = at
		}
		m.after(delay, func() {
			if to.down <= to.now && to.paused <= to.now {
				arrive(to)
			}
		})
	}
}

// forward what is in the outbox to the neighbours, a little later, several records at a time.
func (m *member) forward() {
	if m.flushing || len(m.outbox) == 0 {
		return
	}
	m.flushing = true
	m.after(m.params.Coalesce, func() {
		m.flushing = false
		batch := m.outbox
		m.outbox = nil
		if len(batch) == 0 || m.down > m.now {
			return
		}
		for _, j := range m.network.near[m.index] {
			if pages := m.passes(batch); len(pages) > 0 {
				m.send(j, m.book.size(pages), func(to *member) { to.hear(pages) })
			}
		}
	})
}

// hear a batch and pass on what is news.
func (m *member) hear(batch []page) {
	for _, p := range batch {
		if m.add(p) {
			m.outbox = append(m.outbox, p)
			m.news(p)
		}
	}
	m.forward()
}

// beat compares with a neighbour, and reconciles where they differ. Lost gossip ends here.
func (m *member) beat() {
	if m.params.play != nil && m.params.play.sleeps(m) {
		return
	}
	m.after(m.params.Beat*3/4+m.between(0, m.params.Beat/2), m.beat)
	if m.down > m.now || m.paused > m.now {
		return
	}
	near := m.network.near[m.index]
	other := m.members[near[m.rand.IntN(len(near))]]
	if other.down > m.now || other.paused > m.now {
		return
	}
	if m.heard.equal(&other.heard) {
		m.agrees(other)
		return
	}
	// A session goes both ways or not at all.
	if !m.network.reaches(m.index, other.index) || !m.network.reaches(other.index, m.index) || m.rand.Float64() < m.params.Loss {
		return
	}
	m.after(4*m.params.OneWay, func() {
		if m.down > m.now || other.down > m.now {
			return
		}
		wanted, offered := other.passes(m.heard.missing(&other.heard)), m.passes(other.heard.missing(&m.heard))
		m.network.sent += uint64(m.book.size(wanted) + m.book.size(offered))
		m.hear(wanted)
		other.hear(offered)
	})
}

// partition the network in a random form for a while.
func (w *World) partition(lasts time.Duration) {
	size := len(w.members)
	side := make([]int, size)
	for i := range side {
		side[i] = w.rand.IntN(2)
	}
	bridge, form := w.rand.IntN(size), w.rand.IntN(5)
	these := w.names(func(i int) bool { return side[i] == 0 })
	across := func(i, j int) bool { return side[i] != side[j] }
	cuts := []struct {
		name, told string
		cut        func(i, j int) bool
	}{
		{"split", "in two, and on one side are " + these, across},
		{"asymmetric", "one way, and nobody else hears " + these, func(i, j int) bool { return side[i] < side[j] }},
		{
			"bridge", fmt.Sprintf("in two, %s reaches both sides, and on one are %s", w.members[bridge].Self.Name, these),
			func(i, j int) bool { return across(i, j) && i != bridge && j != bridge },
		},
		{"ring", "into a ring, and each reaches the two whose numbers are next", func(i, j int) bool { return (i+1)%size != j && (j+1)%size != i }},
		{"flapping", "in two for 20 s of every 40, and on one side are " + these, func(i, j int) bool { return across(i, j) && int(w.now/(20*time.Second))%2 == 0 }},
	}
	w.count("partition: " + cuts[form].name)
	w.story(nil, "the network is cut: %s", cuts[form].told)
	w.network.epoch++
	epoch := w.network.epoch
	w.network.cut = cuts[form].cut
	w.after(lasts, func() {
		if w.network.epoch == epoch {
			w.network.cut = nil
			w.story(nil, "the network heals")
		}
	})
}

// plan the storm: what happens at which moment, as far as it does not strike by itself.
func (w *World) plan() {
	sometime := func(n int, do func()) {
		for range n {
			w.after(w.between(time.Second, w.params.Storm), func() {
				if w.stormy {
					do()
				}
			})
		}
	}
	anyone := func() *member { return w.members[w.rand.IntN(len(w.members))] }
	sometime(w.params.Partitions, func() { w.partition(w.between(10*time.Second, w.params.Storm)) })
	sometime(w.params.Crashes, func() {
		m := anyone()
		w.story(m, "the agent is killed")
		m.crash(w.between(time.Second, w.params.Storm/4))
	})
	sometime(w.params.Pauses, func() {
		m := anyone()
		m.paused = w.now + w.between(time.Second, w.params.Storm/2)
		w.count("pause")
		w.story(m, "the process gets no time")
	})
	sometime(w.params.Losses, func() {
		m := anyone()
		m.crash(w.between(time.Second, time.Minute))
		m.loseStore()
	})
	w.planRestores()
	sometime(w.params.Jumps, func() {
		m := anyone()
		m.wall += w.between(-365*24*time.Hour, 365*24*time.Hour)
		w.count("wall clock jumps")
	})
	sometime(int(w.params.Frozen*float64(len(w.members))), func() {
		anyone().frozen = w.now
		w.count("frozen mirror")
	})
	sometime(w.params.Stops, w.stop)
	sometime(w.params.Proofs, func() {
		against, by := anyone(), anyone()
		if against != by {
			w.proofAgainst(against)
			w.prove(against, by)
		}
	})
	sometime(w.params.Replays, func() { anyone().replay() })
	for range w.params.Reseals {
		i, at := w.rand.IntN(len(w.rollouts)), w.between(time.Second, w.params.Storm)
		w.after(at, func() { w.churn(i) })
	}
}

// churn: members come and go, or the spec changes.
func (w *World) churn(i int) {
	r := w.rollouts[i]
	before, sealedBefore := r.spec, r.seals[len(r.seals)-1].rollout.Targets
	targets, changes := w.targets(), "spec changes"
	if w.rand.IntN(2) == 0 {
		w.rand.Shuffle(len(targets), func(i, j int) { targets[i], targets[j] = targets[j], targets[i] })
		targets = targets[:max(1, len(targets)-1-w.rand.IntN(3))]
		changes = "membership changes"
	}
	saved := w.params.Targets
	w.params.Targets = len(targets)
	r.spec.Strategy = w.strategy()
	w.params.Targets = saved
	if err := w.reseal(i, w.now, targets); err != nil {
		r.spec = before // a spec that does not compile is never committed
		return
	}
	w.count(changes)
	w.roster(r, sealedBefore, targets)
	w.tellSeal(i)
	for _, m := range w.members {
		m.wake(i, m.lag+w.between(0, look))
	}
}
