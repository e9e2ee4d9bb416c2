// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
	"sigs.k8s.io/yaml"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// asText is a listing for comparisons.
func (l listing) asText() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%t %v", l.found, l.others)
	for _, o := range l.offers {
		fmt.Fprintf(&b, "\n%s %s %v", o.text, o.digest, o.urls)
	}
	return b.String()
}

const sum1 = "1a11111111111111111111111111111111111111111111111111111111111111"

func TestParseIndex(t *testing.T) {
	for _, tc := range []struct{ name, index, want string }{
		{"as helm writes it", `
apiVersion: v1
entries:
  alpine:
  - version: 9.0.0
  podinfo:
  - created: "2026-01-01T00:00:00Z"
    digest: ` + sum1 + `
    description: |
      two lines:
        nginx:
      - version: 7.7.7
    maintainers:
    - name: podinfo
    urls:
    - https://example.com/podinfo-1.0.0.tgz
    version: 1.0.0
  - digest: sha256:` + strings.ToUpper(sum1) + `
    version: 0.9.0
  zz:
  - version: 8.0.0
generated: "2026-01-01T00:00:00Z"
`, "true []\n1.0.0 " + sum1 + " [https://example.com/podinfo-1.0.0.tgz]\n0.9.0 " + sum1 + " []"},
		{"more indented", "entries:\n    podinfo:\n        - version: 1.0.0\n          urls: [a, b]\n\n        # the old one\n        -   version: 0.9.0\n    other:\n        - version: 2.0.0\n", "true []\n1.0.0  [a b]\n0.9.0  []"},
		{"quoted, last, no end of line", "entries:\n  \"other\":\n    - version: 1.0.0\n  'podinfo':\n    - version: 1.0.0", "true []\n1.0.0  []"},
		{"windows", "entries:\r\n  podinfo:\r\n  - version: 1.0.0\r\n    urls:\r\n    - a\r\n", "true []\n1.0.0  [a]"},
		{"not indented", "entries:\n  podinfo:\n  -\n    version: 1.0.0\n", "true []\n1.0.0  []"},
		{"json", `{"entries":{"podinfo":[{"version":"1.0.0","urls":["a"]}]}}`, "true []\n1.0.0  [a]"},
		{"flow", "entries: {podinfo: [{version: 1.0.0, urls: [a]}]}", "true []\n1.0.0  [a]"},
		{"flow below", "entries:\n  podinfo: [{version: 1.0.0, urls: [a]}]\n", "true []\n1.0.0  [a]"},
		{"anchors", "x: &u\n- a\nentries:\n  podinfo:\n  - version: 1.0.0\n    urls: *u\n", "true []\n1.0.0  [a]"},
		{"keys like those of yaml", "entries:\n  ? podinfo\n  : - version: 1.0.0\n", "true []\n1.0.0  []"},
		{"twice", "entries:\n  podinfo:\n  - version: 1.0.0\nentries:\n  podinfo:\n  - version: 2.0.0\n", "true []\n2.0.0  []"},
		{"versions that are none", "entries:\n  podinfo:\n  - version: 1.0.0\n  - version: latest\n  -\n  - version: 0.9\n", "true []\n1.0.0  []\n0.9  []"},
		{"no versions", "entries:\n  podinfo: []\n", "true []"},
		{"another digest", "entries:\n  podinfo:\n  - version: 1.0.0\n    digest: md5:12\n", "true []\n1.0.0  []"},
		{"no such chart", "entries:\n  podinfo2:\n  - version: 1.0.0\n  nginx:\n  - version: 1.0.0\n  pod-info:\n  - version: 1.0.0\n", "false [pod-info podinfo2]"},
		{"no such chart, json", `{"entries":{"podinfos":[]}}`, "false [podinfos]"},
		{"no charts", "entries: {}\n", "false []"},
		{"entries below", "annotations:\n  entries:\n    podinfo:\n    - version: 7.0.0\nentries:\n  podinfo:\n  - version: 1.0.0\n", "true []\n1.0.0  []"},
		{"no entries", "apiVersion: v1\n", "error"},
		{"a page", "\n<!DOCTYPE html>\n<html>", "error"},
		{"an error in json", `{"error":"not found"}`, "error"},
		{"text", "not found", "error"},
		{"nothing", "", "error"},
		{"a chart that does not parse", "entries:\n  podinfo:\n  - version: [\n", "error"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l, err := parseIndex([]byte(tc.index), "podinfo", 100)
			if tc.want == "error" {
				wantError(t, err, fleet.Retryable, v1alpha1.ReasonFetchFailed)
				return
			}
			if err != nil || l.asText() != tc.want {
				t.Errorf("%s, %v\nwant %s", l.asText(), err, tc.want)
			}
		})
	}
}

func TestParseIndexBounds(t *testing.T) {
	lines := "entries:\n  podinfo:\n"
	for i := range 11 {
		lines += fmt.Sprintf("  - version: 1.0.%d\n", i)
	}
	for _, index := range []string{lines, strings.Replace(lines, "entries:", "entries: # of all", 1)} {
		_, err := parseIndex([]byte(index), "podinfo", 10)
		wantError(t, err, fleet.Terminal, v1alpha1.ReasonTooLarge, "more than 10 versions")
		if l, err := parseIndex([]byte(index), "podinfo", 11); err != nil || len(l.offers) != 11 {
			t.Errorf("%d versions, %v", len(l.offers), err)
		}
	}
	flow := "entries: {podinfo: [{version: 1.0.0, description: " + strings.Repeat("x", maxWhole) + "}]}"
	_, err := parseIndex([]byte(flow), "podinfo", 10)
	wantError(t, err, fleet.Terminal, v1alpha1.ReasonTooLarge, "not laid out as Helm does")
}

