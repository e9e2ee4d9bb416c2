// SPDX-License-Identifier: Apache-2.0

package sequencer

import (
	"bytes"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// TestSealGolden fixes the digests and bodies of a few seals for ever: a member that seals the same
// thing to another digest is outside its own rollout.
func TestSealGolden(t *testing.T) {
	var b strings.Builder
	for _, tc := range []struct {
		what     string
		at       Position
		strategy string
		targets  []fleet.Member
	}{
		{"automatic stages", byGit, "", members(2)},
		{"the next number", Position{Author: fleet.AuthorGit, Number: 2}, "", members(2)},
		{"the next term", Position{Author: fleet.AuthorGit, Term: 1, Number: 1}, "", members(2)},
		{"another author", Position{Author: string(member("c-01").ID), Number: 1}, "", members(2)},
		{"stages and labels", byGit, "{maxConcurrency: 10%, soak: 90s, stages: [{name: canary, matchLabels: {ring: canary}}, {name: others}]}",
			[]fleet.Member{member("c-01", "ring=canary", "region=eu"), member("c-02")}},
	} {
		s := sealOf(t, tc.at, tc.strategy, tc.targets)
		spec, list, err := s.Bodies()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s\n  seal    %s\n  content %s\n  spec    %s\n  members %s\n", tc.what, s.Digest(), s.Content(), spec, list)
	}
	golden(t, "seals.golden", b.String())
}

func TestSealDoesNotDependOnOrderOrAddresses(t *testing.T) {
	targets := members(9)
	want := sealOf(t, byGit, "", targets)
	slices.Reverse(targets)
	targets[3].Addresses = []string{"/ip4/192.0.2.1/udp/4001/quic-v1"}
	got := sealOf(t, byGit, "", targets)
	if got.Digest() != want.Digest() {
		t.Error("the digest depends on the order or the addresses of the targets")
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the author's copy differs from everybody's:\n%s", diff)
	}
	if len(targets[3].Addresses) == 0 || targets[0].Name != "c-09" {
		t.Error("Seal changed the caller's targets")
	}
}

func TestSealRefusesDuplicates(t *testing.T) {
	twice := member("c-02")
	twice.ID = member("c-01").ID
	for _, targets := range [][]fleet.Member{{member("c-01"), member("c-01")}, {member("c-01"), twice}} {
		_, err := Seal(checkout, byGit, v1alpha1.FleetRolloutSpec{}, targets)
		if err == nil || fleet.KindOf(err) != fleet.Terminal || !strings.Contains(err.Error(), "there twice; correct the roster") {
			t.Errorf("%v %v: got %v", targets[0].Name, targets[1].Name, err)
		}
	}
}

func TestOpen(t *testing.T) {
	s := sealOf(t, byGit, "{maxConcurrency: 10%, stages: [{name: canary, matchLabels: {ring: canary}}, {name: others}]}", labelled(1, "ring=canary", members(5)))
	spec, list, err := s.Bodies()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Open(s.Seal, spec, list)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(s, got); diff != "" {
		t.Errorf("what is opened is not what was sealed:\n%s", diff)
	}
	mine, err := Compile(s, revA)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := Compile(got, revA)
	if err != nil {
		t.Fatal(err)
	}
	if !cmp.Equal(mine, theirs, cmp.AllowUnexported(Plan{})) {
		t.Error("author and reader compile different plans")
	}
}

func TestOpenRefuses(t *testing.T) {
	s := sealOf(t, byGit, "", members(3))
	spec, list, err := s.Bodies()
	if err != nil {
		t.Fatal(err)
	}
	swap := func(b []byte, old, with string) []byte {
		out := bytes.Replace(b, []byte(old), []byte(with), 1)
		if bytes.Equal(out, b) {
			t.Fatalf("%q is not in %s", old, b)
		}
		return out
	}
	unsorted := sealOf(t, byGit, "", members(3))
	slices.Reverse(unsorted.Targets)
	_, unsortedList, err := unsorted.Bodies()
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, want string
		spec, list []byte
		forge      bool // name the changed bodies in the seal, as a newer author would
		version    uint16
	}{
		{"another compile version", "it was compiled by rules of version 2, this agent knows 1; upgrade the agent", spec, list, true, 2},
		{"no compile version", "it was compiled by rules of version 0, this agent knows 1; upgrade the agent", spec, list, true, 0},
		{"another spec", "its bodies are not the ones it names", swap(spec, "./deploy", "./elsewh"), list, false, 1},
		{"other members", "its bodies are not the ones it names", spec, swap(list, "c-03", "c-04"), false, 1},
		{"no bodies", "its bodies are not the ones it names", nil, nil, false, 1},
		{"bodies changed about", "its bodies are not the ones it names", list, spec, false, 1},
		{"unknown field of the spec", `spec: json: unknown field "approvals"; a newer agent wrote it: upgrade this one`, swap(spec, `{"source"`, `{"approvals":[],"source"`), list, true, 1},
		{"unknown field deep in the spec", `spec: json: unknown field "tag"; a newer agent wrote it: upgrade this one`, swap(spec, `"url"`, `"tag":"x","url"`), list, true, 1},
		{"unknown field of a member", `members: json: unknown field "state"; a newer agent wrote it: upgrade this one`, spec, swap(list, `{"id"`, `{"state":"Cordoned","id"`), true, 1},
		{"something after the spec", "spec: something follows the document; a newer agent wrote it: upgrade this one", append(bytes.Clone(spec), "{}"...), list, true, 1},
		{"a bracket after the spec", "spec: something follows the document; a newer agent wrote it: upgrade this one", append(bytes.Clone(spec), '}'), list, true, 1},
		{"half a spec", "spec: unexpected EOF; a newer agent wrote it: upgrade this one", spec[:len(spec)-1], list, true, 1},
		{"unsorted members", "its members are not sorted, or one is there twice", spec, unsortedList, true, 1},
		{"a name twice", "its members are not sorted, or one is there twice", spec, swap(list, "c-03", "c-02"), true, 1},
		{"a key twice", "its members are not sorted, or one is there twice", spec, swap(list, string(member("c-03").ID), string(member("c-01").ID)), true, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			seal := s.Seal
			seal.CompileVersion = tc.version
			if tc.forge {
				seal.Spec, seal.Members = fleet.BlobDigest(tc.spec), fleet.BlobDigest(tc.list)
			}
			_, err := Open(seal, tc.spec, tc.list)
			if err == nil {
				t.Fatal("opened")
			}
			if want := fmt.Sprintf("seal %s of shop/checkout: %s", seal.Digest().Short(), tc.want); err.Error() != want {
				t.Errorf("got  %s\nwant %s", err, want)
			}
			if fleet.KindOf(err) != fleet.Terminal || fleet.ReasonOf(err, "") != v1alpha1.ReasonInvalid {
				t.Errorf("kind %v, reason %q", fleet.KindOf(err), fleet.ReasonOf(err, ""))
			}
		})
	}
}

