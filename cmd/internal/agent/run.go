// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/cmd/internal/agent/turn"
	"github.com/flotilla-dev/flotilla/cmd/internal/fleetrepo"
	"github.com/flotilla-dev/flotilla/cmd/internal/readapi"
	"github.com/flotilla-dev/flotilla/delivery/kube"
	"github.com/flotilla-dev/flotilla/sequencer/lattice"
	"github.com/flotilla-dev/flotilla/sequencer/mesh"
	"github.com/flotilla-dev/flotilla/sequencer/store"
	"github.com/flotilla-dev/flotilla/source/chart"
	"github.com/flotilla-dev/flotilla/source/git"
	"github.com/flotilla-dev/flotilla/specialize/jail"
)

// Meta keys of the store.
const (
	metaRoster     = "agent.roster"
	metaRepository = "agent.repository"
)

// eventSource is who says the events.
const eventSource = "flotilla-agent"

// FleetID of a fleet's name: what every record of it bears.
func FleetID(name string) fleet.Digest { return fleet.DigestOf("flotilla.dev/fleet", []byte(name)) }

// Run one agent until ctx ends. It waits for the lease of its cluster first: two agents never act for one member.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.check(); err != nil {
		return err
	}
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	clientset, err := kubernetes.NewForConfig(cfg.Kube)
	if err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	identity, err := diskIdentity(cfg.DataDir)
	if err != nil {
		return err
	}
	lease := lease{client: clientset, namespace: cfg.Namespace, identity: identity, log: cfg.Log}
	for {
		err := lease.hold(ctx, func(ctx context.Context) error {
			r := &running{cfg: cfg, client: clientset}
			return r.run(ctx)
		})
		if !errors.Is(err, errLeaseLost) {
			return err
		}
		cfg.Log.Error(err, "everything is stopped until this agent holds the lease again")
	}
}

// diskIdentity names the data folder: an agent that comes back to it takes its own lease at once.
func diskIdentity(dir string) (string, error) {
	file := filepath.Join(dir, "agent-id")
	if b, err := os.ReadFile(file); err == nil && len(b) > 0 {
		return strings.TrimSpace(string(b)), nil
	}
	var id [8]byte
	if _, err := rand.Read(id[:]); err != nil {
		return "", err
	}
	text := hex.EncodeToString(id[:])
	if err := os.WriteFile(file, []byte(text+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("data folder: %w", err)
	}
	return text, nil
}

// running is one agent with its parts.
type running struct {
	cfg    Config
	client kubernetes.Interface
	key    ed25519.PrivateKey
	id     fleet.MemberID
	clock  func() fleet.Moment

	store    *store.Store
	node     *mesh.Node
	ledger   *MeshLedger
	homes    *Homes
	heads    *PolledHeads
	inputs   *KubeInputs
	mirrors  *git.Mirrors
	charts   *chart.Repositories
	renderer *CachedRenderer
	control  *Controller
	metrics  *Metrics
	notify   readapi.Notifier
	roster   rosterNow
	taken    string        // the roster in force, encoded; followRoster's alone
	onRoster chan struct{} // closed once this member is on the roster
	version  readapi.FleetMember
}

func (r *running) run(ctx context.Context) error {
	if err := r.open(ctx); err != nil {
		return err
	}
	defer r.close()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return r.node.Run(ctx) })
	group.Go(func() error { return r.control.Run(ctx) })
	group.Go(func() error { return r.followRoster(ctx) })
	group.Go(func() error { return r.whenOnRoster(ctx) })
	return group.Wait()
}

// close what open opened: a lease that is lost and held again begins anew.
func (r *running) close() {
	// Nothing is lost by an error: every write was synced.
	_ = errors.Join(r.mirrors.Close(), r.charts.Close(), r.store.Close())
}

