// SPDX-License-Identifier: Apache-2.0

package livediff

import (
	"crypto/sha256"
	"encoding/hex"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// InventoryKey in the ConfigMap of a rollout's inventory.
const InventoryKey = "inventory.json"

// InventoryName is the ConfigMap in which the agent keeps a rollout's inventory.
func InventoryName(rollout fleet.RolloutName) string {
	name := "inventory-" + rollout.Namespace + "." + rollout.Name
	if len(name) <= validation.DNS1123SubdomainMaxLength {
		return name
	}
	sum := sha256.Sum256([]byte(rollout.String()))
	return "inventory-" + hex.EncodeToString(sum[:])
}
