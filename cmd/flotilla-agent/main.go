// SPDX-License-Identifier: Apache-2.0

// Command flotilla-agent is the one agent of a cluster: it brings rollouts to it, and tells the other
// clusters' agents how far it has come.
//
//	flotilla-agent --fleet demo --fleet-url https://git.example.com/fleet --listen /ip4/0.0.0.0/udp/4001/quic-v1
//	flotilla-agent id            # the peer ID for this cluster's FleetMember
//	flotilla-agent store check   # what is in the fleet state on disk, while no agent runs
//
// Every setting is a flag; --help lists them. There is no configuration file and no environment
// variable but those of the Kubernetes client (KUBECONFIG) and of Go (GOMEMLIMIT), and POD_NAME, which deploy/agent sets.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"github.com/flotilla-dev/flotilla/cmd/internal/agent"
)

func main() {
	agent.ServeIfChild()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// exit is an error with the code that it ends the process with; without Err, what there is to say is said.
type exit struct {
	code int
	err  error
}

func (e exit) Error() string { return fmt.Sprint(e.err) }

func run(ctx context.Context, args []string) (code int) {
	c := command()
	c.SetArgs(args)
	err := c.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	coded := exit{1, err}
	_ = errors.As(err, &coded)
	if coded.err != nil {
		fmt.Fprintln(os.Stderr, "flotilla-agent:", coded.err)
	}
	return coded.code
}

func command() *cobra.Command {
	cfg := agent.DefaultConfig()
	var kubeconfig, level string
	run := &cobra.Command{
		Use: "flotilla-agent", Short: "Run the agent of one cluster", Args: cobra.NoArgs,
		SilenceUsage: true, SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if cfg.Log, err = newLog(level); err != nil {
				return err
			}
			if cfg.Kube, err = cluster(kubeconfig); err != nil {
				return err
			}
			klog.SetLogger(cfg.Log) // the Kubernetes client's own words, in the same log
			return agent.Run(cmd.Context(), cfg)
		},
	}
	run.PersistentFlags().StringVar(&kubeconfig, "kubeconfig", os.Getenv(clientcmd.RecommendedConfigPathEnvVar), "the cluster, from outside of it; left out: the one this runs in")
	run.PersistentFlags().StringVar(&cfg.Namespace, "namespace", cfg.Namespace, "of the agent's own objects")
	f := run.Flags()
	f.StringVar(&cfg.Fleet, "fleet", "", "name of the fleet, the same on every member (required)")
	f.StringVar(&cfg.RepositoryURL, "fleet-url", "", "fleet repository: members/ and rollouts/")
	f.StringVar(&cfg.RepositoryBranch, "fleet-branch", cfg.RepositoryBranch, "its branch")
	f.StringVar(&cfg.RepositoryPath, "fleet-path", "", "the fleet's folder in it")
	f.StringVar(&cfg.RepositorySecret, "fleet-secret", "", "Secret of the agent's namespace that opens it, with the keys of spec.source.secretRef; by the installed Role flotilla-repository may be read")
	f.StringVar(&cfg.RepositoryProxySecret, "fleet-proxy-secret", "", "Secret of the agent's namespace with the proxy to it; by the installed Role flotilla-repository-proxy may be read")
	f.DurationVar(&cfg.RepositoryInterval, "fleet-interval", cfg.RepositoryInterval, "between looks at it; members tell each other of a new head of a payload, not of this one")
	f.StringVar(&cfg.MembersDir, "members", "", "folder of FleetMember manifests, for a fleet without a repository")
	f.StringVar(&cfg.DataDir, "data-dir", cfg.DataDir, "fleet state and git mirrors; may be lost, the others bring it back")
	f.StringSliceVar(&cfg.Listen, "listen", nil, "multiaddrs of the mesh, such as /ip4/0.0.0.0/udp/4001/quic-v1; none: this member only dials out")
	f.StringArrayVar(&cfg.Peers, "peer", nil, "multiaddr of a member to dial beside those that the roster gives, ending in /p2p/ and its peer ID; /dns4, /dns6 and /dnsaddr are looked up at every attempt; may be repeated")
	f.BoolVar(&cfg.NoGossip, "no-gossip", false, "leave records to reconciliation, for a site whose line is too slow to hear everything several times")
	f.StringArrayVar(&cfg.Announce, "announce", nil, "multiaddr at which this member can be reached, told to the others where the roster gives none; may be repeated")
	f.StringVar(&cfg.ReadAddr, "read-addr", cfg.ReadAddr, "of the read endpoint (https)")
	f.StringVar(&cfg.MetricsAddr, "metrics-addr", cfg.MetricsAddr, "of /metrics; 0 switches it off")
	f.StringVar(&cfg.ProbeAddr, "probe-addr", cfg.ProbeAddr, "of /livez and /readyz; 0 switches them off")
	f.BoolVar(&cfg.InProcess, "render-in-process", false, "render payloads in the agent's own process; for machines where a process cannot be locked up, and payloads that are trusted")
	f.StringVar(&level, "log-level", "info", "debug, info or error")
	run.AddCommand(idCommand(&cfg.Namespace, &kubeconfig), storeCommand(), versionCommand())
	return run
}

func idCommand(namespace, kubeconfig *string) *cobra.Command {
	return &cobra.Command{
		Use: "id", Short: "Print the peer ID of this cluster's agent; its key is made where there is none", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, err := cluster(*kubeconfig)
			if err != nil {
				return err
			}
			client, err := kubernetes.NewForConfig(config)
			if err != nil {
				return err
			}
			key, err := agent.MemberKey(cmd.Context(), client, *namespace)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), agent.IDOf(key))
			return err
		},
	}
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "flotilla-agent", agent.BuildVersion())
			return err
		},
	}
}

func cluster(kubeconfig string) (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	config.UserAgent = "flotilla-agent/" + agent.BuildVersion()
	// The server's own priority and fairness is the better judge; this only stops a runaway.
	config.QPS, config.Burst = 1000, 2000
	return config, nil
}

func newLog(level string) (logr.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return logr.Logger{}, fmt.Errorf("--log-level %q: debug, info or error", level)
	}
	return logr.FromSlogHandler(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: l})), nil
}
