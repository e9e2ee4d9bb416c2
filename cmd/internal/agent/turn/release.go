// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"context"
	"fmt"
	"strings"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/delivery"
	"github.com/flotilla-dev/flotilla/source"
	"github.com/flotilla-dev/flotilla/specialize"
)

// RenderRequest is one payload for one member.
type RenderRequest struct {
	specialize.Input
	// Source and Revision name Input.Files: equal ones hold the same. Chart names Input.Chart in the same way.
	Source   string
	Revision fleet.Revision
	Chart    fleet.Revision
}

// Inputs is what a render takes from the member's own cluster.
type Inputs interface {
	// Objects are the data of ConfigMaps and Secrets, as the reader may read them. Those that are not there are left out.
	Objects(ctx context.Context, as source.Reader, refs []specialize.Reference) (map[specialize.Reference]map[string]string, error)
	// Capabilities of the API server: its version, and the API versions and kinds that it serves.
	Capabilities(ctx context.Context) (version string, apiVersions []string, err error)
}

// Charts are charts of repositories, by exact version.
type Charts interface {
	Chart(ctx context.Context, as source.Reader, chart v1alpha1.HelmChart) (source.Snapshot, error)
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
		Release: t.plan.Release, Source: spec.Source, Specialize: spec.Specialize, Delivery: spec.Delivery,
		Member: self, Path: spec.Source.Path,
		Pace: pace(&t.plan.Stages[place.Stage], spec.Delivery, t.report.Rollout.Settings.RetryInterval),
	}
	manifest, inputs, err := t.render(ctx, installed)
	if err != nil {
		return rendered{}, err
	}
	installed.Path, installed.Manifest, installed.Inputs = literal(manifest.Path), manifest.Digest, inputs
	return t.ready(installed, manifest), nil
}

// literal path: filling in variables once more gives it as it is.
func literal(path string) string { return strings.ReplaceAll(path, "${", "$${") }

// again renders what was installed once more. Other bytes than then are not it, and are not applied, unless
// what differs is what this cluster itself adds: its owner changed a value of his own, in his own cluster.
func (t *turn) again(ctx context.Context, installed *Installed) (rendered, error) {
	manifest, inputs, err := t.render(ctx, installed)
	if err != nil {
		return rendered{}, fmt.Errorf("render %s again: %w", installed.Release.Revision.Short(), err)
	}
	switch same := manifest.Digest == installed.Manifest; {
	case same && inputs == installed.Inputs:
		return t.ready(installed, manifest), nil
	case same, inputs != installed.Inputs && !installed.Inputs.IsZero():
		// Inputs that changed nothing are noted too: later on they would excuse any other bytes.
		return t.adapt(ctx, installed, manifest, inputs)
	}
	return rendered{}, &fleet.Error{
		Kind: fleet.Terminal, Reason: v1alpha1.ReasonNotReproducible,
		Err: fmt.Errorf("%s renders to %s, it was %s when it was started; it is left as it is",
			installed.Release.Revision.Short(), manifest.Digest.Short(), installed.Manifest.Short()),
	}
}

// adapt takes a new manifest of the installed release for the one to heal. It is no release: the fleet's order is not
// asked, and no other member is concerned.
func (t *turn) adapt(ctx context.Context, installed *Installed, manifest specialize.Manifest, inputs fleet.Digest) (rendered, error) {
	adapted := *installed
	adapted.Manifest, adapted.Inputs = manifest.Digest, inputs
	next := t.promise.clone()
	if next.LastGood != nil && next.LastGood.Release == installed.Release {
		next.LastGood = &adapted
	}
	if next.Installed != nil && next.Installed.Release == installed.Release {
		next.Installed = &adapted
	}
	if err := t.save(ctx, next); err != nil {
		return rendered{}, err
	}
	if manifest.Digest != installed.Manifest {
		t.Log.Info("the cluster's own values changed; rendered the installed release anew", "rollout", t.name.String(),
			"revision", string(installed.Release.Revision), "manifest", manifest.Digest.Short())
	}
	return t.ready(&adapted, manifest), nil
}

// render gives the manifest, and the digest of what the cluster added to it.
func (t *turn) render(ctx context.Context, installed *Installed) (specialize.Manifest, fleet.Digest, error) {
	request, err := t.gather(ctx, installed)
	if err != nil {
		return specialize.Manifest{}, fleet.Digest{}, err
	}
	began := t.Clock().Elapsed
	manifest, err := t.Renderer.Render(ctx, request)
	t.report.Took.Render += t.Clock().Elapsed - began
	return manifest, request.Cluster.Digest(), err
}

// gather everything that the manifest depends on.
func (t *turn) gather(ctx context.Context, installed *Installed) (RenderRequest, error) {
	origin := OriginOf(t.name, installed.Source, installed.Delivery)
	snap := t.latest
	began := t.Clock().Elapsed
	defer func() { t.report.Took.Fetch += t.Clock().Elapsed - began }()
	if snap.Files == nil || snap.Revision != installed.Release.Revision || t.origin().Files() != origin.Files() {
		var err error
		if snap, err = t.Heads.At(ctx, origin, installed.Release.Revision); err != nil {
			return RenderRequest{}, err
		}
	}
	member := installed.Member
	if member.Name == "" {
		member = t.Self // written by a version that did not note it
	}
	request := RenderRequest{
		Source: origin.Files(), Revision: installed.Release.Revision,
		Input: specialize.Input{Files: snap.Files, Path: installed.Path, Spec: installed.Specialize, Member: member, Rollout: t.name},
	}
	return request, t.addCluster(ctx, &request, readerOf(t.name, installed.Delivery))
}

// addCluster adds what the spec asks of the member's own cluster, and the chart that it names.
func (t *turn) addCluster(ctx context.Context, r *RenderRequest, as source.Reader) (err error) {
	if refs := specialize.References(r.Spec); len(refs) > 0 {
		if r.Cluster.Objects, err = t.Inputs.Objects(ctx, as, refs); err != nil {
			return err
		}
	}
	if r.Spec != nil && r.Spec.Helm != nil && r.Spec.Helm.Chart != nil {
		chart, err := t.Charts.Chart(ctx, as, *r.Spec.Helm.Chart)
		if err != nil {
			return fmt.Errorf("spec.specialize.helm.chart: %w", err)
		}
		r.Input.Chart, r.Chart = chart.Files, chart.Revision
	}
	engine, err := specialize.Engine(r.Input)
	if err != nil || engine != specialize.Helm {
		return err
	}
	r.Cluster.KubeVersion, r.Cluster.APIVersions, err = t.Inputs.Capabilities(ctx)
	return err
}

func (t *turn) ready(installed *Installed, manifest specialize.Manifest) rendered {
	d := withDefaults(installed.Delivery)
	plan := installed.Release.Plan()
	return rendered{
		installed: installed,
		Release: delivery.Release{
			Rollout: t.name, Plan: plan, Revision: installed.Release.Revision,
			Digest: manifest.Digest, Objects: manifest.Objects, ServiceAccount: d.ServiceAccountName,
			Prune:           *d.Prune,
			MaxPruneObjects: int(*d.PruneGuard.MaxObjects), MaxPrunePercent: int(*d.PruneGuard.MaxPercent),
			Recheck: t.report.Rollout.Settings.DeliveryInterval,
			Fence:   func(ctx context.Context) error { return t.fence(ctx, plan) },
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
