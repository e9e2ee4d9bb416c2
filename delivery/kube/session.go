// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/delivery"
)

// session is one release on its way into the cluster, as its service account.
type session struct {
	cluster *Cluster
	conn    *connection
	as      account
	client  client.Client
	release delivery.Release
	items   []*item
	waves   []delivery.Wave[*item]
	// before is what the rollout had when the delivery began.
	before delivery.Inventory
	// kinds and namespaces that the payload brings.
	kinds      map[schema.GroupKind]*item
	namespaces map[string]*item
}

// item is one object of the release, made ready to be applied.
type item struct {
	id       delivery.ObjectID
	object   *unstructured.Unstructured
	resource string // plural, as the server words what is missing; empty while the kind is not served
	action   delivery.Action
	// live is the object in the cluster as it was read last; nil where there was none.
	live *unstructured.Unstructured
	// recreate: it asks to be made again where it cannot be changed in place.
	recreate bool
	// written: it is in the cluster as the release has it.
	written bool
	// manifest of a Job.
	manifest fleet.Digest
	// done: a Job that is complete, with this manifest. It may be gone.
	done bool
}

// unknown: whether the object differs from the cluster could not be told yet.
const unknown delivery.Action = ""

// open checks what makes every request of the release pointless, and makes its objects ready.
func (c *Cluster) open(ctx context.Context, r delivery.Release) (*session, error) {
	if err := delivery.Validate(r); err != nil {
		return nil, err
	}
	as, err := accountOf(r.Rollout, r.ServiceAccount)
	if err != nil {
		return nil, err
	}
	conn, err := c.connect()
	if err != nil {
		return nil, err
	}
	if err := c.findAccount(ctx, conn, as); err != nil {
		return nil, err
	}
	s := &session{
		cluster: c, conn: conn, as: as, release: r,
		kinds: map[schema.GroupKind]*item{}, namespaces: map[string]*item{},
	}
	clients, err := conn.as(as)
	if err != nil {
		return nil, err
	}
	s.client = clients.objects
	return s, s.prepare()
}

// findAccount asks for the account: the server impersonates one that does not exist just as well, with all that
// its groups may do.
func (c *Cluster) findAccount(ctx context.Context, conn *connection, as account) error {
	found := partial(corev1.SchemeGroupVersion.WithKind("ServiceAccount"))
	err := conn.own.Get(ctx, client.ObjectKey{Namespace: as.namespace, Name: as.name}, found)
	if apierrors.IsNotFound(err) {
		return &fleet.Error{
			Kind: fleet.Refused, Reason: v1alpha1.ReasonServiceAccountNotFound,
			Hint: fmt.Sprintf("create it: kubectl -n %s create serviceaccount %s, and bind a role to it", as.namespace, as.name),
			Err:  fmt.Errorf("service account %s is not here", as),
		}
	}
	if err != nil {
		return c.ownError(err, "read service account "+as.String())
	}
	return nil
}

func partial(kind schema.GroupVersionKind) *metav1.PartialObjectMetadata {
	o := &metav1.PartialObjectMetadata{}
	o.SetGroupVersionKind(kind)
	return o
}

// prepare copies the release's objects and fills in what a manifest may leave out.
func (s *session) prepare() error {
	for _, original := range s.release.Objects {
		it := &item{id: delivery.IDOf(original), object: original.DeepCopy()}
		s.items = append(s.items, it)
		switch {
		case it.id.Group == "" && it.id.Kind == "Namespace":
			s.namespaces[it.id.Name] = it
		case it.id.Group == "apiextensions.k8s.io" && it.id.Kind == "CustomResourceDefinition":
			s.kinds[delivery.DefinedKind(it.object)] = it
		}
	}
	ids := make([]delivery.ObjectID, 0, len(s.items))
	for _, it := range s.items {
		if err := s.place(it); err != nil {
			return err
		}
		s.mark(it.object)
		if err := clean(it.object); err != nil {
			return explain(err, it.id, s.as)
		}
		it.id = delivery.IDOf(it.object)
		ids = append(ids, it.id)
		var err error
		if it.recreate, err = delivery.MayRecreate(it.object); err != nil {
			return explain(err, it.id, s.as)
		}
		if it.id.IsJob() {
			if it.manifest, err = delivery.ManifestOf(it.object); err != nil {
				return explain(err, it.id, s.as)
			}
		}
	}
	var err error
	s.waves, err = delivery.Waves(s.items, func(it *item) *unstructured.Unstructured { return it.object })
	return errors.Join(err, delivery.CheckTwice(ids))
}

// place puts an object of a namespaced kind that names no namespace into the rollout's, and takes the namespace
// from one that cannot have any.
func (s *session) place(it *item) error {
	namespaced, err := s.namespaced(it)
	if err != nil {
		return err
	}
	switch {
	case !namespaced:
		it.object.SetNamespace("")
	case it.object.GetNamespace() == "":
		it.object.SetNamespace(s.release.Rollout.Namespace)
	}
	return nil
}

func (s *session) namespaced(it *item) (bool, error) {
	kind := it.object.GroupVersionKind()
	mapping, err := s.conn.kinds.RESTMapping(kind.GroupKind(), kind.Version)
	if err == nil {
		it.resource = mapping.Resource.Resource
		return mapping.Scope.Name() == meta.RESTScopeNameNamespace, nil
	}
	crd, brought := s.kinds[kind.GroupKind()]
	if meta.IsNoMatchError(err) && brought && servesVersion(crd.object, kind.Version) {
		scope, _, _ := unstructured.NestedString(crd.object.Object, "spec", "scope")
		return scope != "Cluster", nil
	}
	return false, explain(err, it.id, s.as)
}

