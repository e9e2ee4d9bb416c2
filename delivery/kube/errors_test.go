// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"

	ssaerrors "github.com/fluxcd/pkg/ssa/errors"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/client-go/rest"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/delivery"
)

var (
	deployments = schema.GroupResource{Group: "apps", Resource: "deployments"}
	web         = delivery.ObjectID{Group: "apps", Version: "v1", Kind: "Deployment", Namespace: "apps", Name: "web"}
	flotilla    = account{namespace: "apps", name: "flotilla"}
)

func withCause(err *apierrors.StatusError, cause metav1.CauseType) error {
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{Type: cause})
	return err
}

func invalidBecause(words string) error {
	return apierrors.NewInvalid(schema.GroupKind{Group: "apps", Kind: "Deployment"}, "web",
		field.ErrorList{field.Invalid(field.NewPath("spec"), "x", words)})
}

func TestExplain(t *testing.T) {
	for _, tc := range []struct {
		name   string
		err    error
		kind   fleet.ErrorKind
		reason string
		words  string
	}{
		{"connection refused", errors.New("dial tcp 127.0.0.1:1: connect: connection refused"), fleet.Retryable, v1alpha1.ReasonApplyFailed, "Deployment apps/web: "},
		{"timeout", context.DeadlineExceeded, fleet.Retryable, v1alpha1.ReasonApplyFailed, "deadline exceeded"},
		{"too many requests", apierrors.NewTooManyRequestsError("slow down"), fleet.Retryable, v1alpha1.ReasonApplyFailed, "slow down"},
		{"unavailable", apierrors.NewServiceUnavailable("starting"), fleet.Retryable, v1alpha1.ReasonApplyFailed, "starting"},
		{"a webhook that does not answer", apierrors.NewInternalError(errors.New(`failed calling webhook "guard": connection refused`)), fleet.Retryable, v1alpha1.ReasonApplyFailed, "failed calling webhook"},
		{"another writer", apierrors.NewConflict(deployments, "web", errors.New("the object has been modified")), fleet.Retryable, v1alpha1.ReasonApplyFailed, "modified"},
		{"the agent's token ran out", apierrors.NewUnauthorized("Unauthorized"), fleet.Retryable, v1alpha1.ReasonApplyFailed, "Unauthorized"},
		{
			"a namespace that is going", withCause(apierrors.NewForbidden(deployments, "web", errors.New("being terminated")), corev1.NamespaceTerminatingCause),
			fleet.Retryable, v1alpha1.ReasonApplyFailed, "being terminated",
		},
		{
			"a pod's account that is not there yet", apierrors.NewForbidden(deployments, "web", errors.New("error looking up service account apps/default")),
			fleet.Retryable, v1alpha1.ReasonApplyFailed, "error looking up",
		},
		{
			"no right", apierrors.NewForbidden(deployments, "web", errors.New(`User "system:serviceaccount:apps:flotilla" cannot patch resource "deployments"`)),
			fleet.Refused, v1alpha1.ReasonForbidden, "(grant it to service account apps/flotilla with a RoleBinding or ClusterRoleBinding)",
		},
		{
			"no right to give rights", apierrors.NewForbidden(deployments, "web", errors.New(`user "system:serviceaccount:apps:flotilla" (groups=[]) is attempting to grant RBAC permissions not currently held`)),
			fleet.Refused, v1alpha1.ReasonForbidden, "grant it to",
		},
		{
			"no right to impersonate", apierrors.NewForbidden(schema.GroupResource{Resource: "serviceaccounts"}, "flotilla", errors.New(`User "system:serviceaccount:flotilla-system:flotilla-agent" cannot impersonate resource "serviceaccounts"`)),
			fleet.Refused, v1alpha1.ReasonForbidden, "let the agent impersonate it: a Role in apps with verb impersonate on serviceaccounts flotilla, bound to the agent",
		},
		{"quota", apierrors.NewForbidden(deployments, "web", errors.New("exceeded quota: small")), fleet.Refused, v1alpha1.ReasonApplyFailed, "exceeded quota"},
		{
			"a webhook says no", apierrors.NewBadRequest(`admission webhook "guard.example.com" denied the request: no`),
			fleet.Refused, v1alpha1.ReasonApplyFailed, "denied the request: no",
		},
		{
			"a policy says no", invalidBecause("ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no"),
			fleet.Refused, v1alpha1.ReasonApplyFailed, "denied request: no",
		},
		{"a webhook that cannot rehearse", apierrors.NewBadRequest(`admission webhook "guard" does not support dry run`), fleet.Refused, v1alpha1.ReasonApplyFailed, "dry run"},
		{"an immutable field", invalidBecause("field is immutable"), fleet.Terminal, v1alpha1.ReasonImmutableField, "give it another name"},
		{"a StatefulSet's field", invalidBecause("Forbidden: updates to statefulset spec for fields other than 'replicas' are forbidden"), fleet.Terminal, v1alpha1.ReasonImmutableField, "statefulset"},
		{"a value", invalidBecause("must be positive"), fleet.Terminal, v1alpha1.ReasonInvalidManifest, "must be positive"},
		{"a field that is not there", apierrors.NewInternalError(errors.New("failed to create typed patch object: .spec.x: field not declared in schema")), fleet.Terminal, v1alpha1.ReasonInvalidManifest, "field not declared"},
		{"too large", apierrors.NewRequestEntityTooLargeError("limit is 3145728"), fleet.Terminal, v1alpha1.ReasonInvalidManifest, "3145728"},
		{"what cannot be applied", apierrors.NewMethodNotSupported(deployments, "patch"), fleet.Terminal, v1alpha1.ReasonInvalidManifest, "patch is not supported"},
		{"no such kind", &meta.NoKindMatchError{GroupKind: schema.GroupKind{Group: "apps", Kind: "Deployment"}}, fleet.Refused, v1alpha1.ReasonUnknownKind, "does not know kind Deployment of apps/v1 (install its CustomResourceDefinition first"},
		{
			"a kind that is no longer served", withCause(apierrors.NewNotFound(deployments, ""), metav1.CauseTypeUnexpectedServerResponse),
			fleet.Retryable, v1alpha1.ReasonUnknownKind, "does not know kind Deployment",
		},
		{"no such namespace", apierrors.NewNotFound(schema.GroupResource{Resource: "namespaces"}, "apps"), fleet.Refused, v1alpha1.ReasonNamespaceMissing, "namespace apps is not here"},
		{
			"what was explained already", fmt.Errorf("x: %w", &fleet.Error{Kind: fleet.Refused, Reason: v1alpha1.ReasonConflict, Err: errors.New("theirs")}),
			fleet.Refused, v1alpha1.ReasonConflict, "theirs",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, err := range []error{tc.err, ssaerrors.NewDryRunErr(tc.err, nil), fmt.Errorf("wrapped: %w", tc.err)} {
				got := explain(err, web, flotilla)
				if fleet.KindOf(got) != tc.kind || fleet.ReasonOf(got, "") != tc.reason {
					t.Errorf("kind %d, reason %s; want kind %d, reason %s: %v", fleet.KindOf(got), fleet.ReasonOf(got, ""), tc.kind, tc.reason, got)
				}
				if !strings.Contains(got.Error(), tc.words) {
					t.Errorf("got %v, want %q in it", got, tc.words)
				}
			}
		})
	}
	binding := delivery.ObjectID{Group: "rbac.authorization.k8s.io", Version: "v1", Kind: "RoleBinding", Namespace: "apps", Name: "web"}
	noRole := explain(apierrors.NewNotFound(schema.GroupResource{Group: binding.Group, Resource: "rolebindings"}, "web"), binding, flotilla)
	if fleet.KindOf(noRole) != fleet.Retryable || !strings.Contains(noRole.Error(), "the role that it binds is not there") {
		t.Errorf("a binding without its role: %v", noRole)
	}
	if explain(nil, web, flotilla) != nil {
		t.Error("no error, explained")
	}
	overtaken := &fleet.Error{Kind: fleet.Terminal, Reason: "Overtaken", Err: errors.New("overtaken")}
	if got := explain(fmt.Errorf("x: %w", fenceError{overtaken}), web, flotilla); !errors.Is(got, overtaken) || fleet.ReasonOf(got, "") != "Overtaken" {
		t.Errorf("the fence's own error is lost: %v", got)
	}
	if got := explain(context.Canceled, web, flotilla); !errors.Is(got, context.Canceled) {
		t.Errorf("the cause is lost: %v", got)
	}
}

