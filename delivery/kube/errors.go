// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	ssaerrors "github.com/fluxcd/pkg/ssa/errors"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/delivery"
)

// maxWords of a server's answer, in bytes, that are passed on: messages end in conditions and in signed facts.
const maxWords = 512

// fenceError stops a delivery and is passed on as it is.
type fenceError struct{ error }

func (e fenceError) Unwrap() error { return e.error }

// explain makes a fleet.Error of what the server answered to a request for an object.
func explain(err error, id delivery.ObjectID, as account) error {
	var fence fenceError
	var known *fleet.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &fence):
		return fmt.Errorf("stopped before %s: %w", id, fence.error)
	case errors.As(err, &known):
		return known
	}
	e := classify(err, id, as)
	if e.Err == nil {
		e.Err = answer{words: id.String() + ": " + wordsOf(err, id, e.Kind), cause: err}
	}
	return e
}

// answer is what the server said, for people, and the error that it came as, for errors.Is.
type answer struct {
	words string
	cause error
}

func (a answer) Error() string { return a.words }
func (a answer) Unwrap() error { return a.cause }

// classify tells by the server's answer what it asks of people. Err is left empty where the server's words will do.
func classify(err error, id delivery.ObjectID, as account) *fleet.Error {
	words := err.Error()
	switch {
	case meta.IsNoMatchError(err):
		return unknownKind(id)
	case isUnservedKind(err):
		e := unknownKind(id)
		e.Kind = fleet.Retryable
		return e
	case isNamespaceMissing(err, id):
		return namespaceMissing(id.Namespace, as)
	case apierrors.IsNotFound(err) && id.Group == rbacv1.GroupName:
		return &fleet.Error{Kind: fleet.Retryable, Reason: v1alpha1.ReasonApplyFailed, Hint: "the role that it binds is not there"}
	case apierrors.IsForbidden(err):
		return classifyForbidden(err, words, as)
	case isDenied(words):
		return &fleet.Error{Kind: fleet.Refused, Reason: v1alpha1.ReasonApplyFailed}
	case isImmutable(err, words):
		return &fleet.Error{
			Kind: fleet.Terminal, Reason: v1alpha1.ReasonImmutableField,
			Hint: "give it another name, or let it be deleted and made anew with the annotation " + v1alpha1.AnnotationForce + ": " + v1alpha1.ForceEnabled,
		}
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err), apierrors.IsRequestEntityTooLargeError(err),
		apierrors.IsMethodNotSupported(err), apierrors.IsNotAcceptable(err), apierrors.IsUnsupportedMediaType(err), isUntypable(words):
		return &fleet.Error{Kind: fleet.Terminal, Reason: v1alpha1.ReasonInvalidManifest}
	}
	return &fleet.Error{Kind: fleet.Retryable, Reason: v1alpha1.ReasonApplyFailed}
}

func unknownKind(id delivery.ObjectID) *fleet.Error {
	return &fleet.Error{
		Kind: fleet.Refused, Reason: v1alpha1.ReasonUnknownKind,
		Hint: "install its CustomResourceDefinition first, or bring it in the payload",
		Err:  fmt.Errorf("%s: the API server does not know kind %s of %s", id, id.Kind, groupVersion(id)),
	}
}

func namespaceMissing(namespace string, as account) *fleet.Error {
	return &fleet.Error{
		Kind: fleet.Refused, Reason: v1alpha1.ReasonNamespaceMissing,
		Hint: fmt.Sprintf("create it, or bring it in the payload and let service account %s create namespaces", as),
		Err:  fmt.Errorf("namespace %s is not here, and the payload does not bring it", namespace),
	}
}

