// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/go-logr/logr"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/cmd/internal/agent/turn"
	"github.com/flotilla-dev/flotilla/cmd/internal/fleetrepo"
	"github.com/flotilla-dev/flotilla/selection"
	"github.com/flotilla-dev/flotilla/sequencer"
	"github.com/flotilla-dev/flotilla/source"
)

// RepositorySource is a source whose history can be walked.
type RepositorySource interface {
	source.Source
	source.History
}

// Repository follows the fleet repository and seals what it declares, by content: spec and roster lie
// in one commit, so every member that reads the commit gets the same seal (R1).
type Repository struct {
	Source RepositorySource
	// Origin says where it is, and as whom it is read; Path is the fleet's folder in it.
	Origin   source.Origin
	Path     string
	Interval time.Duration
	Heads    *PolledHeads
	// OnContent is told of every commit that was taken.
	OnContent func(RepositoryContent)
	Log       logr.Logger

	last    *walked
	content RepositoryContent
}

// RepositoryContent is what a commit of the fleet repository says.
type RepositoryContent struct {
	Revision fleet.Revision
	Members  []fleet.Member
	Rollouts map[fleet.RolloutName]turn.Rollout
	// Faults are why the newest word on a rollout cannot be used; its last good one is in Rollouts, if this process saw it.
	Faults map[fleet.RolloutName]error
	// Unreadable files may hold rollouts that nobody can name: what is not in Rollouts is then unknown, not gone (R12).
	Unreadable []error
	files      map[fleet.RolloutName]string
}

// walked is what the history told at one commit, so that the next look stops there.
type walked struct {
	revision fleet.Revision
	seals    map[fleet.RolloutName]numbered
}

type numbered struct {
	content fleet.Digest
	number  uint64
}

// Run looks as often as it is due until ctx ends. An error of a look is logged and kept in no state:
// the last good content stays. It begins with the revision that was taken last, from the mirror, so that an
// agent that starts while the server is away knows what it knew.
func (r *Repository) Run(ctx context.Context, held fleet.Revision) error {
	src := r.Origin
	settings := turn.Settings{SourceInterval: r.Interval}
	if held != "" {
		snap, err := r.Heads.At(ctx, src, held)
		if err == nil {
			err = r.take(ctx, src, snap)
		}
		if err != nil {
			r.Log.Error(err, "the commit of the fleet repository that was taken last is not here any more; beginning with the newest one", "revision", string(held))
		}
	}
	for {
		snap, wait, err := r.Heads.Latest(ctx, src, settings)
		if err == nil && snap.Revision != r.content.Revision {
			err = r.take(ctx, src, snap)
		}
		if err != nil && ctx.Err() == nil {
			r.Log.Error(err, "the fleet repository could not be read; its last good content stays", "url", r.Origin.Git.URL, "revision", string(r.content.Revision))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(max(min(wait, time.Second), 100*time.Millisecond)):
		}
	}
}

// take a commit, unless it does not descend from the last one or its roster cannot be read.
func (r *Repository) take(ctx context.Context, src source.Origin, snap source.Snapshot) error {
	if old := r.content.Revision; old != "" {
		relation, err := r.Source.Relation(ctx, src, old, snap.Revision)
		if err != nil {
			return err
		}
		if relation != source.Descends {
			return fmt.Errorf("fleet repository: %s does not descend from %s (force-push?); push a commit that does", snap.Revision.Short(), old.Short())
		}
	}
	read, err := r.read(snap.Files)
	if err != nil {
		return fmt.Errorf("fleet repository at %s: %w", snap.Revision.Short(), err)
	}
	seals, err := r.number(ctx, src, snap.Revision, read)
	if err != nil {
		return fmt.Errorf("fleet repository at %s: %w", snap.Revision.Short(), err)
	}
	next := RepositoryContent{
		Revision: snap.Revision, Members: read.Members,
		Rollouts: map[fleet.RolloutName]turn.Rollout{}, Faults: read.faults, Unreadable: read.unreadable,
		files: map[fleet.RolloutName]string{},
	}
	r.keepGood(&next, read)
	for name, declared := range read.Rollouts {
		if read.faults[name] != nil {
			continue
		}
		sealed, err := sequencer.Seal(name, sequencer.Position{Author: fleet.AuthorGit, Number: seals[name].number}, declared.Spec, read.targets[name])
		if err != nil {
			return err
		}
		next.files[name] = declared.File
		next.Rollouts[name] = turn.Rollout{
			Sealed: sealed, Settings: turn.SettingsOf(declared.Spec),
			Origin: v1alpha1.Origin{Type: "Repository", Name: r.Origin.Git.URL, Revision: string(snap.Revision)},
		}
	}
	r.last = &walked{revision: snap.Revision, seals: seals}
	r.content = next
	r.Log.Info("took a commit of the fleet repository", "revision", string(snap.Revision), "members", len(next.Members), "rollouts", len(next.Rollouts))
	r.OnContent(next)
	return nil
}