// open everything that needs no goroutine.
func (r *running) open(ctx context.Context) (err error) {
	if r.key, err = MemberKey(ctx, r.client, r.cfg.Namespace); err != nil {
		return err
	}
	r.id, r.clock, r.onRoster = IDOf(r.key), SystemClock(), make(chan struct{})
	r.cfg.Log = r.cfg.Log.WithValues("id", string(r.id[len(r.id)-8:]))
	r.metrics = NewMetrics(r.clock, BuildVersion())
	if r.store, err = store.Open(filepath.Join(r.cfg.DataDir, storeFile)); err != nil {
		return fmt.Errorf("fleet state: %w", err)
	}
	r.metrics.Opened(r.store.Opened())
	tellOpened(r.cfg.Log, r.store.Opened())
	if err := r.openMesh(); err != nil {
		return errors.Join(err, r.store.Close())
	}
	r.inputs = &KubeInputs{Config: r.cfg.Kube, Namespace: r.cfg.Namespace, Clock: r.clock}
	r.mirrors = &git.Mirrors{Dir: filepath.Join(r.cfg.DataDir, "git"), Secrets: r.inputs}
	r.charts = &chart.Repositories{Dir: filepath.Join(r.cfg.DataDir, "charts"), Secrets: r.inputs}
	r.heads = &PolledHeads{Source: r.metrics.Source(Sources{Git: r.mirrors, Helm: r.charts}), Clock: r.clock, Seed: r.id}
	r.renderer = &CachedRenderer{}
	if jailed := (&jail.Renderer{}); r.cfg.InProcess {
		time.Local = time.UTC // as in a jailed process: every member is to render alike
		r.cfg.Log.Info("payloads are rendered in the agent's own process: what they take, it lacks")
	} else if err := jailed.Probe(ctx); err != nil {
		return errors.Join(fmt.Errorf("%w; --render-in-process renders in the agent's own process instead, for payloads that are trusted", err), r.store.Close())
	} else {
		r.renderer.Engine = jailed
	}
	r.homes = &Homes{Ledger: r.ledger, Blobs: r.node, NameOf: r.roster.nameOf}
	if info, err := r.client.Discovery().ServerVersion(); err == nil {
		r.version.KubernetesVersion = info.GitVersion
	}
	r.version.AgentVersion = BuildVersion()
	return nil
}

func (r *running) openMesh() error {
	stored, err := r.store.Meta(metaRoster)
	if err != nil {
		return err
	}
	members, err := decodeRoster(stored)
	if err != nil {
		r.cfg.Log.Error(err, "the stored roster is not used")
	}
	r.roster.set(NewRoster(members))
	r.control = NewController()
	config := mesh.LAN()
	config.Key, config.Fleet, config.Store, config.Listen = r.key, FleetID(r.cfg.Fleet), r.store, r.cfg.Listen
	config.Peers, config.Announce, config.NoGossip = r.cfg.Peers, r.cfg.Announce, r.cfg.NoGossip
	config.Roster, config.Log, config.OnNews = r.roster.get(), r.cfg.Log.WithName("mesh"), r.news
	config.OnDropped, config.OnWithheld = r.dropped, r.withheld
	config.Flat = flatFleet
	if r.node, err = mesh.New(config); err != nil {
		return err
	}
	r.ledger = NewMeshLedger(r.node)
	r.node.Held(func(records []fleet.Record) { r.ledger.Learn(records...) })
	return nil
}

// news from the fleet: index it, look at once where another member saw a newer head, and take turns.
func (r *running) news(records []fleet.Record) {
	touched := r.ledger.Learn(records...)
	r.metrics.News(records)
	for i := range records {
		if records[i].Writer == r.id {
			continue
		}
		if status, err := fleet.DecodeStatus(&records[i]); err == nil && status.Accepted != "" {
			if report, ok := r.control.report(status.Rollout); ok && report.Rollout.Spec.Source != (v1alpha1.Source{}) {
				r.heads.Told(turn.OriginOf(status.Rollout, report.Rollout.Spec.Source, report.Rollout.Spec.Delivery), status.Accepted)
			}
		}
	}
	r.control.Wake(touched...)
	r.notify.Notify()
}

// dropped from the fleet's state: what is decided by here follows it.
func (r *running) dropped(records []fleet.Record) {
	r.control.Wake(r.ledger.Forget(records...)...)
	r.notify.Notify()
}

// withheld from this agent, because it died of it or cannot read it: what may be a stop is one.
func (r *running) withheld(now, gone []mesh.Withheld) {
	for _, w := range now {
		r.cfg.Log.Info("a record cannot be read here; if it is a command or a sickness it is taken for a stop",
			"record", w.ID, "writer", w.Head.Writer, "kind", w.Head.Kind.String(), "key", w.Head.Key)
		r.control.Wake(r.ledger.Withhold(w.ID, w.Head)...)
	}
	for _, w := range gone {
		r.control.Wake(r.ledger.Release(w.ID, w.Head)...)
	}
	r.notify.Notify()
}

// followRoster keeps the roster and what is declared up to date, from the repository or a folder.
func (r *running) followRoster(ctx context.Context) error {
	if len(r.roster.get().Members()) > 0 {
		r.take(r.roster.get().Members())
	}
	if r.cfg.MembersDir != "" {
		return r.followFolder(ctx)
	}
	repository := &Repository{
		Source: r.mirrors, Heads: r.heads, Path: r.cfg.RepositoryPath, Interval: r.cfg.RepositoryInterval,
		Origin:    r.cfg.repository(),
		OnContent: r.declared, Log: r.cfg.Log.WithName("repository"),
	}
	held, err := r.store.Meta(metaRepository)
	if err != nil {
		return err
	}
	return repository.Run(ctx, fleet.Revision(held))
}

