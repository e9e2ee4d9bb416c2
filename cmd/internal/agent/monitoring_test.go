// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"sigs.k8s.io/yaml"
)

var monitoring = filepath.Join("..", "..", "..", "deploy", "monitoring")

// dashboard is what Grafana reads of a dashboard, as far as this one says it.
type dashboard struct {
	UID           string   `json:"uid"`
	Title         string   `json:"title"`
	Description   string   `json:"description"`
	Tags          []string `json:"tags"`
	SchemaVersion int      `json:"schemaVersion"`
	Version       int      `json:"version"`
	Editable      bool     `json:"editable"`
	Refresh       string   `json:"refresh"`
	Timezone      string   `json:"timezone"`
	Time          struct{ From, To string }
	Templating    struct {
		List []struct {
			Name, Label, Type string
			Query             any
			Datasource        *datasource
			Current           struct{}
			Refresh, Sort     int
			Hide              int
			Multi, IncludeAll bool
			AllValue          string
		}
	}
	Panels []panel
}

type datasource struct{ Type, UID string }

type panel struct {
	ID                       int
	Title, Type, Description string
	Datasource               datasource
	GridPos                  struct{ H, W, X, Y int }
	Targets                  []struct {
		RefID, Expr, LegendFormat, Format string
		Datasource                        datasource
		Instant, Range                    bool
	}
	FieldConfig              struct{ Defaults, Overrides any }
	Options, Transformations any
}

func readDashboard(t *testing.T) dashboard {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(monitoring, "dashboard.json"))
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&d); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestDashboard(t *testing.T) {
	d := readDashboard(t)
	var variables []string
	for _, v := range d.Templating.List {
		variables = append(variables, v.Name)
	}
	if got := strings.Join(variables, " "); got != "datasource namespace rollout" {
		t.Errorf("variables %s", got)
	}
	if len(d.Panels) == 0 || d.Panels[0].Type != "table" || d.Panels[0].GridPos.Y != 0 {
		t.Error("the table does not come first")
	}
	queries := newQueries(t)
	ids, cells := map[int]string{}, map[[2]int]string{}
	for _, p := range d.Panels {
		if other, taken := ids[p.ID]; taken || p.ID == 0 {
			t.Errorf("panel %q has id %d, like %q", p.Title, p.ID, other)
		}
		ids[p.ID] = p.Title
		if p.Title == "" || p.Description == "" || len(p.Targets) == 0 || p.GridPos.W < 1 || p.GridPos.H < 1 || p.GridPos.X < 0 || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %d is not whole: %+v", p.ID, p)
		}
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := cells[[2]int{x, y}]; other != "" {
					t.Fatalf("%q lies over %q at %d,%d", p.Title, other, x, y)
				}
				cells[[2]int{x, y}] = p.Title
			}
		}
		refs := map[string]bool{}
		for _, target := range p.Targets {
			if refs[target.RefID] || target.RefID == "" || target.Datasource != (datasource{"prometheus", "${datasource}"}) || p.Datasource != target.Datasource {
				t.Errorf("%q: target %+v", p.Title, target)
			}
			refs[target.RefID] = true
			queries.check(t, p.Title, target.Expr)
			for _, label := range legend.FindAllStringSubmatch(target.LegendFormat, -1) {
				if !queries.labels[label[1]] {
					t.Errorf("%q: legend names the label %s, which nothing has", p.Title, label[1])
				}
			}
		}
	}
	for name := range queries.exported {
		if !queries.asked[name] && !slices.Contains([]string{"flotilla_build_info", "flotilla_rollout_condition", "flotilla_rollout_stage_clusters"}, name) {
			t.Errorf("%s is on no panel", name)
		}
	}
}

func TestAlerts(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join(monitoring, "alerts.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var rule struct {
		APIVersion, Kind string
		Metadata         struct {
			Name, Namespace string
			Labels          map[string]string
		}
		Spec struct {
			Groups []struct {
				Name  string
				Rules []struct {
					Alert, Expr, For    string
					Labels, Annotations map[string]string
				}
			}
		}
	}
	if err := yaml.UnmarshalStrict(raw, &rule); err != nil {
		t.Fatal(err)
	}
	if rule.APIVersion != "monitoring.coreos.com/v1" || rule.Kind != "PrometheusRule" || len(rule.Spec.Groups) != 1 {
		t.Fatalf("%s %s, %d groups", rule.APIVersion, rule.Kind, len(rule.Spec.Groups))
	}
	queries := newQueries(t)
	seen := map[string]bool{}
	for _, r := range rule.Spec.Groups[0].Rules {
		if seen[r.Alert] || !strings.HasPrefix(r.Alert, "Flotilla") {
			t.Errorf("alert %q", r.Alert)
		}
		seen[r.Alert] = true
		if d, err := time.ParseDuration(r.For); err != nil || d < 5*time.Minute {
			t.Errorf("%s: for %q: a turn that is taken again would ring", r.Alert, r.For)
		}
		if !slices.Contains([]string{"info", "warning", "critical"}, r.Labels["severity"]) || r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
			t.Errorf("%s: %v %v", r.Alert, r.Labels, r.Annotations)
		}
		has := queries.check(t, r.Alert, r.Expr)
		for _, text := range r.Annotations {
			for _, label := range alertLabel.FindAllStringSubmatch(text, -1) {
				if !has[label[1]] {
					t.Errorf("%s: its text names the label %s, which the expression has not", r.Alert, label[1])
				}
			}
		}
	}
	if len(seen) < 5 {
		t.Errorf("%d alerts", len(seen))
	}
}

