// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// Bounds of what one rollout may have in one cluster.
const (
	// MaxObjects of one release.
	MaxObjects = 5000
	// maxInventoryBytes of an encoded inventory. An object of the API holds 1 MiB at most.
	maxInventoryBytes = 900 << 10
)

// inventoryVersion of the encoding. Additions keep it; a reader that must not read on gets the next one.
const inventoryVersion = 1

// Inventory is what one rollout has in one cluster. It is written before objects are applied and after they are
// pruned, so that whatever ends a delivery half-way, no object is ever forgotten.
type Inventory struct {
	Rollout fleet.RolloutName
	// Plan, Revision and Digest of the release that was delivered last, whether to its end or not.
	Plan     fleet.Digest
	Revision fleet.Revision
	Digest   fleet.Digest
	// Objects of that release.
	Objects []ObjectID
	// Left by earlier releases: no longer in the manifest and still in the cluster, because their turn to be pruned
	// has not come, their kind is never pruned, or deleting them was refused.
	Left []ObjectID
	// Pending: the last wave of the release was not applied yet.
	Pending bool
	// Done are Jobs of the release that are complete. What deletes them then, such as their ttlSecondsAfterFinished,
	// does not make them run again.
	Done []Done
}

// Done is a Job that is complete, by the digest of its manifest: with another one it runs again.
type Done struct {
	Object   ObjectID     `json:"object"`
	Manifest fleet.Digest `json:"manifest"`
}

// ManifestOf an object as it is applied, for Done.
func ManifestOf(o *unstructured.Unstructured) (fleet.Digest, error) {
	raw, err := json.Marshal(o.Object)
	if err != nil {
		return fleet.Digest{}, fmt.Errorf("%s: %w", IDOf(o), err)
	}
	return fleet.DigestOf("flotilla.dev/object", raw), nil
}

// IsJob: its success is that it ends.
func (o ObjectID) IsJob() bool { return o.is("batch", "Job") }

// IsDone says whether a Job is complete, with whatever manifest.
func (i Inventory) IsDone(id ObjectID) bool {
	return slices.ContainsFunc(i.Done, func(d Done) bool { return d.Object.Same(id) })
}

// IDOf names an object.
func IDOf(u *unstructured.Unstructured) ObjectID {
	kind := u.GroupVersionKind()
	return ObjectID{Group: kind.Group, Version: kind.Version, Kind: kind.Kind, Namespace: u.GetNamespace(), Name: u.GetName()}
}

// Same says whether both name one object of the cluster, in whatever version.
func (o ObjectID) Same(other ObjectID) bool {
	o.Version, other.Version = "", ""
	return o == other
}

func (o ObjectID) is(group, kind string) bool { return o.Group == group && o.Kind == kind }

// IsZero says that nothing was ever delivered.
func (i Inventory) IsZero() bool {
	return i.Rollout == fleet.RolloutName{} && len(i.Objects) == 0 && len(i.Left) == 0
}

// Total of the objects that the rollout has.
func (i Inventory) Total() int { return len(i.Objects) + len(i.Left) }

// Next is the inventory to write before anything of the release is applied: ids are the release's,
// and whatever else was there is left. Another manifest than before is pending until its last wave is applied.
func (i Inventory) Next(r Release, ids []ObjectID) Inventory {
	next := Inventory{
		Rollout: r.Rollout, Plan: r.Plan, Revision: r.Revision, Digest: r.Digest, Objects: sortedIDs(ids),
		Pending: i.Pending || i.Digest != r.Digest,
	}
	have := idSet(ids)
	for _, d := range i.Done {
		if have[unversioned(d.Object)] {
			next.Done = append(next.Done, d)
		}
	}
	for _, id := range sortedIDs(slices.Concat(i.Objects, i.Left)) {
		if !have[unversioned(id)] {
			next.Left = append(next.Left, id)
		}
	}
	return next
}

