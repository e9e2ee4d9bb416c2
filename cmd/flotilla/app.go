// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/flotilla-dev/flotilla/cmd/internal/preview"
	"github.com/flotilla-dev/flotilla/cmd/internal/readapi"
)

// app is one run of the command: its streams, its clock, and which cluster it is about.
type app struct {
	genericiooptions.IOStreams
	// name that help texts call the command by.
	name    string
	now     func() time.Time
	color   bool
	version string

	flags *genericclioptions.ConfigFlags
}

// Exit codes.
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2
)

// answerTimeout of a command that asks and prints, where --request-timeout does not say.
const answerTimeout = 30 * time.Second

// usageError is a mistake in how the command was called.
type usageError struct{ error }

func usage(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// run the command and say with which code to exit.
func (a *app) run(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(args)
	root.SetIn(a.In)
	root.SetOut(a.Out)
	root.SetErr(a.ErrOut)
	called, err := root.ExecuteContextC(ctx)
	var wrong usageError
	var coded exit
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &wrong):
		fmt.Fprintf(a.ErrOut, "error: %v\nSee '%s --help'.\n", err, called.CommandPath())
		return exitUsage
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return exitInterrupted // whoever did it knows
	}
	if errors.As(err, &coded) {
		if coded.err != nil {
			a.printError(coded.err)
		}
		return coded.code
	}
	a.printError(err)
	return exitError
}

// printError keeps the lines of what is wrong in files as editors and CI systems read them.
func (a *app) printError(err error) {
	var fault *preview.Fault
	for line := range strings.Lines(err.Error()) {
		line = strings.TrimRight(line, "\n")
		if !errors.As(err, &fault) {
			line = "error: " + line
		}
		fmt.Fprintln(a.ErrOut, plain(line))
	}
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "flotilla",
		Short: "See, explain and stop what a fleet of Kubernetes clusters is doing",
		Long: `Flotilla brings a payload to many clusters, stage by stage, with no hub in the middle.
This command asks any one member of the fleet: the cluster your kubeconfig points at.`,
		Example: `  # what goes where
  flotilla get rollouts -A

  # follow a rollout until it is everywhere (exit 0) or halted (exit 1)
  flotilla watch web -n apps

  # why does us-4 not start?
  flotilla explain web us-4 -n apps

  # stop it, from any cluster of the fleet
  flotilla pause web -n apps --reason "latency is up"`,
		SilenceErrors: true, SilenceUsage: true,
		Args: cobra.ArbitraryArgs,
		RunE: unknownOrHelp,
	}
	if a.name != root.Use {
		root.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: a.name}
	}
	a.flags = genericclioptions.NewConfigFlags(true)
	a.flags.AddFlags(root.PersistentFlags())
	hideRare(root.PersistentFlags())
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.SetUsageTemplate(strings.Replace(root.UsageTemplate(), usageLine, usageLineOfLeaves, 1) + kubeFlagsNote)
	root.AddCommand(a.getCommand(), a.watchCommand(), a.withDefaults(a.explainCommand()), a.planCommand(), a.simulateCommand(), a.renderCommand(), a.diffCommand(), a.lintCommand(),
		a.membersCommand(), a.pauseCommand(), a.resumeCommand(), a.versionCommand(),
		a.treeCommand(), a.eventsCommand(), a.historyCommand(), a.reconcileCommand(), a.verifyCommand(), a.exportCommand(), exitCodesTopic(), a.referenceCommand())
	complete(root, "namespace", a.completeNamespaces)
	a.displayName(root)
	return root
}

// A command with others below it is called with one of them.
const (
	usageLine         = "{{if .Runnable}}\n  {{.UseLine}}"
	usageLineOfLeaves = "{{if and .Runnable (not .HasAvailableSubCommands)}}\n  {{.UseLine}}"
)

const kubeFlagsNote = `{{if .HasAvailableInheritedFlags}}
kubectl's other flags for choosing a cluster and a user (--server, --token, --as, ...) work too.
{{end}}`

// hideRare kubeconfig flags from help texts: they work, and nobody has to read them each time. The
// others are said in a line.
func hideRare(flags *pflag.FlagSet) {
	shown := map[string]string{
		"kubeconfig":      "`file` to find the cluster with",
		"context":         "`name` of the kubeconfig's context",
		"namespace":       "`name` of the namespace; the context's where left out",
		"request-timeout": "`time` that one answer may take, such as 10s",
	}
	flags.VisitAll(func(f *pflag.Flag) {
		f.Hidden = shown[f.Name] == ""
		if !f.Hidden {
			f.Usage = shown[f.Name]
		}
	})
}

// displayName puts the plugin's name into the examples.
func (a *app) displayName(root *cobra.Command) {
	if a.name == "flotilla" {
		return
	}
	var rename func(*cobra.Command)
	rename = func(c *cobra.Command) {
		c.Example = strings.ReplaceAll(c.Example, "  flotilla ", "  "+a.name+" ")
		for _, sub := range c.Commands() {
			rename(sub)
		}
	}
	rename(root)
}

// unknownOrHelp is what a command does that only has others below it.
func unknownOrHelp(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return c.Help()
	}
	c.SuggestionsMinimumDistance = 2
	hint := ""
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		hint = fmt.Sprintf("; did you mean %s?", strings.Join(near, " or "))
	}
	return usage("unknown command %q for %q%s", args[0], c.CommandPath(), hint)
}

// args between least and most, by name for the message.
func args(least, most int, what string) cobra.PositionalArgs {
	return func(c *cobra.Command, given []string) error {
		if len(given) < least || len(given) > most {
			return usage("%s takes %s", c.CommandPath(), what)
		}
		return nil
	}
}

// config of the cluster that the kubeconfig points at.
func (a *app) config() (*rest.Config, error) {
	config, err := a.flags.ToRESTConfig()
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	config.UserAgent = "flotilla/" + a.version
	return config, nil
}

// namespace of the command: -n, else the context's, else default.
func (a *app) namespace() (string, error) {
	ns, _, err := a.flags.ToRawKubeConfigLoader().Namespace()
	if err != nil {
		return "", fmt.Errorf("kubeconfig: %w", err)
	}
	return ns, nil
}

// agent of that cluster.
func (a *app) agent(ctx context.Context) (*readapi.Client, error) {
	config, err := a.config()
	if err != nil {
		return nil, err
	}
	return readapi.Find(ctx, config)
}

// kube gives that cluster's API.
func (a *app) kube() (dynamic.Interface, error) {
	config, err := a.config()
	if err != nil {
		return nil, err
	}
	return dynamic.NewForConfig(config)
}

// soon bounds a command that asks and prints.
func (a *app) soon(ctx context.Context) (context.Context, context.CancelFunc) {
	limit := answerTimeout
	if said, err := time.ParseDuration(*a.flags.Timeout); err == nil && said > 0 {
		limit = said
	}
	return context.WithTimeout(ctx, limit)
}
