// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"fmt"
	"strings"

	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// Origin is a source as one rollout asks for it.
type Origin struct {
	v1alpha1.Source
	// Reader is who reads the secrets that the source names. It is the zero Reader where the source names none.
	Reader Reader
}

// Reader of secrets: a service account in a namespace. Whoever writes a rollout reads with it what that
// account may read, and nothing that only the agent may.
type Reader struct{ Namespace, ServiceAccount string }

// Secrets reads a Secret as a reader may.
type Secrets interface {
	// Secret gives the data of one. An error is a fleet.Error with the reason CredentialsMissing, or retryable without one.
	Secret(ctx context.Context, as Reader, name string) (map[string][]byte, error)
}

// Place names what is fetched from, and with whose credentials: what came from one place is never shown to
// someone who asks for another. It holds no secret. Every text in it is quoted, here and in the other names: no
// text that somebody writes into a source makes its name another's.
func (o Origin) Place() string {
	var b strings.Builder
	switch {
	case o.Git != nil:
		fmt.Fprintf(&b, "git %q", o.Git.URL)
	case o.Helm != nil:
		fmt.Fprintf(&b, "helm %q %q", o.Helm.URL, o.Helm.Chart)
	}
	if o.SecretRef != nil {
		fmt.Fprintf(&b, "\nsecret %q %q as %q", o.Reader.Namespace, o.SecretRef.Name, o.Reader.ServiceAccount)
	}
	if o.ProxySecretRef != nil {
		fmt.Fprintf(&b, "\nproxy %q %q as %q", o.Reader.Namespace, o.ProxySecretRef.Name, o.Reader.ServiceAccount)
	}
	return b.String()
}

// Head names what of a place is followed: the revisions that one head had are ordered among each other, those of two are not.
func (o Origin) Head() string {
	switch {
	case o.Helm != nil:
		return o.Helm.URL + "#" + o.Helm.Chart + "@" + o.Helm.Version
	case o.Git == nil:
		return ""
	}
	return o.Git.URL + "#" + o.Git.Ref.String()
}

// Files names, with a revision, the files that a snapshot holds.
func (o Origin) Files() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\nwithout %q", o.Place(), o.Ignore)
	if o.Git != nil {
		fmt.Fprintf(&b, "\nonly %q", o.Git.SparseCheckout)
		if o.Git.RecurseSubmodules {
			b.WriteString("\nwith submodules")
		}
	}
	return b.String()
}
