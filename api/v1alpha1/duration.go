// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"fmt"
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

// MarshalJSON writes the largest unit that holds the duration exactly: what people write as 1m or 90s
// is not rewritten to 1m0s and 1m30s by a client that only meant to change something else.
func (d Duration) MarshalJSON() ([]byte, error) {
	v := d.Duration.Duration
	for _, unit := range []struct {
		size time.Duration
		name string
	}{{time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}} {
		if v%unit.size == 0 && v != 0 {
			return fmt.Appendf(nil, `"%d%s"`, v/unit.size, unit.name), nil
		}
	}
	return fmt.Appendf(nil, "%q", v.String()), nil
}

// Or is the duration, or otherwise where none was written.
func (d *Duration) Or(otherwise time.Duration) time.Duration {
	if d == nil {
		return otherwise
	}
	return d.Duration.Duration
}
