// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/cmd/internal/agent/turn"
	"github.com/flotilla-dev/flotilla/delivery"
	"github.com/flotilla-dev/flotilla/sequencer"
	"github.com/flotilla-dev/flotilla/source/sourcetest"
)

// migrating is a payload whose Job has to be complete before the rest is applied.
func migrating(image string) fs.FS {
	return sourcetest.Txtar(strings.ReplaceAll(`
-- app/migrate.yaml --
apiVersion: batch/v1
kind: Job
metadata: {name: migrate, annotations: {fleet.flotilla.dev/wave: "-1", fleet.flotilla.dev/force: enabled}}
spec: {template: {spec: {restartPolicy: Never, containers: [{name: migrate, image: "web:IMAGE"}]}}}
-- app/web.yaml --
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec: {template: {spec: {containers: [{name: web, image: "web:IMAGE"}]}}}
`, "IMAGE", image))
}

var migrateID = delivery.ObjectID{Group: "batch", Version: "v1", Kind: "Job", Namespace: "shop", Name: "migrate"}

// waveWorld has one member, whose cluster's health is what is there.
func waveWorld(t *testing.T) (*world, *site) {
	w := newWorld(t)
	w.members = w.members[:1]
	w.spec.Strategy.Stages = w.spec.Strategy.Stages[:1]
	w.seal()
	ams := w.site("ams")
	ams.cluster.HealthOf = nil
	return w, ams
}

func TestReleaseInWaves(t *testing.T) {
	w, ams := waveWorld(t)
	w.git.Commit("main", migrating("1"))
	w.turns(10 * time.Second)
	w.want("ams=")
	if r := &ams.last; r.Outcome.Waiting == "" || r.Next <= 0 || r.Next > 5*time.Second || r.Phase() != turn.PhaseChecking || !strings.Contains(r.Because(), "Job shop/migrate: is not complete") {
		t.Errorf("waits for %q, next turn in %s, %s: %s", r.Outcome.Waiting, r.Next, r.Phase(), r.Because())
	}
	ams.cluster.Finish(migrateID, false)
	w.turns(20 * time.Second)
	w.want("ams=1")
	if !w.said("ams", "ams", fleet.Succeeded) {
		t.Error("not succeeded")
	}
	writes := ams.cluster.Writes()
	w.turns(20 * time.Second)
	if n := ams.cluster.Writes(); n != writes {
		t.Errorf("%d writes at rest", n-writes)
	}
}

// TestWaveThatFails: the Job's failure ends the attempt at once, nothing after it is applied, and the member gives up only
// when its last good release is back, wave by wave.
func TestWaveThatFails(t *testing.T) {
	w, ams := waveWorld(t)
	w.git.Commit("main", migrating("1"))
	w.turns(3 * time.Second)
	ams.cluster.Finish(migrateID, false)
	w.turns(20 * time.Second)
	w.want("ams=1")
	w.git.Commit("main", migrating("2"))
	runs := func(image string) bool {
		o := ams.cluster.Get(migrateID)
		return o != nil && strings.Contains(fmt.Sprint(o.Object), "web:"+image)
	}
	for attempt := 1; attempt <= 2; attempt++ {
		began := w.now
		for !runs("2") {
			if w.now-began > 2*time.Minute {
				t.Fatal("never tried again")
			}
			w.turns(time.Second)
		}
		ams.cluster.Finish(migrateID, true)
		w.turns(3 * time.Second)
		w.want("ams=1")
		if !w.said("ams", "ams", fleet.Failed) || !runs("1") {
			t.Fatalf("attempt %d: not failed, or not taken back", attempt)
		}
		if attempt == 1 {
			ams.cluster.Finish(migrateID, false)
		}
	}
	w.turns(time.Minute)
	if ams.last.Promise.Progress.Phase != sequencer.Resigned || w.said("ams", "ams", fleet.GaveUp) {
		t.Fatalf("phase %s; gave up before the last good release was back", ams.last.Promise.Progress.Phase)
	}
	ams.cluster.Finish(migrateID, false)
	w.turns(10 * time.Second)
	if !w.said("ams", "ams", fleet.GaveUp) {
		t.Fatal("GaveUp was not said")
	}
	for _, f := range ams.ledger().History(ams.last.Plan.Digest, ams.member.ID) {
		if f.Kind == fleet.GaveUp && f.Detail != "restored: true" {
			t.Errorf("GaveUp says %q", f.Detail)
		}
	}
	w.want("ams=1")
}
