// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/sequencer"
)

// condition of the site's last turn, as the endpoint and the object have it.
func (s *site) condition(kind string) metav1.Condition {
	s.world.t.Helper()
	c := meta.FindStatusCondition(controllerOf(s).reading(s.world.name, &s.last).Conditions, kind)
	if c == nil {
		s.world.t.Fatalf("%s: no condition %s", s.member.Name, kind)
	}
	return *c
}

// course of Available, turn by turn, without repetitions.
func (s *site) course(span time.Duration) (reasons []string) {
	for end := s.world.now + span; s.world.now < end; {
		s.world.turns(time.Second)
		if c := s.condition(v1alpha1.ConditionAvailable); len(reasons) == 0 || reasons[len(reasons)-1] != c.Reason {
			reasons = append(reasons, c.Reason)
		}
	}
	return reasons
}

// TestAvailableOfAReleaseThatFails: while the attempts at a release fail, and for good once none is left, the member
// says so, whatever it runs meanwhile.
func TestAvailableOfAReleaseThatFails(t *testing.T) {
	w := released(t)
	ams := w.site("ams")
	ams.bad["web:2-bad"] = true
	good := ams.last.Promise.Installed.Release.Revision.Short()
	bad := w.git.Commit("main", files("2-bad")).Short()
	w.look()
	want := []string{
		v1alpha1.ReasonChecking, v1alpha1.ReasonProgressDeadlineExceeded,
		v1alpha1.ReasonChecking, v1alpha1.ReasonProgressDeadlineExceeded, v1alpha1.ReasonGaveUp,
	}
	if diff := cmp.Diff(want[:2], withoutFirst(ams.course(40*time.Second), v1alpha1.ReasonHealthy)); diff != "" {
		t.Fatalf("-want +got:\n%s", diff)
	}
	c := ams.condition(v1alpha1.ConditionAvailable)
	if words := bad + ": attempt 1 failed: not healthy within 30s: 0 of 1 ready; it runs " + good + ", 1 of 1 objects ready"; c.Message != words || c.Status != metav1.ConditionFalse {
		t.Errorf("%s: %q, want %q", c.Status, c.Message, words)
	}
	if diff := cmp.Diff(want[2:], withoutFirst(ams.course(3*time.Minute), v1alpha1.ReasonProgressDeadlineExceeded)); diff != "" {
		t.Fatalf("-want +got:\n%s", diff)
	}
	gaveUp := bad + ": no attempt is left after 2: not healthy within 30s: 0 of 1 ready; it runs " + good + ", 1 of 1 objects ready"
	if c = ams.condition(v1alpha1.ConditionAvailable); c.Message != gaveUp || c.Status != metav1.ConditionFalse {
		t.Errorf("%s: %q, want %q", c.Status, c.Message, gaveUp)
	}
	if c := w.site("fra").condition(v1alpha1.ConditionAvailable); c.Reason != v1alpha1.ReasonHealthy {
		t.Errorf("fra, which started nothing: %s", c.Reason)
	}
	ams.restart()
	ams.turn()
	if c = ams.condition(v1alpha1.ConditionAvailable); c.Message != gaveUp {
		t.Errorf("after a restart: %q", c.Message)
	}
	w.git.Commit("main", files("3"))
	w.look()
	if got := ams.course(90 * time.Second); got[len(got)-1] != v1alpha1.ReasonHealthy {
		t.Errorf("after a fix: %v", got)
	}
	if f := ams.last.Promise.Failure; f != nil {
		t.Errorf("remembered after a success: %+v", f)
	}
}

func withoutFirst(list []string, first string) []string {
	if len(list) > 0 && list[0] == first {
		return list[1:]
	}
	return list
}

// TestAvailableOfAHopelessRelease: what says that it will not get well has not run out of time.
func TestAvailableOfAHopelessRelease(t *testing.T) {
	w, ams := waveWorld(t)
	w.git.Commit("main", migrating("1"))
	w.turns(3 * time.Second)
	ams.cluster.Finish(migrateID, true)
	w.turns(3 * time.Second)
	c := ams.condition(v1alpha1.ConditionAvailable)
	if c.Reason != v1alpha1.ReasonFailed || !strings.Contains(c.Message, "attempt 1 failed: Job shop/migrate: failed: ") || !strings.HasSuffix(c.Message, "; there is no earlier release to go back to") {
		t.Errorf("%s: %q", c.Reason, c.Message)
	}
}

// TestAvailableOfARestoredAPI: what was said to the fleet is true also where the promise is lost.
func TestAvailableOfARestoredAPI(t *testing.T) {
	s := sightOf(2, "", sequencer.HasGivenUp, backTo(1))
	s.Promise.Progress = sequencer.Progress{}
	if c := available(&s.Report); c.Reason != v1alpha1.ReasonGaveUp || c.Message != "main@2: no attempt is left; it runs main@1" {
		t.Errorf("%s: %q", c.Reason, c.Message)
	}
}

// TestSealedNamesOverridesForNobody: a slip in a member's name is seen on every member, not only by whoever lints.
func TestSealedNamesOverridesForNobody(t *testing.T) {
	w := newWorld(t)
	w.spec.Specialize = &v1alpha1.Specialize{Overrides: []v1alpha1.Override{
		{Name: "far", ClusterSelector: v1alpha1.ClusterSelector{Names: []string{"amz"}}}, {Name: "near", ClusterSelector: v1alpha1.ClusterSelector{Names: []string{"ams"}}},
	}}
	w.seal()
	w.git.Commit("main", files("1"))
	w.turns(time.Second)
	c := w.site("nyc").condition(v1alpha1.ConditionSealed)
	for _, words := range []string{"4 members by test, number 2; among these members: ", "spec.specialize.overrides[far].names: amz is not a member (nearest: ams"} {
		if !strings.Contains(c.Message, words) {
			t.Errorf("%q does not say %q", c.Message, words)
		}
	}
	if strings.Contains(c.Message, "overrides[near]") || c.Status != metav1.ConditionTrue {
		t.Errorf("%s: %q", c.Status, c.Message)
	}
	w.spec.Specialize = nil
	w.seal()
	w.turns(time.Second)
	if c := w.site("nyc").condition(v1alpha1.ConditionSealed); c.Message != "4 members by test, number 3" {
		t.Errorf("%q", c.Message)
	}
}
