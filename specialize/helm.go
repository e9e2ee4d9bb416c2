// SPDX-License-Identifier: Apache-2.0

package specialize

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/ignore"
	"helm.sh/helm/v3/pkg/releaseutil"
	"helm.sh/helm/v3/pkg/strvals"

	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// defaultKubeVersion is what a chart is rendered for where no cluster is asked: the version of the Kubernetes
// libraries here.
const defaultKubeVersion = "v1.37.2"

// release is one rendering of one chart. This file alone knows Helm; the others of helm_* know texts and values.
type release struct {
	in     Input
	t      *tree
	folder string
	spec   v1alpha1.HelmRender
	// label is what messages call the chart: its folder, or its name where it comes from a repository.
	label string
	chart *chart.Chart
	caps  *chartutil.Capabilities
	// values of the user, over the chart's own, and what of them must not be repeated.
	values  map[string]any
	secrets secrets
}

// helm renders the chart in a folder, or the chart that the spec names with the folder's values.
func helm(t *tree, folder string, in Input) ([]object, error) {
	r := &release{in: in, t: t, folder: folder, label: shown(folder)}
	if in.Spec != nil && in.Spec.Helm != nil {
		r.spec = *in.Spec.Helm
	}
	for _, step := range []func() error{r.load, r.accept, r.gather, r.checkSchemas} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	texts, err := r.render()
	if err != nil {
		return nil, err
	}
	return r.objects(texts)
}

// load reads the chart.
func (r *release) load() error {
	parts, err := r.parts()
	if err != nil {
		return err
	}
	files := make([]*loader.BufferedFile, 0, len(parts))
	for _, p := range parts {
		files = append(files, &loader.BufferedFile{Name: p.name, Data: p.content})
	}
	if r.chart, err = loader.LoadFiles(files); err != nil {
		return failure(v1alpha1.ReasonRenderFailed, "%s: %s", r.label, readable(err.Error()))
	}
	sortSubcharts(r.chart)
	return nil
}

// parts are the chart's files, within the bounds of the payload.
func (r *release) parts() ([]chartPart, error) {
	if r.spec.Chart != nil {
		return r.fetchedParts()
	}
	rules, err := r.ignored()
	if err != nil {
		return nil, err
	}
	parts, err := chartParts(r.t, r.folder, rules.Ignore)
	if err != nil {
		return nil, err
	}
	return parts, checkParts(r.t, r.folder, parts)
}

// fetchedParts are those of the chart that the spec names, which was packed without what it ignores.
func (r *release) fetchedParts() ([]chartPart, error) {
	if r.in.Chart == nil {
		return nil, fmt.Errorf("render: chart %s %s is not here", r.spec.Chart.Chart, r.spec.Chart.Version)
	}
	found, err := r.t.isFile(path.Join(r.folder, chartFile))
	if err != nil {
		return nil, err
	}
	if found {
		return nil, failure(v1alpha1.ReasonRenderFailed, "%s holds a chart, and %s.chart names another; only one of them can be meant", r.label, helmPlace)
	}
	r.label = "chart " + path.Base(r.spec.Chart.Chart)
	t := newTree(r.in.Chart)
	t.used = r.t.used
	parts, err := chartParts(t, ".", func(string, fs.FileInfo) bool { return false })
	if err == nil {
		err = checkParts(t, r.label, parts)
	}
	r.t.used = t.used
	return parts, err
}

// ignored are the chart's own rules of what is not part of it.
func (r *release) ignored() (*ignore.Rules, error) {
	rules := ignore.Empty()
	name := path.Join(r.folder, helmIgnoreFile)
	found, err := r.t.isFile(name)
	if err != nil {
		return nil, err
	}
	if found {
		content, err := r.t.read(name)
		if err != nil {
			return nil, err
		}
		if rules, err = ignore.Parse(bytes.NewReader(content)); err != nil {
			return nil, failure(v1alpha1.ReasonRenderFailed, "%s: %s", name, readable(err.Error()))
		}
	}
	rules.AddDefaults()
	return rules, nil
}

