// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/cmd/internal/agent/turn"
	"github.com/flotilla-dev/flotilla/cmd/internal/readapi"
	"github.com/flotilla-dev/flotilla/delivery"
	"github.com/flotilla-dev/flotilla/delivery/kube"
	"github.com/flotilla-dev/flotilla/sequencer"
)

// podName is the variable that names the pod which the agent runs in; whoever asks from outside comes in through it.
const podName = "POD_NAME"

// serve the read endpoint, and publish where it is.
func (r *running) serve(ctx context.Context) error {
	host, _, err := net.SplitHostPort(r.cfg.ReadAddr)
	if err != nil {
		return fmt.Errorf("read endpoint: %w", err)
	}
	certificates, err := readapi.NewCertificates(time.Now(), host)
	if err != nil {
		return fmt.Errorf("read endpoint: %w", err)
	}
	kinds, err := kindsOf(r.cfg.Kube)
	if err != nil {
		return fmt.Errorf("read endpoint: %w", err)
	}
	cluster := &clusterView{control: r.control, inventories: &kube.Cluster{Config: r.cfg.Kube, Namespace: r.cfg.Namespace}, kinds: kinds}
	past := &pastView{control: r.control}
	self := r.node.Self().Member.Name
	listener := &readapi.Listener{
		Addr: r.cfg.ReadAddr, TLS: certificates.Config,
		Server: &readapi.Server{
			Rollouts: r.control, Members: r, Changes: &r.notify, Pasts: past, Cluster: cluster, Facts: r.facts(),
			Auth:    &readapi.Delegated{Client: r.client},
			Version: readapi.Version{API: readapi.APIVersion, Member: self, Agent: r.version.AgentVersion, Kubernetes: r.version.KubernetesVersion},
			Log:     r.cfg.Log.WithName("read"),
		},
		Ready: func(addr net.Addr) {
			if err := r.publishEndpoint(ctx, endpointOf(host, addr), certificates.CA); err != nil {
				r.cfg.Log.Error(err, "where the read endpoint is could not be published; the CLI will not find it")
			}
		},
	}
	changed, cancel := r.notify.Subscribe()
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return listener.Run(ctx) })
	group.Go(func() error { past.follow(ctx, changed); return nil })
	return group.Wait()
}

// facts that this member holds, to be exported.
func (r *running) facts() readapi.Facts {
	return &factsView{
		fleet: FleetID(r.cfg.Fleet), self: r.node.Self().Member, agent: r.version.AgentVersion, roster: r.roster.get,
		members: r.Members, view: r.node.View, seals: r.homes.Seals, blob: r.store.Blob, now: time.Now,
	}
}

// endpointOf is the address with the name that the certificate is made for. Who listens at every address has no name.
func endpointOf(host string, addr net.Addr) string {
	_, port, err := net.SplitHostPort(addr.String())
	if ip := net.ParseIP(host); err != nil || host == "" || ip != nil && ip.IsUnspecified() {
		return "https://" + addr.String()
	}
	return "https://" + net.JoinHostPort(host, port)
}

// pastView is what the ledger holds of the rollouts' earlier releases. It is in readapi.Pasts.
type pastView struct {
	control *Controller

	mu       sync.Mutex
	subjects map[fleet.Digest]string // of plans' commits, as they went by

	reading sync.Mutex // one look through the ledger at a time: pages of one question share it
	read    map[fleet.RolloutName]pastRead
}

// pastRead is what was found, and when.
type pastRead struct {
	plans []readapi.PastPlan
	at    time.Time
}

// pastFresh so long what was found is taken for what is held.
const pastFresh = time.Second

// mostSubjects that are remembered: of a release that is forgotten, the commit's hash still tells.
const mostSubjects = 10000

