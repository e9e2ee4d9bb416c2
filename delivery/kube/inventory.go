// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/delivery"
)

const inventoryKey = "inventory.json"

const inventoryPrefix = "inventory-"

// managedBy marks what the agent keeps for itself.
var managedBy = map[string]string{"app.kubernetes.io/managed-by": "flotilla"}

// stored is an inventory with where it was read from.
type stored struct {
	delivery.Inventory
	raw []byte
	// version of the object that held it; empty where there was none.
	version string
}

// inventoryName is the name of the ConfigMap: namespaces have no dots, so no two rollouts share one.
func inventoryName(rollout fleet.RolloutName) string {
	name := inventoryPrefix + rollout.Namespace + "." + rollout.Name
	if len(name) <= validation.DNS1123SubdomainMaxLength {
		return name
	}
	sum := sha256.Sum256([]byte(rollout.String()))
	return inventoryPrefix + hex.EncodeToString(sum[:])
}

// inventory reads what the rollout has. What cannot be read is an error: an inventory is never taken for empty.
func (c *Cluster) inventory(ctx context.Context, conn *connection, rollout fleet.RolloutName) (stored, error) {
	name := inventoryName(rollout)
	held := &corev1.ConfigMap{}
	err := conn.own.Get(ctx, client.ObjectKey{Namespace: c.namespace(), Name: name}, held)
	if apierrors.IsNotFound(err) {
		return stored{}, nil
	}
	if err != nil {
		return stored{}, c.ownError(err, "read inventory "+name)
	}
	raw := []byte(held.Data[inventoryKey])
	decoded, err := delivery.DecodeInventory(raw)
	if err != nil {
		return stored{}, fmt.Errorf("ConfigMap %s/%s: %w", c.namespace(), name, err)
	}
	if decoded.Rollout != rollout {
		return stored{}, &fleet.Error{
			Kind: fleet.Refused, Reason: v1alpha1.ReasonApplyFailed,
			Err: fmt.Errorf("ConfigMap %s/%s: holds the inventory of %s, not of %s", c.namespace(), name, decoded.Rollout, rollout),
		}
	}
	return stored{Inventory: decoded, raw: raw, version: held.ResourceVersion}, nil
}

// pending inventories of all rollouts. One that cannot be read is passed over: it says nothing of anybody's objects,
// and its own rollout is told.
func (c *Cluster) pending(ctx context.Context, conn *connection) ([]delivery.Inventory, error) {
	list := &corev1.ConfigMapList{}
	if err := conn.own.List(ctx, list, client.InNamespace(c.namespace()), client.MatchingLabels(managedBy)); err != nil {
		return nil, c.ownError(err, "list inventories")
	}
	var pending []delivery.Inventory
	for i := range list.Items {
		if !strings.HasPrefix(list.Items[i].Name, inventoryPrefix) {
			continue
		}
		have, err := delivery.DecodeInventory([]byte(list.Items[i].Data[inventoryKey]))
		if err == nil && have.Pending {
			pending = append(pending, have)
		}
	}
	return pending, nil
}

// keep writes the inventory in place of the one that was read, unless it is the same. It fails if another writer was there.
func (c *Cluster) keep(ctx context.Context, conn *connection, before stored, next delivery.Inventory) (stored, error) {
	raw, err := next.Encode()
	if err != nil {
		return before, err
	}
	if before.version != "" && bytes.Equal(raw, before.raw) {
		return before, nil
	}
	held := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: c.namespace(), Name: inventoryName(next.Rollout), ResourceVersion: before.version,
			Labels: managedBy,
		},
		Data: map[string]string{inventoryKey: string(raw)},
	}
	if before.version == "" {
		err = conn.own.Create(ctx, held, client.FieldOwner(c.fieldOwner()))
	} else {
		err = conn.own.Update(ctx, held, client.FieldOwner(c.fieldOwner()))
	}
	if err != nil {
		return before, c.ownError(err, "write inventory "+held.Name)
	}
	return stored{Inventory: next, raw: raw, version: held.ResourceVersion}, nil
}

// ownError explains a failure of a request that the agent made as itself.
func (c *Cluster) ownError(err error, what string) error {
	kind, hint := fleet.Retryable, ""
	if apierrors.IsForbidden(err) {
		kind, hint = fleet.Refused, "install the agent's role: deploy/agent"
	}
	return &fleet.Error{Kind: kind, Reason: v1alpha1.ReasonApplyFailed, Hint: hint, Err: fmt.Errorf("%s: %w", what, err)}
}
