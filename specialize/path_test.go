// SPDX-License-Identifier: Apache-2.0

package specialize

import (
	"io/fs"
	"path"
	"strings"
	"testing"
	"testing/fstest"

	"pgregory.net/rapid"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

var store12 = fleet.Member{
	Name: "store-12",
	Zone: "fr-par-1",
	Labels: map[string]string{
		"region": "eu", "ring": "canary", "example.com/kind": "store", "a.b": "1", "a-b": "2",
		"dots": "..", "up": "../us", "slash": "a/b", "empty": "", "dot": ".", "version": "v1.2",
	},
}

func TestFill(t *testing.T) {
	tests := []struct {
		template, want, says string
	}{
		{template: "./deploy", want: "./deploy"},
		{template: "", want: ""},
		{template: "./clusters/${CLUSTER}", want: "./clusters/store-12"},
		{template: "${ZONE}", want: "fr-par-1"},
		{template: "./${LABEL_region}/${LABEL_ring}", want: "./eu/canary"},
		{template: "./${LABEL_region}-${LABEL_ring}", want: "./eu-canary"},
		{template: "./${LABEL_example_com_kind}", want: "./store"},
		{template: "./${LABEL_version}", want: "./v1.2"},
		{template: "./$CLUSTER/$/{}/}", want: "./$CLUSTER/$/{}/}"},
		{template: "./overlays/${LABEL_regoin}", says: `./overlays/${LABEL_regoin}: store-12 has no label "regoin" (it has: a-b, a.b, dot, dots, empty, example.com/kind, region, ring and 3 more)`},
		{template: "./${LABEL_}", says: `store-12 has no label ""`},
		{template: "./${LABEL_a_b}", says: "./${LABEL_a_b}: ${LABEL_a_b} may be any of the labels a-b, a.b of store-12; rename all but one"},
		{template: "./${cluster}", says: "./${cluster}: there is no variable ${cluster} (there are: ${CLUSTER}, ${ZONE}, ${LABEL_<key>})"},
		{template: "./${}", says: "there is no variable ${}"},
		{template: "./${CLUSTER", says: "./${CLUSTER: ${CLUSTER has no closing }"},
		{template: "./${LABEL_dots}", says: `label "dots" of store-12 is ".."; in a path it must be letters, digits, -, _ and single dots`},
		{template: "./${LABEL_up}", says: `label "up" of store-12 is "../us"`},
		{template: "./${LABEL_slash}", says: `label "slash" of store-12 is "a/b"`},
		{template: "./${LABEL_empty}", says: `label "empty" of store-12 is ""`},
		{template: "./${LABEL_dot}", says: `label "dot" of store-12 is "."`},
	}
	for _, tt := range tests {
		got, err := (Input{Member: store12}).fillPath(tt.template)
		if tt.says == "" {
			if err != nil || got != tt.want {
				t.Errorf("fill(%q) = %q, %v, want %q", tt.template, got, err, tt.want)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("fill(%q): got error %v, want %q", tt.template, err, tt.says)
		}
		if fleet.KindOf(err) != fleet.Terminal || fleet.ReasonOf(err, "") != v1alpha1.ReasonPathVariable {
			t.Errorf("fill(%q): %v is not a terminal PathVariable", tt.template, err)
		}
	}
	if _, err := (Input{Member: fleet.Member{Name: "eu-1"}}).fillPath("${ZONE}"); err == nil || err.Error() != "${ZONE}: eu-1 has no zone" {
		t.Errorf("without a zone: %v", err)
	}
}

func TestPath(t *testing.T) {
	cm := &fstest.MapFile{Data: []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n")}
	files := fstest.MapFS{
		"a.yaml": cm, "overlays/eu/a.yaml": cm, "overlays/us/a.yaml": cm, "overlays/.git/a.yaml": cm, "flat/a.yaml": cm,
	}
	tests := []struct{ path, want, reason, says string }{
		{path: "./overlays/${LABEL_region}", want: "overlays/eu"},
		{path: "overlays//us/.", want: "overlays/us"},
		{path: "", reason: v1alpha1.ReasonInvalidManifest, says: "is there twice"},
		{path: "./", reason: v1alpha1.ReasonInvalidManifest, says: "is there twice"},
		{path: "/overlays/eu", reason: v1alpha1.ReasonInvalid, says: `"/overlays/eu": a path inside the source: no leading '/' and no '..'`},
		{path: "./overlays/../overlays/eu", reason: v1alpha1.ReasonInvalid, says: "no '..'"},
		{path: "./overlays/e\xffu", reason: v1alpha1.ReasonInvalid, says: "is not a path"},
		{path: "./overlays/ue", reason: v1alpha1.ReasonPathNotFound, says: "./overlays/ue: no such folder in the source (./overlays holds: "},
		{path: "./overlay/eu", reason: v1alpha1.ReasonPathNotFound, says: "./overlay/eu: no such folder in the source (./ holds: overlays, flat)"},
		{path: "./flat/x/y/z", reason: v1alpha1.ReasonPathNotFound, says: "(./flat holds no folders)"},
		{path: "./a.yaml", reason: v1alpha1.ReasonPathNotFound, says: "./a.yaml is a file; spec.source.path names a folder"},
		{path: "./a.yaml/b", reason: v1alpha1.ReasonPathNotFound, says: "./a.yaml/b: no such folder"},
		{path: "./" + strings.Repeat("x", 300), reason: v1alpha1.ReasonPathNotFound, says: "no such folder"},
	}
	for _, tt := range tests {
		m, err := Render(Input{Files: files, Path: tt.path, Member: store12})
		if tt.reason == "" {
			if err != nil || m.Path != tt.want || m.Engine != Plain {
				t.Errorf("%q: path %q, engine %q, error %v, want %q", tt.path, m.Path, m.Engine, err, tt.want)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), tt.says) || fleet.ReasonOf(err, "") != tt.reason || fleet.KindOf(err) != fleet.Terminal {
			t.Errorf("%q: got %s: %v, want %s: %s", tt.path, fleet.ReasonOf(err, "none"), err, tt.reason, tt.says)
		}
	}
}

// checkFilled holds for every template and member: what a member is called or labelled never changes
// which folders the path goes through, but for the parts that the template leaves to it.
func checkFilled(t interface{ Fatalf(string, ...any) }, template string, m fleet.Member) {
	filled, err := (Input{Member: m}).fillPath(template)
	if err != nil {
		if fleet.KindOf(err) != fleet.Terminal {
			t.Fatalf("fill(%q): %v is not terminal", template, err)
		}
		return
	}
	// A variable's own text may hold slashes ("${a/b}"), but then it is none that a member has.
	if got, want := strings.Count(filled, "/"), strings.Count(template, "/"); got != want {
		t.Fatalf("fill(%q) = %q: %d slashes, want %d", template, filled, got, want)
	}
	if strings.Contains(filled, "..") && !strings.Contains(template, ".") {
		t.Fatalf("fill(%q) = %q: the dots are not the template's", template, filled)
	}
	folder, err := inside(filled)
	if err != nil {
		return
	}
	if !fs.ValidPath(folder) || path.IsAbs(folder) || folder == ".." || strings.HasPrefix(folder, "../") {
		t.Fatalf("inside(%q) = %q leaves the source", filled, folder)
	}
}

func TestFilledPathsStayInside(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		part := rapid.SampledFrom([]string{"./", "/", "a", "..", "${CLUSTER}", "${ZONE}", "${LABEL_x}", "${LABEL_x_y}", "${", "}", "$"})
		value := rapid.OneOf(rapid.StringN(0, 8, 16), rapid.SampledFrom([]string{"..", ".", "a/b", "/", "eu", "", "a..b", "-", "${CLUSTER}"}))
		m := fleet.Member{
			Name:   fleet.Name(value.Draw(t, "name")),
			Zone:   value.Draw(t, "zone"),
			Labels: map[string]string{"x": value.Draw(t, "x"), "x/y": value.Draw(t, "x/y")},
		}
		checkFilled(t, strings.Join(rapid.SliceOfN(part, 0, 6).Draw(t, "template"), ""), m)
	})
}

func FuzzFill(f *testing.F) {
	f.Add("./overlays/${LABEL_region}", "store-12", "fr-par-1", "region", "eu")
	f.Add("${CLUSTER}/${ZONE}", "..", "a/b", "", "")
	f.Add("${LABEL_a_b}${", "x", "y", "a.b", "../..")
	f.Fuzz(func(t *testing.T, template, name, zone, key, value string) {
		checkFilled(t, template, fleet.Member{Name: fleet.Name(name), Zone: zone, Labels: map[string]string{key: value}})
	})
}