// follow the reports and remember what each plan's commit was about: the ledger knows it by its hash alone.
func (v *pastView) follow(ctx context.Context, changed <-chan struct{}) {
	for {
		v.note()
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

func (v *pastView) note() {
	v.control.mu.Lock()
	reports := slices.Collect(maps.Values(v.control.reports))
	v.control.mu.Unlock()
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.subjects == nil || len(v.subjects) >= mostSubjects {
		v.subjects = map[fleet.Digest]string{}
	}
	for i := range reports {
		if r := &reports[i]; r.Plan != nil && r.Subject != "" {
			v.subjects[r.Plan.Digest] = fleet.Cut(r.Subject)
		}
	}
}

// Events is in readapi.Pasts.
func (v *pastView) Events(name fleet.RolloutName, q readapi.EventQuery) (readapi.Events, error) {
	in, r := v.input(name)
	if q.Commands {
		return readapi.BuildEvents(in, nil, q)
	}
	return readapi.BuildEvents(in, v.past(name, r), q)
}

// Releases is in readapi.Pasts.
func (v *pastView) Releases(name fleet.RolloutName) readapi.Releases {
	in, r := v.input(name)
	return readapi.BuildReleases(in, v.past(name, r))
}

func (v *pastView) input(name fleet.RolloutName) (readapi.Input, *turn.Report) {
	c := v.control
	r, ok := c.report(name)
	if !ok {
		return readapi.Input{Name: name, Self: c.Agent.Self}, nil
	}
	return c.outlook().input(name, &r), &r
}

// past of a rollout that is reported on, with the subjects that are known.
func (v *pastView) past(name fleet.RolloutName, r *turn.Report) []readapi.PastPlan {
	if r == nil {
		return nil
	}
	v.reading.Lock()
	read := v.read[name]
	if now := time.Now(); now.Sub(read.at) > pastFresh {
		read = pastRead{v.control.Ledger.past(name, releasesOf(r)), now}
		v.read = map[fleet.RolloutName]pastRead{name: read} // one is kept: whoever turns pages asks for it again
	}
	v.reading.Unlock()
	out := slices.Clone(read.plans)
	v.mu.Lock()
	defer v.mu.Unlock()
	for i := range out {
		out[i].Subject = v.subjects[out[i].Plan]
	}
	return out
}

// releasesOf a report are those that name a seal of the rollout.
func releasesOf(r *turn.Report) []sequencer.Release {
	out := []sequencer.Release{r.Promise.Accepted}
	if r.Rollout.Author != "" {
		out = append(out, sequencer.Release{Seal: r.Rollout.Digest(), Term: r.Rollout.Term, Number: r.Rollout.Number})
	}
	for _, i := range []*turn.Installed{r.Promise.Installed, r.Promise.LastGood} {
		if i != nil {
			out = append(out, i.Release)
		}
	}
	return out
}

// past is every plan of a rollout that facts are held of. A fact names its plan by digest alone. Whose it
// is shows in two ways: this agent took turns on it, or the digest is that of a seal of the rollout and of
// the revision with which a member accepted it, which nobody can make up.
func (l *MeshLedger) past(name fleet.RolloutName, known []sequencer.Release) []readapi.PastPlan {
	l.mu.RLock()
	defer l.mu.RUnlock()
	seals := map[fleet.Digest]sequencer.Release{}
	for _, s := range l.statuses[name] {
		seals[s.Seal] = sequencer.Release{Seal: s.Seal}
	}
	for _, s := range l.seals[name] {
		seals[s.Digest()] = sequencer.Release{Seal: s.Digest(), Term: s.Term, Number: s.Number}
	}
	for _, r := range known {
		seals[r.Seal] = r
	}
	delete(seals, fleet.Digest{})
	revisions := map[fleet.Digest]map[fleet.Revision]bool{}
	for _, of := range l.facts {
		for key := range of {
			if key.kind == fleet.Accepted {
				entry(revisions, key.plan)[fleet.Revision(of[key].fact.Detail)] = true
			}
		}
	}
	plans := map[fleet.Digest]*readapi.PastPlan{}
	for plan := range revisions {
		release, sealed := releaseOf(plan, seals, revisions[plan])
		if sealed || l.plans[plan] == name {
			plans[plan] = &readapi.PastPlan{Plan: plan, Release: release}
		}
	}
	for _, of := range l.facts {
		for key := range of {
			if p := plans[key.plan]; p != nil {
				p.Facts = append(p.Facts, of[key].fact)
			}
		}
	}
	out := make([]readapi.PastPlan, 0, len(plans))
	for _, p := range plans {
		out = append(out, *p)
	}
	return out
}

// releaseOf a plan, by trying what it may be made of.
func releaseOf(plan fleet.Digest, seals map[fleet.Digest]sequencer.Release, revisions map[fleet.Revision]bool) (sequencer.Release, bool) {
	for _, release := range seals {
		for revision := range revisions {
			if release.Revision = revision; release.Plan() == plan {
				return release, true
			}
		}
	}
	return sequencer.Release{}, false
}

// clusterView is what a rollout has in this cluster. It is in readapi.Cluster.
type clusterView struct {
	control     *Controller
	inventories interface {
		Inventory(context.Context, fleet.RolloutName) (delivery.Inventory, error)
	}
	kinds meta.RESTMapper
}

func kindsOf(config *rest.Config) (meta.RESTMapper, error) {
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, err
	}
	return apiutil.NewDynamicRESTMapper(config, client)
}

// Objects is in readapi.Cluster. Names are the inventory's; how they are is what the last turn found, so that
// whoever looks often asks the API server nothing more than that.
func (v *clusterView) Objects(ctx context.Context, name fleet.RolloutName) (readapi.Objects, error) {
	inventory, err := v.inventories.Inventory(ctx, name)
	if err != nil {
		return readapi.Objects{}, fmt.Errorf("inventory of %s: %w", name, err)
	}
	r, _ := v.control.report(name)
	out := readapi.Objects{
		Member: v.control.Agent.Self.Name, Revision: inventory.Revision, Plan: inventory.Plan,
		Ready: r.Health.Ready, Delivered: len(inventory.Objects), Because: r.Health.Because,
	}
	if err := r.Trouble[v1alpha1.ConditionAvailable]; err != nil {
		out.Because = err.Error()
	}
	found := make(map[delivery.ObjectID]delivery.ObjectHealth, len(r.Health.Objects))
	for _, o := range r.Health.Objects {
		found[o.Object] = o
	}
	for _, id := range inventory.Objects {
		o := v.object(id)
		if is, looked := found[id]; looked {
			o.Health, o.Because = healthWord(is.State), is.Because
		}
		out.Items = append(out.Items, o)
	}
	for _, id := range inventory.Left {
		o := v.object(id)
		o.Left = true
		out.Items = append(out.Items, o)
	}
	return out, nil
}

func (v *clusterView) object(id delivery.ObjectID) readapi.Object {
	o := readapi.Object{Group: id.Group, Version: id.Version, Kind: id.Kind, Namespace: id.Namespace, Name: id.Name}
	mapping, err := v.kinds.RESTMapping(schema.GroupKind{Group: id.Group, Kind: id.Kind}, id.Version)
	if err == nil {
		o.Resource = mapping.Resource.Resource
	}
	return o
}

// healthWord of the endpoint.
func healthWord(s delivery.HealthState) string {
	switch s {
	case delivery.Healthy:
		return readapi.ObjectHealthy
	case delivery.Failed:
		return readapi.ObjectFailed
	}
	return readapi.ObjectNotReady
}

// Members is in readapi.Members.
func (r *running) Members() []readapi.FleetMember {
	return fleetMembers(r.node.Self(), r.node.Peers(), r.version)
}

// publishEndpoint says where the read endpoint is, and whom to believe there. Nothing is written when that is known.
func (r *running) publishEndpoint(ctx context.Context, address string, ca []byte) error {
	api := r.client.CoreV1().ConfigMaps(r.cfg.Namespace)
	want := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: readapi.EndpointConfigMap},
		Data:       readapi.EndpointInPod(address, ca, os.Getenv(podName)),
	}
	_, err := api.Update(ctx, want, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		_, err = api.Create(ctx, want, metav1.CreateOptions{})
	}
	return err
}
