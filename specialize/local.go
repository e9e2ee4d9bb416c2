// SPDX-License-Identifier: Apache-2.0

package specialize

import (
	"path"
	"strings"
)

// checkLocal refuses what is not a path relative to the kustomization. kustomize would get what is remote:
// a URL over the network, a repository by running git. The source must hold all of it instead, so that one
// commit says everything and every member reads the same.
func (l *layer) checkLocal(text string) error {
	switch {
	case text == "":
		return l.refuse("", "a path is empty")
	case isRemote(text):
		return l.refuse(text, "%s is not in the source, and nothing is fetched from elsewhere; copy it into the source", clip(firstLine(text)))
	case path.IsAbs(text):
		return l.refuse(text, "%s: a path must be relative to its kustomization", clip(firstLine(text)))
	}
	return nil
}

// isRemote says whether kustomize might take text for a URL or a repository. It takes in more than
// kustomize does: URLs of every scheme, and everything in the form host:path or user@host.
func isRemote(text string) bool {
	host, _, _ := strings.Cut(text, "/")
	return beginsRemote(text) || strings.Contains(text, "://") || strings.ContainsAny(host, ":@")
}

// beginsRemote is isRemote for texts that may also be YAML, in which a colon means nothing: it takes in
// every beginning that kustomize looks for.
func beginsRemote(text string) bool {
	lower := strings.ToLower(strings.TrimSpace(text))
	for _, prefix := range []string{"git::", "ssh://", "https:", "http:", "file://", "github.com/", "github.com:"} {
		if strings.HasPrefix(lower, prefix) {
			return true
		}
	}
	user := strings.TrimLeft(lower, "abcdefghijklmnopqrstuvwxyz0123456789-")
	return user != lower && strings.HasPrefix(user, "@")
}
