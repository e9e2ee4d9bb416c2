// SPDX-License-Identifier: Apache-2.0

// Devfleet answers: where do real Kubernetes control planes come from on a machine without containers?
// One process is one cluster: etcd, API server, controller manager, scheduler and a fake node whose pods run at once.
//
//	devfleet up -f TOPOLOGY [--member NAME]... [--dir DIR]   run the members of a topology until stopped
//	devfleet member --name NAME [--dir DIR]                  run one member, with the data it had before
//	devfleet status [--dir DIR]                              list what is there and what runs
//	devfleet down [--member NAME]... [--dir DIR]             stop what runs there
//	devfleet kubeconfig MEMBER [--service-account NS/NAME]   print the path of a kubeconfig
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/spf13/pflag"
)

const usage = `Real Kubernetes control planes, one process each, on loopback.

  devfleet up -f TOPOLOGY [--member NAME]...               run the members of a topology until stopped
  devfleet member --name NAME                              run one member, with the data it had before
  devfleet status                                          list what is there and what runs
  devfleet down [--member NAME]...                         stop what runs there
  devfleet kubeconfig MEMBER [--service-account NS/NAME]   print the path of a kubeconfig

Every command takes --dir DIR; the default is %s.
A pod with the annotation devfleet.flotilla.dev/health: bad, or with "bad" in the tag of an image, never gets ready.
`

func main() {
	// Members send standard error to their log; what is meant for people goes to this copy.
	stderr, err := copyOf(os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "devfleet:", err)
		os.Exit(1)
	}
	if err := run(context.Background(), os.Args[1:], os.Stdout, stderr); err != nil {
		fmt.Fprintln(stderr, "devfleet:", err)
		os.Exit(1)
	}
}

func copyOf(f *os.File) (*os.File, error) {
	fd, err := syscall.Dup(int(f.Fd()))
	if err != nil {
		return nil, fmt.Errorf("copy of %s: %w", f.Name(), err)
	}
	syscall.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// command is one of the program's commands: what it sets from its flags, and what it then does with what is left.
type command struct {
	flags *pflag.FlagSet
	args  int // how many arguments besides flags
	run   func(ctx context.Context, args []string) error
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	dir, err := defaultDir(os.Getenv)
	if err != nil {
		return err
	}
	if len(args) == 0 || args[0] == "help" || args[0] == "-h" || args[0] == "--help" {
		_, err := fmt.Fprintf(stdout, usage, dir)
		return err
	}
	c, ok := commands(dir, stdout, stderr)[args[0]]
	if !ok {
		return fmt.Errorf("no command %q: devfleet help lists them", args[0])
	}
	c.flags.SetOutput(stderr)
	if err := c.flags.Parse(args[1:]); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return nil
		}
		return fmt.Errorf("%s: %w", args[0], err)
	}
	if c.flags.NArg() != c.args {
		return fmt.Errorf("%s: takes %d arguments, not %d: devfleet help shows how", args[0], c.args, c.flags.NArg())
	}
	return c.run(ctx, c.flags.Args())
}

func commands(dir string, stdout, stderr io.Writer) map[string]command {
	flags := func(name string) *pflag.FlagSet {
		set := pflag.NewFlagSet(name, pflag.ContinueOnError)
		set.StringVar(&dir, "dir", dir, "folder that holds a folder for each member")
		return set
	}
	var up upOptions
	upFlags := flags("up")
	upFlags.StringVarP(&up.topology, "file", "f", "", "topology: one member a line")
	upFlags.StringArrayVar(&up.only, "member", nil, "only this member; may be given more than once")

	var member memberOptions
	memberFlags := flags("member")
	memberFlags.StringVar(&member.name, "name", "", "name of the member")
	memberFlags.BoolVar(&member.child, "child", false, "end when standard input ends")
	_ = memberFlags.MarkHidden("child")

	var only []string
	downFlags := flags("down")
	downFlags.StringArrayVar(&only, "member", nil, "only this member; may be given more than once")

	var account string
	kubeconfigFlags := flags("kubeconfig")
	kubeconfigFlags.StringVar(&account, "service-account", "", "namespace/name of an existing service account; its token holds 24 hours")

	return map[string]command{
		"up": {flags: upFlags, run: func(ctx context.Context, _ []string) error {
			if up.topology == "" {
				return errors.New("up: name a topology file with -f")
			}
			up.dir = dir
			return runUp(ctx, up, stdout, stderr)
		}},
		"member": {flags: memberFlags, run: func(ctx context.Context, _ []string) error {
			if member.name == "" {
				return errors.New("member: name the member with --name")
			}
			member.dir = dir
			return runMember(ctx, member, stdout)
		}},
		"status": {flags: flags("status"), run: func(ctx context.Context, _ []string) error {
			return runStatus(ctx, dir, stdout)
		}},
		"down": {flags: downFlags, run: func(ctx context.Context, _ []string) error {
			return runDown(ctx, dir, only, stdout)
		}},
		"kubeconfig": {flags: kubeconfigFlags, args: 1, run: func(ctx context.Context, args []string) error {
			return runKubeconfig(ctx, dir, args[0], account, stdout)
		}},
	}
}

// defaultDir follows the XDG rules for state that outlives a run.
func defaultDir(getenv func(string) string) (string, error) {
	state := getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(state) {
		home := getenv("HOME")
		if home == "" {
			return "", fmt.Errorf("neither XDG_STATE_HOME nor HOME is set")
		}
		state = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(state, "flotilla", "devfleet"), nil
}