// sortSubcharts gives subcharts an order, which Helm's loader leaves to chance.
func sortSubcharts(c *chart.Chart) {
	subcharts := slices.Clone(c.Dependencies())
	slices.SortStableFunc(subcharts, func(a, b *chart.Chart) int {
		return strings.Compare(a.Name()+"\x00"+a.Metadata.Version, b.Name()+"\x00"+b.Metadata.Version)
	})
	c.SetDependencies(subcharts...)
	for _, s := range subcharts {
		sortSubcharts(s)
	}
}

// accept says whether the chart can be rendered for this cluster.
func (r *release) accept() error {
	m := r.chart.Metadata
	if m.APIVersion != chart.APIVersionV1 && m.APIVersion != chart.APIVersionV2 {
		return failure(v1alpha1.ReasonRenderFailed, "%s: Chart.yaml: apiVersion %q; there are v1 and v2", r.label, m.APIVersion)
	}
	if m.Type == "library" {
		return hinted(v1alpha1.ReasonRenderFailed, "name it as a dependency of a chart of yours, and deliver that",
			"%s: %s is a library chart, which is for other charts and renders nothing by itself", r.label, m.Name)
	}
	for _, d := range m.Dependencies {
		if !slices.ContainsFunc(r.chart.Dependencies(), func(c *chart.Chart) bool { return c.Name() == d.Name }) {
			return hinted(v1alpha1.ReasonRenderFailed, "run 'helm dependency build' and commit charts/; nothing is fetched while rendering",
				"%s: Chart.yaml names the dependency %s %s, and charts/ does not hold it", r.label, d.Name, d.Version)
		}
	}
	if err := r.capabilities(); err != nil {
		return err
	}
	if m.KubeVersion != "" && !chartutil.IsCompatibleRange(m.KubeVersion, r.caps.KubeVersion.Version) {
		return failure(v1alpha1.ReasonRenderFailed, "%s: the chart is for Kubernetes %s (kubeVersion in Chart.yaml), and this is %s", r.label, m.KubeVersion, r.caps.KubeVersion.Version)
	}
	if err := chartutil.ValidateReleaseName(r.name()); err != nil {
		return hinted(v1alpha1.ReasonInvalid, "say another one in "+helmPlace+".releaseName",
			"the release name %q: Helm takes at most 53 small letters, digits, '-' and '.'", r.name())
	}
	return nil
}

// capabilities of the member's cluster.
func (r *release) capabilities() error {
	version := r.in.Cluster.KubeVersion
	if version == "" {
		version = defaultKubeVersion
	}
	parsed, err := chartutil.ParseKubeVersion(version)
	if err != nil {
		return fmt.Errorf("render: %q is no version of Kubernetes: %w", version, err)
	}
	r.caps = chartutil.DefaultCapabilities.Copy()
	r.caps.KubeVersion = *parsed
	r.caps.KubeVersion.Version = version // with what a distribution adds to it, as Helm has it
	if r.in.Cluster.APIVersions != nil {
		r.caps.APIVersions = r.in.Cluster.APIVersions
	}
	r.caps.APIVersions = slices.Clone(r.caps.APIVersions)
	return nil
}

func (r *release) name() string {
	if r.spec.ReleaseName != "" {
		return r.spec.ReleaseName
	}
	return r.in.Rollout.Name
}

func (r *release) namespace() string {
	if r.in.Spec != nil && r.in.Spec.TargetNamespace != "" {
		return r.in.Spec.TargetNamespace
	}
	return r.in.Rollout.Namespace
}

// gather takes the user's values together, and lets them decide on the subcharts.
func (r *release) gather() error {
	user := &userValues{in: r.in, t: r.t, folder: r.folder, spec: r.spec}
	var err error
	if r.values, err = user.all(); err != nil {
		return err
	}
	r.secrets = user.secrets
	return r.valuesError(chartutil.ProcessDependenciesWithMerge(r.chart, r.values))
}

