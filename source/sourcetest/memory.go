// SPDX-License-Identifier: Apache-2.0

package sourcetest

import (
	"bytes"
	"context"
	"crypto/sha1" // it makes names that look like git's
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing/fstest"

	"github.com/Masterminds/semver/v3"
	"golang.org/x/tools/txtar"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/source"
)

// Memory is a source in memory: one repository, whatever the URL of the spec is. The zero value is
// empty. Commits are named by a hash of what they say, so equal steps give equal revisions. It is safe
// for concurrent use.
type Memory struct {
	mu      sync.Mutex
	commits map[string]memoryCommit
	heads   map[string]string
	tags    map[string]string
	held    map[string]bool
	fails   error
	looks   int
}

type memoryCommit struct {
	files   fs.FS
	parents []string
	subject string
}

var (
	_ source.Source  = (*Memory)(nil)
	_ source.History = (*Memory)(nil)
)

// Commit puts a commit with exactly these files on top of a branch, which it makes where it is missing,
// and gives its revision. Further parents make it a merge.
func (m *Memory) Commit(branch string, files fs.FS, others ...fleet.Revision) fleet.Revision {
	m.mu.Lock()
	defer m.mu.Unlock()
	var parents []string
	if head := m.heads[branch]; head != "" {
		parents = append(parents, head)
	}
	for _, other := range others {
		parents = append(parents, other.Commit())
	}
	c := memoryCommit{files: files, parents: parents, subject: fmt.Sprintf("change %d", len(m.commits)+1)}
	sum := sha1.Sum(fmt.Appendf(nil, "%s\n%s\n%s", c.subject, strings.Join(parents, " "), digestOf(files, "."))) // see above
	name := hex.EncodeToString(sum[:])
	if m.commits == nil {
		m.commits, m.heads, m.held = map[string]memoryCommit{}, map[string]string{}, map[string]bool{}
	}
	m.commits[name] = c
	m.heads[branch] = name
	return revision(branch, name)
}

// Reset lets a branch point at a revision, as a force-push does.
func (m *Memory) Reset(branch string, to fleet.Revision) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.commits[to.Commit()]; !ok {
		panic(fmt.Sprintf("sourcetest: reset of %s to %s, which was never committed", branch, to))
	}
	m.heads[branch] = to.Commit()
}

// Tag a revision; a tag that is there already is moved. To "" takes it away.
func (m *Memory) Tag(name string, to fleet.Revision) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.commits[to.Commit()]; !ok && to != "" {
		panic(fmt.Sprintf("sourcetest: tag %s at %s, which was never committed", name, to))
	}
	if m.tags == nil {
		m.tags = map[string]string{}
	}
	if m.tags[name] = to.Commit(); to == "" {
		delete(m.tags, name)
	}
}

// Fail lets whatever needs the origin fail with err, until it is called with nil. What was given out
// before is still held.
func (m *Memory) Fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fails = err
}

// Looks is how often the origin was asked.
func (m *Memory) Looks() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.looks
}

// Latest is where the reference is, or the pinned commit.
func (m *Memory) Latest(ctx context.Context, src source.Origin) (source.Snapshot, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	ref := reference(src)
	if ref.Commit != "" {
		return m.at(ctx, fleet.Revision("sha1:"+ref.Commit))
	}
	if err := m.ask(ctx); err != nil {
		return source.Snapshot{}, err
	}
	if len(m.commits) == 0 {
		return source.Snapshot{}, &fleet.Error{Reason: v1alpha1.ReasonEmptySource, Err: errors.New("the repository has no commit")}
	}
	label, head, err := m.find(ref)
	if err != nil {
		return source.Snapshot{}, err
	}
	m.hold(head)
	return m.snapshot(revision(label, head)), nil
}

// find the commit of a reference, and the label that its revision has.
func (m *Memory) find(ref v1alpha1.GitRef) (label, commit string, err error) {
	label, commit = ref.Branch, m.heads[ref.Branch]
	switch {
	case ref.Name != "":
		label = ref.Name
		if branch, ok := strings.CutPrefix(ref.Name, "refs/heads/"); ok {
			commit = m.heads[branch]
		} else {
			commit = m.tags[strings.TrimPrefix(ref.Name, "refs/tags/")]
		}
	case ref.Tag != "":
		label, commit = ref.Tag, m.tags[ref.Tag]
	case ref.SemVer != "":
		within, err := semver.NewConstraint(ref.SemVer)
		if err != nil {
			return "", "", &fleet.Error{Kind: fleet.Terminal, Reason: v1alpha1.ReasonRefNotFound, Err: fmt.Errorf("versions %q: %w", ref.SemVer, err)}
		}
		for _, tag := range slices.Sorted(maps.Keys(m.tags)) {
			if v := version(tag); v != nil && within.Check(v) && (commit == "" || !v.LessThan(version(label))) {
				label, commit = tag, m.tags[tag]
			}
		}
	}
	if commit == "" {
		return "", "", &fleet.Error{Reason: v1alpha1.ReasonRefNotFound, Err: fmt.Errorf("the repository has nothing for %+v", ref)}
	}
	return label, commit, nil
}