// TestCutAgreesWithTheWhole: cutting lines out says the same as parsing all of it.
func TestCutAgreesWithTheWhole(t *testing.T) {
	text := rapid.SampledFrom([]string{"x", "podinfo:", "- a", "two\nlines: 1\n- three\n", "# no comment", "\"", "'", "entries:", "  deep", "1.0.0", "{", "---", "tab\there", ""})
	name := rapid.SampledFrom([]string{"podinfo", "nginx", "a.b", "1", "true", "team/web", "PODINFO"})
	entry := rapid.Custom(func(t *rapid.T) map[string]any {
		e := map[string]any{"version": rapid.SampledFrom([]string{"1.0.0", "1.0.1", "2", "none", "1.0.0+x"}).Draw(t, "version")}
		for _, key := range []string{"description", "appVersion", "name", "zz"} {
			if rapid.Bool().Draw(t, key+"?") {
				e[key] = text.Draw(t, key)
			}
		}
		if rapid.Bool().Draw(t, "urls?") {
			e["urls"] = rapid.SliceOf(text).Draw(t, "urls")
		}
		if rapid.Bool().Draw(t, "nested?") {
			e["annotations"] = map[string]any{"podinfo": text.Draw(t, "annotation"), "entries": []any{map[string]any{"version": "9.9.9"}}}
		}
		return e
	})
	rapid.Check(t, func(t *rapid.T) {
		entries := rapid.MapOfN(name, rapid.SliceOfN(entry, 1, 4), 1, 4).Draw(t, "entries")
		index, err := yaml.Marshal(map[string]any{"apiVersion": "v1", "entries": entries, "generated": text.Draw(t, "generated"), "zz": text.Draw(t, "zz")})
		if err != nil {
			t.Fatal(err)
		}
		whole, err := parseWhole(index, "podinfo", 100)
		if err != nil {
			t.Fatal(err)
		}
		got, err := parseIndex(index, "podinfo", 100)
		if err != nil || got.asText() != whole.asText() {
			t.Fatalf("%s, %v\nwant %s\nof\n%s", got.asText(), err, whole.asText(), index)
		}
	})
}

// TestCutBearsWithOthers: what is odd about other charts does not matter.
func TestCutBearsWithOthers(t *testing.T) {
	index := "entries:\n  odd:\n  - description: |\n      \ttabs\n      x: {\n    version: 1.0.0\n  none: []\n  podinfo:\n  - version: 1.0.0\n"
	for name, want := range map[string]int{"podinfo": 1, "none": 0} {
		s, ok := cut([]byte(index), name)
		if offers, parsed := s.offers(10); !ok || !s.found || !parsed || len(offers) != want {
			t.Errorf("%s: %t, %t, %d offers", name, ok, parsed, len(offers))
		}
	}
}

func TestCutIsUsed(t *testing.T) {
	x := newIndex(t, nil)
	x.publish("1.0.0", nil)
	s, ok := cut(x.index(), "podinfo")
	if offers, parsed := s.offers(10); !ok || !s.found || !parsed || len(offers) != 1 {
		t.Errorf("an index as Helm writes it is parsed in whole: %t, %+v", ok, s)
	}
	if !reflect.DeepEqual(s.names, []string{"another", "podinfo"}) {
		t.Errorf("names %q", s.names)
	}
}

func FuzzParseIndex(f *testing.F) {
	f.Add([]byte("entries:\n  podinfo:\n  - version: 1.0.0\n    urls:\n    - a\n  - version: 2.0.0\n"))
	f.Add([]byte("entries:\n  podinfo: [{version: 1.0.0}]\n"))
	f.Add([]byte(`{"entries":{"podinfo":[null]}}`))
	f.Add([]byte("entries:\n\n  podinfo:\n    -\n   - version: \"\n"))
	f.Fuzz(func(t *testing.T, index []byte) {
		l, err := parseIndex(index, "podinfo", 20)
		var e *fleet.Error
		if err != nil && (!errors.As(err, &e) || e.Reason == "" || len(err.Error()) > 1000) {
			t.Fatalf("not an error for people: %v", err)
		}
		if err == nil && len(l.offers) > 20 {
			t.Fatalf("%d offers", len(l.offers))
		}
	})
}

func FuzzBearer(f *testing.F) {
	f.Add(`Bearer realm="https://auth.example/token",service="registry",scope="repository:a:pull"`)
	f.Add(`Basic realm="x", Bearer realm=https://a`)
	f.Add(`bearer ="`)
	f.Fuzz(func(t *testing.T, header string) {
		if params, ok := bearer([]string{header}); ok && params["realm"] == "" {
			t.Fatalf("%q has no realm", header)
		}
	})
}

func TestBearer(t *testing.T) {
	for _, tc := range []struct {
		headers        []string
		realm, service string
	}{
		{[]string{`Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a,b:pull"`}, "https://auth.example/token", "registry.example"},
		{[]string{`Basic realm="x"`, `bearer service=s, realm="https://a"`}, "https://a", "s"},
		{[]string{`Basic realm="x", Bearer realm="https://a"`}, "https://a", ""},
		{[]string{`Basic realm="x"`}, "", ""},
		{[]string{`Bearer`}, "", ""},
		{nil, "", ""},
	} {
		got, ok := bearer(tc.headers)
		if ok != (tc.realm != "") || got["realm"] != tc.realm || got["service"] != tc.service {
			t.Errorf("%q: %v, %t", tc.headers, got, ok)
		}
	}
}
