// SPDX-License-Identifier: Apache-2.0

package specialize

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// The annotations that Helm runs hooks by.
const (
	hookAnnotation       = "helm.sh/hook"
	hookWeightAnnotation = "helm.sh/hook-weight"
	hookDeleteAnnotation = "helm.sh/hook-delete-policy"
	hookOutputAnnotation = "helm.sh/hook-output-log-policy"
)

// hookPlace is when an object of a chart is delivered.
type hookPlace int

const (
	before hookPlace = iota - 1 // pre-install, pre-upgrade
	amid                        // no hook
	after                       // post-install, post-upgrade
	never                       // hooks of what there is no such thing of here: delete, rollback, test
)

// places of Helm's hooks. crd-install is Helm 2's, and nothing to Helm 3.
var places = map[string]hookPlace{
	"pre-install": before, "pre-upgrade": before,
	"post-install": after, "post-upgrade": after,
	"pre-delete": never, "post-delete": never, "pre-rollback": never, "post-rollback": never,
	"test": never, "test-success": never, "test-failure": never, "crd-install": never,
}

// hook is an object of a chart with its place; amid is none.
type hook struct {
	object
	place  hookPlace
	weight int
}

// hooked puts the chart's hooks in order, as the spec has it, and says how many objects it left out.
func hooked(objects []object, mode string) (ordered []object, left int, err error) {
	var hooks []hook
	var rest []object
	var refused []string
	for _, o := range objects {
		h, err := hookOf(o)
		switch {
		case err != nil:
			return nil, 0, err
		case h.place == amid:
			rest = append(rest, o)
		case h.place == never || mode == v1alpha1.HooksIgnore:
			left++
		case mode == v1alpha1.HooksRefuse:
			refused = append(refused, o.title()+" in "+o.where)
		default:
			hooks = append(hooks, h)
		}
	}
	if len(refused) > 0 {
		return nil, 0, hinted(v1alpha1.ReasonRenderFailed, "Order delivers them in order, Ignore leaves them out",
			"%s.hooks is Refuse, and the chart has hooks: %s", helmPlace, list(refused))
	}
	early, err := inWaves(hooks, before)
	if err != nil {
		return nil, 0, err
	}
	late, err := inWaves(hooks, after)
	return slices.Concat(early, rest, late), left, err
}

// hookOf says whether an object is a hook, and of what.
func hookOf(o object) (hook, error) {
	annotations := o.annotations()
	text, is := annotations[hookAnnotation].(string)
	if !is {
		return hook{object: o}, nil
	}
	h := hook{object: o, place: never}
	for word := range strings.SplitSeq(text, ",") {
		word = strings.ToLower(strings.TrimSpace(word))
		at, known := places[word]
		switch {
		case !known:
			return hook{}, failure(v1alpha1.ReasonRenderFailed, "%s: %s: there is no hook %q", o.where, o.title(), clip(word))
		case at == never:
		case h.place != never && h.place != at:
			// Helm would make it twice. What does not run is there all the while when it is there first.
			if kind := o.fields["kind"]; kind == "Job" || kind == "Pod" {
				return hook{}, hinted(v1alpha1.ReasonRenderFailed, "make two of it, or leave all hooks out with hooks: Ignore",
					"%s: %s is to run before and after everything else (%s), and one object runs once", o.where, o.title(), text)
			}
			h.place = before
		default:
			h.place = at
		}
	}
	weight, _ := annotations[hookWeightAnnotation].(string)
	h.weight, _ = strconv.Atoi(weight) // Helm takes what is no number for 0
	return h, nil
}

// inWaves gives the hooks of one place, and each weight among them a wave: -1 is the last before everything else,
// 1 the first after it.
func inWaves(all []hook, at hookPlace) ([]object, error) {
	hooks := slices.DeleteFunc(slices.Clone(all), func(h hook) bool { return h.place != at })
	slices.SortStableFunc(hooks, func(a, b hook) int { return cmp.Compare(a.weight, b.weight) })
	var weights []int
	for _, h := range hooks {
		weights = append(weights, h.weight)
	}
	weights = slices.Compact(weights)
	if len(weights) > v1alpha1.MaxWave {
		return nil, tooLarge("the chart's hooks have %d weights; at most %d", len(weights), v1alpha1.MaxWave)
	}
	var objects []object
	for _, h := range hooks {
		number := slices.Index(weights, h.weight)
		wave := number + 1
		if at == before {
			wave = number - len(weights)
		}
		h.deliver(wave)
		objects = append(objects, h.object)
	}
	return objects, nil
}

// deliver makes an ordinary object of the hook, in a wave.
func (h hook) deliver(wave int) {
	annotations := maps.Clone(h.annotations())
	for _, key := range []string{hookAnnotation, hookWeightAnnotation, hookDeleteAnnotation, hookOutputAnnotation} {
		delete(annotations, key)
	}
	setDefault(annotations, v1alpha1.AnnotationWave, strconv.Itoa(wave))
	kind, _ := h.fields["kind"].(string)
	switch kind {
	case "Namespace", "PersistentVolume", "CustomResourceDefinition": // never made anew
	default:
		// Whatever Helm's policy deletes it upon, the next release finds it gone and makes it anew.
		setDefault(annotations, v1alpha1.AnnotationForce, v1alpha1.ForceEnabled)
	}
	h.fields["metadata"].(map[string]any)["annotations"] = annotations
	if spec, ok := h.fields["spec"].(map[string]any); ok && kind == "Job" {
		// A finished Job that went away would be made again, and run again.
		delete(spec, "ttlSecondsAfterFinished")
	}
}

func (o object) annotations() map[string]any {
	meta, _ := o.fields["metadata"].(map[string]any)
	annotations, _ := meta["annotations"].(map[string]any)
	return annotations
}

// title is what messages call an object that may be none.
func (o object) title() string {
	meta, _ := o.fields["metadata"].(map[string]any)
	return clip(fmt.Sprintf("%v %v", o.fields["kind"], meta["name"]))
}