var (
	metricName = regexp.MustCompile(`flotilla_[a-z_]+`)
	selector   = regexp.MustCompile(`(flotilla_[a-z_]+)\{([^}]*)\}`)
	matcher    = regexp.MustCompile(`^([a-z_]+)(=~|!~|!=|=)"([^"]*)"$`)
	grouping   = regexp.MustCompile(`(?:by|on|group_left) \(([^)]*)\)`)
	legend     = regexp.MustCompile(`\{\{([a-z_]+)\}\}`)
	alertLabel = regexp.MustCompile(`\$labels\.([a-z_]+)`)
)

// queries are held against what the agent exports.
type queries struct {
	exported map[string]map[string]bool // label names by metric
	states   map[string]map[string]bool // "metric label" and its values
	labels   map[string]bool
	asked    map[string]bool
}

func newQueries(t *testing.T) *queries {
	t.Helper()
	families, err := everything(t).registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	q := &queries{exported: map[string]map[string]bool{}, states: map[string]map[string]bool{}, labels: map[string]bool{}, asked: map[string]bool{}}
	for _, f := range families {
		// Prometheus adds the first two.
		names := map[string]bool{"instance": true, "job": true}
		if f.GetType() == dto.MetricType_HISTOGRAM {
			names["le"] = true
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				names[l.GetName()] = true
				key := f.GetName() + " " + l.GetName()
				if q.states[key] == nil {
					q.states[key] = map[string]bool{}
				}
				q.states[key][l.GetValue()] = true
			}
		}
		q.exported[f.GetName()] = names
		for name := range names {
			q.labels[name] = true
		}
	}
	return q
}

// check an expression: metrics and labels that are exported, values that a state can have, and brackets that close. It
// returns the labels that its result may have.
func (q *queries) check(t *testing.T, where, expr string) map[string]bool {
	t.Helper()
	labels := map[string]bool{"instance": true}
	names := metricName.FindAllString(expr, -1)
	if len(names) == 0 {
		t.Errorf("%s: no metric in %s", where, expr)
	}
	for _, name := range names {
		base := name
		for _, suffix := range []string{"_bucket", "_count", "_sum"} {
			if cut := strings.TrimSuffix(name, suffix); q.exported[cut] != nil {
				base = cut
			}
		}
		if q.exported[base] == nil {
			t.Errorf("%s: %s is not exported", where, name)
		}
		q.asked[base] = true
		for label := range q.exported[base] {
			labels[label] = true
		}
	}
	for _, s := range selector.FindAllStringSubmatch(expr, -1) {
		base := strings.TrimSuffix(strings.TrimSuffix(s[1], "_bucket"), "_count")
		for _, part := range strings.Split(s[2], ",") {
			m := matcher.FindStringSubmatch(part)
			if len(m) < 2 || !q.exported[base][m[1]] {
				t.Errorf("%s: %s has no label that %s could match", where, s[1], part)
				continue
			}
			for _, value := range strings.Split(m[3], "|") {
				fixed := m[1] == "state" || m[1] == "result" || m[1] == "reason" && base == "flotilla_gate_wait_seconds"
				if known := fmt.Sprintf("%s %s", base, m[1]); fixed && !q.states[known][value] && !gateReasons[value] {
					t.Errorf("%s: %s is never %q", where, known, value)
				}
			}
		}
	}
	for _, g := range grouping.FindAllStringSubmatch(expr, -1) {
		for _, label := range strings.Split(g[1], ", ") {
			if !labels[label] {
				t.Errorf("%s: groups by %s, which none of its metrics has", where, label)
			}
		}
	}
	for _, pair := range []string{"()", "{}", "[]"} {
		if strings.Count(expr, pair[:1]) != strings.Count(expr, pair[1:]) {
			t.Errorf("%s: %s does not close in %s", where, pair, expr)
		}
	}
	return labels
}

// gateReasons that waitsOf gives, and the error of a turn, which the fleet of the test does not all see.
var gateReasons = map[string]bool{"stage": true, "slot": true, "stop": true, "degraded": true, "error": true}
