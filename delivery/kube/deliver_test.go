// SPDX-License-Identifier: Apache-2.0

package kube_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/delivery"
	"github.com/flotilla-dev/flotilla/delivery/kube"
)

const (
	settings = `{apiVersion: v1, kind: ConfigMap, metadata: {name: settings}, data: {value: "1"}}`
	service  = `{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {selector: {app: web}, ports: [{port: 80}]}}`
	web      = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, creationTimestamp: null}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: "web:1", resources: {limits: {cpu: "1000m"}}, ports: [{containerPort: 80}]}]}`
	secret = `{apiVersion: v1, kind: Secret, metadata: {name: token}, stringData: {token: hunter2, user: web}}`
	// A role and what binds it, by an account that may not simply bind everything: it is judged by the role.
	role    = `{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: web}, rules: [{apiGroups: [""], resources: [configmaps], verbs: [get]}]}`
	binding = `{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: web}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: web}, subjects: [{kind: ServiceAccount, name: web}]}`
	account = `{apiVersion: v1, kind: ServiceAccount, metadata: {name: web}}`
)

// crd of a group of the test's own, so that no test sees another's.
func crd(group string, required string) string {
	return strings.NewReplacer("GROUP", group, "REQUIRED", required).Replace(`
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: shops.GROUP}
spec:
  group: GROUP
  scope: Namespaced
  names: {kind: Shop, plural: shops, singular: shop, listKind: ShopList}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {REQUIRED: {type: integer}}}, status: {type: object, x-kubernetes-preserve-unknown-fields: true}}}}`)
}

func shop(group, name, field string) string {
	return fmt.Sprintf(`{apiVersion: %s/v1, kind: Shop, metadata: {name: %s}, spec: {%s: 3}}`, group, name, field)
}

var everything = rbacv1.PolicyRule{APIGroups: []string{"*"}, Resources: []string{"*"}, Verbs: []string{"*"}}

// dropCRD removes what no prune does.
func (s *site) dropCRD(group string) {
	s.Cleanup(func() {
		o := s.get(delivery.ObjectID{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition", Name: "shops." + group})
		if o != nil {
			if err := s.admin.Delete(context.Background(), o); err != nil {
				s.Error(err)
			}
		}
	})
}

func TestNothingMovesWithoutAChange(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	r := s.release("1", settings, service, web, secret, role, binding, account)
	s.wantSummary(s.deliver(r), "7 created")
	s.eventually("healthy", func() bool {
		h, err := s.cluster.Health(context.Background(), s.rollout(), "flotilla")
		return err == nil && h.State == delivery.Healthy
	})
	before := s.versions()
	if strings.Count(before, "\n") < 7 {
		t.Fatalf("too little to compare:\n%s", before)
	}
	for range 3 {
		s.wantSummary(s.deliver(r), "7 unchanged")
	}
	if diff := cmp.Diff(before, s.versions()); diff != "" {
		t.Errorf("a delivery without a change wrote (-before +after):\n%s", diff)
	}
	// Another process, which knows nothing yet, writes nothing either.
	fresh := &kube.Cluster{Config: s.cluster.Config}
	if outcome, err := fresh.Deliver(context.Background(), r); err != nil || outcome.Changed() {
		t.Errorf("%v, %s", err, outcome.Summary())
	}
	if diff := cmp.Diff(before, s.versions()); diff != "" {
		t.Errorf("(-before +after):\n%s", diff)
	}
}

func TestSecretKeysGo(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.deliver(s.release("1", secret))
	s.wantSummary(s.deliver(s.release("2", `{apiVersion: v1, kind: Secret, metadata: {name: token}, stringData: {user: web}}`)), "1 configured")
	data, _, _ := unstructured.NestedStringMap(s.get(delivery.ObjectID{Version: "v1", Kind: "Secret", Namespace: s.namespace, Name: "token"}).Object, "data")
	if diff := cmp.Diff(map[string]string{"user": "d2Vi"}, data); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestInvalidManifest: whatever the server does not take, the rest of the release is not written.
func TestInvalidManifest(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for _, tc := range []struct {
		name, manifest string
		words          []string
		never          string
	}{
		{
			name:     "a field that is not there",
			manifest: `{apiVersion: apps/v1, kind: Deployment, metadata: {name: bad}, spec: {replicsa: 3, selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}, spec: {containers: [{name: web, image: "web:1"}]}}}}`,
			words:    []string{"Deployment NAMESPACE/bad: ", ".spec.replicsa: field not declared in schema"},
		},
		{
			name:     "a field of another type",
			manifest: `{apiVersion: v1, kind: Service, metadata: {name: bad}, spec: {ports: [{port: eighty}]}}`,
			words:    []string{"Service NAMESPACE/bad: "},
		},
		{
			name:     "a value out of range",
			manifest: `{apiVersion: v1, kind: Service, metadata: {name: bad}, spec: {ports: [{port: 80000}]}}`,
			words:    []string{`Service NAMESPACE/bad: Service "bad" is invalid: [spec.ports[0].port: Invalid value: 80000`},
		},
		{
			name:     "a name that is none",
			manifest: `{apiVersion: v1, kind: ConfigMap, metadata: {name: Bad_Name}}`,
			words:    []string{"ConfigMap NAMESPACE/Bad_Name: "},
		},
		{
			name:     "a secret, which is not quoted",
			manifest: `{apiVersion: v1, kind: Secret, metadata: {name: bad}, data: {password: "hunter2 is no base64"}}`,
			words:    []string{"Secret NAMESPACE/bad: the API server refuses it; its words are left out"},
			never:    "hunter2",
		},
		{
			name:     "a secret of numbers",
			manifest: `{apiVersion: v1, kind: Secret, metadata: {name: bad}, stringData: {password: 12345678}}`,
			words:    []string{"maps of strings"},
			never:    "12345678",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := &site{T: t, server: s.server, cluster: s.cluster, admin: s.admin, namespace: s.namespace}
			before := s.versions()
			outcome, err := s.cluster.Deliver(context.Background(), s.release("1", settings, service, tc.manifest))
			for n, w := range tc.words {
				tc.words[n] = strings.ReplaceAll(w, "NAMESPACE", s.namespace)
			}
			s.wantError(err, fleet.Terminal, v1alpha1.ReasonInvalidManifest, tc.words...)
			if tc.never != "" && strings.Contains(err.Error(), tc.never) {
				t.Errorf("%q leaks: %v", tc.never, err)
			}
			if len(outcome.Changes) != 0 {
				t.Errorf("changes: %+v", outcome.Changes)
			}
			if diff := cmp.Diff(before, s.versions()); diff != "" {
				t.Errorf("half applied:\n%s", diff)
			}
		})
	}
}

func TestManyInvalidManifests(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	bad := `{apiVersion: v1, kind: Service, metadata: {name: %s}, spec: {ports: [{port: 80000}]}}`
	_, err := s.cluster.Deliver(context.Background(), s.release("1", settings, fmt.Sprintf(bad, "a"), fmt.Sprintf(bad, "b"), fmt.Sprintf(bad, "c")))
	s.wantError(err, fleet.Terminal, v1alpha1.ReasonInvalidManifest, s.namespace+"/a: ", "; and 2 more of 4 objects")
}

func TestKindAndItsObjectsInOnePayload(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.allowEverywhere("flotilla")
	group := s.namespace + ".example.com"
	s.dropCRD(group)
	r := s.release("1", shop(group, "corner", "size"), settings, crd(group, "size"))
	if err := s.cluster.Check(context.Background(), r); err != nil {
		t.Fatal(err)
	}
	s.wantSummary(s.deliver(r), "3 created")
	before := s.versions()
	s.wantSummary(s.deliver(r), "3 unchanged")
	if diff := cmp.Diff(before, s.versions()); diff != "" {
		t.Errorf("(-before +after):\n%s", diff)
	}
	// The kind gets a field, and the same payload uses it.
	s.wantSummary(s.deliver(s.release("2", shop(group, "corner", "rooms"), settings, crd(group, "rooms"))), "2 configured, 1 unchanged")
	// An object that the new kind does not take: the kind is there, nothing of the stage after it is.
	bad := strings.ReplaceAll(shop(group, "corner", "rooms"), "3", "many")
	_, err := s.cluster.Deliver(context.Background(), s.release("3", bad, strings.Replace(settings, `"1"`, `"2"`, 1), crd(group, "halls")))
	s.wantError(err, fleet.Terminal, v1alpha1.ReasonInvalidManifest, "Shop "+s.namespace+"/corner: ")
	if value, _, _ := unstructured.NestedString(s.get(s.configMap("settings")).Object, "data", "value"); value != "1" {
		t.Errorf("settings are half applied: %s", value)
	}
	// The kind leaves the manifest: it stays in the cluster, its object goes.
	outcome := s.deliver(s.release("4", settings))
	s.wantSummary(outcome, "1 unchanged, 1 pruned, 1 kept")
	if last := outcome.Changes[len(outcome.Changes)-2]; last.Action != delivery.Kept || !strings.Contains(last.Why, "never pruned") {
		t.Errorf("%+v", last)
	}
	// The kind goes by hand. It is found to be gone, and so are its objects.
	s.deliver(s.release("5", settings, shop(group, "corner", "halls")))
	s.remove(delivery.ObjectID{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition", Name: "shops." + group})
	s.eventually("the kind is not served", func() bool {
		_, err := s.cluster.Deliver(context.Background(), s.release("6", settings, shop(group, "corner", "halls")))
		return fleet.KindOf(err) == fleet.Refused && fleet.ReasonOf(err, "") == v1alpha1.ReasonUnknownKind
	})
	s.eventually("delivered without it", func() bool {
		outcome, err := s.cluster.Deliver(context.Background(), s.release("7", settings))
		return err == nil && outcome.Objects == 2 // settings, and the kind that is never pruned
	})
}

func TestNamespaceInThePayload(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.allowEverywhere("flotilla")
	other := s.namespace + "-other"
	namespace := fmt.Sprintf(`{apiVersion: v1, kind: Namespace, metadata: {name: %s}}`, other)
	inside := fmt.Sprintf(`{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: %s}}`, other)
	r := s.release("1", inside, namespace)
	if err := s.cluster.Check(context.Background(), r); err != nil {
		t.Fatal(err)
	}
	s.wantSummary(s.deliver(r), "2 created")
	// Out of the manifest, it stays, with a word; what was in it goes.
	s.wantSummary(s.deliver(s.release("2", settings)), "1 created, 1 pruned, 1 kept")
	s.wantSummary(s.deliver(s.release("2", settings)), "1 unchanged, 1 kept")
	if err := s.admin.Delete(context.Background(), s.get(delivery.ObjectID{Version: "v1", Kind: "Namespace", Name: other})); err != nil {
		t.Fatal(err)
	}
}

func TestImmutableField(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.deliver(s.release("1", settings, web))
	before := s.get(s.configMap("settings")).GetResourceVersion()
	changed := strings.ReplaceAll(web, "app: web", "app: other")
	_, err := s.cluster.Deliver(context.Background(), s.release("2", strings.Replace(settings, `"1"`, `"2"`, 1), changed))
	s.wantError(err, fleet.Terminal, v1alpha1.ReasonImmutableField, "Deployment "+s.namespace+"/web: ", "spec.selector", "field is immutable", "give it another name")
	if s.get(s.configMap("settings")).GetResourceVersion() != before {
		t.Error("half applied")
	}
}

func TestRights(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.account("poor")
	as := func(r delivery.Release, account string) delivery.Release {
		r.ServiceAccount = account
		return r
	}
	// An account that the agent may not act as.
	r := as(s.release("1", settings), "poor")
	s.wantError(s.cluster.Check(context.Background(), r), fleet.Refused, v1alpha1.ReasonForbidden, "cannot impersonate", "let the agent impersonate it")
	_, err := s.cluster.Deliver(context.Background(), r)
	s.wantError(err, fleet.Refused, v1alpha1.ReasonForbidden, "cannot impersonate", "let the agent impersonate it: a Role in "+s.namespace)
	// Its owner lets the agent, as the hint says.
	meta := metav1.ObjectMeta{Namespace: s.namespace, Name: "flotilla-as-poor"}
	s.create(&rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"serviceaccounts"}, ResourceNames: []string{"poor"}, Verbs: []string{"impersonate"}}}})
	s.create(&rbacv1.RoleBinding{
		ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: meta.Name},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Name: "flotilla-agent", Namespace: kube.DefaultNamespace}},
	})
	// Now it is the account that lacks rights.
	s.eventually("impersonation is allowed", func() bool {
		_, err := s.cluster.Deliver(context.Background(), r)
		return err != nil && !strings.Contains(err.Error(), "impersonate")
	})
	_, err = s.cluster.Deliver(context.Background(), r)
	s.wantError(err, fleet.Refused, v1alpha1.ReasonForbidden, "ConfigMap "+s.namespace+"/settings: ", "cannot get resource", "grant it to service account "+s.namespace+"/poor")
	// It may read and not write.
	s.allow("poor", rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"get"}})
	s.eventually("it may read", func() bool {
		_, err := s.cluster.Deliver(context.Background(), r)
		return err != nil && strings.Contains(err.Error(), "cannot patch resource")
	})
	// It has all that it needs for ConfigMaps, and by its groups nothing else.
	s.allow("poor", rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"create", "patch"}})
	s.eventually("it may write", func() bool {
		_, err := s.cluster.Deliver(context.Background(), r)
		return err == nil
	})
	before := s.versions()
	_, err = s.cluster.Deliver(context.Background(), as(s.release("2", strings.Replace(settings, `"1"`, `"2"`, 1), service), "poor"))
	s.wantError(err, fleet.Refused, v1alpha1.ReasonForbidden, "Service "+s.namespace+"/web: ")
	// To delete was not granted: the object stays, in the cluster and in the inventory, and the delivery goes on.
	second := as(s.release("3", strings.Replace(settings, "settings", "others", 1)), "poor")
	if diff := cmp.Diff(before, s.versions()); diff != "" {
		t.Errorf("half applied:\n%s", diff)
	}
	outcome := s.deliver(second)
	s.wantSummary(outcome, "1 created, 1 kept")
	if why := outcome.Changes[1].Why; !strings.Contains(why, "deleting was refused") || outcome.Objects != 2 {
		t.Errorf("%q, %d objects", why, outcome.Objects)
	}
	s.allow("poor", rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"delete"}})
	s.eventually("it goes once it may", func() bool { return s.deliver(second).Objects == 1 })
	if s.get(s.configMap("settings")) != nil {
		t.Error("still there")
	}
}

// TestGroupsOfTheAccount: impersonating an account brings its groups, though the agent may not impersonate any.
func TestGroupsOfTheAccount(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	bare := apitestNamespace(s)
	s.create(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: bare, Name: "flotilla"}})
	meta := metav1.ObjectMeta{Namespace: bare, Name: "by-group"}
	s.create(&rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"*"}}}})
	s.create(&rbacv1.RoleBinding{
		ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: meta.Name},
		Subjects: []rbacv1.Subject{{Kind: "Group", APIGroup: rbacv1.GroupName, Name: "system:serviceaccounts:" + bare}},
	})
	r := s.release("1", settings)
	r.Rollout.Namespace = bare
	s.eventually("delivered by the right of a group", func() bool {
		_, err := s.cluster.Deliver(context.Background(), r)
		return err == nil
	})
}

func TestAdmissionSaysNo(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	namespace := &corev1.Namespace{}
	if err := s.admin.Get(context.Background(), client.ObjectKey{Name: s.namespace}, namespace); err != nil {
		t.Fatal(err)
	}
	namespace.Labels["pod-security.kubernetes.io/enforce"] = "restricted"
	if err := s.admin.Update(context.Background(), namespace); err != nil {
		t.Fatal(err)
	}
	pod := `{apiVersion: v1, kind: Pod, metadata: {name: root}, spec: {containers: [{name: root, image: "root:1", securityContext: {privileged: true}}]}}`
	s.eventually("the policy is in force", func() bool {
		_, err := s.cluster.Deliver(context.Background(), s.release("1", pod))
		return fleet.KindOf(err) == fleet.Refused
	})
	_, err := s.cluster.Deliver(context.Background(), s.release("1", settings, pod))
	s.wantError(err, fleet.Refused, v1alpha1.ReasonApplyFailed, "Pod "+s.namespace+"/root: ", "violates PodSecurity")
	if s.get(s.configMap("settings")) != nil {
		t.Error("half applied")
	}
}

// TestKilledBeforeAnyObject: the inventory is the first that is written, so what comes after a kill is known.
func TestKilledBeforeAnyObject(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.deliver(s.release("1", settings, service))
	r := s.release("2", settings, account)
	asked := 0
	killed := errors.New("killed")
	r.Fence = func(context.Context) error {
		if asked++; asked > 1 {
			return killed
		}
		return nil
	}
	_, err := s.cluster.Deliver(context.Background(), r)
	if !errors.Is(err, killed) {
		t.Fatal(err)
	}
	have, err := s.cluster.Inventory(context.Background(), s.rollout())
	if err != nil || have.Revision != r.Revision || len(have.Objects) != 2 || len(have.Left) != 1 {
		t.Errorf("%+v, %v", have, err)
	}
	if s.get(delivery.ObjectID{Version: "v1", Kind: "ServiceAccount", Namespace: s.namespace, Name: "web"}) != nil {
		t.Error("written past the fence")
	}
	// A third release comes instead of the second: what the second never wrote is no trouble.
	s.wantSummary(s.deliver(s.release("3", settings)), "1 unchanged, 2 pruned")
	if s.get(delivery.ObjectID{Version: "v1", Kind: "Service", Namespace: s.namespace, Name: "web"}) != nil {
		t.Error("the first release's service was forgotten")
	}
}

// TestTwoAtOnce: of two agents that deliver one rollout, none loses what the other wrote.
func TestTwoAtOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.deliver(s.release("1", settings))
	slow := s.release("2", settings, service)
	slow.Fence = func(context.Context) error {
		slow.Fence = nil
		s.deliver(s.release("3", settings, account)) // overtakes
		return nil
	}
	_, err := s.cluster.Deliver(context.Background(), slow)
	if fleet.KindOf(err) != fleet.Retryable || !strings.Contains(err.Error(), "write inventory") {
		t.Errorf("got %v", err)
	}
	have, err := s.cluster.Inventory(context.Background(), s.rollout())
	if err != nil || have.Revision != "main@sha1:3" {
		t.Errorf("%+v, %v", have, err)
	}
}

func TestDamagedInventory(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.deliver(s.release("1", settings, service))
	held := &corev1.ConfigMap{}
	key := client.ObjectKey{Namespace: kube.DefaultNamespace, Name: "inventory-" + s.namespace + ".podinfo"}
	if err := s.admin.Get(context.Background(), key, held); err != nil {
		t.Fatal(err)
	}
	good := held.Data["inventory.json"]
	for _, bad := range []string{"", "{}", strings.Replace(good, "podinfo", "another", 1)} {
		held.Data["inventory.json"] = bad
		if err := s.admin.Update(context.Background(), held); err != nil {
			t.Fatal(err)
		}
		_, err := s.cluster.Deliver(context.Background(), s.release("2", settings))
		s.wantError(err, fleet.Refused, v1alpha1.ReasonApplyFailed, "inventory")
		if _, err := s.cluster.Health(context.Background(), s.rollout(), "flotilla"); err == nil {
			t.Error("health of a damaged inventory")
		}
	}
}

func TestServerIsDown(t *testing.T) {
	t.Parallel()
	nowhere := &kube.Cluster{Config: &rest.Config{Host: "https://127.0.0.1:1"}, Timeout: time.Second}
	r := (&site{T: t, namespace: "apps"}).release("1", settings)
	err := nowhere.Check(context.Background(), r)
	if fleet.KindOf(err) != fleet.Retryable || err == nil {
		t.Errorf("Check: %v", err)
	}
	if _, err := nowhere.Deliver(context.Background(), r); fleet.KindOf(err) != fleet.Retryable || err == nil {
		t.Errorf("Deliver: %v", err)
	}
	if _, err := nowhere.Health(context.Background(), r.Rollout, "flotilla"); fleet.KindOf(err) != fleet.Retryable || err == nil {
		t.Errorf("Health: %v", err)
	}
}

// TestServerIsFrozen and thaws: what was asked meanwhile is tried again, and nothing was done by halves.
func TestServerIsFrozen(t *testing.T) {
	s := newSite(t)
	s.deliver(s.release("1", settings))
	impatient := &kube.Cluster{Config: s.cluster.Config, Timeout: 300 * time.Millisecond}
	thaw := s.server.Freeze(t)
	_, err := impatient.Deliver(context.Background(), s.release("2", settings, service))
	s.wantError(err, fleet.Retryable, v1alpha1.ReasonApplyFailed)
	_, err = impatient.Health(context.Background(), s.rollout(), "flotilla")
	s.wantError(err, fleet.Retryable, v1alpha1.ReasonApplyFailed)
	thaw()
	s.eventually("delivered after the thaw", func() bool {
		_, err := s.cluster.Deliver(context.Background(), s.release("2", settings, service))
		return err == nil
	})
}

// TestFrozenInTheMiddle: the server hangs after the inventory is written, and the agent is stopped meanwhile.
func TestFrozenInTheMiddle(t *testing.T) {
	s := newSite(t)
	s.deliver(s.release("1", settings))
	r := s.release("2", service)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	asked := 0
	var thaw func()
	r.Fence = func(context.Context) error {
		if asked++; asked == 3 { // the inventory, the stage, the object
			thaw = s.server.Freeze(t)
			time.AfterFunc(300*time.Millisecond, cancel)
		}
		return nil
	}
	_, err := s.cluster.Deliver(ctx, r)
	s.wantError(err, fleet.Retryable, v1alpha1.ReasonApplyFailed, "Service "+s.namespace+"/web: ")
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the cause is lost: %v", err)
	}
	thaw()
	r.Fence = nil
	s.eventually("completed after the thaw", func() bool {
		_, err := s.cluster.Deliver(context.Background(), r)
		return err == nil
	})
	if s.get(s.configMap("settings")) != nil {
		t.Error("not pruned")
	}
}

func TestAdoptsWhatNobodyOwns(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "settings", Labels: map[string]string{"theirs": "stays"}}, Data: map[string]string{"value": "0", "other": "stays"}})
	s.wantSummary(s.deliver(s.release("1", settings)), "1 configured")
	got := s.get(s.configMap("settings"))
	data, _, _ := unstructured.NestedStringMap(got.Object, "data")
	if diff := cmp.Diff(map[string]string{"value": "1", "other": "stays"}, data); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got.GetLabels()["theirs"] != "stays" || got.GetLabels()[v1alpha1.LabelRolloutName] != "podinfo" {
		t.Errorf("labels: %v", got.GetLabels())
	}
}

// TestTakesOutWhatOnlyTheServerWrites: a manifest that was exported from a cluster is delivered as it is meant.
func TestTakesOutWhatOnlyTheServerWrites(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	exported := `
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, uid: 6a1c, resourceVersion: "12", generation: 3, creationTimestamp: "2026-01-01T00:00:00Z", managedFields: [{manager: kubectl, operation: Apply, apiVersion: v1, fieldsType: FieldsV1, fieldsV1: {}}]}
data: {value: "1"}`
	s.wantSummary(s.deliver(s.release("1", exported)), "1 created")
	s.wantSummary(s.deliver(s.release("1", exported)), "1 unchanged")
}

// TestClusterScopedKinds are not put into a namespace, whatever the manifest says.
func TestClusterScopedKinds(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.allowEverywhere("flotilla")
	name := s.namespace + "-reader"
	manifest := fmt.Sprintf(`{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: %s, namespace: wrong}, rules: []}`, name)
	s.wantSummary(s.deliver(s.release("1", settings, manifest)), "2 created")
	s.wantSummary(s.deliver(s.release("1", settings, manifest)), "2 unchanged")
	s.wantSummary(s.deliver(s.release("2", settings)), "1 unchanged, 1 pruned")
	err := s.admin.Get(context.Background(), client.ObjectKey{Name: name}, &rbacv1.ClusterRole{})
	if !apierrors.IsNotFound(err) {
		t.Errorf("still there: %v", err)
	}
}