func TestWordsAreCut(t *testing.T) {
	got := explain(apierrors.NewBadRequest(strings.Repeat("ü", 5000)), web, flotilla).Error()
	if len(got) > maxWords+100 || !utf8.ValidString(got) || !strings.HasSuffix(got, "...") {
		t.Errorf("%d bytes: %q", len(got), got[len(got)-10:])
	}
}

func TestSecretsAreNotQuoted(t *testing.T) {
	secret := delivery.ObjectID{Version: "v1", Kind: "Secret", Namespace: "apps", Name: "token"}
	for _, err := range []error{
		apierrors.NewBadRequest("hunter2"),
		apierrors.NewInternalError(errors.New(`failed to create typed patch object: .data.x: expected string, got "hunter2"`)),
		invalidBecause("hunter2 is immutable"),
	} {
		if got := explain(err, secret, flotilla); strings.Contains(got.Error(), "hunter2") {
			t.Errorf("leaks: %v", got)
		}
	}
}

func TestInventoryName(t *testing.T) {
	long := strings.Repeat("a", 253)
	names := map[string]fleet.RolloutName{}
	for _, rollout := range []fleet.RolloutName{
		{Namespace: "apps", Name: "podinfo"}, {Namespace: "apps", Name: "a.podinfo"}, {Namespace: "apps-a", Name: "podinfo"},
		{Namespace: "a", Name: long}, {Namespace: "b", Name: long},
	} {
		name := inventoryName(rollout)
		if other, taken := names[name]; taken || len(name) > 253 {
			t.Errorf("%s and %s: %s", rollout, other, name)
		}
		names[name] = rollout
	}
	if got := inventoryName(fleet.RolloutName{Namespace: "apps", Name: "podinfo"}); got != "inventory-apps.podinfo" {
		t.Error(got)
	}
}

