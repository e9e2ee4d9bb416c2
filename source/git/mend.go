// SPDX-License-Identifier: Apache-2.0

package git

import (
	"context"
	"os"
	"path/filepath"

	"github.com/flotilla-dev/flotilla/source/disk"
)

// forgetTips makes the next fetch a full one.
func (m *mirror) forgetTips() error {
	s, done, err := m.use()
	if err != nil {
		return err
	}
	done()
	m.mu.Lock()
	defer m.mu.Unlock()
	for h := range s.tips {
		s.dropTip(h)
	}
	return nil
}

// mend rebuilds the mirror in a new generation where it is damaged: every pack that is still whole goes
// over, its index made anew. Nothing is held to be complete afterwards, so the next look fetches what is
// lost. Until the new generation is in place the old one is read.
func (m *mirror) mend(ctx context.Context) error {
	s, done, err := m.use()
	if err != nil {
		return err
	}
	done()
	if !m.damaged.Load() && !s.broken {
		return nil
	}
	temp, err := os.MkdirTemp(m.dir, disk.TempPrefix+"*")
	if err != nil {
		return disk.Failed("rebuilding the mirror", err)
	}
	defer os.RemoveAll(temp) //nolint:errcheck // renamed, or removed at the next start
	if err := m.salvage(ctx, s, temp); err != nil {
		return err
	}
	_, highest, err := generations(m.dir)
	if err == nil {
		err = os.Rename(temp, filepath.Join(m.dir, generation(highest+1)))
	}
	if err == nil {
		err = disk.SyncFolder(m.dir)
	}
	if err != nil {
		return disk.Failed("rebuilding the mirror", err)
	}
	fresh, err := openStore(m.dir, m.remote.addr.url)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s.close()
	m.store = fresh
	m.damaged.Store(false)
	m.seen.dropTrees()
	return nil
}

// tryMend mends unless somebody has the turn, who does it. Where it fails, what is whole is read as it is.
func (m *mirror) tryMend(ctx context.Context) {
	if !m.damaged.Load() {
		return
	}
	m.waiting.Add(1)
	select {
	case m.turn <- struct{}{}:
		defer m.leave()
		m.mend(ctx) //nolint:errcheck // see above
	default:
		m.waiting.Add(-1)
	}
}

// salvage takes every pack of a store that is whole into a new generation.
func (m *mirror) salvage(ctx context.Context, s *store, temp string) error {
	if err := initGeneration(temp, m.remote.addr.url); err != nil {
		return disk.Failed("rebuilding the mirror", err)
	}
	paths, err := filepath.Glob(filepath.Join(s.dir, packFolder, "pack-*.pack"))
	if err != nil {
		return disk.Failed("rebuilding the mirror", err)
	}
	in := intake{folder: filepath.Join(temp, packFolder), limits: m.limits, bytes: m.limits.MaxBytes}
	for _, path := range paths {
		p, err := salvageOne(ctx, in, path)
		if p != nil {
			p.close()
		}
		if err != nil && (isLocal(err) || ctx.Err() != nil) {
			return err
		}
	}
	return nil
}

func salvageOne(ctx context.Context, in intake, path string) (*pack, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // read only
	return in.take(ctx, f)
}
