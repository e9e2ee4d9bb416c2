// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/cmd/internal/readapi"
	"github.com/flotilla-dev/flotilla/cmd/internal/readapi/readapitest"
	"github.com/flotilla-dev/flotilla/sequencer/verify"
)

// member is the key under which a script keeps its cluster.
type member struct{}

const token = "a-token"

// site is one member of a fleet as a command sees it: the few paths of the Kubernetes API that commands
// use, and the real read endpoint, over TLS on loopback. It knows one world.
type site struct {
	readapi.Notifier
	self fleet.Name
	stop context.CancelFunc // of the agent

	mu       sync.Mutex
	world    *readapitest.World
	paused   *string // the annotation
	endpoint map[string]string
	refuse   bool         // everything, as an API server that does not know who asks
	asked    string       // the last request to look now
	old      bool         // the agent knows nothing of the past, nor of objects
	fresh    int          // the version of the objects
	unheard  []fleet.Name // members of which it may not hold everything
}

// startCluster [NAME] begins a member's cluster with its agent, and writes the kubeconfig.
func startCluster(ts *testscript.TestScript, _ bool, args []string) {
	s := ts.Value(member{}).(*site)
	s.self = "us-1"
	if len(args) > 0 {
		s.self = fleet.Name(args[0])
	}
	s.start(ts, ts.Getenv("KUBECONFIG"))
}

// tester is a script's or a test's.
type tester interface {
	Check(error)
	Defer(func())
}

// inTest makes a test one.
type inTest struct{ *testing.T }

func (t inTest) Check(err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (t inTest) Defer(f func()) { t.Cleanup(f) }

// start the member's cluster and its agent.
func (s *site) start(ts tester, kubeconfig string) {
	var err error
	s.world, err = readapitest.New()
	ts.Check(err)
	server := httptest.NewTLSServer(s.kubeAPI())
	ts.Defer(server.Close)
	ts.Defer(server.CloseClientConnections) // watches
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	ts.Check(clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"c": {Server: server.URL, CertificateAuthorityData: ca}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{"u": {Token: token}},
		Contexts:       map[string]*clientcmdapi.Context{"x": {Cluster: "c", AuthInfo: "u", Namespace: "apps"}},
		CurrentContext: "x",
	}, kubeconfig))
	s.startAgent(ts)
}

// agentCommand stop | start | remove: the process, and the ConfigMap with it.
func agentCommand(ts *testscript.TestScript, _ bool, args []string) {
	s := ts.Value(member{}).(*site)
	switch strings.Join(args, " ") {
	case "stop":
		s.stop()
	case "start":
		s.startAgent(ts)
	case "remove":
		s.stop()
		s.mu.Lock()
		s.endpoint = nil
		s.mu.Unlock()
	case "old":
		s.stop()
		s.old = true
		s.startAgent(ts)
	case "alone":
		s.mu.Lock()
		for _, m := range readapitest.Members() {
			if m.Name != s.self {
				s.unheard = append(s.unheard, m.Name)
			}
		}
		s.mu.Unlock()
	case "forget":
		s.mu.Lock()
		s.refuse = true
		s.mu.Unlock()
	default:
		ts.Fatalf("usage: agent stop|start|remove|forget|old|alone")
	}
}

// tell LINE... is what the members sign from now on.
func tell(ts *testscript.TestScript, _ bool, lines []string) {
	ts.Value(member{}).(*site).tell(ts, lines...)
}

func (s *site) tell(ts tester, lines ...string) {
	s.mu.Lock()
	err := s.world.Tell(lines...)
	s.mu.Unlock()
	ts.Check(err)
	s.Notify()
}

// writeMembers FOLDER writes the world's members as manifests, a file each.
func writeMembers(ts *testscript.TestScript, _ bool, args []string) {
	folder := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(folder, 0o755))
	for _, m := range readapitest.Members() {
		body := fmt.Sprintf("apiVersion: fleet.flotilla.dev/v1alpha1\nkind: FleetMember\nmetadata:\n  name: %s\n  labels: {region: %s}\nspec: {peerID: %s}\n", m.Name, m.Labels["region"], m.ID)
		ts.Check(os.WriteFile(filepath.Join(folder, string(m.Name)+".yaml"), []byte(body), 0o644))
	}
}

