// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/cmd/internal/agent"
)

// TestSignals: what a real agent, under its own role, says on /metrics and in events.
func TestSignals(t *testing.T) {
	o := startOne(t)
	o.stop()
	o.config.MetricsAddr = freeAddress(t)
	o.startAgent()
	r := o.hello()
	o.awaitReason(r, v1alpha1.ConditionAvailable, v1alpha1.ReasonHealthy)
	o.must(o.member.Client.CoreV1().ConfigMaps("hello").Delete(t.Context(), "hello", metav1.DeleteOptions{}))
	o.awaitGreeting("hello, cluster")
	o.await("the events", func() error {
		events, err := o.member.Client.EventsV1().Events("hello").List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		var reasons []string
		for _, e := range events.Items {
			if e.Regarding.Kind != "FleetRollout" || e.Regarding.UID != r.UID {
				continue
			}
			reasons = append(reasons, e.Reason)
			if e.Annotations[agent.AnnotationRevision] != r.Status.Release.Revision || e.ReportingController != "flotilla-agent" {
				t.Errorf("%s: annotations %v, by %s", e.Reason, e.Annotations, e.ReportingController)
			}
			if e.Series != nil {
				t.Errorf("%s: said %d times", e.Reason, e.Series.Count)
			}
		}
		slices.Sort(reasons)
		if got := strings.Join(reasons, " "); !strings.HasPrefix(got, "Delivered Healed ReleaseAccepted ") || !strings.Contains(got, "Started") {
			return fmt.Errorf("%s", got)
		}
		return nil
	})
	o.await("the metrics", func() error {
		response, err := http.Get("http://" + o.config.MetricsAddr + "/metrics")
		if err != nil {
			return err
		}
		defer response.Body.Close()
		parser := expfmt.NewTextParser(model.UTF8Validation)
		families, err := parser.TextToMetricFamilies(response.Body)
		if err != nil {
			return err
		}
		for name, atLeast := range map[string]float64{
			"flotilla_build_info": 1, "flotilla_rollout_info": 1, "flotilla_apply_objects_total": 1, "flotilla_member_info": 1,
			"flotilla_fetch_duration_seconds": 1, "flotilla_render_duration_seconds": 1, "flotilla_reconcile_duration_seconds": 1,
			"go_goroutines": 1, "controller_runtime_reconcile_total": 1,
		} {
			sum := 0.0
			for _, m := range families[name].GetMetric() {
				sum += m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
			if sum < atLeast {
				return fmt.Errorf("%s is %v", name, sum)
			}
		}
		return nil
	})
	o.must(o.client.Delete(t.Context(), r))
	o.must(o.member.Client.CoreV1().ConfigMaps("hello").Delete(t.Context(), "hello", metav1.DeleteOptions{}))
}

// freeAddress of the loopback: the port was free a moment ago.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
