// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/cmd/internal/agent/turn"
	"github.com/flotilla-dev/flotilla/cmd/internal/readapi"
	"github.com/flotilla-dev/flotilla/sequencer"
	"github.com/flotilla-dev/flotilla/sequencer/mesh"
	"github.com/flotilla-dev/flotilla/sequencer/store"
	"github.com/flotilla-dev/flotilla/source"
	"github.com/flotilla-dev/flotilla/specialize"
)

// Metrics are what this member tells Prometheus: of each rollout how far it is, in counts, and how this member fares with
// it. No series is about another cluster: that one has its own. A rollout that is gone loses its series. A nil *Metrics
// counts nothing.
type Metrics struct {
	clock func() fleet.Moment
	began time.Time

	reconcile, fetch, render, apply *prometheus.HistogramVec
	propagation                     prometheus.Histogram
	recovered                       prometheus.Counter
	applied, troubles, fetchFaults  *prometheus.CounterVec
	build, member, info, clusters   *prometheus.Desc
	stage, stageClusters, condition *prometheus.Desc
	objects, gateWait, peers        *prometheus.Desc
	records, refused                *prometheus.Desc
	members, dropped, lost, syncs   *prometheus.Desc
	buildLabels                     []string
	mu                              sync.Mutex
	self                            fleet.Member
	node                            interface{ Peers() []mesh.PeerState }
	stats                           func() mesh.Stats
	rollouts                        map[fleet.RolloutName]*measured
}

// measured is what the gauges of one rollout are read from.
type measured struct {
	info       []string // revision, installed revision, stage, phase
	stages     []v1alpha1.StageStatus
	tallies    []sequencer.Tally
	conditions []metav1.Condition
	health     [2]int // ready, total
	waits      waits
}

// waits says for what this member waits, and since when.
type waits struct {
	gate, reason string
	since        time.Duration
}

// Buckets: a turn takes milliseconds where nothing changes and minutes at most; a fact travels in milliseconds where it
// is gossiped, and as long as a partition lasts where it is not.
var (
	durationBuckets    = []float64{.001, .005, .01, .05, .1, .5, 1, 5, 10, 30, 60, 300}
	propagationBuckets = []float64{1, 2, 5, 10, 30, 60, 300, 900, 3600, 14400}
)

// NewMetrics reads both clocks: Elapsed for how long a gate has been waited for, Wall for how old a fact is.
func NewMetrics(clock func() fleet.Moment, version string) *Metrics {
	histogram := func(name, help string, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: durationBuckets}, labels)
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	gauge := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return &Metrics{
		clock: clock, began: clock().Wall, rollouts: map[fleet.RolloutName]*measured{}, buildLabels: []string{version, runtime.Version()},
		reconcile:   histogram("flotilla_reconcile_duration_seconds", "Time that one turn of a rollout took, by how it ended (ok, error).", "result"),
		fetch:       histogram("flotilla_fetch_duration_seconds", "Time that one look at a source, or fetching one revision of it, took.", "kind"),
		render:      histogram("flotilla_render_duration_seconds", "Time that getting this member's variant of a payload took. What was rendered before is kept, and takes next to nothing.", "result"),
		apply:       histogram("flotilla_apply_duration_seconds", "Time that one delivery took, without health.", "result"),
		applied:     counter("flotilla_apply_objects_total", "Objects that deliveries looked at, by what was done: created, configured, recreated, unchanged, pruned, kept.", "action"),
		troubles:    counter("flotilla_reconcile_errors_total", "Turns in which something went wrong, by the condition that says so and its reason.", "condition", "reason"),
		fetchFaults: counter("flotilla_fetch_errors_total", "Looks at a source that failed, by reason.", "kind", "reason"),
		propagation: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "flotilla_fact_propagation_seconds", Buckets: propagationBuckets,
			Help: "Age of the milestones of other members when they came here, in whole seconds by both members' clocks.",
		}),
		recovered: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "flotilla_store_recovered_total",
			Help: "Times that this agent found its fleet state on disk damaged, set it aside and began anew; the other members bring it back.",
		}),
		build:         gauge("flotilla_build_info", "Always 1; which agent this is.", "version", "go_version"),
		member:        gauge("flotilla_member_info", "Always 1; which member of the fleet this is.", "member", "zone"),
		info:          gauge("flotilla_rollout_info", "Always 1; the revision that goes through the fleet, the one that runs here, and this member's stage and phase.", "namespace", "name", "revision", "installed", "stage", "phase"),
		clusters:      gauge("flotilla_rollout_clusters", "Clusters of the rollout by state, as far as this member has heard.", "namespace", "name", "state"),
		stage:         gauge("flotilla_rollout_stage_info", "The stages of the rollout, with the phase of each; the value is its place, from 1.", "namespace", "name", "stage", "phase"),
		stageClusters: gauge("flotilla_rollout_stage_clusters", "Clusters of a stage by state, as far as this member has heard.", "namespace", "name", "stage", "state"),
		condition:     gauge("flotilla_rollout_condition", "Always 1; the conditions of the rollout on this member.", "namespace", "name", "type", "status", "reason"),
		objects:       gauge("flotilla_rollout_objects", "Objects of the rollout in this cluster: ready, and not.", "namespace", "name", "state"),
		gateWait:      gauge("flotilla_gate_wait_seconds", "Time that this member has been waiting for a stage, a slot, or a stop to be lifted; absent where it does not wait.", "namespace", "name", "gate", "reason"),
		peers:         gauge("flotilla_peers", "Other members: all of the roster, those connected now, those heard within three of their heartbeats, and those that members next to them lost (doubted).", "state"),
		records:       gauge("flotilla_mesh_records_total", "Records of the fleet's state, by how they came here: published by this member, gossiped, or synced.", "from"),
		refused:       gauge("flotilla_mesh_refused_total", "Messages and records of the mesh that were refused, by reason; blamed are disconnections of members that did what no honest one does.", "reason"),
		members:       gauge("flotilla_mesh_members", "Members that are not believed as others are: forked (its key signed two things in one position), duplicate (two live agents use its key), over_quota (it says more than anybody keeps).", "state"),
		dropped:       gauge("flotilla_mesh_dropped_total", "Records that left what is held here, or did not stay: retired, expired, over a quota, or of a zone that is not carried any more."),
		lost:          gauge("flotilla_mesh_lost_total", "Records and messages that were lost here, to a full queue (undelivered) or a disk that did not take them (unstored); reconciliation brings them again.", "why"),
		syncs:         gauge("flotilla_mesh_syncs_total", "Reconciliations that this member began, by how they ended (ok, error).", "result"),
	}
}