// keepGood carries the last good word on every rollout whose file cannot be used.
func (r *Repository) keepGood(next *RepositoryContent, read reading) {
	keep := func(name fleet.RolloutName) {
		if good, ok := r.content.Rollouts[name]; ok {
			next.Rollouts[name], next.files[name] = good, r.content.files[name]
		}
	}
	for name, fault := range read.faults {
		keep(name)
		r.Log.Error(fault, "a file of the fleet repository cannot be used; the last good word on its rollout stays", "rollout", name.String())
	}
	for _, fault := range read.unreadable {
		r.Log.Error(fault, "a file of the fleet repository cannot be read; the last good word on its rollouts stays")
		for name, file := range r.content.files {
			if strings.HasPrefix(fault.Error(), file+":") {
				keep(name)
			}
		}
	}
}

// reading is a commit's content with each rollout's targets.
type reading struct {
	fleetrepo.Content
	targets  map[fleet.RolloutName][]fleet.Member
	contents map[fleet.RolloutName]fleet.Digest
	faults   map[fleet.RolloutName]error
	// unreadable are faults of files whose rollouts cannot even be named.
	unreadable []error
}

func (r *Repository) read(files fs.FS) (reading, error) {
	sub, err := fs.Sub(files, r.folder())
	if err != nil {
		return reading{}, err
	}
	out := reading{
		Content: fleetrepo.Read(sub),
		targets: map[fleet.RolloutName][]fleet.Member{}, contents: map[fleet.RolloutName]fleet.Digest{},
		faults: map[fleet.RolloutName]error{},
	}
	var roster []error
	for _, fault := range out.Faults {
		switch {
		case strings.HasPrefix(fault.File, fleetrepo.MembersFolder):
			roster = append(roster, fault)
		case fault.Rollout.Name == "":
			out.unreadable = append(out.unreadable, fault)
		default:
			out.faults[fault.Rollout] = fault
		}
	}
	if len(roster) > 0 {
		return reading{}, errors.Join(roster...)
	}
	for name, declared := range out.Rollouts {
		chosen, err := selection.Select(declared.Spec.Targets, out.Members)
		if err != nil {
			out.faults[name] = fmt.Errorf("%s: %w", declared.File, err)
			continue
		}
		sealed, err := sequencer.Seal(name, sequencer.Position{Author: fleet.AuthorGit}, declared.Spec, chosen.Members)
		if err != nil {
			return reading{}, err
		}
		out.targets[name], out.contents[name] = chosen.Members, sealed.Content()
	}
	return out, nil
}

// number gives each seal the place of the commit from which on the repository says the same without
// interruption: a commit that leaves a seal as it was makes no new one, and any two members that
// read the same history count alike (R1).
func (r *Repository) number(ctx context.Context, src source.Origin, head fleet.Revision, now reading) (map[fleet.RolloutName]numbered, error) {
	seals := map[fleet.RolloutName]numbered{}
	open := map[fleet.RolloutName]fleet.Digest{}
	for name, content := range now.contents {
		open[name] = content
	}
	known := map[string]map[fleet.RolloutName]fleet.Digest{}
	var child uint64
	for commit, err := range r.Source.FirstParents(ctx, src, head) {
		if err != nil {
			return nil, err
		}
		if r.last != nil && commit.Revision == r.last.revision {
			r.closeAt(open, seals, child)
			return seals, nil
		}
		contents, err := r.contentsOf(commit, known)
		if err != nil {
			return nil, err
		}
		for name, content := range open {
			if contents[name] != content {
				seals[name] = numbered{content, child + 1}
				delete(open, name)
			}
		}
		if len(open) == 0 {
			return seals, nil
		}
		child = commit.Depth
	}
	for name, content := range open {
		seals[name] = numbered{content, child + 1} // unchanged since the first commit of all
	}
	return seals, nil
}

// closeAt the commit that the last look ended with: what was so then has its number already.
func (r *Repository) closeAt(open map[fleet.RolloutName]fleet.Digest, seals map[fleet.RolloutName]numbered, child uint64) {
	for name, content := range open {
		if before, ok := r.last.seals[name]; ok && before.content == content {
			seals[name] = before
		} else {
			seals[name] = numbered{content, child + 1}
		}
	}
}

// contentsOf a commit, parsed once for each state of the folders that matter.
func (r *Repository) contentsOf(commit source.Commit, known map[string]map[fleet.RolloutName]fleet.Digest) (map[fleet.RolloutName]fleet.Digest, error) {
	var key strings.Builder
	for _, folder := range []string{fleetrepo.MembersFolder, fleetrepo.RolloutsFolder, fleetrepo.TenantsFolder} {
		name, err := commit.Folder(path.Join(r.folder(), folder))
		if err != nil {
			return nil, err
		}
		key.WriteString(name + "/")
	}
	if contents, ok := known[key.String()]; ok {
		return contents, nil
	}
	read, err := r.read(commit.Files)
	if err != nil {
		read.contents = nil // nothing of it was ever taken: whatever is there now is new since
	}
	known[key.String()] = read.contents
	return read.contents, nil
}

func (r *Repository) folder() string { return path.Join(".", strings.Trim(r.Path, "/")) }
