// SPDX-License-Identifier: Apache-2.0

package agent_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr/testr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/flotilla-dev/flotilla/api/apitest"
	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/cmd/internal/agent"
	"github.com/flotilla-dev/flotilla/cmd/internal/gitserver"
	"github.com/flotilla-dev/flotilla/cmd/internal/localfleet"
	"github.com/flotilla-dev/flotilla/cmd/internal/readapi"
	"github.com/flotilla-dev/flotilla/deploy"
	"github.com/flotilla-dev/flotilla/examples"
	"github.com/flotilla-dev/flotilla/sequencer/verify"
)

func TestMain(m *testing.M) {
	agent.ServeIfChild() // the agent renders in children of this binary
	apitest.Main(m)
}

// one is a fleet of one member: a real API server, a real git server, a real agent under its own role.
type one struct {
	t      *testing.T
	server *apitest.Server
	member *localfleet.Member
	git    *gitserver.Server
	client client.Client // of Flotilla's kinds
	kube   client.Client // of the built-in ones
	config agent.Config
	stop   func()
}

func startOne(t *testing.T) *one {
	t.Helper()
	o := &one{t: t, server: apitest.Start(t)}
	clientset, err := kubernetes.NewForConfig(o.server.Config)
	o.must(err)
	o.member = &localfleet.Member{Name: "solo", Config: o.server.Config, Client: clientset}
	for _, file := range []string{"agent/namespace.yaml", "agent/rbac.yaml"} {
		body, err := deploy.Files.ReadFile(file)
		o.must(err)
		o.must(o.member.Apply(t.Context(), body))
	}
	scheme := runtime.NewScheme()
	o.must(v1alpha1.AddToScheme(scheme))
	o.must(corev1.AddToScheme(scheme))
	o.client, err = client.New(o.server.Config, client.Options{Scheme: scheme})
	o.must(err)
	o.kube, err = client.New(o.server.Config, client.Options{})
	o.must(err)
	o.git, err = gitserver.New(t.TempDir())
	o.must(err)
	o.background(func(ctx context.Context) error { return o.git.Run(ctx) })
	key, err := agent.MemberKey(t.Context(), clientset, "flotilla-system")
	o.must(err)
	roster := t.TempDir()
	o.must(os.WriteFile(filepath.Join(roster, "solo.yaml"), fmt.Appendf(nil,
		"apiVersion: fleet.flotilla.dev/v1alpha1\nkind: FleetMember\nmetadata: {name: solo, labels: {region: eu, ring: canary, size: small, tier: flagship}}\nspec: {peerID: %s}\n", agent.IDOf(key)), 0o600))
	o.config = agent.DefaultConfig()
	o.config.Kube = o.server.ServiceAccountConfig(t, "flotilla-system", "flotilla-agent")
	o.config.Fleet, o.config.MembersDir, o.config.DataDir = "e2e", roster, t.TempDir()
	o.config.MetricsAddr, o.config.ProbeAddr, o.config.Log = "0", "0", testr.NewWithInterface(quiet{t}, testr.Options{})
	o.startAgent()
	return o
}

// quiet drops log lines that come after the test has ended, which testing would panic at.
type quiet struct{ *testing.T }

func (q quiet) Log(args ...any) {
	if q.Context().Err() == nil {
		q.T.Log(args...)
	}
}

func (o *one) startAgent() {
	o.stop = o.background(func(ctx context.Context) error { return agent.Run(ctx, o.config) })
}

// background runs work until the returned function or the test's end stops it, and waits for it.
func (o *one) background(work func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- work(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			o.t.Errorf("in the background: %v", err)
		}
	}
	o.t.Cleanup(stop)
	return stop
}

func (o *one) must(err error) {
	o.t.Helper()
	if err != nil {
		o.t.Fatal(err)
	}
}

func (o *one) await(what string, ask func() error) {
	o.t.Helper()
	var err error
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); <-time.After(100 * time.Millisecond) {
		if err = ask(); err == nil {
			return
		}
	}
	o.t.Fatalf("waited a minute for %s: %v", what, err)
}

