// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/cmd/internal/agent/turn"
	"github.com/flotilla-dev/flotilla/sequencer/mesh"
)

// exporter is a member whose turns are counted, and its /metrics.
type exporter struct {
	*site
	metrics  *Metrics
	registry *prometheus.Registry
	server   *httptest.Server
}

// export what a member does, as the agent wires it.
func export(t *testing.T, s *site) *exporter {
	t.Helper()
	e := &exporter{site: s, metrics: NewMetrics(s.Clock, "v1.2.3"), registry: prometheus.NewPedanticRegistry()}
	heads := s.Heads.(*PolledHeads)
	heads.Source = e.metrics.Source(heads.Source)
	s.Renderer = e.metrics.Renderer(s.Renderer)
	e.metrics.Of(s.member, e, func() mesh.Stats {
		return mesh.Stats{Published: 3, Gossiped: 2, Synced: 1, Stranger: 4, Forked: 1, Sessions: 9, SessionsFailed: 2, Dropped: 5, Unstored: 6}
	})
	unregister, err := e.metrics.Register(e.registry)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(unregister)
	e.server = httptest.NewServer(promhttp.HandlerFor(e.registry, promhttp.HandlerOpts{}))
	t.Cleanup(e.server.Close)
	return e
}

// Peers of the member: of three, one is connected and two were heard, one of them long ago.
func (e *exporter) Peers() []mesh.PeerState {
	return []mesh.PeerState{{Presence: mesh.Heard, Connected: true, Heard: true}, {Presence: mesh.Quiet, Heard: true, Silence: time.Hour}, {}}
}

// turns of all members; this one's are counted.
func (e *exporter) turns(span time.Duration) {
	w := e.world
	for end := w.now + span; w.now < end; w.now += time.Second {
		for _, s := range w.members {
			report, err := s.Turn(w.t.Context(), w.name)
			if err != nil && !errors.Is(err, errCrash) {
				w.t.Fatal(err)
			}
			s.last = report
			if s == e.site {
				e.count(&report, err)
			}
		}
	}
}

func (e *exporter) count(r *turn.Report, err error) {
	in := outlook{agent: e.Agent, ledger: e.ledger(), nameOf: func(id fleet.MemberID) fleet.Name { return fleet.Name(id) }}.input(e.world.name, r)
	e.metrics.Turned(r, in, 20*time.Millisecond, err)
}

// scrape as Prometheus does.
func (e *exporter) scrape() map[string]*dto.MetricFamily {
	t := e.world.t
	t.Helper()
	response, err := http.Get(e.server.URL + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s: %v", response.Status, err)
	}
	return families
}

// values of one metric as lines: its labels, and its value (a histogram's is its count).
func values(family *dto.MetricFamily) []string {
	var lines []string
	for _, m := range family.GetMetric() {
		var labels []string
		for _, l := range m.GetLabel() {
			labels = append(labels, l.GetName()+"="+l.GetValue())
		}
		value := m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s %v", strings.Join(labels, ","), value)))
	}
	slices.Sort(lines)
	return lines
}