func TestForgetting(t *testing.T) {
	c := &Cluster{Config: &rest.Config{Host: "http://127.0.0.1:1"}}
	first, err := c.connect()
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := c.connect(); again != first {
		t.Error("connected twice")
	}
	c.forget(&connection{}) // of somebody who was late
	if again, _ := c.connect(); again != first {
		t.Error("forgot another connection")
	}
	c.forget(first)
	if again, _ := c.connect(); again == first {
		t.Error("did not forget")
	}
	if c.Config.QPS != 0 || c.Config.Timeout != 0 || c.Config.WarningHandlerWithContext != nil {
		t.Error("the caller's configuration was changed")
	}
	for n := range 2 * maxAccounts {
		if _, err := first.as(account{"apps", fmt.Sprint("a", n)}); err != nil {
			t.Fatal(err)
		}
	}
	if first.accounts.Len() != maxAccounts {
		t.Errorf("%d accounts are kept", first.accounts.Len())
	}
}

func TestStatusCodes(t *testing.T) {
	for code := 400; code < 600; code++ {
		status := &apierrors.StatusError{ErrStatus: metav1.Status{Code: int32(code), Message: http.StatusText(code)}} //nolint:gosec // three digits
		got := explain(status, web, flotilla)
		if code >= 500 && fleet.KindOf(got) != fleet.Retryable {
			t.Errorf("%d: %v", code, got)
		}
	}
}
