// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"io/fs"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/delivery"
	"github.com/flotilla-dev/flotilla/specialize"
)

// DefaultServiceAccount of a rollout that names none.
const DefaultServiceAccount = "flotilla"

// RenderRequest is one payload for one member.
type RenderRequest struct {
	// Revision and Source name the files: equal ones are rendered once.
	Source   string
	Revision fleet.Revision
	Files    fs.FS
	Path     string
	Member   fleet.Member
}

// rendered is a release ready to be delivered, and what to remember of it.
type rendered struct {
	delivery.Release
	installed *Installed
}

// release renders the plan's release for this member.
func (t *turn) release(ctx context.Context) (rendered, error) {
	spec := t.report.Rollout.Spec
	place, ok := t.plan.Place(t.Self.ID)
	if !ok {
		return rendered{}, fmt.Errorf("plan %s has no place for %s", t.plan.Digest.Short(), t.Self.Name)
	}
	// The labels that the seal holds, not today's: one plan renders to one manifest.
	self := t.plan.Stages[place.Stage].Members[place.Rank]
	installed := &Installed{
		Release: t.plan.Release, Source: spec.Source, Delivery: spec.Delivery, Path: spec.Source.Path,
		Pace: pace(&t.plan.Stages[place.Stage], spec.Delivery, t.report.Rollout.Settings.RetryInterval),
	}
	manifest, err := t.render(ctx, installed, self)
	if err != nil {
		return rendered{}, err
	}
	installed.Path, installed.Manifest = manifest.Path, manifest.Digest
	return t.ready(installed, manifest), nil
}

// again renders what was installed once more. Other bytes than then are not it, and are not applied.
func (t *turn) again(ctx context.Context, installed *Installed) (rendered, error) {
	manifest, err := t.render(ctx, installed, t.Self)
	if err != nil {
		return rendered{}, fmt.Errorf("render %s again: %w", installed.Release.Revision.Short(), err)
	}
	if manifest.Digest != installed.Manifest {
		return rendered{}, &fleet.Error{
			Kind: fleet.Terminal, Reason: v1alpha1.ReasonRenderFailed,
			Err: fmt.Errorf("%s renders to %s, it was %s when it was started; it is left as it is",
				installed.Release.Revision.Short(), manifest.Digest.Short(), installed.Manifest.Short()),
		}
	}
	return t.ready(installed, manifest), nil
}

func (t *turn) render(ctx context.Context, installed *Installed, self fleet.Member) (specialize.Manifest, error) {
	snap := t.latest
	if snap.Files == nil || snap.Revision != installed.Release.Revision || sourceKey(t.report.Rollout.Spec.Source) != sourceKey(installed.Source) {
		began := t.Clock().Elapsed
		var err error
		if snap, err = t.Heads.At(ctx, installed.Source, installed.Release.Revision); err != nil {
			return specialize.Manifest{}, err
		}
		t.report.Took.Fetch += t.Clock().Elapsed - began
	}
	began := t.Clock().Elapsed
	manifest, err := t.Renderer.Render(ctx, RenderRequest{
		Source: sourceKey(installed.Source), Revision: installed.Release.Revision,
		Files: snap.Files, Path: installed.Path, Member: self,
	})
	t.report.Took.Render += t.Clock().Elapsed - began
	return manifest, err
}

func (t *turn) ready(installed *Installed, manifest specialize.Manifest) rendered {
	d := installed.Delivery
	account := d.ServiceAccountName
	if account == "" {
		account = DefaultServiceAccount
	}
	guard := d.PruneGuard
	if guard == nil {
		guard = &v1alpha1.PruneGuard{}
	}
	plan := installed.Release.Plan()
	return rendered{
		installed: installed,
		Release: delivery.Release{
			Rollout: t.name, Plan: plan, Revision: installed.Release.Revision,
			Digest: manifest.Digest, Objects: manifest.Objects, ServiceAccount: account,
			Prune:           d.Prune == nil || *d.Prune,
			MaxPruneObjects: orElse(guard.MaxObjects, 10), MaxPrunePercent: orElse(guard.MaxPercent, 50),
			Fence: func(ctx context.Context) error { return t.fence(ctx, plan) },
		},
	}
}

// fence refuses writes for a release that is not the installed one by the cluster's own promise: another
// agent may have taken over since this one read it (R6).
func (t *turn) fence(ctx context.Context, plan fleet.Digest) error {
	promise, err := t.Promises.Load(ctx, t.name)
	if err != nil {
		return fmt.Errorf("write fence: %w", err)
	}
	if promise.Installed == nil || promise.Installed.Release.Plan() != plan {
		return errOvertaken
	}
	return nil
}

func orElse(v *int32, otherwise int) int {
	if v == nil {
		return otherwise
	}
	return int(*v)
}
