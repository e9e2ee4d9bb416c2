// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/cmd/internal/agent/turn"
	"github.com/flotilla-dev/flotilla/specialize"
	"github.com/flotilla-dev/flotilla/specialize/jail"
)

// CachedRenderer renders a payload once for each set of its inputs, and keeps the last few:
// an agent renders the release it waits for and the one it heals, turn after turn.
type CachedRenderer struct {
	// Keep so many manifests; 0 keeps DefaultKeptManifests.
	Keep int
	// Engine builds what is not plain YAML. Nil is this process itself, which is for payloads that are trusted.
	Engine Engine

	mu    sync.Mutex // never held while something is built: what is kept is given out at once
	turn  chan struct{}
	kept  map[renderKey]outcome
	order []renderKey
}

// Engine renders one payload.
type Engine interface {
	Render(context.Context, specialize.Input) (specialize.Manifest, error)
}

// DefaultKeptManifests is two for each of 32 rollouts.
const DefaultKeptManifests = 64

type renderKey struct {
	source          string
	revision, chart fleet.Revision
	// input is the digest of everything but the files.
	input fleet.Digest
}

type outcome struct {
	manifest specialize.Manifest
	err      error
}

// Render is in turn.Renderer. Objects are the caller's to change: each call gets its own copies.
func (c *CachedRenderer) Render(ctx context.Context, r turn.RenderRequest) (specialize.Manifest, error) {
	input, err := inputKey(r.Input)
	if err != nil {
		return specialize.Manifest{}, err
	}
	key := renderKey{r.Source, r.Revision, r.Chart, input}
	if kept, ok := c.find(key); ok {
		return copied(kept)
	}
	leave, err := c.enter(ctx)
	if err != nil {
		return specialize.Manifest{}, err
	}
	defer leave()
	if kept, ok := c.find(key); ok {
		return copied(kept)
	}
	manifest, err := c.build(ctx, r.Input)
	if err != nil && fleet.KindOf(err) != fleet.Terminal {
		return specialize.Manifest{}, err
	}
	c.keep(key, outcome{manifest, err})
	return copied(outcome{manifest, err})
}

// enter waits for the turn: one payload is built at a time, as each may take much memory.
func (c *CachedRenderer) enter(ctx context.Context) (leave func(), err error) {
	c.mu.Lock()
	if c.turn == nil {
		c.turn = make(chan struct{}, 1)
	}
	turn := c.turn
	c.mu.Unlock()
	select {
	case turn <- struct{}{}:
		return func() { <-turn }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("render: another payload is being built: %w", ctx.Err())
	}
}

func (c *CachedRenderer) find(key renderKey) (outcome, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	kept, ok := c.kept[key]
	return kept, ok
}

// build plain YAML here: decoding is bounded, and nothing in it is executed.
func (c *CachedRenderer) build(ctx context.Context, in specialize.Input) (specialize.Manifest, error) {
	if c.Engine == nil {
		return specialize.Render(in)
	}
	if engine, err := specialize.Engine(in); err != nil || engine == specialize.Plain && in.Spec == nil {
		return specialize.Render(in)
	}
	return c.Engine.Render(ctx, in)
}

func (c *CachedRenderer) keep(key renderKey, o outcome) {
	c.mu.Lock()
	defer c.mu.Unlock()
	most := c.Keep
	if most == 0 {
		most = DefaultKeptManifests
	}
	if c.kept == nil {
		c.kept = map[renderKey]outcome{}
	}
	for len(c.order) >= most {
		delete(c.kept, c.order[0])
		c.order = c.order[1:]
	}
	c.kept[key] = o
	c.order = append(c.order, key)
}

func copied(o outcome) (specialize.Manifest, error) {
	m := o.manifest
	m.Objects = nil
	for _, object := range o.manifest.Objects {
		m.Objects = append(m.Objects, object.DeepCopy())
	}
	return m, o.err
}

// inputKey is the digest of what a render depends on beside files.
func inputKey(in specialize.Input) (fleet.Digest, error) {
	spec, err := json.Marshal(in.Spec)
	if err != nil {
		return fleet.Digest{}, fmt.Errorf("spec.specialize: %w", err)
	}
	cluster := in.Cluster.Digest()
	parts := [][]byte{
		[]byte(in.Path), spec, []byte(in.Rollout.Namespace), []byte(in.Rollout.Name), cluster[:],
		[]byte(in.Member.Name), []byte(in.Member.Zone),
	}
	for _, k := range sortedKeys(in.Member.Labels) {
		parts = append(parts, []byte(k), []byte(in.Member.Labels[k]))
	}
	return fleet.DigestOf("flotilla.dev/render-input", parts...), nil
}

// ServeIfChild is called first thing by every program that runs agents: they render in children of it.
func ServeIfChild() { jail.ServeIfChild() }
