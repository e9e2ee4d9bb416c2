// SPDX-License-Identifier: Apache-2.0

package preview

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kjson "sigs.k8s.io/json"
	kyaml "sigs.k8s.io/yaml"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/specialize"
)

// Inputs of a render that the agents fetch, and that are files here.
type Inputs struct {
	// Payload is a folder: a checkout of spec.source.git, or the chart of spec.source.helm.
	Payload string
	// Chart is the folder of the chart that spec.specialize.helm.chart names.
	Chart string
	// Objects are files with ConfigMaps and Secrets, in place of those of the member's cluster.
	Objects []string
	// KubeVersion and APIVersions of the member's API server, for charts; empty is what the engine takes for granted.
	KubeVersion string
	APIVersions []string
}

// Payload of a rollout, opened. Nothing outside of its folders is read, whatever their links say.
type Payload struct {
	// Notes on the inputs that refuse nothing.
	Notes []string

	rollout *v1alpha1.FleetRollout
	roots   []*os.Root
	files   fs.FS
	chart   fs.FS
	cluster specialize.Cluster
}

// Open the inputs for a rollout. Close it after use.
func Open(rollout *v1alpha1.FleetRollout, in Inputs) (*Payload, error) {
	version, err := kubeVersion(in.KubeVersion)
	if err != nil {
		return nil, err
	}
	p := &Payload{rollout: rollout, cluster: specialize.Cluster{KubeVersion: version, APIVersions: in.APIVersions}}
	if p.cluster.Objects, err = readObjects(in.Objects, rollout.Namespace); err != nil {
		return nil, err
	}
	if err := p.open(rollout, in); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

var version = regexp.MustCompile(`^v?([0-9]+\.[0-9]+)(\.[0-9]+)?([-+][0-9A-Za-z.+-]+)?$`)

// kubeVersion as API servers give it: v1.36.0 of 1.36.
func kubeVersion(said string) (string, error) {
	parts := version.FindStringSubmatch(said)
	switch {
	case said == "":
		return "", nil
	case parts == nil:
		return "", fmt.Errorf("version of Kubernetes: %q: a version such as v1.36.0", said)
	case parts[2] == "":
		parts[2] = ".0"
	}
	return "v" + parts[1] + parts[2] + parts[3], nil
}

func (p *Payload) open(rollout *v1alpha1.FleetRollout, in Inputs) error {
	spec, source := rollout.Spec.Specialize, rollout.Spec.Source
	if in.Payload == "" {
		return errors.New("no payload: give the folder of the source")
	}
	var err error
	if p.files, err = p.root("payload", in.Payload); err != nil {
		return err
	}
	if source.Helm != nil {
		p.compareChart(p.files, in.Payload, source.Helm.Chart, source.Helm.Version)
	}
	named := spec != nil && spec.Helm != nil && spec.Helm.Chart != nil
	switch {
	case !named && in.Chart != "":
		return errors.New("chart: the rollout names none in spec.specialize.helm.chart")
	case !named:
		return nil
	case in.Chart == "":
		return &fleet.Error{
			Kind: fleet.Terminal, Reason: v1alpha1.ReasonInputMissing, Hint: "give its folder with --chart",
			Err: fmt.Errorf("spec.specialize.helm.chart: the rollout needs the chart %s %s", spec.Helm.Chart.Chart, spec.Helm.Chart.Version),
		}
	}
	if p.chart, err = p.root("chart", in.Chart); err != nil {
		return err
	}
	p.compareChart(p.chart, in.Chart, spec.Helm.Chart.Chart, spec.Helm.Chart.Version)
	return nil
}

func (p *Payload) root(what, folder string) (fs.FS, error) {
	if info, err := os.Stat(folder); err == nil && !info.IsDir() {
		return nil, fmt.Errorf("%s: %s is no folder; unpack an archive first: tar -xzf %s", what, folder, filepath.Base(folder))
	}
	root, err := os.OpenRoot(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %s: no such folder", what, folder)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	p.roots = append(p.roots, root)
	return root.FS(), nil
}

// compareChart notes that a folder holds another chart than the one that is asked for. A range is not looked at:
// which version it means is the repository's to say.
func (p *Payload) compareChart(files fs.FS, folder, name, version string) {
	var has struct{ Name, Version string }
	body, err := fs.ReadFile(files, "Chart.yaml")
	if err != nil || kyaml.Unmarshal(body, &has) != nil {
		return // whoever renders it says what is wrong
	}
	wants := name[strings.LastIndex(name, "/")+1:]
	exact := strings.Count(version, ".") == 2 && !strings.ContainsAny(version, "<>=^~*xX |,")
	if has.Name != wants || exact && strings.TrimPrefix(has.Version, "v") != strings.TrimPrefix(version, "v") {
		p.Notes = append(p.Notes, fmt.Sprintf("%s holds the chart %s %s; the rollout names %s %s", folder, has.Name, has.Version, wants, version))
	}
}

// Close gives the folders back.
func (p *Payload) Close() error {
	var faults []error
	for _, root := range p.roots {
		faults = append(faults, root.Close())
	}
	return errors.Join(faults...)
}

// For renders the payload for one member.
func (p *Payload) For(member fleet.Member) (specialize.Manifest, error) {
	name := fleet.RolloutName{Namespace: p.rollout.Namespace, Name: p.rollout.Name}
	manifest, err := specialize.Render(specialize.Input{
		Files: p.files, Path: p.rollout.Spec.Source.Path, Spec: p.rollout.Spec.Specialize, Member: member, Rollout: name,
		Cluster: p.cluster, Chart: p.chart,
	})
	if err != nil {
		return specialize.Manifest{}, fmt.Errorf("%s for %s: %w", name, member.Name, p.hinted(err))
	}
	return manifest, nil
}

// hinted says how to give here what a member's cluster would have.
func (p *Payload) hinted(err error) error {
	var e *fleet.Error
	if !errors.As(err, &e) || e.Reason != v1alpha1.ReasonInputMissing || e.Kind != fleet.Retryable || e.Hint == "" || len(specialize.References(p.rollout.Spec.Specialize)) == 0 {
		return err
	}
	more := *e
	more.Hint = "here give it with --object; on the member " + e.Hint
	return &more
}

// readObjects of files: ConfigMaps and Secrets of a namespace.
func readObjects(files []string, namespace string) (map[specialize.Reference]map[string]string, error) {
	out := map[specialize.Reference]map[string]string{}
	for _, file := range files {
		body, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("objects: %w", err)
		}
		for _, d := range documents(filepath.ToSlash(file), body) {
			raw, err := kyaml.YAMLToJSONStrict(d.text)
			if err != nil {
				return nil, d.syntax(err)
			}
			if err := addObject(out, raw, namespace); err != nil {
				return nil, &Fault{d.where, err}
			}
		}
	}
	return out, nil
}

// addObject of a document. No error quotes what the object holds: it may be a Secret.
func addObject(out map[specialize.Reference]map[string]string, raw []byte, namespace string) error {
	var head struct {
		metav1.TypeMeta   `json:",inline"`
		metav1.ObjectMeta `json:"metadata"`
		Items             []rawObject `json:"items"`
	}
	if string(raw) == "null" {
		return nil
	}
	if err := kjson.UnmarshalCaseSensitivePreserveInts(raw, &head); err != nil {
		return errors.New("not a Kubernetes object")
	}
	if head.Kind == "List" {
		for _, item := range head.Items {
			if err := addObject(out, item, namespace); err != nil {
				return err
			}
		}
		return nil
	}
	ref := specialize.Reference{Kind: head.Kind, Name: head.Name}
	data, err := dataOf(head.TypeMeta, raw)
	switch {
	case err != nil:
		return fmt.Errorf("%s %s: %w", head.Kind, head.Name, err)
	case head.Name == "":
		return fmt.Errorf("%s: metadata.name: required", head.Kind)
	case head.Namespace != "" && head.Namespace != namespace:
		return fmt.Errorf("%s %s/%s: a rollout reads objects of its own namespace, %s", head.Kind, head.Namespace, head.Name, namespace)
	case out[ref] != nil:
		return fmt.Errorf("%s %s is given twice", head.Kind, head.Name)
	}
	out[ref] = data
	return nil
}

// rawObject keeps an item's bytes.
type rawObject []byte

func (r *rawObject) UnmarshalJSON(b []byte) error {
	*r = slices.Clone(b)
	return nil
}

func dataOf(kind metav1.TypeMeta, raw []byte) (map[string]string, error) {
	data := map[string]string{}
	switch {
	case kind.APIVersion == "v1" && kind.Kind == "ConfigMap":
		var c corev1.ConfigMap
		if err := kjson.UnmarshalCaseSensitivePreserveInts(raw, &c); err != nil {
			return nil, errors.New("data must be a mapping of texts, and binaryData one of base64")
		}
		for key, value := range c.BinaryData {
			data[key] = string(value)
		}
		for key, value := range c.Data {
			data[key] = value
		}
	case kind.APIVersion == "v1" && kind.Kind == "Secret":
		var s corev1.Secret
		if err := kjson.UnmarshalCaseSensitivePreserveInts(raw, &s); err != nil {
			return nil, errors.New("data must be a mapping of base64, and stringData one of texts")
		}
		for key, value := range s.Data {
			data[key] = string(value)
		}
		for key, value := range s.StringData {
			data[key] = value
		}
	default:
		return nil, errors.New("only ConfigMaps and Secrets are read from the cluster")
	}
	return data, nil
}
