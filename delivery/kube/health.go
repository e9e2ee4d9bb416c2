// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"fmt"
	"slices"
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

// maxNamed objects in Health.Because.
const maxNamed = 2

// verdict on one object.
type verdict struct {
	state delivery.HealthState
	// because says in words what is not as it should be; empty when healthy.
	because string
	// missing: it is not there.
	missing bool
}

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
		if verdicts[n].missing && have.IsDone(id) {
			verdicts[n] = verdict{state: delivery.Healthy}
		}
	}
	health := sum(verdicts)
	if health.State == delivery.Healthy && have.Pending {
		health.State, health.Because = delivery.Progressing, "the release is not applied to its last wave"
	}
	return health, nil
}

// judge reads the objects as the account, a few at a time.
func (conn *connection) judge(ctx context.Context, as account, ids []delivery.ObjectID) ([]verdict, error) {
	clients, err := conn.as(as)
	if err != nil {
		return nil, err
	}
	verdicts := make([]verdict, len(ids))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(concurrency)
	for n, id := range ids {
		g.Go(func() error {
			var err error
			verdicts[n], err = conn.judgeOne(ctx, clients.objects, id)
			return explain(err, id, as)
		})
	}
	return verdicts, g.Wait()
}

func (conn *connection) judgeOne(ctx context.Context, reader client.Reader, id delivery.ObjectID) (verdict, error) {
	kind, err := conn.servedKind(id)
	if meta.IsNoMatchError(err) {
		return verdict{because: id.String() + ": its kind is not served"}, nil
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
			return verdict{because: id.String() + ": is being deleted"}, nil
		}
		return missingOr(err, id, verdict{state: delivery.Healthy})
	}
	found := &unstructured.Unstructured{}
	found.SetGroupVersionKind(kind)
	if err := reader.Get(ctx, key, found); err != nil {
		return missingOr(err, id, verdict{})
	}
	return judgeObject(found, id)
}

func missingOr(err error, id delivery.ObjectID, otherwise verdict) (verdict, error) {
	if apierrors.IsNotFound(err) {
		return verdict{because: id.String() + ": is not there", missing: true}, nil
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
		return judgeJob(o, id), nil
	}
	result, err := status.Compute(o)
	if err != nil {
		// An object whose status is not of the usual shape: it cannot be called well, nor broken.
		return verdict{because: fmt.Sprintf("%s: its status cannot be read: %v", id, err)}, nil
	}
	words := id.String() + ": " + clip(strings.Join(phrases(o, result), ", "))
	switch result.Status {
	case status.CurrentStatus:
		return verdict{state: delivery.Healthy}, nil
	case status.FailedStatus:
		return verdict{state: delivery.Failed, because: words}, nil
	}
	return verdict{because: words}, nil
}

// judgeJob: kstatus takes a Job for current as soon as it runs.
func judgeJob(o *unstructured.Unstructured, id delivery.ObjectID) verdict {
	if isTrue(o, "Complete") {
		return verdict{state: delivery.Healthy}
	}
	if isTrue(o, "Failed") {
		why, _ := conditionOf(o, "Failed")["message"].(string)
		return verdict{state: delivery.Failed, because: id.String() + ": failed: " + clip(why)}
	}
	if isTrue(o, "Suspended") {
		return verdict{because: id.String() + ": is suspended"}
	}
	active, _, _ := unstructured.NestedInt64(o.Object, "status", "active")
	failed, _, _ := unstructured.NestedInt64(o.Object, "status", "failed")
	return verdict{because: fmt.Sprintf("%s: is not complete (%d running, %d failed)", id, active, failed)}
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

// sum makes one health of many verdicts; those that failed are named first, those that are missing last: of a release
// that waits for a wave, all of the later ones are.
func sum(verdicts []verdict) delivery.Health {
	health := delivery.Health{State: delivery.Healthy, Total: len(verdicts)}
	var failed, progressing, missing []string
	for _, v := range verdicts {
		switch v.state {
		case delivery.Healthy:
			health.Ready++
		case delivery.Failed:
			failed = append(failed, v.because)
		case delivery.Progressing:
			if v.missing {
				missing = append(missing, v.because)
				continue
			}
			progressing = append(progressing, v.because)
		}
	}
	switch {
	case len(failed) > 0:
		health.State = delivery.Failed
	case len(progressing)+len(missing) > 0:
		health.State = delivery.Progressing
	}
	named := slices.Concat(failed, progressing, missing)
	health.Because = strings.Join(named[:min(len(named), maxNamed)], "; ")
	if more := len(named) - maxNamed; more > 0 {
		health.Because += fmt.Sprintf("; and %d more", more)
	}
	return health
}
