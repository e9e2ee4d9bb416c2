// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/cmd/internal/readapi"
	"github.com/flotilla-dev/flotilla/sequencer/mesh"
)

// Members shows the roster in this cluster, as copies, with what this member hears of each.
type Members struct {
	Client client.Client
	// Home says where the roster is written, in words.
	Home   string
	Roster func() *Roster
	Self   func() mesh.PeerState
	Peers  func() []mesh.PeerState
	// Recorder of events about members; nil tells none.
	Recorder events.AnnotatedEventRecorder
	Log      logr.Logger
}

// Run keeps the copies until ctx ends. Nothing is written unless something changed.
func (m *Members) Run(ctx context.Context) error {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		if err := m.show(ctx); err != nil && ctx.Err() == nil {
			m.Log.Error(err, "the copies of the roster could not be brought up to date")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (m *Members) show(ctx context.Context) error {
	var there v1alpha1.FleetMemberList
	if err := m.Client.List(ctx, &there); err != nil {
		return err
	}
	held := map[string]*v1alpha1.FleetMember{}
	for i := range there.Items {
		held[there.Items[i].Name] = &there.Items[i]
	}
	states := append(m.Peers(), m.Self())
	for i := range states {
		name := string(states[i].Member.Name)
		if name == "" {
			continue // not on the roster (yet)
		}
		if err := m.showOne(ctx, held[name], &states[i], i == len(states)-1); err != nil {
			return fmt.Errorf("FleetMember %s: %w", name, err)
		}
		delete(held, name)
	}
	for name, gone := range held {
		if isHomeMember(gone) || len(m.Roster().Members()) == 0 {
			continue
		}
		if err := m.Client.Delete(ctx, gone); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("FleetMember %s: %w", name, err)
		}
	}
	return nil
}

func (m *Members) showOne(ctx context.Context, held *v1alpha1.FleetMember, s *mesh.PeerState, self bool) error {
	want := m.copyOf(s)
	switch {
	case held == nil:
		if err := m.Client.Create(ctx, want); apierrors.IsAlreadyExists(err) {
			return nil // the cache is behind; next time
		} else if err != nil {
			return err
		}
		held = want
	case !apiequality.Semantic.DeepEqual(held.Spec, want.Spec) || !apiequality.Semantic.DeepEqual(held.Labels, want.Labels):
		held = held.DeepCopy()
		held.Spec, held.Labels, held.Annotations = want.Spec, want.Labels, want.Annotations
		if err := m.Client.Update(ctx, held); err != nil {
			return err
		}
	}
	after := held.DeepCopy()
	meta.SetStatusCondition(&after.Status.Conditions, heardCondition(s, self))
	if c := unbelieved(s); c != nil {
		meta.SetStatusCondition(&after.Status.Conditions, *c)
	} else {
		meta.RemoveStatusCondition(&after.Status.Conditions, v1alpha1.ConditionStalled)
	}
	if apiequality.Semantic.DeepEqual(held.Status, after.Status) {
		return nil
	}
	was := meta.FindStatusCondition(held.Status.Conditions, v1alpha1.ConditionStalled)
	if err := m.Client.Status().Patch(ctx, after, client.MergeFrom(held)); err != nil {
		return err
	}
	m.tell(after, was, meta.FindStatusCondition(after.Status.Conditions, v1alpha1.ConditionStalled))
	return nil
}

// tell what the condition tells, once: what the object said before is kept in it, and not in this process.
func (m *Members) tell(member *v1alpha1.FleetMember, was, is *metav1.Condition) {
	say := func(kind, reason, note string) {
		m.Recorder.AnnotatedEventf(member, nil, nil, kind, reason, reason, "%s", clipNote(note))
	}
	switch {
	case m.Recorder == nil || was != nil && is != nil && was.Reason == is.Reason:
	case is != nil && is.Reason == v1alpha1.ReasonForked:
		say(corev1.EventTypeWarning, EventForked, is.Message)
	case is != nil:
		say(corev1.EventTypeWarning, EventDuplicate, is.Message)
	case was != nil && was.Reason == v1alpha1.ReasonDuplicate:
		say(corev1.EventTypeNormal, EventDuplicateEnded, "one agent uses its key")
	}
}

// unbelieved says why a member's word does not count as others' does; nil where it does. A fork is for ever, so it is
// said first.
func unbelieved(s *mesh.PeerState) *metav1.Condition {
	switch {
	case s.Forked:
		c := condition(v1alpha1.ConditionStalled, metav1.ConditionTrue, v1alpha1.ReasonForked,
			"two records with its key say different things in one position; what it says counts for nothing")
		return &c
	case s.Duplicate:
		c := condition(v1alpha1.ConditionStalled, metav1.ConditionTrue, v1alpha1.ReasonDuplicate,
			"two live agents use its key; neither starts anything")
		return &c
	}
	return nil
}

func (m *Members) copyOf(s *mesh.PeerState) *v1alpha1.FleetMember {
	out := &v1alpha1.FleetMember{Spec: v1alpha1.FleetMemberSpec{
		PeerID: string(s.Member.ID), Incarnation: int64(s.Member.Incarnation), //nolint:gosec // read from an int64
		Zone: s.Member.Zone, Addresses: s.Member.Addresses,
	}}
	out.Name = string(s.Member.Name)
	out.Labels = map[string]string{v1alpha1.LabelOrigin: v1alpha1.OriginRepository}
	for k, v := range s.Member.Labels {
		out.Labels[k] = v
	}
	out.Annotations = map[string]string{v1alpha1.AnnotationHome: m.Home}
	return out
}

func isHomeMember(m *v1alpha1.FleetMember) bool {
	origin, ok := m.Labels[v1alpha1.LabelOrigin]
	return !ok || origin == v1alpha1.OriginLocal
}

func heard(s *mesh.PeerState) bool { return s.Presence == mesh.Heard }

// heardCondition is a local judgement. No news is not bad news, and bad news is what others say: Ready becomes Unknown,
// never False.
func heardCondition(s *mesh.PeerState, self bool) metav1.Condition {
	switch {
	case self:
		return condition(v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonHeard, "this member")
	case heard(s) && s.Hearsay:
		return condition(v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonHeard, "a neighbour heard it, and gave a heartbeat that it signed")
	case heard(s):
		return condition(v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonHeard, "heard within three heartbeats")
	case s.Presence == mesh.Doubted:
		return condition(v1alpha1.ConditionReady, metav1.ConditionUnknown, v1alpha1.ReasonLost, "members next to it do not hear it any more")
	case s.Presence == mesh.Unheard:
		return condition(v1alpha1.ConditionReady, metav1.ConditionUnknown, v1alpha1.ReasonNotHeard, "not heard since this agent began; no news is not bad news")
	}
	return condition(v1alpha1.ConditionReady, metav1.ConditionUnknown, v1alpha1.ReasonNotHeard, "no heartbeat for three intervals; no news is not bad news")
}

// fleetMembers are the same for the read endpoint, with ages.
func fleetMembers(self mesh.PeerState, peers []mesh.PeerState, versions readapi.FleetMember) []readapi.FleetMember {
	versions.Name, versions.ID, versions.Zone, versions.Labels = self.Member.Name, self.Member.ID, self.Member.Zone, self.Member.Labels
	versions.Self, versions.Connected, versions.SameState, versions.Duplicate = true, true, true, self.Duplicate
	versions.Root, versions.Anchor, versions.Forked, versions.Presence = self.Root, self.Anchor, self.Forked, self.Presence.String()
	out := []readapi.FleetMember{versions}
	for _, p := range peers {
		m := readapi.FleetMember{
			Name: p.Member.Name, ID: p.Member.ID, Zone: p.Member.Zone, Labels: p.Member.Labels,
			Connected: p.Connected, Duplicate: p.Duplicate, SameState: p.SameRoot, DiffersSeconds: p.DiffersFor.Seconds(),
			Root: p.Root, Anchor: p.Anchor, Doubted: p.Doubted, Forked: p.Forked,
			Presence: p.Presence.String(), Hearsay: p.Hearsay,
		}
		if p.Heard {
			seconds := p.Silence.Seconds()
			m.HeardSeconds = &seconds
		}
		out = append(out, m)
	}
	return out
}
