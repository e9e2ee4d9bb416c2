// SPDX-License-Identifier: Apache-2.0

package specialize

import (
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

func TestExpressions(t *testing.T) {
	for expression, want := range map[string]string{
		"cluster.name":                    "store-12",
		"cluster.zone":                    "fr-par-1",
		"cluster.labels['region']":        "eu",
		"cluster.labels.region":           "eu",
		"cluster.labels[?'x'].orValue(1)": "", // no optional types
		"'x' in cluster.labels":           "false",
		"'x' in cluster.labels ? cluster.labels['x'] : 'web'": "web",
		"has(cluster.labels.ring) && cluster.zone != ''":      "true",
		"cluster.labels.size()":                               "11",
		"1.5 * 2.0":                                           "3",
		"1e21":                                                "1000000000000000000000",
		"0.1":                                                 "0.1",
		"7u":                                                  "7",
		"-3":                                                  "-3",
		"int(cluster.name.split('-')[1]) % 5":                 "2",
		"cluster.name.startsWith('store') ? 'store' : 'hub'": "store",
		"cluster.name.matches('^store-[0-9]+$')":             "true",
		"cluster.labels.exists(k, k == 'ring')":              "true",
		"cluster.labels.map(k, k).join(' ')":                 "a-b a.b dot dots empty example.com/kind region ring slash up version",
		"cluster.zone.upperAscii()":                          "FR-PAR-1",
		"''":                                                 "",
	} {
		e, err := compile(v1alpha1.Variable{Name: "x", Expression: expression})
		if strings.Contains(expression, "orValue") {
			if err == nil {
				t.Errorf("%s: compiles", expression)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", expression, err)
			continue
		}
		for range 20 { // the labels are gone through in the same order each time
			if got, err := e.of(store12); err != nil || got != want {
				t.Fatalf("%s is %q, %v, want %q", expression, got, err, want)
			}
		}
	}
}

// TestEachOnce: a variable that many texts name is evaluated for one render once, and for the next anew.
func TestEachOnce(t *testing.T) {
	in := Input{Member: store12, Spec: &v1alpha1.Specialize{Variables: []v1alpha1.Variable{{Name: "x", Expression: "cluster.name"}}}}
	known, err := in.evaluate()
	if err != nil {
		t.Fatal(err)
	}
	in.variables = known
	in.Member.Name = "another" // whoever evaluates again sees it
	if got, err := in.fill("${x}${x}"); err != nil || got != "store-12store-12" {
		t.Errorf("got %q, %v", got, err)
	}
	in.variables = nil
	if got, err := in.fill("${x}"); err != nil || got != "another" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestFillAnyText(t *testing.T) {
	in := Input{Member: store12, Spec: &v1alpha1.Specialize{Variables: []v1alpha1.Variable{{Name: "tier", Expression: "'a/../b: ${CLUSTER}'"}}}}
	for template, want := range map[string]string{
		"${tier}":           "a/../b: ${CLUSTER}",
		"$${tier}":          "${tier}",
		"$${${CLUSTER}":     "${store-12",
		"${LABEL_up}":       "../us",
		"$tier $$ {tier} }": "$tier $$ {tier} }",
		"${CLUSTER":         "!${CLUSTER: ${CLUSTER has no closing }",
		"${teir}":           "!${teir}: there is no variable ${teir} (there are: ${tier}, ${CLUSTER}, ${ZONE}, ${LABEL_<key>})",
	} {
		got, err := in.fill(template)
		if says, fails := strings.CutPrefix(want, "!"); fails {
			if err == nil || err.Error() != says || fleet.ReasonOf(err, "") != v1alpha1.ReasonVariableUnknown {
				t.Errorf("fill(%q): got %v, want %s", template, err, says)
			}
			continue
		}
		if err != nil || got != want {
			t.Errorf("fill(%q) = %q, %v, want %q", template, got, err, want)
		}
	}
	if _, err := in.fillPath("${tier}"); fleet.ReasonOf(err, "") != v1alpha1.ReasonPathVariable {
		t.Errorf("in a path: got %v", err)
	}
}

// FuzzExpression: whatever an expression says, it ends, the same way each time.
func FuzzExpression(f *testing.F) {
	for _, seed := range []string{
		"cluster.name", "cluster.labels['region']", "cluster.labels.map(k, k).join(',')", "1/0", "int('x')", "[1,2,3][9]",
		"cluster.labels.all(k, k.matches('(a+)+$'))", "'x'.replace('', 'yyyy')", "'%s'.format([cluster.labels])",
		"b'\\xff'", "{'a': 1}.a", "\"\\u0000\"", "cluster.labels.map(k, cluster.labels.map(j, j + k)).size()", "dyn(1)", "dyn([1])", "type(1) == int",
		"'a'.substring(9)", "((((((((((1))))))))))", "1 + 9223372036854775807", "-9223372036854775808 / -1",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		e, err := compile(v1alpha1.Variable{Name: "x", Expression: text})
		if err != nil {
			if fleet.KindOf(err) != fleet.Terminal || len(err.Error()) > 2*mostSaid {
				t.Fatalf("%q: not a terminal error of some length: %v", text, err)
			}
			return
		}
		first, err := e.of(store12)
		again, errAgain := e.of(fleet.Member{Name: store12.Name, Zone: store12.Zone, Labels: maps.Clone(store12.Labels)})
		if first != again || (err == nil) != (errAgain == nil) || len(first) > maxVariable {
			t.Fatalf("%q gives %q, %v and %q, %v", text, first, err, again, errAgain)
		}
		if located := (*fleet.Error)(nil); err != nil && !errors.As(err, &located) {
			t.Fatalf("%q: %v has no reason", text, err)
		}
	})
}
