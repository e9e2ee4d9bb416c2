// SPDX-License-Identifier: Apache-2.0

package specialize

import (
	"fmt"
	"maps"
	"strings"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// substituteDisabled is the value of v1alpha1.AnnotationSubstitute that keeps an object as it is.
const substituteDisabled = "disabled"

// postBuild replaces variables in the built objects.
func (in Input) postBuild(objects []object, overrides []v1alpha1.Override) ([]object, error) {
	asked := in.Spec != nil && in.Spec.PostBuild != nil
	for _, o := range overrides {
		asked = asked || len(o.Substitute) > 0
	}
	if !asked {
		return objects, nil
	}
	given, err := in.given(overrides)
	if err != nil {
		return nil, err
	}
	s := &substitution{builtIn: in.variables, given: given}
	for i, o := range objects {
		if objects[i].fields, err = s.replaced(o); err != nil {
			return nil, err
		}
	}
	return objects, nil
}

// given is every variable that the objects may name: what comes later wins, and is not looked into for variables.
func (in Input) given(overrides []v1alpha1.Override) (map[string]string, error) {
	given := map[string]string{}
	maps.Copy(given, in.variables.own)
	if post := in.Spec.PostBuild; post != nil {
		if err := in.substituteFrom(given, post.SubstituteFrom); err != nil {
			return nil, err
		}
		maps.Copy(given, post.Substitute)
	}
	for _, o := range overrides {
		maps.Copy(given, o.Substitute)
	}
	return given, nil
}

// substituteFrom takes every key of the ConfigMaps and Secrets. Line breaks at the end of a value are left out, as
// the shell does with $(cat file): they come of how files are written, and break the texts that values are put in.
func (in Input) substituteFrom(given map[string]string, from []v1alpha1.SubstituteReference) error {
	for i, f := range from {
		data, there := in.Cluster.Objects[Reference{f.Kind, f.Name}]
		if !there && f.Optional {
			continue
		}
		if !there {
			return &fleet.Error{
				Kind: fleet.Retryable, Reason: v1alpha1.ReasonInputMissing, Hint: "create it, or set optional: true",
				Err: fmt.Errorf("spec.specialize.postBuild.substituteFrom[%d]: %s has no %s %s in namespace %s",
					i, in.Member.Name, f.Kind, f.Name, in.Rollout.Namespace),
			}
		}
		for key, value := range data {
			given[key] = strings.TrimRight(value, "\r\n")
		}
	}
	return nil
}