func version(tag string) *semver.Version {
	v, err := semver.StrictNewVersion(strings.TrimPrefix(tag, "v"))
	if err != nil {
		return nil
	}
	return v
}

// At is a commit: what was given out before, or led to it, without the origin.
func (m *Memory) At(ctx context.Context, _ source.Origin, rev fleet.Revision) (source.Snapshot, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.at(ctx, rev)
}

func (m *Memory) at(ctx context.Context, rev fleet.Revision) (source.Snapshot, error) {
	name := rev.Commit()
	if len(name) != 2*sha1.Size || !strings.HasSuffix(string(rev), "sha1:"+name) {
		return source.Snapshot{}, &fleet.Error{Kind: fleet.Terminal, Reason: v1alpha1.ReasonRefNotFound, Err: fmt.Errorf("revision %q: want <branch>@sha1:<commit> or sha1:<commit>", rev)}
	}
	if !m.held[name] {
		if err := m.ask(ctx); err != nil {
			return source.Snapshot{}, err
		}
		if _, ok := m.commits[name]; !ok {
			return source.Snapshot{}, &fleet.Error{Reason: v1alpha1.ReasonRefNotFound, Err: fmt.Errorf("the repository has no commit %s", name)}
		}
		m.hold(name)
	}
	return m.snapshot(rev), nil
}

// ask the origin.
func (m *Memory) ask(ctx context.Context) error {
	m.looks++
	err := ctx.Err()
	if err == nil {
		err = m.fails
	}
	var e *fleet.Error
	if err == nil || errors.As(err, &e) {
		return err
	}
	return &fleet.Error{Reason: v1alpha1.ReasonFetchFailed, Err: err}
}

// hold a commit and its history.
func (m *Memory) hold(name string) {
	for todo := []string{name}; len(todo) > 0; {
		next := todo[0]
		if todo = todo[1:]; !m.held[next] {
			m.held[next] = true
			todo = append(todo, m.commits[next].parents...)
		}
	}
}

func (m *Memory) snapshot(rev fleet.Revision) source.Snapshot {
	c := m.commits[rev.Commit()]
	return source.Snapshot{Revision: rev, Subject: c.subject, Author: "Ada <ada@example.com>", Files: c.files}
}

// Relation of two revisions that are held: by their versions where src follows versions.
func (m *Memory) Relation(_ context.Context, src source.Origin, from, to fleet.Revision) (source.Relation, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	ref, a, b := reference(src), from.Commit(), to.Commit()
	was, now := label(from), label(to)
	if v, w := version(was), version(now); ref.SemVer != "" && v != nil && w != nil && !v.Equal(w) {
		return map[bool]source.Relation{true: source.Descends, false: source.Precedes}[v.LessThan(w)], nil
	} else if a != b && (ref.SemVer != "" && v != nil && w != nil || ref.Tag != "" && was == now) {
		return source.Unrelated, nil // what a version is stays what it was
	}
	switch {
	case a == b:
		return source.Same, nil
	case !m.held[a] || !m.held[b]:
		return source.Unrelated, nil
	case m.leadsTo(b, a):
		return source.Descends, nil
	case m.leadsTo(a, b):
		return source.Precedes, nil
	}
	return source.Unrelated, nil
}

func (m *Memory) leadsTo(from, to string) bool {
	seen := map[string]bool{}
	for todo := []string{from}; len(todo) > 0; {
		next := todo[0]
		if todo = todo[1:]; next == to {
			return true
		}
		if !seen[next] {
			seen[next] = true
			todo = append(todo, m.commits[next].parents...)
		}
	}
	return false
}

// FirstParents gives rev, its first parent and so on.
func (m *Memory) FirstParents(ctx context.Context, src source.Origin, rev fleet.Revision) iter.Seq2[source.Commit, error] {
	return func(yield func(source.Commit, error) bool) {
		if _, err := m.At(ctx, src, rev); err != nil {
			yield(source.Commit{}, err)
			return
		}
		for _, c := range m.firstParents(rev) {
			if err := ctx.Err(); err != nil {
				yield(source.Commit{}, &fleet.Error{Reason: v1alpha1.ReasonFetchFailed, Err: err})
				return
			}
			if !yield(c, nil) {
				return
			}
		}
	}
}