func (r *running) declared(content RepositoryContent) {
	for name, next := range content.Rollouts {
		if before, ok, _ := r.homes.declared(name); ok && before.Digest() != next.Digest() {
			r.heads.Ask(turn.OriginOf(name, next.Spec.Source, next.Spec.Delivery)) // who edits it has often just pushed the payload
		}
	}
	r.homes.Declare(content)
	r.take(content.Members)
	if err := r.store.SetMeta(metaRepository, []byte(content.Revision)); err != nil {
		r.cfg.Log.Error(err, "the repository's revision could not be stored; a restart begins with the newest one")
	}
	r.control.Wake(r.homes.Names()...)
}

func (r *running) followFolder(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for {
		members, faults := fleetrepo.ReadMembers(os.DirFS(r.cfg.MembersDir))
		if len(faults) > 0 {
			r.cfg.Log.Error(faults[0], "the roster could not be read; the last good one stays", "folder", r.cfg.MembersDir)
		} else {
			r.take(members)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// take a roster, unless it is the one in force.
func (r *running) take(members []fleet.Member) {
	encoded, err := encodeRoster(members)
	if err != nil {
		r.cfg.Log.Error(err, "the roster could not be stored")
		return
	}
	held, _ := r.store.Meta(metaRoster)
	if string(held) != string(encoded) {
		if err := r.store.SetMeta(metaRoster, encoded); err != nil {
			r.cfg.Log.Error(err, "the roster could not be stored; a restart begins without it")
		}
		r.control.Wake(r.homes.Names()...)
	}
	roster := NewRoster(members)
	if string(encoded) != r.taken { // to take the same one again would divide the state anew, and dial who was just dialled
		r.taken = string(encoded)
		r.roster.set(roster)
		r.node.SetRoster(roster)
	}
	if _, ok := roster.Member(r.id); !ok {
		r.cfg.Log.Info("this member is not on the roster: add a FleetMember with its peer ID", "peerID", string(r.id))
		return
	}
	select {
	case <-r.onRoster:
	default:
		close(r.onRoster)
	}
}

// whenOnRoster runs what acts and answers for this member; a stranger does neither.
func (r *running) whenOnRoster(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-r.onRoster:
	}
	self, _ := r.roster.get().Member(r.id)
	log := r.cfg.Log.WithValues("member", string(self.Name))
	ctrl.SetLogger(log)
	mgr, err := r.manager()
	if err != nil {
		return fmt.Errorf("controller manager: %w", err)
	}
	cluster := &kube.Cluster{Config: r.cfg.Kube, Namespace: r.cfg.Namespace}
	steady := &turn.Steady{Deliverer: cluster, Clock: r.clock}
	watcher := &kube.Watcher{Cluster: cluster, Log: log.WithName("watch"), OnChange: func(name fleet.RolloutName) {
		steady.Changed(name)
		r.control.Wake(name)
	}}
	steady.Watched = func(name fleet.RolloutName, manifest fleet.Digest, account string) bool {
		return r.control.isWatched(name, manifest, account) && watcher.Steady(name)
	}
	promises := &KubePromises{Client: r.client, Namespace: r.cfg.Namespace}
	r.wire(parts{
		self: self, client: mgr.GetClient(), cluster: cluster, steady: steady, watcher: watcher, promises: promises,
		recorder: mgr.GetEventRecorder(eventSource), log: log,
	})
	r.metrics.Of(self, r.node, r.node.Stats)
	unregister, err := r.metrics.Register(metrics.Registry)
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	defer unregister()
	if err := r.control.SetupWithManager(mgr); err != nil {
		return fmt.Errorf("controller: %w", err)
	}
	names, err := promises.All(ctx)
	if err != nil {
		return fmt.Errorf("own promises: %w", err)
	}
	r.control.Wake(append(names, r.homes.Names()...)...)
	keeper := r.keeper(promises, log)
	r.control.Settled, r.control.Hearsay = r.node.Settled(), keeper.Hearsay
	members := &Members{
		Client: mgr.GetClient(), Home: r.home(), Roster: r.roster.get, Self: r.node.Self, Peers: r.node.Peers, Log: log,
		Recorder: mgr.GetEventRecorder(eventSource),
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return mgr.Start(ctx) })
	group.Go(func() error { return watcher.Run(ctx) })
	group.Go(func() error { return r.serve(ctx) })
	group.Go(func() error { return keeper.Run(ctx) })
	group.Go(func() error {
		if !mgr.GetCache().WaitForCacheSync(ctx) {
			return nil
		}
		return members.Run(ctx)
	})
	return group.Wait()
}

func (r *running) manager() (ctrl.Manager, error) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	mgr, err := ctrl.NewManager(r.cfg.Kube, ctrl.Options{
		Scheme:                 scheme,
		Metrics:                server.Options{BindAddress: r.cfg.MetricsAddr},
		HealthProbeBindAddress: r.cfg.ProbeAddr, LivenessEndpointName: "/livez",
	})
	if err != nil {
		return nil, err
	}
	return mgr, errors.Join(mgr.AddHealthzCheck("ping", healthz.Ping), mgr.AddReadyzCheck("ping", healthz.Ping))
}

