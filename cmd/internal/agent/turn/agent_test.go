// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/sequencer"
	"github.com/flotilla-dev/flotilla/source"
	"github.com/flotilla-dev/flotilla/specialize"
)

// A version that was delivered once stays what it was, wherever its tag is moved (R1).
func TestMovedVersionIsNotFollowed(t *testing.T) {
	const was, is = fleet.Revision("1.2.0@sha1:aaaaaaaaaaaa"), fleet.Revision("1.2.0@sha1:bbbbbbbbbbbb")
	tag := source.Origin{Source: v1alpha1.Source{Git: &v1alpha1.GitSource{Ref: &v1alpha1.GitRef{Tag: "1.2.0"}}}}
	chart := source.Origin{Source: v1alpha1.Source{Helm: &v1alpha1.HelmSource{}}}
	branch := source.Origin{Source: v1alpha1.Source{Git: &v1alpha1.GitSource{}}}
	for _, c := range []struct {
		origin   source.Origin
		is       fleet.Revision
		reason   string
		sentence string
	}{
		{tag, is, v1alpha1.ReasonVersionMoved, "1.2.0 was moved: it was 1.2.0@aaaaaaa when it was accepted here, and is 1.2.0@bbbbbbb now"},
		{chart, is, v1alpha1.ReasonVersionMoved, "was moved"},
		{branch, "main@sha1:bbbbbbbbbbbb", v1alpha1.ReasonNotDescending, "force-push?"},
		{tag, "1.1.0@sha1:bbbbbbbbbbbb", v1alpha1.ReasonNotDescending, "does not descend"},
	} {
		err := notFollowed(c.origin, was, c.is)
		if fleet.ReasonOf(err, "") != c.reason || !strings.Contains(err.Error(), c.sentence) || fleet.KindOf(err) != fleet.Refused {
			t.Errorf("%s: %v", c.is, err)
		}
	}
}

// TestDefaultsAreOfOneTable: what the agent acts on where nothing is written is what the API says, field by field.
func TestDefaultsAreOfOneTable(t *testing.T) {
	var nothing v1alpha1.FleetRolloutSpec
	table, err := nothing.Settings("web")
	if err != nil {
		t.Fatal(err)
	}
	says := func(field string) string {
		at := slices.IndexFunc(table, func(s v1alpha1.Setting) bool { return s.Field == field })
		if at < 0 {
			t.Fatalf("%s is not in the table", field)
		}
		return table[at].Value
	}
	length := func(field string) time.Duration {
		d, err := time.ParseDuration(says(field))
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	want := Settings{
		SourceInterval: length("spec.source.interval"), SourceTimeout: length("spec.source.timeout"),
		DeliveryInterval: length("spec.delivery.interval"), RetryInterval: length("spec.delivery.retryInterval"),
	}
	if diff := cmp.Diff(want, SettingsOf(nothing)); diff != "" || want.SourceTimeout == 0 {
		t.Errorf("-table +agent:\n%s", diff)
	}
	if got, want := AccountOf(nothing.Delivery), says("spec.delivery.serviceAccountName"); got != want || got == "" {
		t.Errorf("account %q, want %q", got, want)
	}
	// A sealed spec has no intervals, and one that is written says what it says.
	every := &v1alpha1.Duration{Duration: metav1.Duration{Duration: 7 * time.Second}}
	written := v1alpha1.FleetRolloutSpec{
		Suspend: true, Source: v1alpha1.Source{Interval: every, Timeout: every},
		Delivery: v1alpha1.Delivery{Interval: every, RetryInterval: every, ServiceAccountName: "web"},
	}
	const seven = 7 * time.Second
	if got := SettingsOf(written); got != (Settings{true, seven, seven, seven, seven}) {
		t.Errorf("%+v", got)
	}
	if got := AccountOf(written.Delivery); got != "web" {
		t.Errorf("account %q", got)
	}
	r := (&turn{Agent: &Agent{}, name: fleet.RolloutName{Namespace: "shop", Name: "web"}}).ready(&Installed{}, specialize.Manifest{})
	if !r.Prune || r.MaxPruneObjects != 10 || r.MaxPrunePercent != 50 || r.ServiceAccount != "flotilla" {
		t.Errorf("%+v", r.Release)
	}
	if p := pace(&sequencer.Stage{}, v1alpha1.Delivery{}, 0); p.Retries != sequencer.DefaultRetries {
		t.Errorf("%d retries", p.Retries)
	}
}