// hello is examples/hello, as a user applies it with kubectl, with this git server's URL.
func (o *one) hello() *v1alpha1.FleetRollout {
	o.t.Helper()
	manifest, err := examples.Files.ReadFile("hello/payload/hello.yaml")
	o.must(err)
	_, err = o.git.Commit(o.t.Context(), "hello", "main", "hello", map[string]string{"hello.yaml": string(manifest)})
	o.must(err)
	o.must(o.member.Tenant(o.t.Context(), "hello"))
	body, err := examples.Files.ReadFile("hello/rollout.yaml")
	o.must(err)
	o.must(o.member.Apply(o.t.Context(), []byte(strings.ReplaceAll(string(body), "https://git.example.com/hello", o.git.URL("hello")))))
	r := &v1alpha1.FleetRollout{}
	r.Namespace, r.Name = "hello", "hello"
	return r
}

func (o *one) greeting() (string, error) {
	c, err := o.member.Client.CoreV1().ConfigMaps("hello").Get(o.t.Context(), "hello", metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	return c.Data["greeting"], nil
}

func (o *one) awaitGreeting(want string) {
	o.t.Helper()
	o.await("greeting "+want, func() error {
		have, err := o.greeting()
		if err == nil && have != want {
			err = fmt.Errorf("it is %q", have)
		}
		return err
	})
}

// condition of a rollout, waited for until it has the reason.
func (o *one) awaitReason(r *v1alpha1.FleetRollout, kind, reason string) *metav1.Condition {
	o.t.Helper()
	var c *metav1.Condition
	o.await(kind+" with reason "+reason, func() error {
		if err := o.client.Get(o.t.Context(), client.ObjectKeyFromObject(r), r); err != nil {
			return err
		}
		if c = meta.FindStatusCondition(r.Status.Conditions, kind); c == nil || c.Reason != reason {
			return fmt.Errorf("it is %+v", c)
		}
		return nil
	})
	return c
}

func (o *one) commitGreeting(greeting string) {
	o.t.Helper()
	manifest, err := examples.Files.ReadFile("hello/payload/hello.yaml")
	o.must(err)
	_, err = o.git.Commit(o.t.Context(), "hello", "main", greeting,
		map[string]string{"hello.yaml": strings.ReplaceAll(string(manifest), "hello, cluster", greeting)})
	o.must(err)
}

// annotate the rollout as a user does; an empty value takes the annotation away.
func (o *one) annotate(r *v1alpha1.FleetRollout, key, value string) {
	o.t.Helper()
	o.must(o.client.Get(o.t.Context(), client.ObjectKeyFromObject(r), r))
	patch := client.MergeFrom(r.DeepCopy())
	if r.Annotations == nil {
		r.Annotations = map[string]string{}
	}
	if r.Annotations[key] = value; value == "" {
		delete(r.Annotations, key)
	}
	o.must(o.client.Patch(o.t.Context(), r, patch))
}

// The example hello, declared with kubectl on a member: delivered, healed, updated, paused, resumed,
// taken up again by a restarted agent and after the API server was away, and let go of.
func TestHello(t *testing.T) {
	o := startOne(t)
	r := o.hello()
	o.awaitGreeting("hello, cluster")
	o.awaitReason(r, v1alpha1.ConditionApplied, v1alpha1.ReasonApplied)
	o.awaitReason(r, v1alpha1.ConditionAvailable, v1alpha1.ReasonHealthy)
	if r.Status.Summary == nil || r.Status.Summary.Stage != "1/1" {
		t.Errorf("summary %+v", r.Status.Summary)
	}

	t.Run("read endpoint", func(t *testing.T) {
		c, err := readapi.Find(t.Context(), o.server.Config)
		o.must(err)
		seen, err := c.Rollout(t.Context(), fleet.RolloutName{Namespace: "hello", Name: "hello"})
		o.must(err)
		if len(seen.Members) != 1 || seen.Members[0].Name != "solo" || seen.Revision.Short() != fleet.Revision(r.Status.Release.Revision).Short() {
			t.Errorf("the endpoint says %+v", seen)
		}
	})

	o.must(o.member.Client.CoreV1().ConfigMaps("hello").Delete(t.Context(), "hello", metav1.DeleteOptions{}))
	o.awaitGreeting("hello, cluster") // drift, seen by watch

	o.annotate(r, v1alpha1.AnnotationPause, "stock-taking")
	o.awaitReason(r, v1alpha1.ConditionPaused, v1alpha1.ReasonAnnotation)
	o.commitGreeting("second")
	o.annotate(r, v1alpha1.AnnotationReconcile, "1")
	o.await("the paused release to be seen", func() error {
		o.must(o.client.Get(t.Context(), client.ObjectKeyFromObject(r), r))
		if r.Status.Here == nil || !strings.Contains(r.Status.Here.Because, "stock-taking") {
			return fmt.Errorf("here: %+v", r.Status.Here)
		}
		return nil
	})
	if have, err := o.greeting(); err != nil || have != "hello, cluster" {
		t.Fatalf("a paused rollout was delivered: %q %v", have, err)
	}
	o.stop()
	o.startAgent() // a pause survives the agent
	o.annotate(r, v1alpha1.AnnotationPause, "")
	o.awaitGreeting("second")

	thaw := o.server.Freeze(t) // longer than the lease lasts: the agent stops acting, and takes up again
	<-time.After(time.Minute)
	thaw()
	o.commitGreeting("third")
	o.await("the frozen server to answer", func() error {
		return o.client.Get(t.Context(), client.ObjectKeyFromObject(r), r)
	})
	o.annotate(r, v1alpha1.AnnotationReconcile, "2")
	o.awaitGreeting("third")
	t.Run("verified", func(t *testing.T) { o.verified(t) })

	o.must(o.client.Delete(t.Context(), r))
	o.await("the rollout to be gone", func() error {
		err := o.client.Get(t.Context(), client.ObjectKeyFromObject(r), r)
		if err == nil {
			return errors.New("still there")
		}
		return client.IgnoreNotFound(err)
	})
	if have, err := o.greeting(); err != nil || have != "third" {
		t.Errorf("letting go of a rollout took its objects along: %q %v", have, err)
	}

	t.Run("bad input", func(t *testing.T) { o.badInput(t) })
}

// verified: what the agent signed until now, restarted, paused and frozen in between, keeps all rules.
func (o *one) verified(t *testing.T) {
	c, err := readapi.Find(t.Context(), o.server.Config)
	o.must(err)
	header, evidence, err := c.Facts(t.Context(), nil)
	o.must(err)
	r := verify.Check(evidence)
	if r.Verdict != verify.Kept || r.Plans != 3 || r.Judged != 3 || r.Members != 1 || header.By != "solo" {
		t.Errorf("%+v of %+v", r, header)
	}
	for _, rule := range r.Rules {
		if rule.ID == "I16" && rule.Checked == 0 {
			t.Error("nothing was started after the pause")
		}
	}
}

// badInput: each has a condition that says what to do, and nothing is delivered.
func (o *one) badInput(t *testing.T) {
	o.must(o.git.Create("empty"))
	o.must(o.member.Apply(t.Context(), []byte("apiVersion: v1\nkind: Namespace\nmetadata: {name: bare}\n")))
	for _, c := range []struct {
		name, namespace, url, path, target string
		condition, reason, says            string
	}{
		{"unreachable", "hello", "http://127.0.0.1:1/x.git", "./", "*", v1alpha1.ConditionSourceReady, v1alpha1.ReasonFetchFailed, "refused"},
		{"empty", "hello", o.git.URL("empty"), "./", "*", v1alpha1.ConditionSourceReady, v1alpha1.ReasonEmptySource, ""},
		{"wrongpath", "hello", o.git.URL("hello"), "./nowhere", "*", v1alpha1.ConditionApplied, v1alpha1.ReasonPathNotFound, "nowhere"},
		{"noaccount", "bare", o.git.URL("hello"), "./", "*", v1alpha1.ConditionApplied, v1alpha1.ReasonServiceAccountNotFound, "flotilla"},
		{"nobody", "hello", o.git.URL("hello"), "./", "mars", v1alpha1.ConditionSealed, v1alpha1.ReasonInvalid, "mars"},
	} {
		r := &v1alpha1.FleetRollout{}
		r.Namespace, r.Name = c.namespace, c.name
		r.Spec.Source = v1alpha1.Source{Git: &v1alpha1.GitSource{URL: c.url}, Path: c.path}
		r.Spec.Targets.Names = []string{c.target}
		o.must(o.client.Create(t.Context(), r))
		got := o.awaitReason(r, c.condition, c.reason)
		if got.Status == metav1.ConditionTrue || !strings.Contains(got.Message, c.says) {
			t.Errorf("%s: %s %s: %s", c.name, got.Status, got.Reason, got.Message)
		}
		t.Logf("%s: %s", c.name, got.Message)
	}
}