func (e *exporter) want(name string, want ...string) {
	e.world.t.Helper()
	if diff := cmp.Diff(want, values(e.scrape()[name])); diff != "" {
		e.world.t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

// wantSome of the values of a metric.
func (e *exporter) wantSome(name string, want ...string) {
	e.world.t.Helper()
	got := values(e.scrape()[name])
	for _, line := range want {
		if !slices.Contains(got, line) {
			e.world.t.Errorf("%s lacks %s:\n%s", name, line, strings.Join(got, "\n"))
		}
	}
}

const ofWeb = "name=web,namespace=shop"

func TestMetricsOfARelease(t *testing.T) {
	w := newWorld(t)
	nyc := export(t, w.site("nyc"))
	w.git.Commit("main", files("1"))
	nyc.turns(10 * time.Second)
	revision := nyc.last.Plan.Release.Revision.Short()
	nyc.want("flotilla_rollout_info", fmt.Sprintf("installed=,%s,phase=Waiting,revision=%s,stage=us 1", ofWeb, revision))
	nyc.wantSome("flotilla_rollout_clusters", ofWeb+",state=pending 3", ofWeb+",state=soaking 1", ofWeb+",state=failed 0")
	nyc.wantSome("flotilla_rollout_stage_clusters", ofWeb+",stage=canary,state=soaking 1", ofWeb+",stage=eu,state=pending 2")
	nyc.want("flotilla_rollout_stage_info",
		ofWeb+",phase=Pending,stage=us 3", ofWeb+",phase=Soaking,stage=canary 1", ofWeb+",phase=Waiting,stage=eu 2")
	nyc.wantSome("flotilla_rollout_condition", ofWeb+",reason=Fetched,status=True,type=SourceReady 1", ofWeb+",reason=Waiting,status=False,type=Applied 1")
	nyc.want("flotilla_gate_wait_seconds", fmt.Sprintf("gate=canary,%s,reason=stage 10", ofWeb))
	nyc.want("flotilla_apply_objects_total")
	w.now += 5 * time.Second // no turn: it waits on
	nyc.want("flotilla_gate_wait_seconds", fmt.Sprintf("gate=canary,%s,reason=stage 15", ofWeb))

	nyc.turns(time.Minute)
	w.want(everyone1)
	nyc.want("flotilla_rollout_info", fmt.Sprintf("installed=%[2]s,%[1]s,phase=Succeeded,revision=%[2]s,stage=us 1", ofWeb, revision))
	nyc.wantSome("flotilla_rollout_clusters", ofWeb+",state=complete 4", ofWeb+",state=pending 0")
	nyc.want("flotilla_gate_wait_seconds")
	nyc.want("flotilla_rollout_objects", ofWeb+",state=not_ready 0", ofWeb+",state=ready 1")
	nyc.wantSome("flotilla_apply_objects_total", "action=created 1")
	nyc.want("flotilla_peers", "state=connected 1", "state=doubted 0", "state=heard 1", "state=roster 3")
	nyc.want("flotilla_mesh_members", "state=duplicate 0", "state=forked 1", "state=over_quota 0")
	nyc.want("flotilla_mesh_syncs_total", "result=error 2", "result=ok 7")
	nyc.want("flotilla_mesh_lost_total", "why=undelivered 0", "why=unstored 6")
	nyc.want("flotilla_mesh_dropped_total", "5")
	nyc.want("flotilla_member_info", "member=nyc,zone= 1")
	nyc.wantSome("flotilla_mesh_refused_total", "reason=stranger 4", "reason=malformed 0")
	nyc.want("flotilla_mesh_records_total", "from=gossiped 2", "from=published 3", "from=synced 1")
	nyc.want("flotilla_reconcile_duration_seconds", "result=ok 70")
	if n := nyc.scrape()["flotilla_fetch_duration_seconds"].GetMetric()[0].GetHistogram().GetSampleCount(); n == 0 || n > 70 {
		t.Errorf("%d looks in 70 turns", n)
	}
	if got := len(nyc.scrape()["flotilla_render_duration_seconds"].GetMetric()); got != 1 {
		t.Errorf("%d results of renders", got)
	}
}

// TestMetricsOfTrouble: what goes wrong is counted by reason, and a pause is a wait.
func TestMetricsOfTrouble(t *testing.T) {
	w := newWorld(t)
	ams := export(t, w.site("ams"))
	w.git.Commit("main", files("1"))
	ams.turns(20 * time.Second)
	w.git.Fail(&fleet.Error{Kind: fleet.Retryable, Reason: v1alpha1.ReasonAuthFailed, Err: errors.New("401")})
	ams.turns(2 * time.Minute)
	ams.wantSome("flotilla_rollout_condition", ofWeb+",reason=AuthFailed,status=False,type=SourceReady 1")
	if got := values(ams.scrape()["flotilla_fetch_errors_total"]); len(got) != 1 || !strings.HasPrefix(got[0], "kind=git,reason=AuthFailed ") {
		t.Errorf("fetch errors: %v", got)
	}
	if got := values(ams.scrape()["flotilla_reconcile_errors_total"]); len(got) != 1 || !strings.HasPrefix(got[0], "condition=SourceReady,reason=AuthFailed ") {
		t.Errorf("errors: %v", got)
	}
	w.git.Fail(nil)
	w.sealed.Settings.Suspend = true
	w.git.Commit("main", files("2"))
	ams.turns(2 * time.Minute)
	got := values(ams.scrape()["flotilla_gate_wait_seconds"])
	if len(got) != 1 || !strings.HasPrefix(got[0], fmt.Sprintf("gate=canary,%s,reason=stop ", ofWeb)) {
		t.Errorf("waits: %v", got)
	}
	// A turn that ends with an error is counted and leaves the rest as it was.
	ams.promises.fail = errCrash
	ams.turns(3 * time.Second)
	ams.wantSome("flotilla_reconcile_duration_seconds", "result=error 3")
	ams.wantSome("flotilla_rollout_clusters", ofWeb+",state=pending 4")
}

// TestMetricsOfWhatIsGone: a rollout that ended loses its series, a revision that was replaced its own.
func TestMetricsOfWhatIsGone(t *testing.T) {
	w := newWorld(t)
	ams := export(t, w.site("ams"))
	w.git.Commit("main", files("1"))
	ams.turns(2 * time.Second)
	w.git.Commit("main", files("2"))
	ams.turns(2 * time.Minute)
	if got := values(ams.scrape()["flotilla_rollout_info"]); len(got) != 1 || !strings.Contains(got[0], ams.last.Plan.Release.Revision.Short()) {
		t.Errorf("%v", got)
	}
	w.sealed.Withdrawn = true
	ams.turns(time.Second)
	for name, family := range ams.scrape() {
		for _, line := range values(family) {
			if strings.Contains(line, "namespace=shop") {
				t.Errorf("%s has still %s", name, line)
			}
		}
	}
}

// TestFactPropagation counts what others said since the agent began.
func TestFactPropagation(t *testing.T) {
	w := newWorld(t)
	ams := export(t, w.site("ams"))
	said := func(by string, age time.Duration) fleet.Record {
		fact := fleet.Fact{Plan: fleet.DigestOf("plan"), Kind: fleet.Started, Time: ams.Clock().Wall.Add(-age).Unix()}
		record, err := w.site(by).Prepare(fleet.KindFact, fleet.FactKey(fact.Plan, fact.Kind), fact.Encode())
		if err != nil {
			t.Fatal(err)
		}
		return record
	}
	w.now += time.Minute
	ams.metrics.News([]fleet.Record{said("fra", 3*time.Second), said("nyc", -time.Second), said("par", time.Hour), said("ams", 0), {Kind: fleet.KindFact}, {Kind: fleet.KindSeal}})
	histogram := ams.scrape()["flotilla_fact_propagation_seconds"].GetMetric()[0].GetHistogram()
	if histogram.GetSampleCount() != 2 || histogram.GetSampleSum() != 3 {
		t.Errorf("%d facts, %v s in all", histogram.GetSampleCount(), histogram.GetSampleSum())
	}
}

// TestTwoAgentsInOneProcess: the first is exported, and the second runs all the same.
func TestTwoAgentsInOneProcess(t *testing.T) {
	w := newWorld(t)
	ams := export(t, w.site("ams"))
	second := NewMetrics(ams.Clock, "v1.2.3")
	unregister, err := second.Register(ams.registry)
	if err != nil {
		t.Fatal(err)
	}
	unregister()
	ams.want("flotilla_member_info", "member=ams,zone= 1")
	var none *Metrics
	none.Turned(&turn.Report{}, outlook{agent: ams.Agent, ledger: ams.ledger()}.input(w.name, &turn.Report{}), 0, nil)
	none.News([]fleet.Record{{}})
	none.Of(ams.member, nil, nil)
}

// everything is a member that has been through so much that no metric is without a value.
func everything(t *testing.T) *exporter {
	w := newWorld(t)
	fra := export(t, w.site("fra"))
	w.git.Commit("main", files("1"))
	fra.turns(time.Minute)
	w.git.Fail(&fleet.Error{Kind: fleet.Retryable, Reason: v1alpha1.ReasonFetchFailed, Err: errors.New("503")})
	fra.turns(2 * time.Minute)
	w.git.Fail(nil)
	w.git.Commit("main", files("2"))
	w.site("ams").bad["web:2"] = true
	fra.turns(10 * time.Minute)
	fact := fleet.Fact{Plan: fleet.DigestOf("plan"), Kind: fleet.Started, Time: fra.Clock().Wall.Unix()}
	record, err := w.site("ams").Prepare(fleet.KindFact, fleet.FactKey(fact.Plan, fact.Kind), fact.Encode())
	if err != nil {
		t.Fatal(err)
	}
	fra.metrics.News([]fleet.Record{record})
	return fra
}

func TestMetricsAreWellNamed(t *testing.T) {
	families, err := everything(t).registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// metricsPage is docs/reference/metrics.md, made of what is exported.
func metricsPage(families []*dto.MetricFamily) []byte {
	var page bytes.Buffer
	page.WriteString(`# Metrics

<!-- Written by TestMetricsReference (UPDATE_GOLDEN=1 go test ./cmd/internal/agent -run TestMetricsReference). -->

Each agent serves these at ` + "`/metrics`" + ` (` + "`--metrics-addr`" + `, by default on the pod's own loopback), beside those of Go, of the process and of
controller-runtime. All are about this member: nothing is said of another cluster but counts. A rollout that is gone loses its series.

For Prometheus to reach them, start the agent with ` + "`--metrics-addr=:8080`" + `; for ` + "`namespace`" + ` to be the rollout's and not the agent's, scrape with
` + "`honor_labels: true`" + `. A dashboard for Grafana and alerts are in [deploy/monitoring](../../deploy/monitoring).

| name | type | labels | meaning |
|---|---|---|---|
`)
	for _, f := range families {
		labels := map[string]bool{}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				labels["`"+l.GetName()+"`"] = true
			}
		}
		fmt.Fprintf(&page, "| `%s` | %s | %s | %s |\n", f.GetName(), strings.ToLower(f.GetType().String()), strings.Join(sortedKeys(labels), ", "), f.GetHelp())
	}
	return page.Bytes()
}

func TestMetricsReference(t *testing.T) {
	families, err := everything(t).registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	descs := make(chan *prometheus.Desc, 100)
	NewMetrics(newWorld(t).site("ams").Clock, "").Describe(descs)
	if len(families) != len(descs) {
		t.Errorf("%d metrics have a value, %d are declared: the page would lack some", len(families), len(descs))
	}
	golden := filepath.Join("..", "..", "..", "docs", "reference", "metrics.md")
	got := metricsPage(families)
	if os.Getenv("UPDATE_GOLDEN") == "1" {
		if err := os.MkdirAll(filepath.Dir(golden), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("run with UPDATE_GOLDEN=1 (-page +exported):\n%s", diff)
	}
}
