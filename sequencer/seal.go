// SPDX-License-Identifier: Apache-2.0

package sequencer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// CompileVersion of the rules in this package. A seal of another version is not acted on (R1):
// two members that ranked one seal differently would each be right and break the window together.
const CompileVersion = 1

// Sealed is a seal with its two bodies: nobody acts on half of one (R1).
type Sealed struct {
	fleet.Seal
	// Spec holds what is sealed; intervals, timeouts and suspend are not in it.
	Spec v1alpha1.FleetRolloutSpec
	// Targets sorted by name.
	Targets []fleet.Member
}

// Position of a seal in the order of its rollout (R1).
type Position struct {
	Author       string
	Term, Number uint64
}

// Seal fixes a rollout for its targets. The same spec, targets and position give the same digest, in
// whatever order the targets come. Two targets of one name or key are refused: nobody could open the seal.
func Seal(name fleet.RolloutName, at Position, spec v1alpha1.FleetRolloutSpec, targets []fleet.Member) (Sealed, error) {
	s := Sealed{
		Seal: fleet.Seal{
			Rollout: name, Author: at.Author, Term: at.Term, Number: at.Number,
			CompileVersion: CompileVersion,
		},
		Spec:    sealedPart(spec),
		Targets: slices.Clone(targets),
	}
	for i := range s.Targets {
		s.Targets[i].Addresses = nil // not sealed: the author's plan is the one that everybody opens
	}
	slices.SortFunc(s.Targets, byName)
	if m := duplicate(s.Targets); m != nil {
		return Sealed{}, &fleet.Error{
			Kind: fleet.Terminal, Reason: v1alpha1.ReasonInvalid,
			Err: fmt.Errorf("seal %s: spec.targets: the name or key of %s is there twice; correct the roster", name, m.Name),
		}
	}
	specBody, membersBody, err := s.Bodies()
	if err != nil {
		return Sealed{}, fmt.Errorf("seal %s: %w", name, err)
	}
	s.Seal.Spec, s.Seal.Members = fleet.BlobDigest(specBody), fleet.BlobDigest(membersBody)
	return s, nil
}

// sealedPart leaves out what makes no release when it changes (R1).
func sealedPart(spec v1alpha1.FleetRolloutSpec) v1alpha1.FleetRolloutSpec {
	out := *spec.DeepCopy()
	out.Suspend = false
	out.Source.Interval, out.Source.Timeout = nil, nil
	out.Delivery.Interval, out.Delivery.RetryInterval = nil, nil
	return out
}

// Bodies are the two blobs that the seal names, in their canonical bytes.
func (s Sealed) Bodies() (spec, members []byte, err error) {
	if spec, err = json.Marshal(s.Spec); err != nil {
		return nil, nil, fmt.Errorf("spec: %w", err)
	}
	if members, err = json.Marshal(s.Targets); err != nil {
		return nil, nil, fmt.Errorf("members: %w", err)
	}
	return spec, members, nil
}

// Open puts a seal and its bodies together. A field that this version does not know refuses the
// whole seal: it might be the one that was meant to hold this member back.
func Open(seal fleet.Seal, spec, members []byte) (Sealed, error) {
	if seal.CompileVersion != CompileVersion {
		return Sealed{}, sealError(seal, "it was compiled by rules of version %d, this agent knows %d; upgrade the agent",
			seal.CompileVersion, CompileVersion)
	}
	if fleet.BlobDigest(spec) != seal.Spec || fleet.BlobDigest(members) != seal.Members {
		return Sealed{}, sealError(seal, "its bodies are not the ones it names")
	}
	s := Sealed{Seal: seal}
	if err := strict(spec, &s.Spec); err != nil {
		return Sealed{}, sealError(seal, "spec: %v; a newer agent wrote it: upgrade this one", err)
	}
	if err := strict(members, &s.Targets); err != nil {
		return Sealed{}, sealError(seal, "members: %v; a newer agent wrote it: upgrade this one", err)
	}
	if !slices.IsSortedFunc(s.Targets, byName) || duplicate(s.Targets) != nil {
		return Sealed{}, sealError(seal, "its members are not sorted, or one is there twice")
	}
	return s, nil
}

func strict(b []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) { // not More: it takes a stray bracket for the end
		return errors.New("something follows the document")
	}
	return nil
}

func byName(a, b fleet.Member) int { return strings.Compare(string(a.Name), string(b.Name)) }

// duplicate is the first member whose name or key another one before it has, or nil.
func duplicate(sorted []fleet.Member) *fleet.Member {
	ids := make(map[fleet.MemberID]bool, len(sorted))
	for i := range sorted {
		m := &sorted[i]
		if ids[m.ID] || i > 0 && sorted[i-1].Name == m.Name {
			return m
		}
		ids[m.ID] = true
	}
	return nil
}

func sealError(seal fleet.Seal, format string, args ...any) error {
	return &fleet.Error{
		Kind: fleet.Terminal, Reason: v1alpha1.ReasonInvalid,
		Err: fmt.Errorf("seal %s of %s: %s", seal.Digest().Short(), seal.Rollout, fmt.Sprintf(format, args...)),
	}
}