func (s *site) startAgent(ts tester) {
	certs, err := readapi.NewCertificates(time.Now(), "127.0.0.1")
	ts.Check(err)
	where, ended := make(chan net.Addr, 1), make(chan error, 1)
	listener := &readapi.Listener{
		Addr: "127.0.0.1:0", TLS: certs.Config, Ready: func(a net.Addr) { where <- a },
		Server: &readapi.Server{Rollouts: s, Members: s, Changes: s, Pasts: s.pasts(), Cluster: s.cluster(), Facts: s.signed(), Auth: s, Version: readapi.Version{Member: s.self, Agent: "v0.1.0", Kubernetes: "v1.37.2"}},
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { ended <- listener.Run(ctx) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		ts.Check(<-ended)
	})
	ts.Defer(s.stop)
	s.mu.Lock()
	s.endpoint = readapi.EndpointData("https://"+(<-where).String(), certs.CA)
	s.mu.Unlock()
}

// input of the member's own view.
func (s *site) input() readapi.Input {
	return readapi.Input{
		Name: s.world.Plan.Rollout, Plan: s.world.Plan, Facts: s.world, History: s.world, Self: readapitest.Member(s.self),
		Author: fleet.AuthorGit, Subject: "raise the limits",
		Origin: &v1alpha1.Origin{Type: "Repository", Name: "https://git.example/fleet"},
		Heard:  heard(), Presence: map[fleet.MemberID]string{readapitest.IDOf("us-3"): readapi.PresenceDoubted},
		Statuses: map[fleet.MemberID]fleet.Status{
			readapitest.IDOf(s.self): {Installed: "main@sha1:9f8e7d6c5b4a39281706f5e4d3c2b1a098765432"},
		},
	}
}

// heard is everybody but us-3.
func heard() map[fleet.MemberID]time.Duration {
	out := map[fleet.MemberID]time.Duration{}
	for _, m := range readapitest.Members() {
		out[m.ID] = 3 * time.Second
	}
	out[readapitest.IDOf("us-3")] = 3*time.Hour + 12*time.Minute
	return out
}

func (s *site) Rollouts() []readapi.Rollout {
	r, _ := s.Rollout(s.world.Plan.Rollout)
	return []readapi.Rollout{r}
}

func (s *site) Rollout(name fleet.RolloutName) (readapi.Rollout, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if name != s.world.Plan.Rollout {
		return readapi.Rollout{}, false
	}
	return steady(s.world, readapi.Build(s.input())), true
}

func (s *site) Explain(_ fleet.RolloutName, m fleet.Name) (readapi.Explanation, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err := readapi.Explain(s.input(), m)
	return steady(s.world, e), err
}

// steady gives what a transcript can be written about, however seals are encoded.
func steady[T any](w *readapitest.World, v T) T {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	var out T
	if err := json.Unmarshal([]byte(w.Steady(string(raw))), &out); err != nil {
		panic(err)
	}
	return out
}

// pasts and cluster of an agent that has them.
func (s *site) pasts() readapi.Pasts {
	if s.old {
		return nil
	}
	return s
}

func (s *site) signed() readapi.Facts {
	if s.old {
		return nil
	}
	return s
}

// Facts of the world, signed as its members would.
func (s *site) Facts() (verify.Header, verify.Evidence, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err := s.world.Signed()
	for _, name := range s.unheard {
		delete(e.Complete, readapitest.IDOf(name))
	}
	return verify.Header{By: s.self, ByID: readapitest.IDOf(s.self), Agent: "v0.1.0", Time: now()}, e, err
}

func (s *site) cluster() readapi.Cluster {
	if s.old {
		return nil
	}
	return s
}

// past plans of the world, as an agent finds them in its ledger.
func (s *site) past() (out []readapi.PastPlan) {
	for _, r := range s.world.Releases() {
		out = append(out, readapi.PastPlan{Plan: r.Plan(), Release: r, Facts: s.world.FactsOf(r.Plan())})
	}
	return out
}

func (s *site) Events(_ fleet.RolloutName, q readapi.EventQuery) (readapi.Events, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err := readapi.BuildEvents(s.input(), s.past(), q)
	return steady(s.world, e), err
}

func (s *site) Releases(fleet.RolloutName) readapi.Releases {
	s.mu.Lock()
	defer s.mu.Unlock()
	return steady(s.world, readapi.BuildReleases(s.input(), s.past()))
}

func (s *site) Objects(context.Context, fleet.RolloutName) (readapi.Objects, error) {
	return readapi.Objects{
		Member: s.self, Ready: 2, Delivered: 3, Because: "Deployment apps/web: 0 of 3 ready",
		Items: []readapi.Object{
			{Version: "v1", Kind: "ConfigMap", Resource: "configmaps", Namespace: "apps", Name: "web", Health: readapi.ObjectHealthy},
			{Version: "v1", Kind: "Secret", Resource: "secrets", Namespace: "apps", Name: "web-token", Health: readapi.ObjectHealthy},
			{Group: "apps", Version: "v1", Kind: "Deployment", Resource: "deployments", Namespace: "apps", Name: "web", Health: readapi.ObjectNotReady, Because: "0 of 3 ready"},
			{Version: "v1", Kind: "Namespace", Resource: "namespaces", Name: "old", Left: true},
		},
	}, nil
}

