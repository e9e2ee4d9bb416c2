// SPDX-License-Identifier: Apache-2.0

package specialize

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"sigs.k8s.io/kustomize/api/resmap"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/yaml"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// supplements walks the files that a kustomization takes beside its bases.
func (w *walk) supplements(l *layer, k *types.Kustomization) error {
	for _, texts := range [][]string{k.Crds, k.Configurations} {
		for _, text := range texts {
			name, err := w.file(l, text)
			if err != nil {
				return err
			}
			if _, err := w.yaml(name); err != nil {
				return err
			}
		}
	}
	if err := w.patches(l, k); err != nil {
		return err
	}
	if err := w.replacements(l, k.Replacements); err != nil {
		return err
	}
	for _, m := range k.ConfigMapGenerator {
		if err := w.sources(l, m.KvPairSources); err != nil {
			return err
		}
	}
	for _, s := range k.SecretGenerator {
		if err := w.sources(l, s.KvPairSources); err != nil {
			return err
		}
	}
	_, _, vars := deprecated(k)
	w.growth.vars = w.growth.vars || len(vars) > 0
	return nil
}

// deprecated gives the fields that kustomize goes on reading and would have nobody use.
func deprecated(k *types.Kustomization) ([]types.Patch, []types.PatchStrategicMerge, []types.Var) {
	return k.PatchesJson6902, k.PatchesStrategicMerge, k.Vars //nolint:staticcheck // what is read must be walked
}

// patches walks the three fields that kustomize takes patches from. An entry of patchesStrategicMerge is a
// patch where it reads as one, and else a file's name.
func (w *walk) patches(l *layer, k *types.Kustomization) error {
	byJSON, byMerge, _ := deprecated(k)
	for _, p := range slices.Concat(k.Patches, byJSON) {
		if err := w.patch(l, p); err != nil {
			return err
		}
	}
	for _, entry := range byMerge {
		p := types.Patch{Patch: string(entry)}
		if _, err := w.inline(l, string(entry)); err != nil {
			return err
		}
		if _, err := w.resources.SliceFromBytes([]byte(entry)); err != nil {
			p = types.Patch{Path: string(entry)}
		}
		if err := w.patch(l, p); err != nil {
			return err
		}
	}
	return nil
}

func (w *walk) patch(l *layer, p types.Patch) error {
	text, documents, err := w.patchText(l, p)
	if err != nil {
		return err
	}
	for range documents {
		if err := w.used.object(l.file); err != nil {
			return err
		}
	}
	w.growth.patch(text)
	return nil
}

// patchText is the patch itself, and of how many documents it is.
func (w *walk) patchText(l *layer, p types.Patch) (text []byte, documents int, err error) {
	if p.Path == "" {
		documents, err = w.inline(l, p.Patch)
		return []byte(p.Patch), documents, err
	}
	name, err := w.file(l, p.Path)
	if err != nil {
		return nil, 0, err
	}
	text, err = w.yaml(name)
	return text, w.scanned[name].documents, err
}

// inline measures YAML that stands as text in a kustomization, and counts its documents. Text that is no YAML
// is kustomize's to refuse, or is a file's name.
func (w *walk) inline(l *layer, text string) (documents int, err error) {
	where := l.file + ": " + clip(firstLine(text))
	docs, err := w.scan(where, []byte(text))
	if fleet.ReasonOf(err, "") == v1alpha1.ReasonTooLarge {
		return 0, err
	}
	return len(docs), nil
}

// replacements walks the files among them, and notes all of them for their growth.
func (w *walk) replacements(l *layer, fields []types.ReplacementField) error {
	for _, f := range fields {
		if f.Path == "" {
			w.growth.replacement(f.Replacement)
			continue
		}
		name, err := w.file(l, f.Path)
		if err != nil {
			return err
		}
		content, err := w.yaml(name)
		if err != nil {
			return err
		}
		var many []types.Replacement
		if err := yaml.Unmarshal(content, &many); err != nil {
			var one types.Replacement
			if err := yaml.Unmarshal(content, &one); err != nil {
				return l.refuse(f.Path, "replacements: %s: %s", name, readable(err.Error()))
			}
			many = append(many, one)
		}
		for _, r := range many {
			w.growth.replacement(r)
		}
	}
	return nil
}

// sources walks the files of one generator of a ConfigMap or Secret.
func (w *walk) sources(l *layer, s types.KvPairSources) error {
	files := append([]string(nil), s.EnvSources...)
	if s.EnvSource != "" {
		files = append(files, s.EnvSource)
	}
	for _, text := range s.FileSources {
		if _, after, named := strings.Cut(text, "="); named { // key=file
			text = after
		}
		files = append(files, text)
	}
	for _, text := range files {
		name, err := w.file(l, text)
		if err != nil {
			return err
		}
		content, err := w.data(name)
		if err != nil {
			return err
		}
		w.used.longest = max(w.used.longest, len(content))
	}
	return nil
}