// unsealed are the only fields of a spec that make no release when they change (R1).
var unsealed = []string{
	"delivery.interval", "delivery.retryInterval",
	"source.interval", "source.timeout",
	"suspend",
}

// TestSealCoversEveryField changes one field after the other of a spec in which every field is set, so
// that a field added tomorrow is either sealed or named in unsealed.
func TestSealCoversEveryField(t *testing.T) {
	digest := func(changed string) (fleet.Digest, []string) {
		var spec v1alpha1.FleetRolloutSpec
		f := filler{changed: changed}
		f.fill(t, reflect.ValueOf(&spec).Elem(), "")
		s, err := Seal(checkout, byGit, spec, members(1))
		if err != nil {
			t.Fatal(err)
		}
		return s.Digest(), f.leaves
	}
	base, leaves := digest("")
	if len(leaves) < 40 {
		t.Fatalf("only %d fields found: %v", len(leaves), leaves)
	}
	var got []string
	for _, leaf := range leaves {
		if changed, _ := digest(leaf); changed == base {
			got = append(got, leaf)
		}
	}
	slices.Sort(got)
	if diff := cmp.Diff(unsealed, got); diff != "" {
		t.Errorf("fields that are not sealed (- want, + got):\n%s", diff)
	}
}

// filler sets every field of a value; the one named changed differently.
type filler struct {
	changed string
	leaves  []string
}

