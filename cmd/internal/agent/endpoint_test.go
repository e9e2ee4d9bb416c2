// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/cmd/internal/readapi"
	"github.com/flotilla-dev/flotilla/delivery"
	"github.com/flotilla-dev/flotilla/sequencer"
)

// controllerOf a site that took its turns without one.
func controllerOf(s *site) *Controller {
	c := NewController()
	c.Agent, c.Ledger = s.Agent, s.ledger()
	c.Heard = func() Heard { return Heard{} }
	c.NameOf = func(id fleet.MemberID) fleet.Name {
		for _, m := range s.world.members {
			if m.member.ID == id {
				return m.member.Name
			}
		}
		return ""
	}
	c.reports[s.world.name] = s.last
	return c
}

// TestPastOfEarlierReleases: what went through the fleet before is found in the records, also by an agent that
// has just started and took no turn on it.
func TestPastOfEarlierReleases(t *testing.T) {
	w := released(t)
	w.git.Commit("main", files("2"))
	w.turns(3 * time.Minute)
	nyc := w.site("nyc")
	last := nyc.last
	nyc.restart()
	nyc.last = last
	// Another rollout's plan, and one that nobody can place.
	for _, f := range []fleet.Fact{
		{Plan: fleet.DigestOf("other"), Kind: fleet.Accepted, Detail: "main@sha1:1"},
		{Plan: fleet.DigestOf("strange"), Kind: fleet.Started},
	} {
		r, err := nyc.Prepare(fleet.KindFact, fleet.FactKey(f.Plan, f.Kind), f.Encode())
		if err != nil {
			t.Fatal(err)
		}
		nyc.learn(r)
	}
	v := &pastView{control: controllerOf(nyc)}
	v.note()
	releases := v.Releases(w.name)
	if len(releases.Items) != 2 || releases.SeenFrom != "nyc" {
		t.Fatalf("%+v", releases)
	}
	for i, r := range releases.Items {
		if r.Clusters != 4 || r.Succeeded != 4 || r.Failed != 0 || r.Completed.IsZero() || r.Completed.Before(r.Started) || r.Started.Before(r.Accepted) {
			t.Errorf("%d: %+v", i, r)
		}
		if r.Current != (i == 0) || r.Seal != w.sealed.Digest() || !strings.HasPrefix(string(r.Revision), "main@") {
			t.Errorf("%d: %+v", i, r)
		}
	}
	events, err := v.Events(w.name, readapi.EventQuery{})
	if err != nil {
		t.Fatal(err)
	}
	want := 0
	for _, r := range nyc.records {
		if f, err := fleet.DecodeFact(&r); err == nil && f.Plan != fleet.DigestOf("other") && f.Plan != fleet.DigestOf("strange") {
			want++
		}
	}
	if len(events.Items) != want || want < 2*4*3 {
		t.Errorf("%d events of %d records", len(events.Items), want)
	}
	for _, e := range events.Items {
		if _, held := nyc.records[e.ID]; !held || e.Stage == "" || e.Member == "" || e.Revision == "" {
			t.Errorf("%+v", e)
		}
	}
	if commands, err := v.Events(w.name, readapi.EventQuery{Commands: true}); err != nil || len(commands.Items) != 0 {
		t.Errorf("%+v %v", commands, err)
	}
	none := fleet.RolloutName{Namespace: "shop", Name: "none"}
	if out := v.Releases(none); len(out.Items) != 0 {
		t.Errorf("of nothing: %+v", out)
	}
}

// TestPastOfAnotherSeal: the releases of an earlier seal are known as far as somebody still names it.
func TestPastOfAnotherSeal(t *testing.T) {
	w := released(t)
	before := w.sealed.Digest()
	w.site("nyc").cut = true // its status names the old seal for as long as it is away
	w.number++
	w.spec.Strategy.MinReadyTime = nil
	w.seal()
	w.turns(time.Minute)
	ams := w.site("ams")
	out := (&pastView{control: controllerOf(ams)}).Releases(w.name).Items
	if len(out) != 2 || out[0].Seal != w.sealed.Digest() || out[1].Seal != before {
		t.Fatalf("%+v", out)
	}
	if out[0].Clusters != 4 || out[1].Clusters != 0 || out[1].Succeeded != 4 {
		t.Errorf("%+v", out)
	}
}