// Prunable splits what is left: what may be deleted, in the order to delete it, and what stays, with why.
func (i Inventory) Prunable(prune bool) (remove []ObjectID, keep []Change) {
	for _, id := range PruneOrder(i.Left) {
		switch {
		case neverPruned(id):
			keep = append(keep, Change{Object: id, Action: Kept, Why: "a " + id.Kind + " is never pruned: delete it by hand if it is not needed"})
		case !prune:
			keep = append(keep, Change{Object: id, Action: Kept, Why: "spec.delivery.prune is false"})
		default:
			remove = append(remove, id)
		}
	}
	return remove, keep
}

// Without is the inventory after some of what was left is gone.
func (i Inventory) Without(gone []ObjectID) Inventory {
	dropped := idSet(gone)
	left := slices.DeleteFunc(slices.Clone(i.Left), func(id ObjectID) bool { return dropped[unversioned(id)] })
	i.Left = slices.Clip(left)
	if len(i.Left) == 0 {
		i.Left = nil
	}
	return i
}

// GuardPrune refuses a release, whose objects are ids, that would prune more than both of its limits (R12 of
// docs/rules.md). The percentage is of all that the rollout has here.
func (i Inventory) GuardPrune(r Release, ids []ObjectID) error {
	pruned, _ := i.Next(r, ids).Prunable(r.Prune)
	remove, total := len(pruned), i.Total()
	if remove <= r.MaxPruneObjects || remove*100 <= total*r.MaxPrunePercent {
		return nil
	}
	return &fleet.Error{
		Kind: fleet.Refused, Reason: v1alpha1.ReasonPruneGuard,
		Hint: "if this is meant, raise spec.delivery.pruneGuard",
		Err: fmt.Errorf("%s would prune %d of %d objects here, more than %d and more than %d%%; nothing is applied",
			r.Revision.Short(), remove, total, r.MaxPruneObjects, r.MaxPrunePercent),
	}
}

// neverPruned kinds take the data of others with them when they go.
func neverPruned(id ObjectID) bool {
	return id.is("", "Namespace") || id.is("", "PersistentVolume") || id.is("apiextensions.k8s.io", "CustomResourceDefinition")
}

func unversioned(id ObjectID) ObjectID {
	id.Version = ""
	return id
}

func idSet(ids []ObjectID) map[ObjectID]bool {
	set := make(map[ObjectID]bool, len(ids))
	for _, id := range ids {
		set[unversioned(id)] = true
	}
	return set
}

// sortedIDs is a new list in the order of applying, each object once.
func sortedIDs(ids []ObjectID) []ObjectID {
	if len(ids) == 0 {
		return nil
	}
	sorted := slices.Clone(ids)
	slices.SortStableFunc(sorted, compareIDs)
	return slices.CompactFunc(sorted, ObjectID.Same)
}

func objectIDs(objects []*unstructured.Unstructured) []ObjectID {
	ids := make([]ObjectID, len(objects))
	for n, o := range objects {
		ids[n] = IDOf(o)
	}
	return ids
}

// encodedInventory names each kind once, so that thousands of objects fit in one object of the API.
type encodedInventory struct {
	Version  int               `json:"version"`
	Rollout  fleet.RolloutName `json:"rollout"`
	Plan     fleet.Digest      `json:"plan"`
	Revision fleet.Revision    `json:"revision"`
	Digest   fleet.Digest      `json:"digest"`
	Objects  []encodedKind     `json:"objects,omitempty"`
	Left     []encodedKind     `json:"left,omitempty"`
	Pending  bool              `json:"pending,omitempty"`
	Done     []Done            `json:"done,omitempty"`
}

type encodedKind struct {
	Group   string   `json:"group,omitempty"`
	Version string   `json:"version"`
	Kind    string   `json:"kind"`
	Names   []string `json:"names"` // name, or namespace/name
}

