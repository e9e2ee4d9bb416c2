// SPDX-License-Identifier: Apache-2.0

package refdocs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"
)

// golden compares with a file of testdata; UPDATE_GOLDEN=1 rewrites it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	body, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func TestAPI(t *testing.T) {
	page, err := API(read(t, "testdata/crd.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "api.md", page)
	if _, err := API([]byte("spec: {versions: [{name: v1}]}")); err == nil || !strings.Contains(err.Error(), "has no schema") {
		t.Errorf("no schema: %v", err)
	}
	if _, err := API([]byte("spek: {}")); err == nil {
		t.Error("not a CRD, and no word about it")
	}
}

// Every field of our own CRDs is on the page, in the section of its object.
func TestAPIHasEveryField(t *testing.T) {
	paths, err := filepath.Glob("../../../deploy/crd/*.yaml")
	if err != nil || len(paths) != 2 {
		t.Fatalf("%v: %v", paths, err)
	}
	for _, path := range paths {
		page, err := API(read(t, path))
		if err != nil {
			t.Fatal(err)
		}
		sections := map[string]string{}
		for _, section := range strings.Split(page, "\n### ")[1:] {
			title, body, _ := strings.Cut(section, "\n")
			sections[title] = body
		}
		var crd apiextensionsv1.CustomResourceDefinition
		if err := yaml.Unmarshal(read(t, path), &crd); err != nil {
			t.Fatal(err)
		}
		seen := 0
		var walk func(at string, p apiextensionsv1.JSONSchemaProps)
		walk = func(at string, p apiextensionsv1.JSONSchemaProps) {
			for name, below := range p.Properties {
				seen++
				if !strings.Contains(sections[at], "\n| `"+name+"` | ") {
					t.Errorf("%s.%s is not on the page", at, name)
				}
				walk(at+"."+name, below)
				if below.Items != nil {
					walk(at+"."+name+"[]", *below.Items.Schema)
				}
			}
		}
		for _, part := range []string{"spec", "status"} {
			walk(part, crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties[part])
		}
		if seen < 10 {
			t.Errorf("%s: only %d fields", path, seen)
		}
	}
}

func TestConditions(t *testing.T) {
	page, err := Conditions(read(t, "testdata/conditions.go.txt"))
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "conditions.md", page)
	for _, source := range []string{
		"package p\nconst (\n\tReasonSilent = \"Silent\"\n)\n",
		"package p\nconst (\n",
	} {
		if _, err := Conditions([]byte(source)); err == nil {
			t.Errorf("accepted:\n%s", source)
		}
	}
}

// Every constant of the API's own file is on the page.
func TestConditionsHasEveryReason(t *testing.T) {
	source := read(t, "../../../api/v1alpha1/conditions.go")
	page, err := Conditions(source)
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^\t\w+ += "([^"]+)"`).FindAllStringSubmatch(string(source), -1)
	if len(found) < 60 {
		t.Fatalf("only %d constants were found", len(found))
	}
	for _, c := range found {
		if !strings.Contains(page, "`"+c[1]+"`") {
			t.Errorf("%s is not on the page", c[1])
		}
	}
}

func TestCLI(t *testing.T) {
	root := &cobra.Command{Use: "sail", Long: "Sail goes places."}
	root.PersistentFlags().String("fleet", "home", "`name` of the fleet")
	list := &cobra.Command{Use: "list", Short: "List things"}
	boats := &cobra.Command{
		Use: "boats [NAME]", Short: "List boats", Long: "List boats, all or one.", Aliases: []string{"b"},
		Example: "  sail list boats\n  sail list boats -o wide", Run: func(*cobra.Command, []string) {},
	}
	boats.Flags().StringP("output", "o", "", "how: json | wide")
	boats.Flags().Bool("all", false, "all of them")
	boats.Flags().Int("most", 5, "so many")
	boats.Flags().Bool("secret", false, "nobody's business")
	if err := boats.Flags().MarkHidden("secret"); err != nil {
		t.Fatal(err)
	}
	list.AddCommand(boats)
	root.AddCommand(list, &cobra.Command{Use: "winds", Short: "What the winds are", Long: "North and south."},
		&cobra.Command{Use: "hold", Short: "The hold", Hidden: true, Run: func(*cobra.Command, []string) {}})
	golden(t, "cli.md", CLI(root))
}
