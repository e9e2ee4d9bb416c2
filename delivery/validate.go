// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// Validate refuses what no cluster would have to be asked about: a release without objects (nothing is ever deleted
// because a render came out empty, R12 of docs/rules.md), too many of them, one without a name, the same twice, a wave
// that is none, and Flotilla's own kinds, with which a payload could steer the fleet past its authors.
func Validate(r Release) error {
	if len(r.Objects) == 0 {
		return &fleet.Error{
			Kind: fleet.Refused, Reason: v1alpha1.ReasonEmptyRender,
			Err: fmt.Errorf("%s holds no objects; nothing is applied and nothing is deleted", r.Revision.Short()),
		}
	}
	if len(r.Objects) > MaxObjects {
		return &fleet.Error{
			Kind: fleet.Terminal, Reason: v1alpha1.ReasonTooLarge, Hint: "deliver it as several rollouts",
			Err: fmt.Errorf("%s holds %d objects, at most %d are delivered as one", r.Revision.Short(), len(r.Objects), MaxObjects),
		}
	}
	for n, o := range r.Objects {
		if err := validateObject(o); err != nil {
			return invalid("object %d of %d: %w", n+1, len(r.Objects), err)
		}
	}
	return CheckTwice(objectIDs(r.Objects))
}

func validateObject(o *unstructured.Unstructured) error {
	id := IDOf(o)
	switch {
	case id.Kind == "" || id.Version == "":
		return errors.New("no apiVersion or kind")
	case id.Name == "" && o.GetGenerateName() != "":
		return fmt.Errorf("%s: generateName would make another object each time; give it a name", id.Kind)
	case id.Name == "":
		return fmt.Errorf("%s without a name", id.Kind)
	case id.Group == v1alpha1.GroupVersion.Group:
		return fmt.Errorf("%s: payloads may not carry %s kinds", id, v1alpha1.GroupVersion.Group)
	}
	if _, err := WaveOf(o); err != nil {
		return fmt.Errorf("%s: %w", id, err)
	}
	if _, err := MayRecreate(o); err != nil {
		return fmt.Errorf("%s: %w", id, err)
	}
	return nil
}

// CheckTwice refuses a list that names an object twice: each delivery would write it twice, for ever.
func CheckTwice(ids []ObjectID) error {
	seen := make(map[ObjectID]bool, len(ids))
	for _, id := range ids {
		if seen[unversioned(id)] {
			return invalid("%s is in the payload twice", id)
		}
		seen[unversioned(id)] = true
	}
	return nil
}

func invalid(format string, args ...any) error {
	return &fleet.Error{Kind: fleet.Terminal, Reason: v1alpha1.ReasonInvalidManifest, Err: fmt.Errorf(format, args...)}
}
