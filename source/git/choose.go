// SPDX-License-Identifier: Apache-2.0

package git

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/fluxcd/pkg/sourceignore"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/source"
)

const (
	ignoreFile     = sourceignore.IgnoreFile
	maxIgnoreBytes = 64 << 10
	maxIgnores     = 1000 // patterns; each file is compared with each
	maxSeenViews   = 4
)

// seenView is a view that was made: of which tree, and for what the source asks for.
type seenView struct {
	files string
	v     *view
}

// view of a commit as a source wants it. It is made once, and used as long as all its trees are good.
func (m *Mirrors) view(ctx context.Context, ask request, at revision, files *tree) (*view, error) {
	mir, key := m.mirror(ask), ask.origin.Files()+"\n"+at.commit.String()
	if v := mir.seen.view(key); v != nil && v.root == files && v.good(ctx) {
		return v, nil
	}
	v := &view{root: files}
	if ask.origin.Git.RecurseSubmodules {
		v.mounts = map[string]*tree{}
		r := recursion{m: m, top: ask, v: v}
		if err := r.mount(ctx, files, "", []address{ask.addr}); err != nil {
			return nil, err
		}
	}
	if err := v.choose(ctx, ask.origin.Git.SparseCheckout, ask.origin.Ignore); err != nil {
		return nil, err
	}
	mir.seen.addView(key, v)
	return v, nil
}

// good says that nothing of the submodules was found to be lost since the view was made.
func (v *view) good(ctx context.Context) bool {
	for _, t := range v.mounts {
		if now, err := t.m.check(ctx, t.commit); err != nil || now != t {
			return false
		}
	}
	return true
}

func (s *seen) view(key string) *view {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, known := range s.views {
		if known.files == key {
			return known.v
		}
	}
	return nil
}

func (s *seen) addView(key string, v *view) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.views = slices.DeleteFunc(s.views, func(known seenView) bool { return known.files == key })
	if s.views = append(s.views, seenView{key, v}); len(s.views) > maxSeenViews {
		s.views = slices.Delete(s.views, 0, 1)
	}
}

// choose what is shown: what is in one of the sparse folders, where there are any, and is not ignored. A
// folder is there as long as something in it is: as in Flux, a file that an exception takes back in is
// found also in a folder that was left out.
func (v *view) choose(ctx context.Context, sparse []string, ignore string) error {
	ignored, err := v.ignored(ignore)
	if err != nil {
		return err
	}
	folders, err := v.folders(sparse)
	if err != nil {
		return err
	}
	if ignored == nil && folders == nil {
		return nil
	}
	keep := map[string]struct{}{}
	err = v.each(ctx, func(name string) {
		parts := strings.Split(name, "/")
		if !within(name, folders) || ignored != nil && ignored(parts) {
			return
		}
		for i := range parts {
			keep[strings.Join(parts[:i+1], "/")] = struct{}{}
		}
	})
	v.keep = keep
	return err
}

// each path of the view that is no folder.
func (v *view) each(ctx context.Context, do func(name string)) error {
	var visit func(at place) error
	visit = func(at place) error {
		if err := ctx.Err(); err != nil {
			return fetchFailed("", fmt.Errorf("choosing files: %w", err))
		}
		kids, err := at.t.children(at.n)
		for i := 0; err == nil && i < len(kids); i++ {
			if to := v.step(at, kids[i]); to.n.is(modeFolder) {
				err = visit(to)
			} else {
				do(to.path)
			}
		}
		return err
	}
	return visit(v.start())
}

// ignored says which files are left out: by the patterns of all .sourceignore files, each for its folder,
// and then by those of the source. It is nil where there is none.
func (v *view) ignored(ignore string) (func(parts []string) bool, error) {
	own := sourceignore.ReadPatterns(strings.NewReader(ignore), nil)
	all := own[:0:0]
	plain := &view{root: v.root, mounts: v.mounts}
	for _, name := range v.ignoreFiles() {
		at, err := plain.find(name, false)
		if err != nil {
			return nil, pathError("open", name, err)
		}
		raw, err := at.t.blob(at.n, maxIgnoreBytes)
		if err != nil {
			return nil, pathError("read", name, err)
		}
		var domain []string
		if folder := path.Dir(name); folder != "." {
			domain = strings.Split(folder, "/")
		}
		all = append(all, sourceignore.ReadPatterns(bytes.NewReader(raw), domain)...)
	}
	if all = append(all, own...); len(all) > maxIgnores {
		return nil, tooLarge("leave out whole folders instead, or use sparseCheckout", "%d patterns of files to ignore, at most %d are compared", len(all), maxIgnores)
	}
	if len(all) == 0 {
		return nil, nil
	}
	matcher := sourceignore.NewMatcher(all)
	return func(parts []string) bool { return matcher.Match(parts, false) }, nil
}

// ignoreFiles are the paths of all .sourceignore files, those of outer folders first.
func (v *view) ignoreFiles() []string {
	names := slices.Clone(v.root.ignores)
	for at, t := range v.mounts {
		for _, name := range t.ignores {
			names = append(names, path.Join(at, name))
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(strings.Count(a, "/"), strings.Count(b, "/")), strings.Compare(a, b))
	})
	return names
}

// folders of a sparse checkout; nil is everything.
func (v *view) folders(sparse []string) ([]string, error) {
	var out []string
	for _, raw := range sparse {
		name := path.Clean(raw)
		if !fs.ValidPath(name) {
			return nil, noFolder("name folders from the root of the repository, such as apps/web", "%q is not in the source", raw)
		}
		if name == "." {
			return nil, nil
		}
		at, err := (&view{root: v.root, mounts: v.mounts}).find(name, false)
		if errors.Is(err, fs.ErrNotExist) || err == nil && (!at.n.is(modeFolder) || at.path != name) {
			return nil, noFolder("", "the source has no folder %q", raw)
		}
		if err != nil {
			return nil, pathError("sparseCheckout", name, err)
		}
		out = append(out, name)
	}
	return out, nil
}

func noFolder(hint, format string, raw string) error {
	return &fleet.Error{Kind: fleet.Terminal, Reason: v1alpha1.ReasonPathNotFound, Hint: hint,
		Err: fmt.Errorf("spec.source.git.sparseCheckout: "+format, source.Clip(raw, 200))}
}

func within(name string, folders []string) bool {
	return folders == nil || slices.ContainsFunc(folders, func(f string) bool { return strings.HasPrefix(name, f+"/") })
}