func (m *Memory) firstParents(rev fleet.Revision) []source.Commit {
	m.mu.Lock()
	defer m.mu.Unlock()
	prefix := strings.TrimSuffix(string(rev), rev.Commit())
	var out []source.Commit
	for name := rev.Commit(); ; {
		c := m.commits[name]
		out = append(out, source.Commit{
			Snapshot: m.snapshot(fleet.Revision(prefix + name)),
			Folder: func(path string) (string, error) {
				if info, err := fs.Stat(c.files, path); err != nil || !info.IsDir() {
					return "", nil // there is no such folder
				}
				return digestOf(c.files, path), nil
			},
		})
		if len(c.parents) == 0 {
			break
		}
		name = c.parents[0]
	}
	for i := range out {
		out[i].Depth = uint64(len(out) - 1 - i)
	}
	return out
}

// digestOf names the content of a folder: of equal files under equal names below it.
func digestOf(files fs.FS, folder string) string {
	h := sha1.New() // see above
	err := fs.WalkDir(files, folder, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := fs.ReadFile(files, name)
		fmt.Fprintf(h, "%q %v %d\n%s", strings.TrimPrefix(name, folder+"/"), d.Type(), len(content), content)
		return err
	})
	if err != nil {
		panic(fmt.Sprintf("sourcetest: the files of a commit cannot be read: %v", err))
	}
	return hex.EncodeToString(h.Sum(nil))
}

func reference(src source.Origin) v1alpha1.GitRef {
	if src.Git == nil || src.Git.Ref == nil || *src.Git.Ref == (v1alpha1.GitRef{}) {
		return v1alpha1.GitRef{Branch: "main"}
	}
	return *src.Git.Ref
}

func label(rev fleet.Revision) string { return strings.TrimSuffix(string(rev), "@sha1:"+rev.Commit()) }

func revision(branch, commit string) fleet.Revision {
	return fleet.Revision(branch + "@sha1:" + commit)
}

// ByURL is several sources, each for the git URL that a spec names.
type ByURL map[string]source.Source

var (
	_ source.Source  = ByURL(nil)
	_ source.History = ByURL(nil)
)

func (b ByURL) of(src source.Origin) (source.Source, error) {
	if src.Git != nil {
		if s := b[src.Git.URL]; s != nil {
			return s, nil
		}
	}
	known := slices.Sorted(maps.Keys(b))
	return nil, &fleet.Error{Reason: v1alpha1.ReasonFetchFailed, Err: fmt.Errorf("no repository is there; known are %v", known)}
}

// Latest asks the source of the URL.
func (b ByURL) Latest(ctx context.Context, src source.Origin) (source.Snapshot, error) {
	s, err := b.of(src)
	if err != nil {
		return source.Snapshot{}, err
	}
	return s.Latest(ctx, src)
}

// At asks the source of the URL.
func (b ByURL) At(ctx context.Context, src source.Origin, rev fleet.Revision) (source.Snapshot, error) {
	s, err := b.of(src)
	if err != nil {
		return source.Snapshot{}, err
	}
	return s.At(ctx, src, rev)
}

// Relation asks the source of the URL.
func (b ByURL) Relation(ctx context.Context, src source.Origin, from, to fleet.Revision) (source.Relation, error) {
	s, err := b.of(src)
	if err != nil {
		return source.Unrelated, err
	}
	return s.Relation(ctx, src, from, to)
}

// FirstParents asks the source of the URL, where it has a history.
func (b ByURL) FirstParents(ctx context.Context, src source.Origin, rev fleet.Revision) iter.Seq2[source.Commit, error] {
	s, err := b.of(src)
	h, ok := s.(source.History)
	if err == nil && !ok {
		err = &fleet.Error{Kind: fleet.Terminal, Reason: v1alpha1.ReasonFetchFailed, Err: fmt.Errorf("%s has no history", src.Git.URL)}
	}
	if err != nil {
		return func(yield func(source.Commit, error) bool) { yield(source.Commit{}, err) }
	}
	return h.FirstParents(ctx, src, rev)
}

// Txtar makes files of a txtar archive: "-- path --" lines, each with the content that follows.
func Txtar(archive string) fs.FS {
	files := map[string]string{}
	for _, f := range txtar.Parse([]byte(archive)).Files {
		files[f.Name] = string(f.Data)
	}
	return Files(files)
}

// Files makes a file system of contents by path.
func Files(files map[string]string) fs.FS {
	out := fstest.MapFS{}
	for name, content := range files {
		if !fs.ValidPath(name) || name == "." {
			panic(fmt.Sprintf("sourcetest: %q is not a path in a source", name))
		}
		out[name] = &fstest.MapFile{Data: bytes.Clone([]byte(content)), Mode: 0o444}
	}
	return out
}