func (s *site) Members() []readapi.FleetMember {
	var out []readapi.FleetMember
	for _, m := range readapitest.Members() {
		ago := heard()[m.ID].Seconds()
		fm := readapi.FleetMember{Name: m.Name, ID: m.ID, Zone: "default", Labels: m.Labels, Connected: true, HeardSeconds: &ago, SameState: true, Presence: readapi.PresenceHeard}
		if m.Name == s.self {
			fm.Self, fm.HeardSeconds, fm.KubernetesVersion, fm.AgentVersion = true, nil, "v1.37.2", "v0.1.0"
		}
		switch m.Name {
		case "c1":
			fm.Anchor, fm.Root = true, fleet.DigestOf("test", []byte("state"))
		case "eu-4":
			fm.Forked = true
		case "us-2":
			fm.Presence, ago = readapi.PresenceQuiet, 70
			fm.SameState, fm.DiffersSeconds, fm.Root = false, 12, fleet.DigestOf("test", []byte("other"))
		case "us-3":
			fm.Presence = readapi.PresenceDoubted
			fm.SameState, fm.DiffersSeconds, fm.Doubted, fm.Connected = false, 11520, true, false
		}
		out = append(out, fm)
	}
	return out
}

func (s *site) Authorize(_ context.Context, r *http.Request, need readapi.Access) error {
	if r.Header.Get("Authorization") != "Bearer "+token {
		return &fleet.Error{Kind: fleet.Refused, Reason: readapi.ReasonUnauthorized, Err: errors.New("nobody knows this token")}
	}
	if need.Name == "secret" || need.Resource == "secrets" {
		return &fleet.Error{Kind: fleet.Refused, Reason: readapi.ReasonForbidden, Err: fmt.Errorf("ada may not %s", need), Hint: "ask for a role"}
	}
	return nil
}

// kubeAPI is what commands use of an API server.
func (s *site) kubeAPI() http.Handler {
	mux := http.NewServeMux()
	ours := "/apis/" + v1alpha1.GroupVersion.String()
	list := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("watch") != "" {
			s.watchObjects(w, r)
			return
		}
		items := []any{}
		for _, o := range s.objects() {
			ns, field := r.PathValue("ns"), r.URL.Query().Get("fieldSelector")
			if (ns == "" || ns == o.Namespace) && (field == "" || field == "metadata.name="+o.Name) && r.URL.Query().Get("labelSelector") == "" {
				items = append(items, o)
			}
		}
		respond(w, 200, map[string]any{"apiVersion": v1alpha1.GroupVersion.String(), "kind": "FleetRolloutList", "metadata": map[string]any{"resourceVersion": s.version()}, "items": items})
	}
	mux.HandleFunc("GET /api/v1/namespaces/flotilla-system/configmaps/flotilla-agent-endpoint", s.configMap)
	mux.HandleFunc("GET "+ours+"/fleetrollouts", list)
	mux.HandleFunc("GET "+ours+"/namespaces/{ns}/fleetrollouts", list)
	mux.HandleFunc("GET "+ours+"/namespaces/{ns}/fleetrollouts/{name}", s.get)
	mux.HandleFunc("PATCH "+ours+"/namespaces/{ns}/fleetrollouts/{name}", s.patch)
	mux.HandleFunc("GET "+ours+"/fleetmembers", func(w http.ResponseWriter, _ *http.Request) {
		var items []any
		for _, m := range readapitest.Members() {
			items = append(items, map[string]any{
				"apiVersion": v1alpha1.GroupVersion.String(), "kind": "FleetMember",
				"metadata": map[string]any{"name": m.Name, "labels": map[string]any{"region": m.Labels["region"], v1alpha1.LabelOrigin: v1alpha1.OriginRepository}},
				"spec":     map[string]any{"peerID": m.ID, "zone": "default", "incarnation": 1},
			})
		}
		respond(w, 200, map[string]any{"apiVersion": v1alpha1.GroupVersion.String(), "kind": "FleetMemberList", "metadata": map[string]any{}, "items": items})
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		refuse := s.refuse || r.Header.Get("Authorization") != "Bearer "+token
		s.mu.Unlock()
		if refuse {
			failure(w, 401, metav1.StatusReasonUnauthorized, "Unauthorized")
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func (s *site) configMap(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	data := s.endpoint
	s.mu.Unlock()
	if data == nil {
		failure(w, 404, metav1.StatusReasonNotFound, `configmaps "flotilla-agent-endpoint" not found`)
		return
	}
	respond(w, 200, map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "flotilla-agent-endpoint"}, "data": data})
}

func (s *site) get(w http.ResponseWriter, r *http.Request) {
	if r.PathValue("ns") != "apps" || r.PathValue("name") != "web" {
		failure(w, 404, metav1.StatusReasonNotFound, fmt.Sprintf("fleetrollouts.fleet.flotilla.dev %q not found", r.PathValue("name")))
		return
	}
	respond(w, 200, s.object())
}

// watchObjects tells of each change of the one object that changes.
func (s *site) watchObjects(w http.ResponseWriter, r *http.Request) {
	changed, cancel := s.Subscribe()
	defer cancel()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(200)
	stream, told := http.NewResponseController(w), r.URL.Query().Get("resourceVersion")
	for {
		if now := s.version(); now != told {
			told = now
			_ = json.NewEncoder(w).Encode(map[string]any{"type": "MODIFIED", "object": s.object()})
		}
		_ = stream.Flush()
		select {
		case <-r.Context().Done():
			return
		case <-changed:
		}
	}
}

func (s *site) version() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strconv.Itoa(s.fresh)
}

