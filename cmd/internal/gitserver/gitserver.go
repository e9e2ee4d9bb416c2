// SPDX-License-Identifier: Apache-2.0

// Package gitserver answers: where does a real git server on this machine come from?
//
// It serves bare repositories over smart http, through git's own http-backend, on loopback. People
// clone from it and push to it with their own git; tests and the demo commit with [Server.Commit].
package gitserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
)

// Server of bare repositories.
type Server struct {
	dir      string
	listener net.Listener
	backend  http.Handler
	requests atomic.Int64

	mu  sync.Mutex // one commit at a time
	now func() time.Time
}

// New server of the repositories in dir. Its address is taken at once; it answers once Run runs.
func New(dir string) (*Server, error) {
	program, err := exec.LookPath("git")
	if err != nil {
		return nil, fmt.Errorf("git server: %w; install git", err)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return &Server{
		dir: dir, listener: listener, now: time.Now,
		backend: &cgi.Handler{
			Path: program, Args: []string{"http-backend"}, Dir: dir,
			Env: []string{"GIT_PROJECT_ROOT=" + dir, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_NOSYSTEM=1", "HOME=" + dir},
		},
	}, nil
}

// Run answers until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	server := &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// ServeHTTP counts and passes on.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.requests.Add(1)
	s.backend.ServeHTTP(w, r)
}

// Requests so far.
func (s *Server) Requests() int64 { return s.requests.Load() }

// URL of a repository.
func (s *Server) URL(repository string) string {
	return fmt.Sprintf("http://%s/%s.git", s.listener.Addr(), repository)
}

var repositoryName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*$`)

// Create a repository with no commit. One that is there already is left as it is.
func (s *Server) Create(repository string) error {
	_, err := s.open(repository)
	return err
}

func (s *Server) open(repository string) (*git.Repository, error) {
	if !repositoryName.MatchString(repository) {
		return nil, fmt.Errorf("repository name %q", repository)
	}
	path := filepath.Join(s.dir, repository+".git")
	repo, err := git.PlainOpen(path)
	if !errors.Is(err, git.ErrRepositoryNotExists) {
		return repo, err
	}
	if repo, err = git.PlainInit(path, true); err != nil {
		return nil, err
	}
	config, err := repo.Config()
	if err != nil {
		return nil, err
	}
	config.Init.DefaultBranch = "main"
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

// Commit a tree of exactly these files on a branch; the repository is made where it is not.
func (s *Server) Commit(_ context.Context, repository, branch, message string, files map[string]string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	repo, err := s.open(repository)
	if err != nil {
		return "", err
	}
	var parents []plumbing.Hash
	name := plumbing.NewBranchReferenceName(branch)
	if ref, err := repo.Reference(name, true); err == nil {
		parents = append(parents, ref.Hash())
	}
	hash, err := s.commit(repo, message, files, parents)
	if err != nil {
		return "", fmt.Errorf("commit to %s: %w", repository, err)
	}
	return hash.String(), repo.Storer.SetReference(plumbing.NewHashReference(name, hash))
}

// Reset a branch to a commit, as a force-push does.
func (s *Server) Reset(_ context.Context, repository, branch, commit string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	repo, err := s.open(repository)
	if err != nil {
		return err
	}
	return repo.Storer.SetReference(plumbing.NewHashReference(plumbing.NewBranchReferenceName(branch), plumbing.NewHash(commit)))
}

func (s *Server) commit(repo *git.Repository, message string, files map[string]string, parents []plumbing.Hash) (plumbing.Hash, error) {
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