// TestSubjectsGoBy: of an earlier release the commit's subject is known where this agent saw it.
func TestSubjectsGoBy(t *testing.T) {
	w := released(t)
	v := &pastView{control: controllerOf(w.site("ams"))}
	report := w.site("ams").last
	report.Subject = "the first\x1b[31m"
	v.control.reports[w.name] = report
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	v.follow(ctx, nil)
	w.git.Commit("main", files("2"))
	w.look()
	w.turns(10 * time.Second)
	report = w.site("ams").last
	report.Subject = "the second"
	v.control.reports[w.name] = report
	v.note()
	var got []string
	for _, r := range v.Releases(w.name).Items {
		got = append(got, r.Subject)
	}
	if diff := cmp.Diff([]string{"the second", "the first [31m"}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// inventories of a test.
type inventories struct {
	inventory delivery.Inventory
	err       error
}

func (i inventories) Inventory(context.Context, fleet.RolloutName) (delivery.Inventory, error) {
	return i.inventory, i.err
}

func TestObjectsHere(t *testing.T) {
	deployment := func(name string) delivery.ObjectID {
		return delivery.ObjectID{Group: "apps", Version: "v1", Kind: "Deployment", Namespace: "shop", Name: name}
	}
	secret := delivery.ObjectID{Version: "v1", Kind: "Secret", Namespace: "shop", Name: "token"}
	strange := delivery.ObjectID{Group: "gone.example", Version: "v1", Kind: "Gone", Name: "x"}
	kinds := meta.NewDefaultRESTMapper(nil)
	kinds.Add(schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "Deployment"}, meta.RESTScopeNamespace)
	kinds.Add(schema.GroupVersionKind{Version: "v1", Kind: "Secret"}, meta.RESTScopeNamespace)
	is := func(id delivery.ObjectID, state delivery.HealthState, because string) delivery.ObjectHealth {
		return delivery.ObjectHealth{Object: id, State: state, Because: because}
	}
	a, b, c := deployment("a"), deployment("b"), secret
	for name, test := range map[string]struct {
		health delivery.Health
		want   string // health of each object
	}{
		"well": {delivery.Sum([]delivery.ObjectHealth{
			is(a, delivery.Healthy, ""), is(b, delivery.Healthy, ""), is(c, delivery.Healthy, ""),
		}), "Healthy, Healthy, Healthy, "},
		"one is not": {delivery.Sum([]delivery.ObjectHealth{
			is(a, delivery.Healthy, ""), is(b, delivery.Progressing, "no image; back-off: pulling"), is(c, delivery.Healthy, ""),
		}), "Healthy, NotReady no image; back-off: pulling, Healthy, "},
		"each has its own word": {delivery.Sum([]delivery.ObjectHealth{
			is(a, delivery.Failed, "x"), is(b, delivery.Progressing, "y"), is(c, delivery.Progressing, "is not there"),
		}), "Failed x, NotReady y, NotReady is not there, "},
		"delivered since the look": {delivery.Sum([]delivery.ObjectHealth{
			is(deployment("old"), delivery.Failed, "x"), is(b, delivery.Healthy, ""),
		}), ", Healthy, , "},
		"nobody looked":               {delivery.Health{}, ", , , "},
		"something went wrong before": {delivery.Health{Because: "nothing has been delivered yet"}, ", , , "},
	} {
		w := released(t)
		control := controllerOf(w.site("ams"))
		report := w.site("ams").last
		report.Health = test.health
		control.reports[w.name] = report
		v := &clusterView{control: control, kinds: kinds, inventories: inventories{inventory: delivery.Inventory{
			Rollout: w.name, Revision: "main@sha1:1", Objects: []delivery.ObjectID{deployment("a"), deployment("b"), secret}, Left: []delivery.ObjectID{strange},
		}}}
		out, err := v.Objects(t.Context(), w.name)
		if err != nil || len(out.Items) != 4 || out.Delivered != 3 || out.Ready != test.health.Ready || out.Member != "ams" {
			t.Fatalf("%s: %+v %v", name, out, err)
		}
		var got []string
		for _, o := range out.Items {
			got = append(got, strings.TrimSpace(o.Health+" "+o.Because))
		}
		if strings.Join(got, ", ") != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
		if out.Items[0].Resource != "deployments" || out.Items[2].Resource != "secrets" || out.Items[3].Resource != "" || !out.Items[3].Left {
			t.Errorf("%s: %+v", name, out.Items)
		}
		report.Trouble = map[string]error{v1alpha1.ConditionAvailable: errors.New("web may not get Deployments")}
		control.reports[w.name] = report
		if out, err := v.Objects(t.Context(), w.name); err != nil || out.Because != "web may not get Deployments" {
			t.Errorf("%s: because %q, %v", name, out.Because, err)
		}
		v.inventories = inventories{err: errors.New("away")}
		if _, err := v.Objects(t.Context(), w.name); err == nil || !strings.Contains(err.Error(), w.name.String()) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// BenchmarkPast of five rollouts with ten releases each, in a fleet of a thousand: what one look at the history reads.
func BenchmarkPast(b *testing.B) {
	l := NewMeshLedger(nil)
	var name fleet.RolloutName
	var known []sequencer.Release
	for r := range 5 {
		name = fleet.RolloutName{Namespace: "apps", Name: fmt.Sprint(r)}
		seal := fleet.DigestOf("seal", []byte(name.Name))
		known = []sequencer.Release{{Seal: seal, Number: 1}}
		for n := range 10 {
			release := sequencer.Release{Seal: seal, Revision: fleet.Revision(fmt.Sprintf("main@sha1:%d", n))}
			for m := range 1000 {
				for kind := fleet.Accepted; kind <= fleet.Soaked; kind++ {
					member := fleet.MemberID(fmt.Sprint(m))
					entry(l.facts, member)[factKey{release.Plan(), kind}] = said{fact: fleet.Fact{Plan: release.Plan(), Member: member, Kind: kind, Detail: string(release.Revision)}}
				}
			}
		}
	}
	for b.Loop() {
		if past := l.past(name, known); len(past) != 10 || len(past[0].Facts) != 4000 {
			b.Fatal(len(past))
		}
	}
}