// vectors count by themselves.
func (m *Metrics) vectors() []prometheus.Collector {
	return []prometheus.Collector{m.reconcile, m.fetch, m.render, m.apply, m.propagation, m.recovered, m.applied, m.troubles, m.fetchFaults}
}

// Describe is in prometheus.Collector.
func (m *Metrics) Describe(out chan<- *prometheus.Desc) {
	for _, v := range m.vectors() {
		v.Describe(out)
	}
	for _, d := range []*prometheus.Desc{
		m.build, m.member, m.info, m.clusters, m.stage, m.stageClusters, m.condition, m.objects, m.gateWait, m.peers, m.records, m.refused,
		m.members, m.dropped, m.lost, m.syncs,
	} {
		out <- d
	}
}

// Collect is in prometheus.Collector.
func (m *Metrics) Collect(out chan<- prometheus.Metric) {
	for _, v := range m.vectors() {
		v.Collect(out)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		out <- constant(d, prometheus.GaugeValue, value, labels)
	}
	gauge(m.build, 1, m.buildLabels...)
	if m.self.Name != "" {
		gauge(m.member, 1, string(m.self.Name), m.self.Zone)
	}
	now := m.clock().Elapsed
	for name, r := range m.rollouts {
		r.collect(m, name, now, gauge)
	}
	m.collectMesh(out, gauge)
}

func (r *measured) collect(m *Metrics, name fleet.RolloutName, now time.Duration, gauge func(*prometheus.Desc, float64, ...string)) {
	of := func(labels ...string) []string { return append([]string{name.Namespace, name.Name}, labels...) }
	gauge(m.info, 1, of(r.info...)...)
	total := map[sequencer.MemberState]int{}
	for i, t := range r.tallies {
		gauge(m.stage, float64(i+1), of(t.Stage.Name, r.stages[i].Phase)...)
		for state := sequencer.Pending; state <= sequencer.IsDegraded; state++ {
			total[state] += t.Counts[state]
			gauge(m.stageClusters, float64(t.Counts[state]), of(t.Stage.Name, strings.ToLower(state.String()))...)
		}
	}
	for state, n := range total {
		gauge(m.clusters, float64(n), of(strings.ToLower(state.String()))...)
	}
	for _, c := range r.conditions {
		gauge(m.condition, 1, of(c.Type, string(c.Status), c.Reason)...)
	}
	gauge(m.objects, float64(r.health[0]), of("ready")...)
	gauge(m.objects, float64(r.health[1]-r.health[0]), of("not_ready")...)
	if r.waits.reason != "" {
		gauge(m.gateWait, (now - r.waits.since).Seconds(), of(r.waits.gate, r.waits.reason)...)
	}
}

