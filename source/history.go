// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"iter"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// Commit is one point of a source's history. Its files are read only where they are asked for.
type Commit struct {
	Snapshot
	// Depth is the number of first-parent ancestors: 0 for the first commit of a history. It is a
	// function of the commit alone, so every member counts the same.
	Depth uint64
	// Folder names the content of the folder at a path ("." is the root): equal names, equal content,
	// at any path of any commit. It is empty where there is no folder.
	Folder func(path string) (string, error)
}

// History of a source: what the fleet repository is read through.
type History interface {
	// FirstParents gives the commit of rev, then its first parent, and so on to the first commit of all.
	// An error ends it. The history is read from what is held here; only rev itself may be asked of the origin.
	FirstParents(ctx context.Context, src Origin, rev fleet.Revision) iter.Seq2[Commit, error]
}