// classifyForbidden tells the four things apart that all come as Forbidden.
func classifyForbidden(err error, words string, as account) *fleet.Error {
	switch {
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return &fleet.Error{Kind: fleet.Retryable, Reason: v1alpha1.ReasonApplyFailed}
	case strings.Contains(words, "error looking up service account"):
		// The account of a pod in a namespace that was made a moment ago: the server makes it by itself.
		return &fleet.Error{Kind: fleet.Retryable, Reason: v1alpha1.ReasonApplyFailed}
	case strings.Contains(words, "cannot impersonate"):
		return &fleet.Error{
			Kind: fleet.Refused, Reason: v1alpha1.ReasonForbidden,
			Hint: fmt.Sprintf("let the agent impersonate it: a Role in %s with verb impersonate on serviceaccounts %s, bound to the agent", as.namespace, as.name),
		}
	case strings.Contains(words, `User "`+as.user()+`" cannot`), strings.Contains(words, `user "`+as.user()+`"`):
		return &fleet.Error{
			Kind: fleet.Refused, Reason: v1alpha1.ReasonForbidden,
			Hint: fmt.Sprintf("grant it to service account %s with a RoleBinding or ClusterRoleBinding", as),
		}
	}
	// Admission: pod security, quota, policies, webhooks.
	return &fleet.Error{Kind: fleet.Refused, Reason: v1alpha1.ReasonApplyFailed}
}

// isUnservedKind: the path itself is unknown, which is another answer than an object that is not there.
func isUnservedKind(err error) bool {
	return apierrors.IsNotFound(err) && apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse)
}

func isNamespaceMissing(err error, id delivery.ObjectID) bool {
	details := statusDetails(err)
	return apierrors.IsNotFound(err) && details != nil && details.Kind == "namespaces" && details.Name == id.Namespace
}

// missingName is what the server says is not there: resource and name, empty where it says something else.
func missingName(err error) (resource, name string) {
	details := statusDetails(err)
	if !apierrors.IsNotFound(err) || details == nil {
		return "", ""
	}
	return details.Kind, details.Name
}

func statusDetails(err error) *metav1.StatusDetails {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return nil
	}
	return status.Status().Details
}

func isDenied(words string) bool {
	return strings.Contains(words, "denied the request") || strings.Contains(words, "denied request") ||
		strings.Contains(words, "does not support dry run")
}

// isImmutable: nothing is wrong with the object but that it differs in what cannot be changed. The server has no code
// for it, only words.
func isImmutable(err error, words string) bool {
	if !apierrors.IsInvalid(err) {
		return false
	}
	if details := statusDetails(err); details != nil && len(details.Causes) > 0 {
		return !slices.ContainsFunc(details.Causes, func(c metav1.StatusCause) bool { return !saysImmutable(c.Message) })
	}
	return saysImmutable(words)
}

func saysImmutable(words string) bool {
	for _, phrase := range []string{
		"field is immutable", "is immutable", "immutable field", "may not change once set", "cannot be changed",
		"updates to statefulset spec for fields other than", "can not be updated", "cannot change roleRef",
		"pod updates may not change fields other than", "updates to parameters are forbidden", "updates to provisioner are forbidden",
	} {
		if strings.Contains(words, phrase) {
			return true
		}
	}
	return false
}

// isWebhookAway: what would judge the object does not answer.
func isWebhookAway(err error) bool {
	return apierrors.IsInternalError(err) && strings.Contains(err.Error(), "failed calling webhook")
}

// isUntypable: server-side apply answers 500 to a field that the kind does not have, or that is of another type.
func isUntypable(words string) bool {
	return strings.Contains(words, "failed to create typed patch object") || strings.Contains(words, "field not declared in schema") ||
		strings.Contains(words, "unable to convert unstructured object")
}

// wordsOf is what the server said, cut to a length that fits. Of a Secret that it finds wrong nothing is passed on:
// the server quotes what it does not like.
func wordsOf(err error, id delivery.ObjectID, kind fleet.ErrorKind) string {
	if id.Group == "" && id.Kind == "Secret" && kind == fleet.Terminal {
		return "the API server refuses it; its words are left out because they may quote the secret"
	}
	var status apierrors.APIStatus
	var rehearsed *ssaerrors.DryRunErr
	switch {
	case errors.As(err, &status) && status.Status().Message != "":
		return clip(status.Status().Message)
	case errors.As(err, &rehearsed):
		return clip(rehearsed.Unwrap().Error())
	}
	return clip(err.Error())
}

func clip(words string) string {
	if len(words) <= maxWords {
		return words
	}
	cut := maxWords
	for !utf8.RuneStart(words[cut]) {
		cut--
	}
	return words[:cut] + "..."
}

func groupVersion(id delivery.ObjectID) string {
	if id.Group == "" {
		return id.Version
	}
	return id.Group + "/" + id.Version
}