func (m *Metrics) collectMesh(out chan<- prometheus.Metric, gauge func(*prometheus.Desc, float64, ...string)) {
	if m.node != nil {
		peers := m.node.Peers()
		var connected, near, doubted, duplicate int
		for i := range peers {
			connected += one(peers[i].Connected)
			near += one(heard(&peers[i]))
			doubted += one(peers[i].Presence == mesh.Doubted)
			duplicate += one(peers[i].Duplicate)
		}
		gauge(m.peers, float64(len(peers)), "roster")
		gauge(m.peers, float64(connected), "connected")
		gauge(m.peers, float64(near), "heard")
		gauge(m.peers, float64(doubted), "doubted")
		gauge(m.members, float64(duplicate), "duplicate")
	}
	if m.stats == nil {
		return
	}
	s := m.stats()
	gauge(m.members, float64(s.Forked), "forked")
	gauge(m.members, float64(s.OverQuota), "over_quota")
	m.collectStats(out, &s)
}

func one(is bool) int {
	if is {
		return 1
	}
	return 0
}

func (m *Metrics) collectStats(out chan<- prometheus.Metric, s *mesh.Stats) {
	counter := func(d *prometheus.Desc, value uint64, labels ...string) {
		out <- constant(d, prometheus.CounterValue, float64(value), labels)
	}
	counter(m.records, s.Published, "published")
	counter(m.records, s.Gossiped, "gossiped")
	counter(m.records, s.Synced, "synced")
	for reason, n := range map[string]uint64{
		"too_large": s.TooLarge, "malformed": s.Malformed, "other_fleet": s.OtherFleet, "stranger": s.Stranger,
		"bad_signature": s.BadSignature, "version": s.Version, "connection": s.ConnectionsRefused,
		"overrun": s.Overrun, "blamed": s.Blamed, "rival": s.Rivals, "poisoned": s.Poisoned, "withheld": s.Withheld,
	} {
		counter(m.refused, n, reason)
	}
	counter(m.dropped, s.Dropped)
	counter(m.lost, s.Undelivered, "undelivered")
	counter(m.lost, s.Unstored, "unstored")
	counter(m.syncs, s.Sessions-min(s.SessionsFailed, s.Sessions), "ok")
	counter(m.syncs, s.SessionsFailed, "error")
}

// constant is one value of a metric. The world's text may be no UTF-8; one such label would hide all the other series.
func constant(d *prometheus.Desc, kind prometheus.ValueType, value float64, labels []string) prometheus.Metric {
	valid := make([]string, len(labels))
	for i, l := range labels {
		valid[i] = strings.ToValidUTF8(l, "?")
	}
	metric, err := prometheus.NewConstMetric(d, kind, value, valid...)
	if err != nil {
		return prometheus.NewInvalidMetric(d, err)
	}
	return metric
}

// Of the member that this is, and the mesh that it is in.
func (m *Metrics) Of(self fleet.Member, node interface{ Peers() []mesh.PeerState }, stats func() mesh.Stats) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.self, m.node, m.stats = self, node, stats
}

// Opened counts what opening the store met.
func (m *Metrics) Opened(o store.Opened) {
	if m != nil && o.Recovered {
		m.recovered.Inc()
	}
}

// Turned counts one turn. With an error the report is half a one, and the gauges stay as they were.
func (m *Metrics) Turned(r *turn.Report, in readapi.Input, took time.Duration, err error) {
	if m == nil {
		return
	}
	m.reconcile.WithLabelValues(result(err)).Observe(took.Seconds())
	for condition, trouble := range r.Trouble {
		m.troubles.WithLabelValues(condition, fleet.ReasonOf(trouble, "Unknown")).Inc()
	}
	for _, c := range r.Outcome.Changes {
		m.applied.WithLabelValues(string(c.Action)).Inc()
	}
	if len(r.Outcome.Changes) > 0 || r.Took.Apply > 0 {
		m.apply.WithLabelValues(result(r.Trouble[v1alpha1.ConditionApplied])).Observe(r.Took.Apply.Seconds())
	}
	if err != nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if gone(r) {
		delete(m.rollouts, in.Name)
		return
	}
	now := &measured{
		info:   []string{r.Promise.Accepted.Revision.Short(), "", r.Decision.Stage, r.Phase()},
		health: [2]int{r.Health.Ready, r.Health.Total},
		stages: readapi.StageStatuses(in), conditions: allConditions(r, in),
		waits: waitsOf(r, m.clock().Elapsed),
	}
	if r.Promise.Installed != nil {
		now.info[1] = r.Promise.Installed.Release.Revision.Short()
	}
	if r.Plan != nil {
		now.tallies = sequencer.Tallies(r.Plan, in.Facts)
	}
	if before := m.rollouts[in.Name]; before != nil && before.waits.gate == now.waits.gate && before.waits.reason == now.waits.reason {
		now.waits.since = before.waits.since
	}
	m.rollouts[in.Name] = now
}