// plugins walks generators, transformers and validators. An entry is a plugin's configuration where it reads
// as one, and else the name of a file of such. A folder could put configurations together that nobody has
// seen before kustomize acts on them, and is refused.
func (w *walk) plugins(l *layer, field string, entries []string) error {
	for _, entry := range entries {
		configs, err := w.configs(l, field, entry)
		if err != nil {
			return err
		}
		for _, c := range configs.Resources() {
			gvk := c.GetGvk()
			config, err := c.AsYAML()
			if err != nil {
				return l.refuse(entry, "%s: %s", field, readable(err.Error()))
			}
			if gvk.Group != "" || gvk.Version != "builtin" {
				return l.refuse(entry, "%s: %s of %s is a plugin; only kustomize's built-in ones are run", field, gvk.Kind, gvk.ApiVersion())
			}
			if err := w.builtin(l, gvk.Kind, config); err != nil {
				return l.at(entry, field, err)
			}
		}
	}
	return nil
}

// configs reads the configurations that an entry is or names. It asks the function that kustomize asks: a text
// that only one of the two took for a configuration, the other would take for a path, or for a repository.
func (w *walk) configs(l *layer, field, entry string) (resmap.ResMap, error) {
	if beginsRemote(entry) {
		return nil, l.checkLocal(entry)
	}
	if _, err := w.inline(l, entry); err != nil {
		return nil, err
	}
	factory := resmap.NewFactory(w.resources)
	if configs, err := factory.NewResMapFromBytes([]byte(entry)); err == nil {
		return configs, nil
	}
	name, err := w.file(l, entry)
	if err != nil {
		return nil, err
	}
	content, err := w.yaml(name)
	if err != nil {
		return nil, err
	}
	configs, err := factory.NewResMapFromBytes(content)
	if err != nil {
		return nil, l.refuse(entry, "%s: %s: %s", field, name, readable(err.Error()))
	}
	return configs, nil
}

// at puts a place to an error that has none.
func (l *layer) at(text, field string, err error) error {
	if located := (*fleet.Error)(nil); errors.As(err, &located) {
		return err
	}
	return l.refuse(text, "%s: %w", field, err)
}

// builtin walks what the configuration of one built-in plugin refers to. It is decoded as kustomize does, and
// then read as the kustomization that would say the same.
func (w *walk) builtin(l *layer, kind string, config []byte) error {
	var k types.Kustomization
	var err error
	decode := func(into any) { err = yaml.Unmarshal(config, into) }
	switch kind {
	case "HelmChartInflationGenerator":
		return errors.New(kind + " would run helm, and no program is run")
	case "AnnotationsTransformer", "HashTransformer", "IAMPolicyGenerator", "ImageTagTransformer", "LabelTransformer",
		"NamespaceTransformer", "PrefixSuffixTransformer", "PrefixTransformer", "SuffixTransformer", "ReplicaCountTransformer":
		return nil // these refer to nothing
	case "ConfigMapGenerator":
		var c types.ConfigMapArgs
		decode(&c)
		k.ConfigMapGenerator = []types.ConfigMapArgs{c}
	case "SecretGenerator":
		var c types.SecretArgs
		decode(&c)
		k.SecretGenerator = []types.SecretArgs{c}
	case "PatchTransformer":
		var c types.Patch
		decode(&c)
		k.Patches = []types.Patch{c}
	case "PatchJson6902Transformer":
		var c struct {
			Path string
			Op   string `json:"jsonOp"`
		}
		decode(&c)
		k.Patches = []types.Patch{{Path: c.Path, Patch: c.Op}}
	case "PatchStrategicMergeTransformer":
		var c struct {
			Paths   []types.PatchStrategicMerge
			Patches string
		}
		decode(&c)
		k.PatchesStrategicMerge = c.Paths //nolint:staticcheck // the plugin's field is this one
		k.Patches = []types.Patch{{Patch: c.Patches}}
	case "ReplacementTransformer":
		var c struct{ Replacements []types.ReplacementField }
		decode(&c)
		k.Replacements = c.Replacements
	case "ValueAddTransformer":
		var c struct{ TargetFilePath string }
		decode(&c)
		if c.TargetFilePath != "" {
			k.Configurations = []string{c.TargetFilePath}
		}
	default:
		return fmt.Errorf("%s is no built-in plugin that this version runs", kind)
	}
	if err != nil {
		return fmt.Errorf("%s: %s", kind, readable(err.Error()))
	}
	return w.supplements(l, &k)
}
