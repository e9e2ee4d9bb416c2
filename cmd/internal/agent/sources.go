// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/source"
)

// Sources asks the source that an origin names.
type Sources struct{ Git, Helm source.Source }

func (s Sources) of(o source.Origin) source.Source {
	if o.Helm != nil {
		return s.Helm
	}
	return s.Git
}

// Latest is in source.Source.
func (s Sources) Latest(ctx context.Context, o source.Origin) (source.Snapshot, error) {
	return s.of(o).Latest(ctx, o)
}

// At is in source.Source.
func (s Sources) At(ctx context.Context, o source.Origin, rev fleet.Revision) (source.Snapshot, error) {
	return s.of(o).At(ctx, o, rev)
}

// Relation is in source.Source.
func (s Sources) Relation(ctx context.Context, o source.Origin, from, to fleet.Revision) (source.Relation, error) {
	return s.of(o).Relation(ctx, o, from, to)
}

var _ source.Source = Sources{}
