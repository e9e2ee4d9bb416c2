// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"net/url"
	"runtime/debug"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"
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
	// RepositoryInterval between looks; members tell each other of a new head.
	RepositoryInterval time.Duration
	// MembersDir holds FleetMember manifests, for a fleet without a repository. It and RepositoryURL exclude each other.
	MembersDir string
	// DataDir holds the fleet's state and the mirrors of git repositories. It may be lost: promises are in the cluster's API.
	DataDir string
	// Listen are the mesh's multiaddrs; none means that this member only dials out.
	Listen []string
	// ReadAddr of the read endpoint, MetricsAddr and ProbeAddr of /metrics and /livez /readyz; "0" switches the latter two off.
	ReadAddr, MetricsAddr, ProbeAddr string
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
	if c.RepositoryURL != "" {
		u, err := url.Parse(c.RepositoryURL)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" {
			return fmt.Errorf("--fleet-url %q is not an http or https URL", c.RepositoryURL)
		}
	}
	return nil
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