// Notify everybody who watches.
func (s *site) Notify() {
	s.mu.Lock()
	s.fresh++
	s.mu.Unlock()
	s.Notifier.Notify()
}

// objects of the member: the rollout, and two of one other name that nothing happens to.
func (s *site) objects() []*v1alpha1.FleetRollout {
	out := []*v1alpha1.FleetRollout{s.object()}
	for _, ns := range []string{"shop", "store"} {
		r := &v1alpha1.FleetRollout{TypeMeta: out[0].TypeMeta}
		r.Namespace, r.Name, r.CreationTimestamp = ns, "checkout", metav1.NewTime(now().Add(-time.Hour))
		out = append(out, r)
	}
	return out
}

// patch knows two annotations, and does what the agent does when it sees them.
func (s *site) patch(w http.ResponseWriter, r *http.Request) {
	if r.PathValue("ns") != "apps" || r.PathValue("name") != "web" {
		s.get(w, r)
		return
	}
	var body struct {
		Metadata struct{ Annotations map[string]*string }
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil || r.Header.Get("Content-Type") != "application/merge-patch+json" {
		failure(w, 400, metav1.StatusReasonBadRequest, "not a merge patch")
		return
	}
	reason, known := body.Metadata.Annotations[v1alpha1.AnnotationPause]
	look := body.Metadata.Annotations[v1alpha1.AnnotationReconcile]
	if len(body.Metadata.Annotations) != 1 || known == (look != nil) {
		failure(w, 400, metav1.StatusReasonBadRequest, "one annotation")
		return
	}
	s.mu.Lock()
	var err error
	switch {
	case look != nil:
		s.asked = *look
	case reason != nil:
		s.paused, err = reason, s.world.Tell("pause by "+string(s.self)+": "+*reason)
	default:
		s.paused, err = nil, s.world.Tell("resume by "+string(s.self))
	}
	s.mu.Unlock()
	if err != nil {
		failure(w, 500, metav1.StatusReasonInternalError, err.Error())
		return
	}
	s.Notify()
	s.get(w, r)
}

// object is the rollout's copy on this member.
func (s *site) object() *v1alpha1.FleetRollout {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := s.input()
	r := &v1alpha1.FleetRollout{
		TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "FleetRollout"},
		ObjectMeta: metav1.ObjectMeta{
			Name: "web", Namespace: "apps", UID: "u", CreationTimestamp: metav1.NewTime(now().Add(-41 * 24 * time.Hour)),
		},
		Spec: v1alpha1.FleetRolloutSpec{
			Source:  v1alpha1.Source{Git: &v1alpha1.GitSource{URL: "https://git.example/web"}},
			Targets: v1alpha1.Targets{ClusterSelector: v1alpha1.ClusterSelector{Names: []string{"*"}}},
		},
		Status: v1alpha1.FleetRolloutStatus{
			Summary: readapi.Summary(in), Stages: readapi.StageStatuses(in), Conditions: []metav1.Condition{readapi.ReadyCondition(in)},
			Here: &v1alpha1.MemberRollout{Phase: "Waiting"},
		},
	}
	r.Annotations = map[string]string{}
	if s.paused != nil {
		r.Annotations[v1alpha1.AnnotationPause] = *s.paused
	}
	if s.asked != "" {
		r.Annotations[v1alpha1.AnnotationReconcile] = s.asked
	}
	return r
}

func respond(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v)
}

func failure(w http.ResponseWriter, code int, reason metav1.StatusReason, message string) {
	respond(w, code, metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Code: int32(code), Reason: reason, Message: message,
	})
}
