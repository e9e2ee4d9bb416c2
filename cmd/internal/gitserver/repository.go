// SPDX-License-Identifier: Apache-2.0

package gitserver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
)

var repositoryName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*$`)

// Create a repository with no commit. One that is there already is left as it is.
func (s *Server) Create(repository string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.openOrCreate(repository)
	return err
}

func (s *Server) open(repository string) (*git.Repository, error) {
	if !repositoryName.MatchString(repository) {
		return nil, fmt.Errorf("repository name %q: want small letters, digits and dashes", repository)
	}
	repo, err := git.PlainOpen(filepath.Join(s.dir, repository+".git"))
	if err != nil {
		return nil, fmt.Errorf("repository %s: %w", repository, err)
	}
	return repo, nil
}

func (s *Server) openOrCreate(repository string) (*git.Repository, error) {
	repo, err := s.open(repository)
	if !errors.Is(err, git.ErrRepositoryNotExists) {
		return repo, err
	}
	if repo, err = git.PlainInit(filepath.Join(s.dir, repository+".git"), true); err != nil {
		return nil, fmt.Errorf("repository %s: %w", repository, err)
	}
	config, err := repo.Config()
	if err != nil {
		return nil, err
	}
	config.Raw.Section("http").SetOption("receivepack", "true") // anyone on this machine may push
	config.Raw.Section("uploadpack").SetOption("allowReachableSHA1InWant", "true")
	if err := repo.SetConfig(config); err != nil {
		return nil, err
	}
	return repo, repo.Storer.SetReference(plumbing.NewSymbolicReference(plumbing.HEAD, "refs/heads/main"))
}

// Head commit of a branch.
func (s *Server) Head(_ context.Context, repository, branch string) (string, error) {
	repo, err := s.open(repository)
	if err != nil {
		return "", err
	}
	ref, err := repo.Reference(plumbing.NewBranchReferenceName(branch), true)
	if err != nil {
		return "", fmt.Errorf("%s: branch %s: %w", repository, branch, err)
	}
	return ref.Hash().String(), nil
}

// Commit a tree of exactly these files, contents by path, on top of a branch, and say which commit it
// became. The repository and the branch are made where they are not; what is not in files is gone.
func (s *Server) Commit(_ context.Context, repository, branch, message string, files map[string]string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	repo, err := s.openOrCreate(repository)
	if err != nil {
		return "", err
	}
	name := plumbing.NewBranchReferenceName(branch)
	if err := name.Validate(); err != nil {
		return "", fmt.Errorf("%s: branch %q: %w", repository, branch, err)
	}
	var parents []plumbing.Hash
	old, err := repo.Reference(name, true)
	if err == nil {
		parents = append(parents, old.Hash())
	} else if !errors.Is(err, plumbing.ErrReferenceNotFound) {
		return "", fmt.Errorf("%s: branch %s: %w", repository, branch, err)
	}
	hash, err := s.commit(repo, message, files, parents)
	if err == nil {
		// Whoever pushed meanwhile keeps what they pushed.
		err = repo.Storer.CheckAndSetReference(plumbing.NewHashReference(name, hash), old)
	}
	if err != nil {
		return "", fmt.Errorf("commit to %s: %w", repository, err)
	}
	return hash.String(), nil
}

// Reset a branch to a commit of the repository, as a force-push does.
func (s *Server) Reset(_ context.Context, repository, branch, commit string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	repo, err := s.open(repository)
	if err != nil {
		return err
	}
	hash := plumbing.NewHash(commit)
	if _, err := repo.CommitObject(hash); err != nil {
		return fmt.Errorf("%s: commit %s: %w", repository, commit, err)
	}
	return repo.Storer.SetReference(plumbing.NewHashReference(plumbing.NewBranchReferenceName(branch), hash))
}

// Tag a commit of the repository. A tag that is there already is moved.
func (s *Server) Tag(_ context.Context, repository, tag, commit string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	repo, err := s.open(repository)
	if err != nil {
		return err
	}
	name, hash := plumbing.NewTagReferenceName(tag), plumbing.NewHash(commit)
	if err := name.Validate(); err != nil {
		return fmt.Errorf("%s: tag %q: %w", repository, tag, err)
	}
	if _, err := repo.CommitObject(hash); err != nil {
		return fmt.Errorf("%s: commit %s: %w", repository, commit, err)
	}
	return repo.Storer.SetReference(plumbing.NewHashReference(name, hash))
}

func (s *Server) commit(repo *git.Repository, message string, files map[string]string, parents []plumbing.Hash) (plumbing.Hash, error) {
	for path := range files {
		if !fs.ValidPath(path) || path == "." {
			return plumbing.ZeroHash, fmt.Errorf("%q is not a path in a repository", path)
		}
	}
	tree, err := writeTree(repo, files)
	if err != nil {
		return plumbing.ZeroHash, err
	}
	who := object.Signature{Name: "Ada", Email: "ada@example.com", When: s.now()}
	encoded := repo.Storer.NewEncodedObject()
	commit := object.Commit{Author: who, Committer: who, Message: message + "\n", TreeHash: tree, ParentHashes: parents}
	if err := commit.Encode(encoded); err != nil {
		return plumbing.ZeroHash, err
	}
	return repo.Storer.SetEncodedObject(encoded)
}

// writeTree of files by path, folders and all.
func writeTree(repo *git.Repository, files map[string]string) (plumbing.Hash, error) {
	var tree object.Tree
	folders := map[string]map[string]string{}
	for path, body := range files {
		folder, rest, nested := strings.Cut(path, "/")
		if nested {
			if folders[folder] == nil {
				folders[folder] = map[string]string{}
			}
			folders[folder][rest] = body
			continue
		}
		hash, err := writeBlob(repo, body)
		if err != nil {
			return plumbing.ZeroHash, err
		}
		tree.Entries = append(tree.Entries, object.TreeEntry{Name: path, Mode: filemode.Regular, Hash: hash})
	}
	for folder, inside := range folders {
		if _, both := files[folder]; both {
			return plumbing.ZeroHash, fmt.Errorf("%q is a file and a folder", folder)
		}
		hash, err := writeTree(repo, inside)
		if err != nil {
			return plumbing.ZeroHash, err
		}
		tree.Entries = append(tree.Entries, object.TreeEntry{Name: folder, Mode: filemode.Dir, Hash: hash})
	}
	sortEntries(tree.Entries)
	encoded := repo.Storer.NewEncodedObject()
	if err := tree.Encode(encoded); err != nil {
		return plumbing.ZeroHash, err
	}
	return repo.Storer.SetEncodedObject(encoded)
}

func writeBlob(repo *git.Repository, body string) (plumbing.Hash, error) {
	encoded := repo.Storer.NewEncodedObject()
	encoded.SetType(plumbing.BlobObject)
	w, err := encoded.Writer()
	if err != nil {
		return plumbing.ZeroHash, err
	}
	if _, err := w.Write([]byte(body)); err != nil {
		return plumbing.ZeroHash, err
	}
	if err := w.Close(); err != nil {
		return plumbing.ZeroHash, err
	}
	return repo.Storer.SetEncodedObject(encoded)
}

// sortEntries as git wants them: a folder sorts as if its name ended in a slash.
func sortEntries(entries []object.TreeEntry) {
	key := func(e object.TreeEntry) string {
		if e.Mode == filemode.Dir {
			return e.Name + "/"
		}
		return e.Name
	}
	slices.SortFunc(entries, func(a, b object.TreeEntry) int { return strings.Compare(key(a), key(b)) })
}
