// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"sync"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/specialize"
)

// CachedRenderer renders a payload once for each (source, revision, path, member), and keeps the last few:
// an agent renders the release it waits for and the one it heals, turn after turn.
type CachedRenderer struct {
	// Keep so many manifests; 0 keeps DefaultKeptManifests.
	Keep int

	mu    sync.Mutex
	kept  map[renderKey]outcome
	order []renderKey
}

// DefaultKeptManifests is two for each of 32 rollouts.
const DefaultKeptManifests = 64

type renderKey struct {
	source, path string
	revision     fleet.Revision
	member       fleet.Digest
}

type outcome struct {
	manifest specialize.Manifest
	err      error
}

// Render is in Renderer. Objects are the caller's to change: each call gets its own copies.
func (c *CachedRenderer) Render(_ context.Context, r RenderRequest) (specialize.Manifest, error) {
	key := renderKey{r.Source, r.Path, r.Revision, memberKey(r.Member)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if kept, ok := c.kept[key]; ok {
		return copied(kept)
	}
	manifest, err := specialize.Render(specialize.Input{Files: r.Files, Path: r.Path, Member: r.Member})
	if err != nil && fleet.KindOf(err) != fleet.Terminal {
		return specialize.Manifest{}, err
	}
	c.keep(key, outcome{manifest, err})
	return copied(outcome{manifest, err})
}

func (c *CachedRenderer) keep(key renderKey, o outcome) {
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

// memberKey is what a render may know of a member.
func memberKey(m fleet.Member) fleet.Digest {
	parts := [][]byte{[]byte(m.Name), []byte(m.Zone)}
	for _, k := range sortedKeys(m.Labels) {
		parts = append(parts, []byte(k), []byte(m.Labels[k]))
	}
	return fleet.DigestOf("flotilla.dev/render-member", parts...)
}
