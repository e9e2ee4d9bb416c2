// SPDX-License-Identifier: Apache-2.0

package git

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/config"

	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/source"
	"github.com/flotilla-dev/flotilla/source/access"
)

const (
	modulesFile     = ".gitmodules"
	maxModulesBytes = 64 << 10
	maxModules      = 64 // of one payload, however deep
	maxModuleDepth  = 8
)

// module is what .gitmodules says of a submodule.
type module struct{ url, branch string }

// parseModules reads .gitmodules: submodules by their path.
func parseModules(raw []byte) (out map[string]module, err error) {
	defer recovered("reading "+modulesFile, &err)
	parsed := config.NewModules()
	if err := parsed.Unmarshal(raw); err != nil {
		return nil, unreadable("%s: %s", modulesFile, source.Printable(err.Error(), 200))
	}
	out = map[string]module{}
	for _, m := range parsed.Submodules {
		if !fs.ValidPath(m.Path) || m.Path == "." {
			continue // it names no place in a tree
		}
		out[m.Path] = module{url: m.URL, branch: m.Branch}
	}
	return out, nil
}

var scpParts = regexp.MustCompile(`^([^/@:\s]+)@([^/@:\s]+):([^\s]+)$`)

// moduleURL is the URL of a submodule: as .gitmodules has it, or from the repository that it is in.
func moduleURL(parent address, raw string) (address, error) {
	if !strings.HasPrefix(raw, "./") && !strings.HasPrefix(raw, "../") {
		if parts := scpParts.FindStringSubmatch(raw); parts != nil {
			raw = "ssh://" + parts[1] + "@" + parts[2] + "/" + strings.TrimPrefix(parts[3], "/")
		}
		return parseURL(raw)
	}
	at, rest := *parent.base, raw
	up := strings.TrimRight(at.EscapedPath(), "/")
	for {
		if down, ok := strings.CutPrefix(rest, "./"); ok {
			rest = down
			continue
		}
		down, ok := strings.CutPrefix(rest, "../")
		if !ok {
			break
		}
		if up == "" {
			return address{}, refusedURL(raw, "it leads above the root of the server", "write its URL in full in "+modulesFile)
		}
		rest, up = down, up[:strings.LastIndexByte(up, '/')]
	}
	if rest == "" || slices.Contains(strings.Split(rest, "/"), "..") {
		return address{}, refusedURL(raw, "it names no repository", "write its URL in full in "+modulesFile)
	}
	at.Path, at.RawPath = "", ""
	return parseURL(at.String() + up + "/" + rest)
}

// recursion takes submodules in, level by level.
type recursion struct {
	m     *Mirrors
	top   request
	v     *view
	names int64
	bytes int64
}

// mount the submodules of a tree at a path of the view, and theirs. Chain is the repositories that led here.
func (r *recursion) mount(ctx context.Context, t *tree, at string, chain []address) error {
	if r.names, r.bytes = r.names+t.names.Load(), r.bytes+t.bytes; r.names > int64(t.m.limits.MaxFiles) || r.bytes > t.m.limits.MaxTreeBytes {
		return tooLarge("leave submodules out, or raise the agent's limit", "with its submodules the source has more than %d files or %s", t.m.limits.MaxFiles, source.Size(t.m.limits.MaxTreeBytes))
	}
	if len(t.modules) == 0 {
		return nil
	}
	listed, err := listedModules(t)
	if err != nil {
		return err
	}
	for _, m := range t.modules {
		if !r.wanted(path.Join(at, m.path)) {
			continue
		}
		if err := r.one(ctx, m, listed, at, chain); err != nil {
			return fmt.Errorf("submodule %q: %w", source.Printable(path.Join(at, m.path), 200), err)
		}
	}
	return nil
}

// wanted says whether a sparse checkout shows something of a submodule; what it leaves out is not fetched.
func (r *recursion) wanted(at string) bool {
	sparse := r.top.origin.Git.SparseCheckout
	return len(sparse) == 0 || slices.ContainsFunc(sparse, func(raw string) bool {
		f := path.Clean(raw)
		return f == "." || f == at || strings.HasPrefix(f, at+"/") || strings.HasPrefix(at, f+"/")
	})
}

func (r *recursion) one(ctx context.Context, m moduleAt, listed map[string]module, at string, chain []address) error {
	said, ok := listed[m.path]
	if !ok {
		return unreadable("%s does not say where it comes from", modulesFile)
	}
	addr, err := moduleURL(chain[len(chain)-1], said.url)
	switch {
	case err != nil:
		return err
	case slices.ContainsFunc(chain, func(a address) bool { return a.url == addr.url }):
		return unreadable("%s holds itself, as its own submodule or through others", addr.url)
	case len(chain) > maxModuleDepth:
		return tooLarge("", "submodules are nested more than %d deep", maxModuleDepth)
	case len(r.v.mounts) >= maxModules:
		return tooLarge("", "there are more than %d submodules", maxModules)
	}
	ask := r.request(addr, m, said.branch)
	t, err := r.m.mirror(ask).at(ctx, ask.ref, m.commit)
	if err != nil {
		return wrap(addr.url, err)
	}
	place := path.Join(at, m.path)
	r.v.mounts[place] = t
	return r.mount(ctx, t, place, append(slices.Clone(chain), addr))
}

// request of a submodule: with the credentials of the payload's own repository where it is on the same
// server, else with none. The proxy is the way for both.
func (r *recursion) request(addr address, m moduleAt, branch string) request {
	o := source.Origin{Reader: r.top.origin.Reader, Source: v1alpha1.Source{
		Git: &v1alpha1.GitSource{URL: addr.url}, ProxySecretRef: r.top.origin.ProxySecretRef,
	}}
	if access.Place(addr.base) == access.Place(r.top.addr.base) {
		o.SecretRef = r.top.origin.SecretRef
	}
	what := ref{kind: byCommit, commit: m.commit}
	if named := (ref{kind: byBranch, name: branch}); branch != "" && named.check() == nil {
		what = named
	}
	return request{origin: o, addr: addr, ref: what, timeout: r.top.timeout}
}

// listedModules of a tree.
func listedModules(t *tree) (map[string]module, error) {
	n, err := t.child(t.root, modulesFile)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !n.is(modeFile) {
		return nil, unreadable("it has submodules and no file %s", modulesFile)
	}
	if err != nil {
		return nil, err
	}
	raw, err := t.blob(n, maxModulesBytes)
	if err != nil {
		return nil, err
	}
	return parseModules(raw)
}
