// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"fmt"
	"strings"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/delivery"
)

// Health of what the release that was delivered last has here, by kstatus. A Job is well when it is complete. What
// earlier releases left does not count, and a release is not well before its last wave is applied.
func (c *Cluster) Health(ctx context.Context, rollout fleet.RolloutName, serviceAccount string) (delivery.Health, error) {
	as, err := accountOf(rollout, serviceAccount)
	if err != nil {
		return delivery.Health{}, err
	}
	conn, err := c.connect()
	if err != nil {
		return delivery.Health{}, err
	}
	have, err := c.inventory(ctx, conn, rollout)
	if err != nil {
		return delivery.Health{}, err
	}
	if len(have.Objects) == 0 {
		return delivery.Health{Because: "nothing has been delivered yet"}, nil
	}
	if err := c.findAccount(ctx, conn, as); err != nil {
		return delivery.Health{}, err
	}
	verdicts, err := conn.judge(ctx, as, have.Objects)
	if isUnservedKind(err) {
		c.forget(conn)
	}
	if err != nil {
		return delivery.Health{}, err
	}
	for n, id := range have.Objects {
		if verdicts[n].Missing && have.IsDone(id) {
			verdicts[n] = delivery.ObjectHealth{Object: id, State: delivery.Healthy}
		}
	}
	health := delivery.Sum(verdicts)
	if health.State == delivery.Healthy && have.Pending {
		health.State, health.Because = delivery.Progressing, "the release is not applied to its last wave"
	}
	return health, nil
}

// verdict on one object, of which it does not say which one that is.
type verdict = delivery.ObjectHealth

// judge reads the objects as the account, a few at a time.
func (conn *connection) judge(ctx context.Context, as account, ids []delivery.ObjectID) ([]delivery.ObjectHealth, error) {
	clients, err := conn.as(as)
	if err != nil {
		return nil, err
	}
	verdicts := make([]delivery.ObjectHealth, len(ids))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(concurrency)
	for n, id := range ids {
		g.Go(func() error {
			var err error
			verdicts[n], err = conn.judgeOne(ctx, clients.objects, id)
			verdicts[n].Object = id
			return explain(err, id, as)
		})
	}
	return verdicts, g.Wait()
}

func (conn *connection) judgeOne(ctx context.Context, reader client.Reader, id delivery.ObjectID) (verdict, error) {
	kind, err := conn.servedKind(id)
	if meta.IsNoMatchError(err) {
		return verdict{Because: "its kind is not served"}, nil
	}
	if err != nil {
		return verdict{}, err
	}
	key := client.ObjectKey{Namespace: id.Namespace, Name: id.Name}
	if hasNoStatus(id) {
		// Nothing to read but that it is there; a Secret's data need not travel for that.
		found := partial(kind)
		err := reader.Get(ctx, key, found)
		if err == nil && found.DeletionTimestamp != nil {
			return verdict{Because: "is being deleted"}, nil
		}
		return missingOr(err, verdict{State: delivery.Healthy})
	}
	found := &unstructured.Unstructured{}
	found.SetGroupVersionKind(kind)
	if err := reader.Get(ctx, key, found); err != nil {
		return missingOr(err, verdict{})
	}
	return judgeObject(found, id)
}

func missingOr(err error, otherwise verdict) (verdict, error) {
	if apierrors.IsNotFound(err) {
		return verdict{Because: "is not there", Missing: true}, nil
	}
	return otherwise, err
}

func hasNoStatus(id delivery.ObjectID) bool {
	switch id.Group {
	case "":
		return id.Kind == "ConfigMap" || id.Kind == "Secret" || id.Kind == "ServiceAccount" || id.Kind == "LimitRange"
	case "rbac.authorization.k8s.io":
		return true
	}
	return false
}

func judgeObject(o *unstructured.Unstructured, id delivery.ObjectID) (verdict, error) {
	if id.IsJob() && o.GetDeletionTimestamp() == nil {
		return judgeJob(o), nil
	}
	result, err := status.Compute(o)
	if err != nil {
		// An object whose status is not of the usual shape: it cannot be called well, nor broken.
		return verdict{Because: clip(fmt.Sprintf("its status cannot be read: %v", err))}, nil
	}
	words := clip(strings.Join(phrases(o, result), ", "))
	switch result.Status {
	case status.CurrentStatus:
		return verdict{State: delivery.Healthy}, nil
	case status.FailedStatus:
		return verdict{State: delivery.Failed, Because: words}, nil
	}
	return verdict{Because: words}, nil
}

// judgeJob: kstatus takes a Job for current as soon as it runs.
func judgeJob(o *unstructured.Unstructured) verdict {
	if isTrue(o, "Complete") {
		return verdict{State: delivery.Healthy}
	}
	if isTrue(o, "Failed") {
		why, _ := conditionOf(o, "Failed")["message"].(string)
		return verdict{State: delivery.Failed, Because: "failed: " + clip(why)}
	}
	if isTrue(o, "Suspended") {
		return verdict{Because: "is suspended"}
	}
	active, _, _ := unstructured.NestedInt64(o.Object, "status", "active")
	failed, _, _ := unstructured.NestedInt64(o.Object, "status", "failed")
	return verdict{Because: fmt.Sprintf("is not complete (%d running, %d failed)", active, failed)}
}

func isTrue(o *unstructured.Unstructured, condition string) bool {
	return conditionOf(o, condition)["status"] == "True"
}

// phrases are how many are ready, where the kind counts and some are missing, and what kstatus says where that is
// more: while new pods replace old ones that are ready, the number alone would sound well.
func phrases(o *unstructured.Unstructured, result *status.Result) []string {
	var said []string
	if ready, want, counts := replicas(o); counts && ready < want {
		said = append(said, fmt.Sprintf("%d of %d ready", ready, want))
	}
	message := result.Message
	if result.Status == status.TerminatingStatus {
		message = "is being deleted"
	}
	for _, c := range result.Conditions {
		if c.Type == status.ConditionStalled && c.Message != "" && !strings.Contains(message, c.Message) {
			message += " (" + c.Message + ")"
		}
	}
	if len(said) == 0 || result.Status != status.InProgressStatus {
		said = append(said, message)
	}
	return said
}

// replicas that are ready, and that are wanted, of the kinds that run pods.
func replicas(o *unstructured.Unstructured) (ready, want int64, counts bool) {
	content := o.Object
	number := func(otherwise int64, path ...string) int64 {
		n, found, err := unstructured.NestedInt64(content, path...)
		if !found || err != nil {
			return otherwise
		}
		return n
	}
	if o.GroupVersionKind().Group != "apps" {
		return 0, 0, false
	}
	if o.GetKind() == "DaemonSet" {
		return number(0, "status", "numberReady"), number(0, "status", "desiredNumberScheduled"), true
	}
	return number(0, "status", "readyReplicas"), number(1, "spec", "replicas"), true
}
