// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/source"
)

// TestVersionsInOrder: each is lower than the next.
func TestVersionsInOrder(t *testing.T) {
	order := []string{
		"0.9", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1", "v1.0.0",
		"1.0.0+1", "1.0.0+1.5", "1.0.0+2", "1.0.0+010", "1.0.0+a", "1.0.0+a.1", "1.0.0+b", "1.0.1", "1.2.0", "1.10.0", "v2.0.0",
	}
	for i, a := range order {
		for j, b := range order {
			v, err := parseVersion(a)
			if err != nil {
				t.Fatal(err)
			}
			w, err := parseVersion(b)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := v.compare(w), compareInts(i, j); got != want {
				t.Errorf("%s to %s: %d, want %d", a, b, got, want)
			}
		}
	}
}

func compareInts(a, b int) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func TestRelation(t *testing.T) {
	a, b := "@sha256:"+strings.Repeat("a", 64), "@sha256:"+strings.Repeat("b", 64)
	for _, tc := range []struct {
		from, to string
		want     source.Relation
	}{
		{"1.4.2" + a, "1.4.2" + a, source.Same},
		{"v1.4.2" + a, "1.4.2" + a, source.Same}, // one version, however it is spelled
		{"1.4.2" + a, "1.4.2" + b, source.Unrelated},
		{"1.4.2" + a, "1.10.0" + b, source.Descends},
		{"1.4.2" + a, "1.10.0" + a, source.Descends}, // the same archive under a higher version
		{"1.10.0" + a, "1.4.2" + b, source.Precedes},
		{"1.4.2-rc.1" + a, "1.4.2" + b, source.Descends},
		{"1.4.2+a" + a, "1.4.2+b" + b, source.Descends},
	} {
		if got, err := relation(fleet.Revision(tc.from), fleet.Revision(tc.to)); got != tc.want || err != nil {
			t.Errorf("%.12s to %.12s: %v, %v; want %v", tc.from, tc.to, got, err, tc.want)
		}
	}
}

// TestRelationIsAnOrder: forwards and backwards agree, and nothing is between itself.
func TestRelationIsAnOrder(t *testing.T) {
	back := map[source.Relation]source.Relation{
		source.Descends: source.Precedes, source.Precedes: source.Descends, source.Same: source.Same, source.Unrelated: source.Unrelated,
	}
	version := rapid.StringMatching(`v?[0-3]\.[0-3]\.[0-3](-(a|b|1|2)(\.[0-3a-c])?)?(\+[0-3a-c](\.[0-3a-c])?)?`)
	revision := rapid.Custom(func(t *rapid.T) fleet.Revision {
		return fleet.Revision(version.Draw(t, "version") + "@sha256:" + strings.Repeat(rapid.SampledFrom([]string{"a", "b"}).Draw(t, "digest"), 64))
	})
	rapid.Check(t, func(t *rapid.T) {
		all := rapid.SliceOfN(revision, 3, 3).Draw(t, "revisions")
		rel := func(a, b fleet.Revision) source.Relation {
			r, err := relation(a, b)
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		if got, want := rel(all[1], all[0]), back[rel(all[0], all[1])]; got != want {
			t.Fatalf("%s and %s: back %v, want %v", all[0], all[1], got, want)
		}
		if rel(all[0], all[1]) == source.Descends && rel(all[1], all[2]) == source.Descends && rel(all[0], all[2]) != source.Descends {
			t.Fatalf("not an order: %s", all)
		}
	})
}

func TestChoose(t *testing.T) {
	offers := func(versions ...string) []offer {
		var all []offer
		for _, text := range versions {
			v, err := parseVersion(text)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, offer{version: v})
		}
		return all
	}
	for _, tc := range []struct {
		wanted string
		of     []offer
		want   string
	}{
		{"1.x", offers("1.2.0", "1.10.0", "2.0.0"), "1.10.0"},
		{">=1.2.0 <2.0.0", offers("1.1.0", "1.2.0", "2.0.0"), "1.2.0"},
		{"*", offers("1.2.0", "2.0.0-rc.1"), "1.2.0"},
		{"^2.0.0-0", offers("1.2.0", "2.0.0-rc.1"), "2.0.0-rc.1"},
		{"1.2.0", offers("1.2.0", "1.2.1"), "1.2.0"},
		{"v1.2.0", offers("1.2.0", "v1.2.0"), "v1.2.0"},
		{"1.2.0", offers("v1.2.0", "1.2.0"), "1.2.0"},
		{"1.2.0", offers("v1.2.0"), "v1.2.0"},
		{"1.2", offers("1.2.0", "1.2.7", "1.3.0"), "1.2.7"}, // not a version in full: a range
		{"1.2.0", offers("1.2.0+a"), ""},                    // another version
		{"1.2.0+a", offers("1.2.0+a", "1.2.0+b"), "1.2.0+a"},
		{"1.x", offers("1.2.0+a", "1.2.0+b"), "1.2.0+b"},
		{"3.x", offers("1.2.0"), ""},
		{"3.x", nil, ""},
	} {
		w, err := parseWanted(tc.wanted)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			got, found := w.choose(tc.of)
			if found != (tc.want != "") || got.text != tc.want {
				t.Errorf("%s: %q, %t; want %q", tc.wanted, got.text, found, tc.want)
			}
			slices.Reverse(tc.of) // the order of an index says nothing
		}
	}
}

func TestRevisionOfIsReadBack(t *testing.T) {
	for _, text := range []string{"1.4.2", "v1.4.2", "1.4", "1.4.2-rc.1+build.5"} {
		v, err := parseVersion(text)
		if err != nil {
			t.Fatal(err)
		}
		digest := strings.Repeat("0a", 32)
		got, sum, err := parseRevision(revisionOf(v, digest))
		if err != nil || got.text != text || sum != digest {
			t.Errorf("%s: %s %s, %v", text, got.text, sum, err)
		}
	}
	for _, bad := range []fleet.Revision{"", "1.4.2", "@sha256:" + fleet.Revision(strings.Repeat("a", 64)), "1.4.2@sha256:" + fleet.Revision(strings.Repeat("A", 64)),
		"1.4.2@" + fleet.Revision(strings.Repeat("a", 64)), "1.4.2@sha256:" + fleet.Revision(strings.Repeat("a", 66)), "1.4.2@1.4.2@sha256:" + fleet.Revision(strings.Repeat("a", 64)),
		"1." + fleet.Revision(strings.Repeat("4", 200)) + "@sha256:" + fleet.Revision(strings.Repeat("a", 64))} {
		if v, sum, err := parseRevision(bad); err == nil {
			t.Errorf("%q is %v %s", bad, v, sum)
		}
	}
}
