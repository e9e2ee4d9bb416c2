// SPDX-License-Identifier: Apache-2.0

// Package source answers: what does the source of truth say now?
//
// A [Source] gives the files of one revision as an fs.FS, and says how two revisions are related.
// The implementations do the I/O in subfolders; this package holds what they share.
package source

import (
	"context"
	"io/fs"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// Snapshot is the payload's files at one revision. The files never change.
type Snapshot struct {
	Revision fleet.Revision
	// Subject is the first line of the commit's message, for people.
	Subject string
	// Author of the commit, for people. It proves nothing.
	Author string
	// Files from the root of the source; spec.source.path is not applied.
	Files fs.FS
}

// Source of payloads. Errors are fleet.Errors with a reason of the condition SourceReady.
type Source interface {
	// Latest is the newest revision of the reference that src names. It asks the origin.
	Latest(ctx context.Context, src Origin) (Snapshot, error)
	// At is one revision, from what is held here, else from the origin.
	At(ctx context.Context, src Origin, rev fleet.Revision) (Snapshot, error)
	// Relation of two revisions, from what is held here: of versions by their order, else by ancestry.
	Relation(ctx context.Context, src Origin, from, to fleet.Revision) (Relation, error)
}

// Relation of one revision to another, in the source's own history (R1, order of releases).
type Relation uint8

const (
	// Unrelated: neither descends from the other (a force-push, a sibling branch), or nobody can tell.
	Unrelated Relation = iota
	// Same revision.
	Same
	// Descends: the second descends from the first.
	Descends
	// Precedes: the first descends from the second.
	Precedes
)

func (r Relation) String() string {
	return [...]string{"unrelated", "same", "descends", "precedes"}[r]
}