// setPath sets the value at a path of the values, as helm --set writes paths.
func setPath(values map[string]any, at string, value any) error {
	if strings.ContainsAny(at, "=,{") {
		return errors.New("a path such as image.tag or hosts[0].name is wanted")
	}
	err := strvals.ParseIntoFile(at+"=x", values, func([]rune) (any, error) { return value, nil })
	if err != nil && strings.Contains(err.Error(), "interface conversion") {
		return errors.New("on the way there lies a value that is no mapping or list")
	}
	return err
}

// valuesError is Helm's error about values of the wrong form, which it prints the value in.
func (r *release) valuesError(err error) error {
	if err == nil {
		return nil
	}
	message := err.Error()
	if name, is := strings.CutPrefix(message, "type mismatch on "); is {
		name, _, _ = strings.Cut(name, ":")
		return failure(v1alpha1.ReasonValuesInvalid, "%s: values: %s is a subchart, so its values are a mapping", r.label, name)
	}
	return failure(v1alpha1.ReasonValuesInvalid, "%s: values: %s", r.label, r.secrets.hide(readable(message)))
}

// renderValues are what the templates see. Templates can change them, so that each rendering has its own.
func (r *release) renderValues() (chartutil.Values, error) {
	values, err := chartutil.ToRenderValuesWithSchemaValidation(r.chart, r.values, chartutil.ReleaseOptions{
		Name: r.name(), Namespace: r.namespace(),
		// One commit is one manifest, on a cluster that has had it for years as on one that is new.
		Revision: 1, IsInstall: true,
	}, r.caps, true)
	return values, r.valuesError(err)
}

// checkSchemas asks the schemas of the chart and its subcharts about the values, once none of them would have
// anything fetched.
func (r *release) checkSchemas() error {
	for _, c := range charts(r.chart) {
		if c.Schema == nil {
			continue
		}
		if err := checkSchema(r.inChart(path.Join(c.ChartFullPath(), "values.schema.json")), c.Schema); err != nil {
			return err
		}
	}
	values, err := r.renderValues()
	if err != nil {
		return err
	}
	merged, _ := values["Values"].(chartutil.Values)
	if err := chartutil.ValidateAgainstSchema(r.chart, merged); err != nil {
		return schemaError(r.label, r.chart.Name(), r.secrets.hide(err.Error()))
	}
	return nil
}

// render gives the texts of the chart's templates, once it is sure that they are always the same.
func (r *release) render() (rendered, error) {
	found, err := r.inspectTemplates()
	if err != nil {
		return nil, err
	}
	first, err := r.renderOnce(nil)
	if err != nil {
		return nil, err
	}
	again := r.disturber()
	for range looks(found) - 1 {
		if c, is := r.compare(first, again, anyReason); is {
			return nil, r.blame(c, first, found, again)
		}
	}
	again(func(int) bool { return false }) // the files of crds are still to be read
	return first, nil
}

// disturber gives a function that puts the chart into another world, and its templates for that world into it.
func (r *release) disturber() func(why reasons) {
	type original struct {
		file *chart.File
		text string
		into func(text string, why reasons) string
	}
	var all []original
	for _, c := range charts(r.chart) {
		for _, f := range c.Templates {
			all = append(all, original{f, string(f.Data), disturbed})
		}
		for _, f := range c.Files {
			all = append(all, original{f, string(f.Data), disturbedData})
		}
	}
	r.chart.Templates = append(r.chart.Templates, &chart.File{Name: "templates/_fleet.flotilla.dev.tpl", Data: []byte(secondLook)})
	return func(why reasons) {
		for _, o := range all {
			o.file.Data = []byte(o.into(o.text, why))
		}
	}
}