func (f *filler) fill(t *testing.T, v reflect.Value, path string) {
	t.Helper()
	if v.Type() == reflect.TypeFor[v1alpha1.Duration]() {
		v.Field(0).Field(0).SetInt(f.number(path) * 1e9)
		return
	}
	if v.Type() == reflect.TypeFor[runtime.RawExtension]() {
		v.FieldByName("Raw").SetBytes(fmt.Appendf(nil, `{"n":%d}`, f.number(path)))
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		f.fill(t, v.Elem(), path)
	case reflect.Struct:
		if path != "" && v.Type().PkgPath() == "k8s.io/apimachinery/pkg/util/intstr" {
			v.FieldByName("IntVal").SetInt(f.number(path))
			return
		}
		for i := range v.NumField() {
			f.fill(t, v.Field(i), f.join(path, v.Type().Field(i)))
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		f.fill(t, v.Index(0), path+"[]")
	case reflect.Map:
		if v.Type() != reflect.TypeFor[map[string]string]() {
			t.Fatalf("%s: teach the test to fill in a %s", path, v.Type())
		}
		v.Set(reflect.ValueOf(map[string]string{"key": fmt.Sprint(f.number(path))}))
	case reflect.String:
		v.SetString(fmt.Sprint(f.number(path)))
	case reflect.Bool:
		v.SetBool(f.number(path) == 2)
	case reflect.Int32, reflect.Int64:
		v.SetInt(f.number(path))
	default:
		t.Fatalf("%s: teach the test to fill in a %s", path, v.Type())
	}
}

// number of a leaf: 1, or 2 where it is the changed one.
func (f *filler) number(path string) int64 {
	f.leaves = append(f.leaves, path)
	if path == f.changed {
		return 2
	}
	return 1
}

func (f *filler) join(path string, field reflect.StructField) string {
	name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
	switch {
	case name == "" && field.Anonymous:
		return path
	case name == "":
		name = field.Name
	}
	if path == "" {
		return name
	}
	return path + "." + name
}

// FuzzOpen: no body makes Open or Compile panic, and what compiles places every target once.
func FuzzOpen(f *testing.F) {
	for _, strategy := range []string{"", "{type: AllAtOnce}", "{maxUnavailable: 10%, stages: [{name: a, size: 1}, {name: b, matchLabels: {ring: canary}}, {name: rest}]}"} {
		spec, list, err := sealOf(f, byGit, strategy, labelled(1, "ring=canary", members(3))).Bodies()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(spec, list)
	}
	f.Add([]byte("null"), []byte(`[{}]`))
	f.Add([]byte(`{"strategy":{"stages":[{"name":"a","size":"-9%"}]}}`), []byte(`[{"name":"a"}]`))
	f.Fuzz(func(t *testing.T, spec, list []byte) {
		seal := fleet.Seal{Rollout: checkout, Author: fleet.AuthorGit, CompileVersion: CompileVersion, Spec: fleet.BlobDigest(spec), Members: fleet.BlobDigest(list)}
		s, err := Open(seal, spec, list)
		if err != nil {
			terminal(t, err)
			return
		}
		p, err := Compile(s, revA)
		if err != nil {
			terminal(t, err)
			return
		}
		placed := map[fleet.MemberID]bool{}
		for _, stage := range p.Stages {
			if stage.MaxConcurrency < 1 || stage.Tolerance < 0 {
				t.Errorf("stage %s: N %d, tolerance %d", stage.Name, stage.MaxConcurrency, stage.Tolerance)
			}
			for _, m := range stage.Members {
				placed[m.ID] = true
			}
		}
		if len(placed) != len(s.Targets) || p.Size() != len(s.Targets) {
			t.Errorf("%d of %d targets have a place: %v", len(placed), len(s.Targets), slices.Collect(maps.Keys(placed)))
		}
	})
}

func terminal(t *testing.T, err error) {
	t.Helper()
	if fleet.KindOf(err) != fleet.Terminal {
		t.Errorf("not terminal: %v", err)
	}
}