// gone: nobody asks for the rollout, and nothing says that somebody might.
func gone(r *turn.Report) bool {
	return r.Rollout.Withdrawn || r.Rollout.Author == "" && len(r.Trouble) == 0
}

// allConditions as the object has them.
func allConditions(r *turn.Report, in readapi.Input) []metav1.Condition {
	all := conditions(r, in)
	for _, kind := range []string{
		v1alpha1.ConditionReconciling, v1alpha1.ConditionStalled, v1alpha1.ConditionPaused, v1alpha1.ConditionDegraded,
	} {
		if c := onlyIf(kind, r, in); c != nil {
			all = append(all, *c)
		}
	}
	return all
}

// waitsOf a turn: the zero value where it waits for nobody.
func waitsOf(r *turn.Report, now time.Duration) waits {
	d := r.Decision
	switch {
	case r.Plan == nil:
		return waits{}
	case d.Reason == sequencer.WaitsForStage:
		return waits{cmp.Or(d.Gate, d.Stage), "stage", now}
	case d.Reason == sequencer.WaitsForSlot:
		return waits{d.Stage, "slot", now}
	case d.Reason == sequencer.Stopped:
		return waits{d.Stage, "stop", now}
	case d.Reason == sequencer.Sick:
		return waits{cmp.Or(d.Gate, d.Stage), "degraded", now}
	}
	return waits{}
}

func result(err error) string {
	if err != nil {
		return "error"
	}
	return "ok"
}

// News are records that others wrote. Those from before this agent began are not counted: how long they would have
// taken says nothing of the way.
func (m *Metrics) News(records []fleet.Record) {
	if m == nil {
		return
	}
	now := m.clock().Wall
	m.mu.Lock()
	self := m.self.ID
	m.mu.Unlock()
	for i := range records {
		if records[i].Kind != fleet.KindFact || records[i].Writer == self {
			continue
		}
		fact, err := fleet.DecodeFact(&records[i])
		if err != nil || fact.Time < m.began.Unix() {
			continue
		}
		m.propagation.Observe(float64(max(now.Unix()-fact.Time, 0)))
	}
}

// Source counts what looking at a source takes.
func (m *Metrics) Source(of source.Source) source.Source {
	if m == nil {
		return of
	}
	return measuredSource{of, m}
}

type measuredSource struct {
	source.Source
	metrics *Metrics
}

// Latest is in source.Source.
func (s measuredSource) Latest(ctx context.Context, o source.Origin) (source.Snapshot, error) {
	began := s.metrics.clock().Elapsed
	snap, err := s.Source.Latest(ctx, o)
	s.metrics.fetched(o, began, err)
	return snap, err
}

// At is in source.Source.
func (s measuredSource) At(ctx context.Context, o source.Origin, rev fleet.Revision) (source.Snapshot, error) {
	began := s.metrics.clock().Elapsed
	snap, err := s.Source.At(ctx, o, rev)
	s.metrics.fetched(o, began, err)
	return snap, err
}

func (m *Metrics) fetched(o source.Origin, began time.Duration, err error) {
	kind := "git"
	if o.Helm != nil {
		kind = "helm"
	}
	m.fetch.WithLabelValues(kind).Observe((m.clock().Elapsed - began).Seconds())
	if err != nil {
		m.fetchFaults.WithLabelValues(kind, fleet.ReasonOf(err, v1alpha1.ReasonFetchFailed)).Inc()
	}
}

// Renderer counts what renders take.
func (m *Metrics) Renderer(of turn.Renderer) turn.Renderer {
	if m == nil {
		return of
	}
	return measuredRenderer{of, m}
}

type measuredRenderer struct {
	turn.Renderer
	metrics *Metrics
}

// Render is in turn.Renderer.
func (r measuredRenderer) Render(ctx context.Context, request turn.RenderRequest) (specialize.Manifest, error) {
	began := r.metrics.clock().Elapsed
	manifest, err := r.Renderer.Render(ctx, request)
	r.metrics.render.WithLabelValues(result(err)).Observe((r.metrics.clock().Elapsed - began).Seconds())
	return manifest, err
}

// Register with a registry, until the returned function is called. Of several agents in one process the first one is
// exported.
func (m *Metrics) Register(r prometheus.Registerer) (unregister func(), err error) {
	if err := r.Register(m); err != nil {
		if errors.As(err, new(prometheus.AlreadyRegisteredError)) {
			return func() {}, nil
		}
		return func() {}, err
	}
	return func() { r.Unregister(m) }, nil
}
