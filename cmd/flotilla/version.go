// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"github.com/flotilla-dev/flotilla/cmd/internal/readapi"
)

// versions are what 'flotilla version' tells.
type versions struct {
	Client clientVersion    `json:"client"`
	Agent  *readapi.Version `json:"agent,omitempty"`
}

type clientVersion struct {
	Version  string `json:"version"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// agentPatience is how long version waits for an agent that may not be there.
const agentPatience = 5 * time.Second

func (a *app) versionCommand() *cobra.Command {
	var o output
	var clientOnly bool
	c := &cobra.Command{
		Use:   "version",
		Short: "Print the version of this command, and of the agent if there is one",
		Long: `Print the version of this command and, where the cluster of your kubeconfig has an agent that answers,
of that agent and of its Kubernetes.`,
		Example: `  flotilla version
  flotilla version --client -o json`,
		Args: args(0, 0, "no names"),
		RunE: func(c *cobra.Command, _ []string) error { return a.runVersion(c.Context(), o, clientOnly) },
	}
	c.Flags().BoolVar(&clientOnly, "client", false, "do not ask an agent")
	c.Flags().StringVarP((*string)(&o), "output", "o", "", "json or yaml")
	return c
}

func (a *app) runVersion(ctx context.Context, o output, clientOnly bool) error {
	if err := o.check("json", "yaml"); err != nil {
		return err
	}
	v := versions{Client: clientVersion{Version: a.version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}}
	var missing error
	if !clientOnly {
		if v.Agent, missing = a.agentVersion(ctx); errors.Is(missing, context.Canceled) {
			return missing
		}
	}
	if done, err := o.structured(a.Out, v); done {
		return err
	}
	fmt.Fprintf(a.Out, "flotilla %s (%s, %s)\n", v.Client.Version, v.Client.Go, v.Client.Platform)
	switch {
	case missing != nil:
		fmt.Fprintf(a.ErrOut, "agent: %v\n", missing)
	case v.Agent != nil:
		fmt.Fprintf(a.Out, "agent %s at member %s (Kubernetes %s)\n", v.Agent.Agent, v.Agent.Member, orElse(v.Agent.Kubernetes, "unknown"))
	}
	return nil
}

func (a *app) agentVersion(ctx context.Context) (*readapi.Version, error) {
	ctx, cancel := context.WithTimeout(ctx, agentPatience)
	defer cancel()
	agent, err := a.agent(ctx)
	if err != nil {
		return nil, err
	}
	v, err := agent.Version(ctx)
	if err != nil {
		return nil, err
	}
	return &v, nil
}

// buildVersion as Go's build information has it: a tag, or the commit.
func buildVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}
