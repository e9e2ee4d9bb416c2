// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/cmd/internal/agent/turn"
	"github.com/flotilla-dev/flotilla/specialize"
)

// engine builds what a test says.
type engine func(context.Context, specialize.Input) (specialize.Manifest, error)

// Render is in Engine.
func (e engine) Render(ctx context.Context, in specialize.Input) (specialize.Manifest, error) {
	return e(ctx, in)
}

// kustomized is a request that the engine has to build.
func kustomized(revision fleet.Revision) turn.RenderRequest {
	return turn.RenderRequest{Revision: revision, Input: specialize.Input{
		Path: ".", Files: fstest.MapFS{"kustomization.yaml": {Data: []byte("resources: []\n")}}, Rollout: fleet.RolloutName{Namespace: "shop", Name: "web"},
	}}
}

// TestErrorsThatAreKept: only what no second look can mend.
func TestErrorsThatAreKept(t *testing.T) {
	for name, tc := range map[string]struct {
		err   error
		built int
	}{
		"no error":                  {nil, 1},
		"terminal":                  {&fleet.Error{Kind: fleet.Terminal, Reason: v1alpha1.ReasonRenderFailed, Err: errors.New("no")}, 1},
		"retryable":                 {&fleet.Error{Kind: fleet.Retryable, Reason: v1alpha1.ReasonInputMissing, Err: errors.New("no")}, 3},
		"refused":                   {&fleet.Error{Kind: fleet.Refused, Err: errors.New("no")}, 3},
		"of no kind":                {errors.New("the process ended"), 3},
		"the agent is told to stop": {context.Canceled, 3},
	} {
		t.Run(name, func(t *testing.T) {
			built := 0
			c := &CachedRenderer{Engine: engine(func(context.Context, specialize.Input) (specialize.Manifest, error) {
				built++
				return specialize.Manifest{}, tc.err
			})}
			for range 3 {
				if _, err := c.Render(t.Context(), kustomized("1")); !errors.Is(err, tc.err) {
					t.Error(err)
				}
			}
			if built != tc.built {
				t.Errorf("built %d times, want %d", built, tc.built)
			}
		})
	}
}

// TestSlowPayloadHoldsUpNoOther: what was rendered before is there while another payload takes its time; who has to
// wait can be told to stop; and many who want the same wait for one.
func TestSlowPayloadHoldsUpNoOther(t *testing.T) {
	begun, hold := make(chan struct{}), make(chan struct{})
	var mu sync.Mutex
	built := 0
	c := &CachedRenderer{Engine: engine(func(ctx context.Context, _ specialize.Input) (specialize.Manifest, error) {
		mu.Lock()
		built++
		slow := built == 2
		mu.Unlock()
		if slow {
			close(begun)
			<-hold
		}
		return specialize.Manifest{Engine: specialize.Kustomize}, nil
	})}
	if _, err := c.Render(t.Context(), kustomized("1")); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if _, err := c.Render(t.Context(), kustomized("2")); err != nil {
				t.Error(err)
			}
		})
	}
	<-begun
	if _, err := c.Render(t.Context(), kustomized("1")); err != nil {
		t.Error(err)
	}
	stopped, stop := context.WithCancel(t.Context())
	stop()
	if _, err := c.Render(stopped, kustomized("3")); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	close(hold)
	all.Wait()
	if built != 2 {
		t.Errorf("built %d times, want 2", built)
	}
}
