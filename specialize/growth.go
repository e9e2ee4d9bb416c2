// SPDX-License-Identifier: Apache-2.0

package specialize

import (
	"encoding/json"
	"slices"
	"strings"

	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/utils"
	"sigs.k8s.io/yaml"

	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// Bounds of what kustomize may make of what it reads: it has none of its own, and a few lines are enough
// to ask it for more memory or time than there is.
const (
	// maxGrowth is how many bytes may lie in memory by the estimates below.
	maxGrowth = 256 << 20
	// maxWork is the sum of the squares of the objects of every kustomization, to which kustomize's time
	// grows: 1,000 objects in one layer take a second or two, 3,000 with a prefix to their names ten. What takes
	// longer for other reasons is ended by the process that it runs in.
	maxWork = 40_000_000
	// renaming is how many times as long it takes where a layer changes names or namespaces: each reference is
	// then compared with every name that each object has had.
	renaming = 4
)

// growth estimates, from above, what the walked kustomizations do to the objects.
type growth struct {
	work int
	// patched is bytes of patches; each may be merged into every object.
	patched int
	// copies in JSON patches, each of which may double an object.
	copies int
	// vars are in use: each "$(" in a text may stand for the longest text there is.
	vars bool
	// dollars counts "$(".
	dollars int
	// sources and targets of replacements, as split field paths.
	sources, targets [][]string
}

// layer notes a kustomization of n objects.
func (g *growth) layer(file string, n int, k *types.Kustomization) error {
	work := n * n
	if k.NamePrefix != "" || k.NameSuffix != "" || k.Namespace != "" {
		work *= renaming
	}
	if g.work += work; g.work > maxWork {
		return hinted(v1alpha1.ReasonTooLarge, "split the payload, or commit what 'kustomize build' prints",
			"%s: %d objects in so many kustomizations are too many for kustomize, whose time grows with their square", file, n)
	}
	return nil
}

// patch notes a patch of either form.
func (g *growth) patch(text []byte) {
	g.patched += len(text)
	var operations []struct{ Op string }
	if json.Unmarshal(text, &operations) != nil && yaml.Unmarshal(text, &operations) != nil {
		return // not a JSON patch
	}
	for _, o := range operations {
		if o.Op == "copy" {
			g.copies++
		}
	}
}

// replacement notes where one reads and writes.
func (g *growth) replacement(r types.Replacement) {
	if r.Source != nil {
		g.sources = append(g.sources, fieldPath(r.Source.FieldPath))
	}
	for _, t := range r.Targets {
		if t == nil {
			continue
		}
		if len(t.FieldPaths) == 0 {
			g.targets = append(g.targets, fieldPath(""))
		}
		for _, p := range t.FieldPaths {
			g.targets = append(g.targets, fieldPath(p))
		}
	}
}

func fieldPath(p string) []string {
	if p == "" {
		p = types.DefaultReplacementFieldPath
	}
	return utils.SmarterPathSplitter(p, ".")
}

// feeding counts the replacements that may read what one of them has written: each of these may double a
// text, or put a field into itself. Which objects they mean is left out of account.
func (g *growth) feeding() int {
	n := 0
	for _, s := range g.sources {
		if slices.ContainsFunc(g.targets, func(t []string) bool { return overlap(s, t) }) {
			n++
		}
	}
	return n
}

// overlap says whether one path may be, hold or lie in the other.
func overlap(a, b []string) bool {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] && !anyField(a[i]) && !anyField(b[i]) {
			return false
		}
	}
	return true
}

// anyField says whether a part of a path may mean fields of other spellings: *, [name=x], an index, "-" for
// the end of a list, or something escaped.
func anyField(part string) bool {
	return part == "-" || strings.ContainsAny(part, `*[\`) || strings.Trim(part, "0123456789") == ""
}

// check refuses what may grow over the bound from what was used.
func (g *growth) check(used budget) error {
	doublings := g.copies + g.feeding()
	switch {
	case doublings > 0 && (doublings > 30 || used.bytes<<doublings > maxGrowth):
		return tooLarge("%d copies in JSON patches and replacements that read what others write may double %d bytes as often, which is over %d MiB",
			doublings, used.bytes, maxGrowth>>20)
	case g.patched*used.objects > maxGrowth:
		return tooLarge("%d bytes of patches on %d objects may come to over %d MiB", g.patched, used.objects, maxGrowth>>20)
	case g.vars && g.dollars*used.longest > maxGrowth:
		return tooLarge("%d vars of at most %d bytes may come to over %d MiB", g.dollars, used.longest, maxGrowth>>20)
	}
	return nil
}
