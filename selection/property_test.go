// SPDX-License-Identifier: Apache-2.0

package selection_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/selection"
)

func drawRoster(t *rapid.T) []fleet.Member {
	roster := make([]fleet.Member, rapid.IntRange(0, 12).Draw(t, "members"))
	for i := range roster {
		roster[i] = fleet.Member{
			Name:   fleet.Name(fmt.Sprintf("m-%d", i)),
			ID:     fleet.MemberID(fmt.Sprintf("id-%d", i)),
			Labels: drawLabels(t, 0),
		}
	}
	return roster
}

func drawLabels(t *rapid.T, least int) map[string]string {
	return rapid.MapOfN(rapid.SampledFrom([]string{"region", "ring", "tier"}), drawValue(), least, 3).Draw(t, "labels")
}

func drawValue() *rapid.Generator[string] { return rapid.SampledFrom([]string{"a", "b", "c"}) }

// drawSelector draws selectors of every form, among them strangers' names and empty ones, which are refused.
func drawSelector(t *rapid.T) v1alpha1.ClusterSelector {
	var s v1alpha1.ClusterSelector
	switch rapid.SampledFrom([]string{"all", "names", "labels", "expressions", "both"}).Draw(t, "form") {
	case "all":
		s.Names = []string{"*"}
	case "names":
		for _, i := range rapid.SliceOfNDistinct(rapid.IntRange(0, 12), 0, 6, rapid.ID[int]).Draw(t, "names") {
			s.Names = append(s.Names, fmt.Sprintf("m-%d", i))
		}
	case "labels":
		s.MatchLabels = drawLabels(t, 0)
	case "expressions":
		s.MatchExpressions = drawExpressions(t)
	case "both":
		s.MatchLabels, s.MatchExpressions = drawLabels(t, 1), drawExpressions(t)
	}
	return s
}

func drawExpressions(t *rapid.T) []metav1.LabelSelectorRequirement {
	var out []metav1.LabelSelectorRequirement
	for range rapid.IntRange(1, 3).Draw(t, "expressions") {
		e := metav1.LabelSelectorRequirement{
			Key: rapid.SampledFrom([]string{"region", "ring", "tier"}).Draw(t, "key"),
			Operator: rapid.SampledFrom([]metav1.LabelSelectorOperator{metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn,
				metav1.LabelSelectorOpExists, metav1.LabelSelectorOpDoesNotExist}).Draw(t, "operator"),
		}
		if e.Operator == metav1.LabelSelectorOpIn || e.Operator == metav1.LabelSelectorOpNotIn {
			e.Values = rapid.SliceOfN(drawValue(), 1, 3).Draw(t, "values")
		}
		out = append(out, e)
	}
	return out
}

func drawTargets(t *rapid.T) v1alpha1.Targets {
	targets := v1alpha1.Targets{ClusterSelector: drawSelector(t)}
	if rapid.Bool().Draw(t, "exclude") {
		s := drawSelector(t)
		targets.Exclude = &s
	}
	return targets
}

// takes is the naive reading of a selector, against which the real one is checked.
func takes(s *v1alpha1.ClusterSelector, m fleet.Member) bool {
	if len(s.Names) > 0 {
		return slices.Contains(s.Names, "*") || slices.Contains(s.Names, string(m.Name))
	}
	for k, v := range s.MatchLabels {
		if got, has := m.Labels[k]; !has || got != v {
			return false
		}
	}
	for _, e := range s.MatchExpressions {
		got, has := m.Labels[e.Key]
		holds := map[metav1.LabelSelectorOperator]bool{
			metav1.LabelSelectorOpIn:           has && slices.Contains(e.Values, got),
			metav1.LabelSelectorOpNotIn:        !has || !slices.Contains(e.Values, got),
			metav1.LabelSelectorOpExists:       has,
			metav1.LabelSelectorOpDoesNotExist: !has,
		}[e.Operator]
		if !holds {
			return false
		}
	}
	return true
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return fleet.ReasonOf(err, "?") + " " + err.Error()
}

func TestSelectAgreesWithTheNaiveReading(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		roster, targets := drawRoster(t), drawTargets(t)
		s, err := selection.Select(targets, roster)
		if err != nil && fleet.ReasonOf(err, "") != v1alpha1.ReasonNoTargets {
			if len(s.Members) > 0 || len(s.Verdicts) > 0 {
				t.Fatalf("a selection beside the error %v: %+v", err, s)
			}
			return
		}
		var want []string
		for _, m := range roster {
			if takes(&targets.ClusterSelector, m) && (targets.Exclude == nil || !takes(targets.Exclude, m)) {
				want = append(want, string(m.Name))
			}
		}
		slices.Sort(want)
		if diff := cmp.Diff(want, names(s.Members), cmp.Transformer("list", func(in []string) string { return fmt.Sprint(in) })); diff != "" {
			t.Fatalf("members (-want +got):\n%s", diff)
		}
		if (err != nil) != (len(want) == 0) {
			t.Fatalf("%d members and error %v", len(want), err)
		}
		if len(s.Verdicts) != len(roster) {
			t.Fatalf("%d verdicts for %d members", len(s.Verdicts), len(roster))
		}
		for _, v := range s.Verdicts {
			if v.In != slices.Contains(want, string(v.Member)) || v.Because == "" {
				t.Fatalf("verdict on %s: %q", v.Member, v)
			}
		}
	})
}

func TestOrderOfTheRosterChangesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		roster, targets := drawRoster(t), drawTargets(t)
		a, errA := selection.Select(targets, roster)
		b, errB := selection.Select(targets, rapid.Permutation(roster).Draw(t, "shuffled"))
		if diff := cmp.Diff(a, b); diff != "" || text(errA) != text(errB) {
			t.Fatalf("shuffled, it says something else: %s\n%v\n%v", diff, errA, errB)
		}
	})
}

func TestStarIsEveryMember(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		roster := drawRoster(t)
		s, err := selection.Select(v1alpha1.Targets{ClusterSelector: v1alpha1.ClusterSelector{Names: []string{"*"}}}, roster)
		if len(s.Members) != len(roster) || (err != nil) != (len(roster) == 0) {
			t.Fatalf("%d of %d members, error %v", len(s.Members), len(roster), err)
		}
	})
}
