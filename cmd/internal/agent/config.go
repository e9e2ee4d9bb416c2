// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"net/url"
	"runtime/debug"
	"slices"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"

	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/sequencer/mesh"
	"github.com/flotilla-dev/flotilla/source"
)

// Config of one agent. DefaultConfig fills in what most agents want.
type Config struct {
	// Kube is how the agent reaches its own cluster, as its own service account. Required.
	Kube *rest.Config
	// Namespace of the agent's own objects: key, promises, inventories, lease, endpoint.
	Namespace string
	// Fleet is the fleet's name; members of two fleets do not talk. Required.
	Fleet string
	// RepositoryURL, RepositoryBranch and RepositoryPath say where the fleet repository is.
	RepositoryURL, RepositoryBranch, RepositoryPath string
	// RepositorySecret and RepositoryProxySecret name Secrets of Namespace that open it and lead to it, with the keys of
	// spec.source.secretRef and proxySecretRef; empty: none is needed.
	RepositorySecret, RepositoryProxySecret string
	// RepositoryInterval between looks; members tell each other of a new head.
	RepositoryInterval time.Duration
	// MembersDir holds FleetMember manifests, for a fleet without a repository. It and RepositoryURL exclude each other.
	MembersDir string
	// DataDir holds the fleet's state and the mirrors of git repositories. It may be lost: promises are in the cluster's API.
	DataDir string
	// Listen are the mesh's multiaddrs; none means that this member only dials out.
	Listen []string
	// Peers are multiaddrs of members to dial beside those that the roster gives, Announce those at which this one is
	// reached; see mesh.Config.
	Peers, Announce []string
	// NoGossip leaves records to reconciliation: each comes once, later.
	NoGossip bool
	// ReadAddr of the read endpoint, MetricsAddr and ProbeAddr of /metrics and /livez /readyz; "0" switches the latter two off.
	ReadAddr, MetricsAddr, ProbeAddr string
	// InProcess renders payloads in the agent's own process, where they cannot be jailed in one of their own.
	InProcess bool
	// Log of everything.
	Log logr.Logger
}

// DefaultConfig has everything but what is required.
func DefaultConfig() Config {
	return Config{
		Namespace: "flotilla-system", RepositoryBranch: "main", RepositoryInterval: 30 * time.Second,
		DataDir: "/var/lib/flotilla", ReadAddr: "127.0.0.1:0", MetricsAddr: "127.0.0.1:8080", ProbeAddr: "127.0.0.1:8081",
	}
}

func (c *Config) check() error {
	switch {
	case c.Kube == nil:
		return errors.New("no cluster: give --kubeconfig, or run inside one")
	case c.Fleet == "":
		return errors.New("no fleet: give --fleet NAME, the same on every member")
	case c.RepositoryURL == "" && c.MembersDir == "":
		return errors.New("no roster: give --fleet-url, or --members with a folder of FleetMember manifests")
	case c.RepositoryURL != "" && c.MembersDir != "":
		return errors.New("two rosters: --fleet-url and --members exclude each other")
	case c.DataDir == "":
		return errors.New("no --data-dir")
	}
	for _, address := range c.Peers {
		if err := mesh.CheckPeer(address); err != nil {
			return fmt.Errorf("--peer: %w", err)
		}
	}
	for _, address := range c.Announce {
		if err := mesh.CheckAnnounced(address); err != nil {
			return fmt.Errorf("--announce: %w", err)
		}
	}
	if c.RepositoryURL != "" {
		u, err := url.Parse(c.RepositoryURL)
		if err != nil || !slices.Contains([]string{"https", "http", "ssh"}, u.Scheme) {
			return fmt.Errorf("--fleet-url %q is not an https, http or ssh URL", c.RepositoryURL)
		}
	}
	return nil
}

// repository as the source that it is.
func (c *Config) repository() source.Origin {
	o := source.Origin{
		Source: v1alpha1.Source{Git: &v1alpha1.GitSource{URL: c.RepositoryURL, Ref: &v1alpha1.GitRef{Branch: c.RepositoryBranch}}},
		Reader: source.Reader{Namespace: c.Namespace}, // the agent itself
	}
	if c.RepositorySecret != "" {
		o.SecretRef = &v1alpha1.LocalReference{Name: c.RepositorySecret}
	}
	if c.RepositoryProxySecret != "" {
		o.ProxySecretRef = &v1alpha1.LocalReference{Name: c.RepositoryProxySecret}
	}
	return o
}

// BuildVersion of this binary, from its build information.
func BuildVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	version := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 7 && (version == "" || version == "(devel)") {
			version = "devel-" + s.Value[:7]
		}
	}
	if version == "" {
		return "(devel)"
	}
	return version
}
