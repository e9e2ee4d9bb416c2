// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Where the value of a field comes from.
const (
	// FromSpec: it was written.
	FromSpec = "written"
	// FromSchema: the API server fills it in, and whoever reads files does the same.
	FromSchema = "default of the schema"
	// FromStrategy: a stage that says nothing itself.
	FromStrategy = "spec.strategy"
	// FromProgram: nobody fills it in; it is what counts where nothing was written.
	FromProgram = "built in"
)

// Setting is one field of a spec with the value that counts.
// +kubebuilder:object:generate=false
type Setting struct {
	// Field as a path from the object, such as spec.source.interval.
	Field string `json:"field"`
	Value string `json:"value"`
	// From is where the value comes from.
	From string `json:"from"`
}

// Settings are all fields of the spec that have a value, in the schema's order. The name is the rollout's own.
// Automatic stages are none of them: who is in which depends on the fleet.
func (s *FleetRolloutSpec) Settings(name string) ([]Setting, error) {
	schema := s.WithSchemaDefaults()
	inherited := schema.DeepCopy()
	inherited.inherit()
	whole := s.WithDefaults(name)
	var known []map[string]bool
	for _, layer := range []*FleetRolloutSpec{s, schema, inherited} {
		leaves, err := leavesOf(layer)
		if err != nil {
			return nil, err
		}
		fields := map[string]bool{}
		for _, leaf := range leaves {
			fields[leaf.Field] = true
		}
		known = append(known, fields)
	}
	all, err := leavesOf(whole)
	if err != nil {
		return nil, err
	}
	for i := range all {
		all[i].From = FromProgram
		for n, from := range []string{FromSpec, FromSchema, FromStrategy} {
			if known[n][all[i].Field] {
				all[i].From = from
				break
			}
		}
	}
	return all, nil
}

// WithSchemaDefaults is the spec as the API server would keep it.
func (s *FleetRolloutSpec) WithSchemaDefaults() *FleetRolloutSpec {
	out := s.DeepCopy()
	if out.Source.Git != nil && out.Source.Git.Ref == nil {
		out.Source.Git.Ref = &GitRef{Branch: DefaultBranch}
	}
	text(&out.Source.Path, "./")
	length(&out.Source.Interval, time.Minute)
	length(&out.Source.Timeout, time.Minute)
	if out.Strategy != nil {
		text(&out.Strategy.Type, "Staged")
	}
	if out.Specialize != nil && out.Specialize.Helm != nil {
		text(&out.Specialize.Helm.CRDs, CRDsCreateReplace)
		text(&out.Specialize.Helm.Hooks, HooksOrder)
	}
	out.Delivery.fillSchema()
	return out
}

func (d *Delivery) fillSchema() {
	length(&d.Interval, 10*time.Minute)
	length(&d.RetryInterval, 30*time.Second)
	value(&d.Retries, 3)
	value(&d.Prune, true)
	if d.PruneGuard != nil {
		value(&d.PruneGuard.MaxObjects, 10)
		value(&d.PruneGuard.MaxPercent, 50)
	}
}

// Account as which everything of the rollout is read and written.
func (d *Delivery) Account() string {
	if d.ServiceAccountName != "" {
		return d.ServiceAccountName
	}
	return defaultAccount
}

const defaultAccount = "flotilla"

// WithDefaults is the delivery with everything written out, as a spec's is.
func (d *Delivery) WithDefaults() *Delivery {
	out := d.DeepCopy()
	out.ServiceAccountName = d.Account()
	if out.PruneGuard == nil {
		out.PruneGuard = &PruneGuard{}
	}
	out.fillSchema()
	return out
}

// WithDefaults is the spec with everything written out that counts where nothing is written. A rollout that
// says it all means the same. The name is the rollout's own.
func (s *FleetRolloutSpec) WithDefaults(name string) *FleetRolloutSpec {
	out := s.WithSchemaDefaults()
	out.Delivery = *out.Delivery.WithDefaults()
	if out.Specialize != nil && out.Specialize.Helm != nil {
		text(&out.Specialize.Helm.ReleaseName, name)
		for i := range out.Specialize.Helm.ValuesFrom {
			if from := &out.Specialize.Helm.ValuesFrom[i]; from.ValuesKey == "" {
				from.ValuesKey = DefaultValuesKey
			}
		}
	}
	if out.Strategy == nil {
		out.Strategy = &Strategy{Type: "Staged"}
	}
	out.inherit()
	pace := &out.Strategy.Pacing
	automatic := out.Strategy.Type == "Staged" && len(out.Strategy.Stages) == 0
	if out.Strategy.Type == "Staged" {
		share(&pace.MaxConcurrency, intstr.FromString("25%"))
	}
	share(&pace.MaxUnavailable, intstr.FromInt32(0))
	length(&pace.MinReadyTime, time.Minute)
	if !automatic { // the canary of automatic stages has a soak of its own where none is written
		length(&pace.Soak, 0)
	}
	length(&pace.ProgressDeadline, 10*time.Minute)
	out.inherit()
	return out
}

// inherit gives the stages the pace of the strategy, where they say nothing themselves.
func (s *FleetRolloutSpec) inherit() {
	if s.Strategy == nil {
		return
	}
	from := s.Strategy.Pacing.DeepCopy()
	for i := range s.Strategy.Stages {
		to := &s.Strategy.Stages[i].Pacing
		orElse(&to.MaxConcurrency, from.MaxConcurrency)
		orElse(&to.MaxUnavailable, from.MaxUnavailable)
		orElse(&to.MinReadyTime, from.MinReadyTime)
		orElse(&to.Soak, from.Soak)
		orElse(&to.ProgressDeadline, from.ProgressDeadline)
	}
}

func text(to *string, otherwise string) {
	if *to == "" {
		*to = otherwise
	}
}

func length(to **Duration, otherwise time.Duration) {
	orElse(to, &Duration{Duration: metav1.Duration{Duration: otherwise}})
}

func share(to **intstr.IntOrString, otherwise intstr.IntOrString) { orElse(to, &otherwise) }

func value[T any](to **T, otherwise T) { orElse(to, &otherwise) }

func orElse[T any](to **T, otherwise *T) {
	if *to == nil {
		*to = otherwise
	}
}

// leavesOf a spec in the order of its fields.
func leavesOf(s *FleetRolloutSpec) ([]Setting, error) {
	raw, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("spec: %w", err)
	}
	return leaves(nil, "spec", raw)
}

func leaves(out []Setting, path string, raw json.RawMessage) ([]Setting, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	token, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch {
	case token == json.Delim('{') && !strings.HasSuffix(path, ".values"):
		for d.More() {
			key, err := d.Token()
			if err != nil {
				return nil, err
			}
			var value json.RawMessage
			if err := d.Decode(&value); err != nil {
				return nil, err
			}
			if out, err = leaves(out, fmt.Sprintf("%s.%s", path, key), value); err != nil {
				return nil, err
			}
		}
		return out, nil
	case token == json.Delim('[') && bytes.Contains(raw, []byte("{")):
		for i := 0; d.More(); i++ {
			var value json.RawMessage
			if err := d.Decode(&value); err != nil {
				return nil, err
			}
			if out, err = leaves(out, path+"["+strconv.Itoa(i)+"]", value); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	shown := string(raw)
	if s, ok := token.(string); ok && !strings.ContainsAny(s, "\n") && s != "" {
		shown = s
	}
	return append(out, Setting{Field: path, Value: shown}), nil
}
