// SPDX-License-Identifier: Apache-2.0

package compattest

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
)

// own is the folder of the project's own payloads, from this package.
const own = "../testdata/payloads"

// folders that payloads are looked for in: COMPAT_DIR, or the project's own and those that others wrote, which lie
// beside the repository and need not be there.
func folders(t *testing.T) []string {
	t.Helper()
	if dir := os.Getenv("COMPAT_DIR"); dir != "" {
		return []string{dir}
	}
	found := []string{own}
	if others := cmp.Or(os.Getenv("FLOTILLA_PAYLOADS"), "../../../shared/payloads"); exists(others) {
		found = append(found, others)
	} else {
		t.Logf("the payloads that others wrote are not at %s; FLOTILLA_PAYLOADS says where they are", others)
	}
	return found
}

func exists(dir string) bool {
	info, err := os.Stat(dir)
	return err == nil && info.IsDir()
}

// TestCompat compares every payload with its tool. With COMPAT_REPORT, what it found is written there, a line each.
func TestCompat(t *testing.T) {
	var report strings.Builder
	count := map[Verdict]int{}
	for _, dir := range folders(t) {
		payloads, err := Find(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range payloads {
			r := Compare(p)
			count[r.Verdict]++
			fmt.Fprintln(&report, r)
			if r.Verdict == Different || r.Verdict == Stricter && dir == own {
				t.Error(r)
			}
		}
	}
	fmt.Fprintf(&report, "%d the same, %d refused, %d refused here alone, %d different\n", count[Same], count[Refused], count[Stricter], count[Different])
	if len(count) == 0 {
		t.Error("there are no payloads")
	}
	if name := os.Getenv("COMPAT_REPORT"); name != "" {
		if err := os.WriteFile(name, []byte(report.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestGolden fails when kustomize or Helm gives other objects than it did: a release of theirs that changes what
// is delivered to every cluster is to be read first. UPDATE_GOLDEN=1 rewrites.
func TestGolden(t *testing.T) {
	payloads, err := Find(own)
	if err != nil || len(payloads) < 20 {
		t.Fatalf("%d payloads, %v", len(payloads), err)
	}
	for _, p := range payloads {
		t.Run(p.String(), func(t *testing.T) {
			if strings.HasPrefix(p.Path, "refused-") {
				if r := Compare(p); r.Verdict != Refused || strings.HasPrefix(r.Note, "by both") {
					t.Errorf("not refused for a listed reason: %s", r)
				}
				return
			}
			var got []byte
			if objects, err := p.Tool(); err != nil {
				got = fmt.Appendf(nil, "error: %s\n", firstLine(err.Error()))
			} else if got, err = Written(objects); err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("../testdata/golden", strings.NewReplacer("/", "_", " (", "_", ")", "").Replace(p.String())+".yaml")
			if os.Getenv("UPDATE_GOLDEN") == "1" {
				if err := os.MkdirAll(filepath.Dir(golden), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := gocmp.Diff(strings.Split(string(want), "\n"), strings.Split(string(got), "\n")); diff != "" {
				t.Errorf("%s (-before +now):\n%s", golden, diff)
			}
		})
	}
}

// TestDifferencesAreSeen: the comparison can fail.
func TestDifferencesAreSeen(t *testing.T) {
	object := func(name string, data map[string]any) map[string]any {
		return map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": name}, "data": data}
	}
	a, b := object("a", map[string]any{"k": []any{"v", int64(1)}}), object("b", nil)
	for name, tt := range map[string]struct {
		ours, theirs []map[string]any
		note         string
		same         bool
	}{
		"the same":  {ours: []map[string]any{a, b}, theirs: []map[string]any{a, b}, same: true},
		"order":     {ours: []map[string]any{b, a}, theirs: []map[string]any{a, b}, same: true, note: "in another order from object 1, v1 ConfigMap /b"},
		"missing":   {ours: []map[string]any{a}, theirs: []map[string]any{a, b}, note: "v1 ConfigMap /b is missing here"},
		"too many":  {ours: []map[string]any{a, b}, theirs: []map[string]any{a}, note: "v1 ConfigMap /b is here alone"},
		"a value":   {ours: []map[string]any{a}, theirs: []map[string]any{object("a", map[string]any{"k": []any{"v", int64(2)}})}, note: "v1 ConfigMap /a: data.k[1] is 1 here and 2 there"},
		"a type":    {ours: []map[string]any{a}, theirs: []map[string]any{object("a", map[string]any{"k": []any{"v", "1"}})}, note: `v1 ConfigMap /a: data.k[1] is 1 here and "1" there`},
		"a field":   {ours: []map[string]any{a}, theirs: []map[string]any{object("a", nil)}, note: `v1 ConfigMap /a: data is {"k":["v",1]} here and null there`},
		"the twins": {ours: []map[string]any{a, a}, theirs: []map[string]any{a}, note: "v1 ConfigMap /a is there twice"},
	} {
		if note, same := compare(tt.ours, tt.theirs); note != tt.note || same != tt.same {
			t.Errorf("%s: %q, %v, want %q, %v", name, note, same, tt.note, tt.same)
		}
	}
}
