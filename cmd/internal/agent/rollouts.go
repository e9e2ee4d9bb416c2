// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/cmd/internal/agent/turn"
	"github.com/flotilla-dev/flotilla/sequencer"
)

// Blobs are bodies by digest, from this member's store or its peers.
type Blobs interface {
	FetchBlob(context.Context, fleet.Digest) ([]byte, error)
}

// Homes answers what is asked of the fleet, from its three places: the fleet repository, this
// member's own API, and the seals that other members wrote. Git wins over kubectl; between two
// members nobody is first by arrival, so both wait.
type Homes struct {
	Ledger *MeshLedger
	Blobs  Blobs
	// NameOf a member for messages.
	NameOf func(fleet.MemberID) fleet.Name

	mu         sync.Mutex
	repository *RepositoryContent // what the fleet repository says; nil until it was read
	opened     map[fleet.Digest]sequencer.Sealed
	replaced   []sequencer.Sealed                  // what the fleet repository said before, the oldest first
	settings   map[fleet.RolloutName]turn.Settings // of rollouts that are written here
}

// Rollout is in turn.Rollouts.
func (h *Homes) Rollout(ctx context.Context, name fleet.RolloutName) (turn.Rollout, bool, error) {
	if declared, ok, fault := h.declared(name); ok || fault != nil {
		return declared, ok, fault
	}
	seal, ok, err := h.authored(name)
	if !ok || err != nil {
		return turn.Rollout{}, false, err
	}
	sealed, err := h.open(ctx, seal)
	if err != nil {
		return turn.Rollout{}, false, err
	}
	author := fleet.MemberID(seal.Author)
	return turn.Rollout{
		Sealed: sealed, Settings: h.settingsOf(name, sealed),
		Origin:    v1alpha1.Origin{Type: "Member", Name: string(h.NameOf(author))},
		Withdrawn: withdrawn(h.Ledger.Commands(name), seal),
	}, true, nil
}

// withdrawn by the seal's own author: nobody else ends its rollout.
func withdrawn(commands []fleet.Command, seal fleet.Seal) bool {
	for _, c := range commands {
		if c.Verb == fleet.Withdraw && string(c.By) == seal.Author && slices.Contains(c.Lifts, seal.Digest()) {
			return true
		}
	}
	return false
}

// authored is the one seal that a member wrote; with two authors both wait until one withdraws.
func (h *Homes) authored(name fleet.RolloutName) (fleet.Seal, bool, error) {
	var found, ended []fleet.Seal
	var removed []string
	commands := h.Ledger.Commands(name)
	for _, seal := range h.Ledger.Seals(name) {
		switch author := fleet.MemberID(seal.Author); {
		case withdrawn(commands, seal):
			ended = append(ended, seal)
		case h.Ledger.Removed(author):
			removed = append(removed, string(h.NameOf(author)))
		default:
			found = append(found, seal)
		}
	}
	switch {
	case len(found) == 0 && len(removed) > 0:
		slices.Sort(removed)
		return fleet.Seal{}, false, &fleet.Error{
			Kind: fleet.Refused, Reason: v1alpha1.ReasonForked,
			Err:  fmt.Errorf("%s is written on %s, whose key signed two things in one position; what it says counts for nothing, and what runs stays", name, strings.Join(removed, ", ")),
			Hint: "give that cluster a new key and write the rollout again, there or on another member",
		}
	case len(found) == 1:
		return found[0], true, nil
	case len(found) == 0 && len(ended) > 0:
		return ended[0], true, nil
	case len(found) == 0:
		return fleet.Seal{}, false, nil
	}
	names := map[string]bool{}
	for _, s := range found {
		names[string(h.NameOf(fleet.MemberID(s.Author)))] = true
	}
	return fleet.Seal{}, false, &fleet.Error{
		Kind: fleet.Refused, Reason: v1alpha1.ReasonForeignAuthor,
		Err:  fmt.Errorf("%s is written on %d members: %v; nobody acts on either", name, len(found), sortedKeys(names)),
		Hint: "delete it on all of them but one",
	}
}