func servesVersion(crd *unstructured.Unstructured, version string) bool {
	versions, _, _ := unstructured.NestedSlice(crd.Object, "spec", "versions")
	for _, v := range versions {
		if m, ok := v.(map[string]any); ok && m["name"] == version && m["served"] == true {
			return true
		}
	}
	return false
}

// mark says on the object whose it is.
func (s *session) mark(o *unstructured.Unstructured) {
	labels := maps.Clone(o.GetLabels())
	if labels == nil {
		labels = map[string]string{}
	}
	maps.Copy(labels, ownerLabels(s.release.Rollout))
	o.SetLabels(labels)
}

func ownerLabels(rollout fleet.RolloutName) map[string]string {
	return map[string]string{
		v1alpha1.LabelRolloutName:      rollout.Name,
		v1alpha1.LabelRolloutNamespace: rollout.Namespace,
	}
}

// clean takes out what only the server writes, which exported manifests often still hold, and writes a Secret's
// stringData as data: the server forgets who owned it, so that a key taken out of it would stay.
func clean(o *unstructured.Unstructured) error {
	for _, field := range []string{"creationTimestamp", "generation", "managedFields", "resourceVersion", "uid"} {
		unstructured.RemoveNestedField(o.Object, "metadata", field)
	}
	if o.GetAPIVersion() != "v1" || o.GetKind() != "Secret" {
		return nil
	}
	plain, found, err := unstructured.NestedStringMap(o.Object, "stringData")
	if err != nil || !found {
		return invalidSecret(err)
	}
	data, _, err := unstructured.NestedStringMap(o.Object, "data")
	if err != nil {
		return invalidSecret(err)
	}
	if data == nil {
		data = map[string]string{}
	}
	for key, value := range plain {
		data[key] = base64.StdEncoding.EncodeToString([]byte(value))
	}
	unstructured.RemoveNestedField(o.Object, "stringData")
	return unstructured.SetNestedStringMap(o.Object, data, "data")
}

// invalidSecret leaves the cause out: it may quote a value.
func invalidSecret(err error) error {
	if err == nil {
		return nil
	}
	return &fleet.Error{
		Kind: fleet.Terminal, Reason: v1alpha1.ReasonInvalidManifest,
		Err: fmt.Errorf("a Secret's data and stringData must be maps of strings"),
	}
}

func (s *session) ids() []delivery.ObjectID {
	ids := make([]delivery.ObjectID, len(s.items))
	for n, it := range s.items {
		ids[n] = it.id
	}
	return ids
}

// fence asks whether the release may still write.
func (s *session) fence(ctx context.Context) error {
	if s.release.Fence == nil {
		return nil
	}
	if err := s.release.Fence(ctx); err != nil {
		return fenceError{err}
	}
	return nil
}

// ownedByOther is an error where the object carries another rollout's labels, and that rollout has it in what it
// delivered last. What it gave up, or never had, may be taken over: a Namespace that left one payload is not pruned,
// and may come with another.
func (s *session) ownedByOther(ctx context.Context, labels map[string]string, id delivery.ObjectID) error {
	owner := s.release.Rollout
	if name, named := labels[v1alpha1.LabelRolloutName]; named {
		owner.Name = name
	}
	if namespace, named := labels[v1alpha1.LabelRolloutNamespace]; named {
		owner.Namespace = namespace
	}
	if owner == s.release.Rollout {
		return nil
	}
	theirs, err := s.cluster.inventory(ctx, s.conn, owner)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(theirs.Objects, id.Same) {
		return nil
	}
	return s.conflict(id, owner)
}

func (s *session) conflict(id delivery.ObjectID, owner fleet.RolloutName) error {
	return &fleet.Error{
		Kind: fleet.Refused, Reason: v1alpha1.ReasonConflict,
		Hint: "take it out of one of the two payloads",
		Err:  fmt.Errorf("%s belongs to rollout %s, not to %s", id, owner, s.release.Rollout),
	}
}

// checkClaims refuses objects that are not there yet and that another rollout, which is waiting for one of its waves,
// is going to write.
func (s *session) checkClaims(ctx context.Context, items []*item) error {
	if len(items) == 0 {
		return nil
	}
	pending, err := s.cluster.pending(ctx, s.conn)
	if err != nil {
		return err
	}
	for _, theirs := range pending {
		if theirs.Rollout == s.release.Rollout {
			continue
		}
		for _, it := range items {
			if slices.ContainsFunc(theirs.Objects, it.id.Same) {
				return s.conflict(it.id, theirs.Rollout)
			}
		}
	}
	return nil
}

// gate is the client of one object: nothing is written past the fence, over what could not be read, or over what
// belongs to another rollout.
type gate struct {
	client.Client
	session *session
	item    *item
	refusal error
}

func (g *gate) Get(ctx context.Context, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
	err := g.Client.Get(ctx, key, o, opts...)
	g.item.live = nil
	if err == nil {
		g.item.live, _ = o.DeepCopyObject().(*unstructured.Unstructured)
		g.refusal = g.session.ownedByOther(ctx, o.GetLabels(), g.item.id)
	} else {
		g.refusal = client.IgnoreNotFound(err)
	}
	return err
}

func (g *gate) Patch(ctx context.Context, o client.Object, patch client.Patch, opts ...client.PatchOption) error {
	if g.refusal != nil {
		return g.refusal
	}
	var options client.PatchOptions
	options.ApplyOptions(opts)
	if len(options.DryRun) == 0 {
		if err := g.session.fence(ctx); err != nil {
			return err
		}
	}
	return g.Client.Patch(ctx, o, patch, opts...)
}
