// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Duration in Go's words: 90s, 15m, 48h.
// +kubebuilder:validation:Type=string
// +kubebuilder:validation:MaxLength=32
// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$')",message="a duration such as 90s, 15m or 48h (there is no unit for days: 7 days is 168h)"
type Duration struct {
	metav1.Duration `json:",inline"`
}

// Or is the duration, or otherwise where none was written.
func (d *Duration) Or(otherwise time.Duration) time.Duration {
	if d == nil {
		return otherwise
	}
	return d.Duration.Duration
}