// compare renders the chart again in another world, and says what is another then.
func (r *release) compare(first rendered, disturb func(reasons), why reasons) (change, bool) {
	disturb(why)
	second, err := r.renderOnce(why)
	if err != nil {
		return change{whereOf(err), "it fails sometimes"}, true
	}
	return difference(first, second, r.spec.Hooks)
}

// blame names the calls that a change is due to: it lets the clock stand still, then changes one thing after the other.
func (r *release) blame(c change, first rendered, found []call, disturb func(reasons)) error {
	clock := func(why int) bool { return why == byClock }
	disturb(clock)
	if stopped, err := r.renderOnce(clock); err == nil {
		for range looks(found) {
			if c, is := r.compare(stopped, disturb, clock); is {
				return notReproducible(c, callsFor(found, byChance))
			}
		}
	}
	for _, one := range []int{byClock, byLookup} {
		if c, is := r.compare(first, disturb, func(why int) bool { return why == one }); is {
			return notReproducible(c, callsFor(found, one))
		}
	}
	return notReproducible(c, found)
}

// inspectTemplates finds the calls that may give something else each time, and refuses what repeats too much.
func (r *release) inspectTemplates() ([]call, error) {
	var found []call
	for _, c := range charts(r.chart) {
		for _, f := range c.Templates {
			name := r.inChart(path.Join(c.ChartFullPath(), f.Name))
			if err := checkRepetition(name, string(f.Data)); err != nil {
				return nil, err
			}
			found = append(found, fickleCalls(name, string(f.Data))...)
		}
	}
	return found, nil
}

// inChart is a template's path in the chart, without the chart's own name.
func (r *release) inChart(name string) string { return strings.TrimPrefix(name, r.chart.Name()+"/") }

// charts are a chart and its subcharts.
func charts(c *chart.Chart) []*chart.Chart {
	all := []*chart.Chart{c}
	for _, s := range c.Dependencies() {
		all = append(all, charts(s)...)
	}
	return all
}

// renderOnce runs the engine; a second look disturbs the values as well.
func (r *release) renderOnce(why reasons) (rendered, error) {
	values, err := r.renderValues()
	if err != nil {
		return nil, err
	}
	if merged, ok := values["Values"].(chartutil.Values); ok && why != nil {
		disturbValues(map[string]any(merged), why)
	}
	texts, err := engine.Render(r.chart, values)
	if err != nil {
		return nil, templateError(r.chart.Name(), err, r.secrets)
	}
	byPath := make(rendered, len(texts))
	for name, text := range texts {
		if path.Base(name) != notesFile {
			byPath[r.inChart(name)] = text
		}
	}
	return byPath, nil
}

// objects of the texts and of crds folders, in the order of Helm.
func (r *release) objects(texts rendered) ([]object, error) {
	var definitions []object
	if r.spec.CRDs != v1alpha1.CRDsSkip {
		for _, crd := range r.chart.CRDObjects() {
			objects, err := r.t.decode(r.inChart(crd.Filename), crd.File.Data)
			if err != nil {
				return nil, err
			}
			definitions = append(definitions, objects...)
		}
	}
	objects, err := texts.objects(r.t, len(r.secrets) == 0)
	if err != nil {
		return nil, err
	}
	byKind(objects, releaseutil.InstallOrder)
	objects, left, err := hooked(objects, r.spec.Hooks)
	if err != nil {
		return nil, err
	}
	objects = append(definitions, objects...)
	if len(objects) == 0 {
		return nil, r.empty(texts, left)
	}
	return objects, nil
}

// empty says why there is nothing to deliver.
func (r *release) empty(texts rendered, left int) error {
	why := "with these values the chart renders no objects"
	switch {
	case len(texts) == 0:
		why = "the chart has no templates and no CRDs"
	case left > 0:
		why = fmt.Sprintf("the chart renders hooks that are left out (%d), and nothing else", left)
	}
	return failure(v1alpha1.ReasonEmptyRender, "%s: %s; nothing is deleted (R12)", r.label, why)
}