// open a seal with its bodies. They are immutable, so each seal is opened once.
func (h *Homes) open(ctx context.Context, seal fleet.Seal) (sequencer.Sealed, error) {
	digest := seal.Digest()
	h.mu.Lock()
	sealed, ok := h.opened[digest]
	h.mu.Unlock()
	if ok {
		return sealed, nil
	}
	spec, err := h.Blobs.FetchBlob(ctx, seal.Spec)
	if err != nil {
		return sequencer.Sealed{}, fmt.Errorf("spec of seal %s: %w", digest.Short(), err)
	}
	members, err := h.Blobs.FetchBlob(ctx, seal.Members)
	if err != nil {
		return sequencer.Sealed{}, fmt.Errorf("members of seal %s: %w", digest.Short(), err)
	}
	if sealed, err = sequencer.Open(seal, spec, members); err != nil {
		return sequencer.Sealed{}, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.opened == nil {
		h.opened = map[fleet.Digest]sequencer.Sealed{}
	}
	h.opened[digest] = sealed
	return sealed, nil
}

func (h *Homes) declared(name fleet.RolloutName) (turn.Rollout, bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.repository == nil {
		return turn.Rollout{}, false, nil
	}
	rollout, ok := h.repository.Rollouts[name]
	return rollout, ok, h.repository.Faults[name]
}

// Declare replaces all that the fleet repository says.
func (h *Homes) Declare(content RepositoryContent) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.repository != nil {
		for name, before := range h.repository.Rollouts {
			if now, ok := content.Rollouts[name]; !ok || now.Digest() != before.Digest() {
				h.replaced = append(h.replaced, before.Sealed)
			}
		}
		h.replaced = h.replaced[max(0, len(h.replaced)-replacedKept):]
	}
	h.repository = &content
}

// replacedKept seals of the fleet repository are remembered, so that what went by them can be verified: no record holds them.
const replacedKept = 256

// Seals that this process has acted on, or might: those of the fleet repository, and of members those that it opened.
func (h *Homes) Seals() []sequencer.Sealed {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := slices.Clone(h.replaced)
	if h.repository != nil {
		for _, rollout := range h.repository.Rollouts {
			out = append(out, rollout.Sealed)
		}
	}
	return slices.AppendSeq(out, maps.Values(h.opened))
}

// Gone says that the fleet repository was read to its last file and has no such rollout: a positive
// statement, where not having been able to read it is none (R12).
func (h *Homes) Gone(name fleet.RolloutName) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.repository == nil || len(h.repository.Unreadable) > 0 || h.repository.Faults[name] != nil {
		return false
	}
	_, there := h.repository.Rollouts[name]
	return !there
}

// Names of all rollouts that anybody wrote.
func (h *Homes) Names() []fleet.RolloutName {
	h.mu.Lock()
	defer h.mu.Unlock()
	seen := map[fleet.RolloutName]bool{}
	if h.repository != nil {
		for name := range h.repository.Rollouts {
			seen[name] = true
		}
		for name := range h.repository.Faults {
			seen[name] = true
		}
	}
	for _, name := range h.Ledger.Sealed() {
		seen[name] = true
	}
	out := make([]fleet.RolloutName, 0, len(seen))
	for name := range seen {
		out = append(out, name)
	}
	return out
}

// IsDeclared by the fleet repository.
func (h *Homes) IsDeclared(name fleet.RolloutName) bool {
	_, ok, fault := h.declared(name)
	return ok || fault != nil
}

// Set the settings of a rollout that is written here.
func (h *Homes) Set(name fleet.RolloutName, s turn.Settings) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.settings == nil {
		h.settings = map[fleet.RolloutName]turn.Settings{}
	}
	h.settings[name] = s
}

// settingsOf a rollout: its own where it is written here, else what is the default. They make no
// release, so members may differ in them.
func (h *Homes) settingsOf(name fleet.RolloutName, sealed sequencer.Sealed) turn.Settings {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s, ok := h.settings[name]; ok {
		return s
	}
	return turn.SettingsOf(sealed.Spec)
}