// parts that wire puts together.
type parts struct {
	self     fleet.Member
	client   client.Client
	cluster  *kube.Cluster
	steady   *turn.Steady
	watcher  *kube.Watcher
	promises *KubePromises
	recorder events.AnnotatedEventRecorder
	log      logr.Logger
}

// wire the pipeline: the one place where the stages meet their implementations.
func (r *running) wire(p parts) {
	c := r.control
	c.Agent = &turn.Agent{
		Self: p.self, Rollouts: r.homes, Heads: r.heads, Renderer: r.metrics.Renderer(r.renderer), Inputs: r.inputs, Charts: r.charts, Deliverer: p.steady,
		Promises: p.promises, Ledger: r.ledger, Plans: &turn.Plans{}, Clock: r.clock, Log: p.log,
		Duplicate: func() bool { return r.node.Self().Duplicate },
		Said:      func() turn.Position { return r.ledger.Said(r.id) }, Restorations: p.promises,
		Incarnation: func() uint64 { m, _ := r.roster.get().Member(r.id); return m.Incarnation },
	}
	c.Home = &Home{
		Self: r.id, Roster: func() []fleet.Member { return r.roster.get().Members() },
		Promises: p.promises, Ledger: r.ledger, PutBlob: r.node.PutBlob, Clock: r.clock,
	}
	c.Client, c.Homes, c.Ledger, c.Heard, c.NameOf = p.client, r.homes, r.ledger, r.heard, r.roster.nameOf
	c.Changed, c.Metrics, c.Events = r.notify.Notify, r.metrics, &Events{Recorder: p.recorder}
	c.Look = func(name fleet.RolloutName, spec v1alpha1.FleetRolloutSpec) {
		r.heads.Ask(turn.OriginOf(name, spec.Source, spec.Delivery))
	}
	c.Watch = func(ctx context.Context, name fleet.RolloutName, account string) error {
		inventory, err := p.cluster.Inventory(ctx, name)
		if err != nil {
			p.log.V(1).Info("drift is seen by interval only", "rollout", name.String(), "why", err.Error())
			return err
		}
		p.watcher.Watch(name, account, inventory.Objects)
		return nil
	}
}

// flatFleet is how many members a fleet may have for everybody to carry everything.
const flatFleet = 1000

// keeper of what this member has in the fleet's state.
func (r *running) keeper(promises turn.Promises, log logr.Logger) *Keeper {
	k := &Keeper{
		Self: r.id, Roster: r.roster.get, Ledger: r.ledger, Promises: promises, Reports: r.control.turned,
		Flat: flatFleet, Carry: r.node.Carry, Clock: r.clock, Log: log.WithName("keeper"), Settled: r.node.Settled(),
		Root: func(zone string) (root fleet.Digest) {
			r.node.View(func(set *lattice.Set) { root = set.ShareRoot(lattice.Share{Scope: fleet.ScopeMilestones, Zone: zone}) })
			return root
		},
	}
	return k
}

func (r *running) heard() Heard {
	h := Heard{Since: map[fleet.MemberID]time.Duration{}, Presence: map[fleet.MemberID]string{}}
	peers := r.node.Peers()
	h.Alone = r.node.Self().Presence == mesh.Alone
	for i := range peers {
		h.Presence[peers[i].Member.ID] = peers[i].Presence.String()
		if peers[i].Heard {
			h.Since[peers[i].Member.ID] = peers[i].Silence
		}
	}
	return h
}

func (r *running) home() string {
	if r.cfg.RepositoryURL != "" {
		return r.cfg.RepositoryURL
	}
	return "folder " + r.cfg.MembersDir
}