// Encode writes the inventory: equal inventories give equal bytes. It fails when there is more in it than fits.
func (i Inventory) Encode() ([]byte, error) {
	raw, err := json.Marshal(encodedInventory{
		Version: inventoryVersion, Rollout: i.Rollout, Plan: i.Plan, Revision: i.Revision, Digest: i.Digest,
		Objects: encodeKinds(i.Objects), Left: encodeKinds(i.Left), Pending: i.Pending, Done: i.Done,
	})
	if err != nil {
		return nil, fmt.Errorf("inventory of %s: %w", i.Rollout, err)
	}
	if len(raw) > maxInventoryBytes {
		return nil, &fleet.Error{
			Kind: fleet.Terminal, Reason: v1alpha1.ReasonTooLarge,
			Hint: "deliver it as several rollouts",
			Err: fmt.Errorf("inventory of %s: the names of %d objects take %d KiB, at most %d KiB can be kept",
				i.Rollout, i.Total(), len(raw)>>10, maxInventoryBytes>>10),
		}
	}
	return raw, nil
}

func encodeKinds(ids []ObjectID) []encodedKind {
	var kinds []encodedKind
	for _, id := range sortedIDs(ids) {
		last := len(kinds) - 1
		if last < 0 || kinds[last].Group != id.Group || kinds[last].Version != id.Version || kinds[last].Kind != id.Kind {
			kinds = append(kinds, encodedKind{Group: id.Group, Version: id.Version, Kind: id.Kind})
			last++
		}
		name := id.Name
		if id.Namespace != "" {
			name = id.Namespace + "/" + id.Name
		}
		kinds[last].Names = append(kinds[last].Names, name)
	}
	return kinds
}

// DecodeInventory reads what Encode wrote. An inventory that cannot be read is an error and never an empty one:
// what is in it would be forgotten.
func DecodeInventory(raw []byte) (Inventory, error) {
	if len(raw) > maxInventoryBytes {
		return Inventory{}, damaged("%d KiB, at most %d KiB are written", len(raw)>>10, maxInventoryBytes>>10)
	}
	var e encodedInventory
	if err := json.Unmarshal(raw, &e); err != nil {
		return Inventory{}, damaged("%v", err)
	}
	if e.Version != inventoryVersion {
		return Inventory{}, damaged("written in version %d, this agent reads version %d", e.Version, inventoryVersion)
	}
	i := Inventory{Rollout: e.Rollout, Plan: e.Plan, Revision: e.Revision, Digest: e.Digest, Pending: e.Pending, Done: e.Done}
	var err error
	if i.Objects, err = decodeKinds(e.Objects); err != nil {
		return Inventory{}, err
	}
	if i.Left, err = decodeKinds(e.Left); err != nil {
		return Inventory{}, err
	}
	for _, d := range i.Done {
		if !d.Object.IsJob() {
			return Inventory{}, damaged("%s is done and no Job", d.Object)
		}
	}
	return i, nil
}

func decodeKinds(kinds []encodedKind) ([]ObjectID, error) {
	var ids []ObjectID
	for _, k := range kinds {
		if k.Kind == "" || k.Version == "" {
			return nil, damaged("an entry without kind or version")
		}
		for _, full := range k.Names {
			namespace, name, found := strings.Cut(full, "/")
			if !found {
				namespace, name = "", full
			}
			if name == "" || found && namespace == "" || strings.Contains(name, "/") {
				return nil, damaged("%s %q is no name", k.Kind, full)
			}
			ids = append(ids, ObjectID{Group: k.Group, Version: k.Version, Kind: k.Kind, Namespace: namespace, Name: name})
		}
	}
	return sortedIDs(ids), nil
}

func damaged(format string, args ...any) error {
	return &fleet.Error{
		Kind: fleet.Refused, Reason: v1alpha1.ReasonApplyFailed,
		Hint: "restore it, or delete it to have the next release start a new one; objects of earlier releases are then no longer pruned",
		Err:  fmt.Errorf("inventory cannot be read: "+format, args...),
	}
}
