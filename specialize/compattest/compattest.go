// SPDX-License-Identifier: Apache-2.0

// Package compattest answers: does a payload give the same objects here as in the tools that people build it with?
package compattest

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/kustomize/api/konfig"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/specialize"
)

// Payload is one folder that something can be built from.
type Payload struct {
	// Root of the source that the folder is in, and its path there.
	Root, Path string
	// Chart says that Helm builds it, and kustomize otherwise.
	Chart bool
	// Values is a file of the chart's ci folder that it is rendered with, as those who test charts have them; or empty.
	Values string
}

// String is the payload's name in reports.
func (p Payload) String() string {
	if p.Values != "" {
		return p.Path + " (" + p.Values + ")"
	}
	return p.Path
}

// chartFile makes a folder a chart.
const chartFile = "Chart.yaml"

// Find gives every kustomization and every chart below a folder, sorted. A chart is not looked into: what is in it is
// part of it.
func Find(root string) ([]Payload, error) {
	var found []Payload
	err := fs.WalkDir(os.DirFS(root), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return err
		}
		if name != "." && strings.HasPrefix(entry.Name(), ".") {
			return fs.SkipDir
		}
		has := func(file string) bool {
			info, err := os.Stat(filepath.Join(root, name, file))
			return err == nil && !info.IsDir()
		}
		if slices.ContainsFunc(konfig.RecognizedKustomizationFileNames(), has) {
			found = append(found, Payload{Root: root, Path: name})
			return nil
		}
		if !has(chartFile) {
			return nil
		}
		found = append(found, Payload{Root: root, Path: name, Chart: true})
		values, err := filepath.Glob(filepath.Join(root, name, "ci", "*-values.yaml"))
		for _, v := range values {
			found = append(found, Payload{Root: root, Path: name, Chart: true, Values: path.Join("ci", filepath.Base(v))})
		}
		if err != nil {
			return err
		}
		return fs.SkipDir
	})
	return found, err
}

// What both sides are told of the cluster and of the release.
const (
	namespace   = "compat"
	release     = "compat"
	kubeVersion = "v1.34.0"
)

// Render builds the payload as a member does.
func (p Payload) Render() (specialize.Manifest, error) {
	in := specialize.Input{
		Files: os.DirFS(p.Root), Path: p.Path, Member: fleet.Member{Name: "compat"},
		Rollout: fleet.RolloutName{Namespace: namespace, Name: release},
		Cluster: specialize.Cluster{KubeVersion: kubeVersion},
	}
	if p.Values != "" {
		in.Spec = &v1alpha1.Specialize{Helm: &v1alpha1.HelmRender{ValuesFiles: []string{p.Values}}}
	}
	return specialize.Render(in)
}

// Tool builds the payload with kustomize or Helm itself, and gives the objects in the tool's order.
func (p Payload) Tool() ([]map[string]any, error) {
	if p.Chart {
		return p.template()
	}
	return p.build()
}

// Verdict on a payload.
type Verdict string

// The verdicts.
const (
	Same    Verdict = "same"
	Refused Verdict = "refused"
	// Stricter: the tool prints something, and here it is refused, for another reason than the listed ones. Mostly it is
	// what no API server would take.
	Stricter  Verdict = "refused here alone"
	Different Verdict = "DIFFERENT"
)

// Result of comparing one payload.
type Result struct {
	Payload Payload
	Verdict Verdict
	// Note says why it is refused, or what is different first.
	Note string
}

// String is the result as one line.
func (r Result) String() string {
	line := fmt.Sprintf("%s: %s", r.Payload, r.Verdict)
	if r.Note != "" {
		line += ": " + r.Note
	}
	return line
}

// Compare renders a payload and builds it with its tool. What is refused for one of the listed reasons is not given
// to the tool: it would fetch what is remote.
func Compare(p Payload) Result {
	m, err := p.Render()
	if why := listed(err); err != nil && why {
		return Result{p, Refused, err.Error()}
	}
	theirs, toolErr := p.Tool()
	switch {
	case err != nil && toolErr != nil:
		return Result{p, Refused, "by both: " + err.Error()}
	case err != nil:
		return Result{p, Stricter, err.Error()}
	case toolErr != nil:
		return Result{p, Different, fmt.Sprintf("%d objects here, and the tool says: %s", len(m.Objects), firstLine(toolErr.Error()))}
	}
	ours := make([]map[string]any, 0, len(m.Objects))
	for _, o := range m.Objects {
		ours = append(ours, runtime.DeepCopyJSON(o.Object))
	}
	note, same := compare(ours, theirs)
	if !same {
		return Result{p, Different, note}
	}
	return Result{p, Same, note}
}

// reasons for which a payload may be refused that a tool builds, by what the sentence says.
func listed(err error) bool {
	switch fleet.ReasonOf(err, "") {
	case v1alpha1.ReasonEmptyRender, v1alpha1.ReasonNotReproducible, v1alpha1.ReasonTooLarge, v1alpha1.ReasonContainsFlotilla:
		return true
	case v1alpha1.ReasonRenderFailed:
	default:
		return false
	}
	for _, why := range []string{
		"nothing is fetched from elsewhere", "no program is run", "only kustomize's built-in ones are run",
		"is a symbolic link", "a schema of your own is not supported",
	} {
		if strings.Contains(err.Error(), why) {
			return true
		}
	}
	return false
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}
