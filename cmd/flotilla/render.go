// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/cmd/internal/preview"
)

type render struct {
	files   []string
	members string
	member  string
	payload string
}

func (a *app) renderCommand() *cobra.Command {
	var o render
	c := &cobra.Command{
		Use:   "render -f FILE --member NAME --payload FOLDER",
		Short: "Print what one member would run",
		Long: `Print the objects that a member would get, as YAML: the payload's files from a folder of this
machine, built as the member's agent builds them. It needs no cluster. Nothing outside of the payload's
folder is read.`,
		Example: `  flotilla render -f rollouts/web.yaml --member eu-3 --members members/ --payload ../web
  flotilla render -f web.yaml --member eu-3 --members members/ --payload . | kubectl diff -f -`,
		Args: args(0, 0, "no names: give files with -f"),
		RunE: func(c *cobra.Command, _ []string) error { return a.runRender(c.Context(), o) },
	}
	c.Flags().StringArrayVarP(&o.files, "filename", "f", nil, "file with the rollout, - for standard input")
	c.Flags().StringVar(&o.member, "member", "", "the member to render for")
	c.Flags().StringVar(&o.members, "members", "", "file or folder with the FleetMembers; the cluster's where left out")
	c.Flags().StringVar(&o.payload, "payload", "", "folder with the payload: a checkout of spec.source")
	return c
}

func (a *app) runRender(ctx context.Context, o render) error {
	switch {
	case o.member == "":
		return usage("say for whom: --member NAME")
	case o.payload == "":
		return usage("say where the payload is: --payload FOLDER, a checkout of the rollout's source")
	}
	rollouts, beside, err := a.readRollouts(o.files)
	if err != nil {
		return err
	}
	if len(rollouts) != 1 {
		return fmt.Errorf("%d rollouts; give a file with one", len(rollouts))
	}
	roster, err := a.roster(ctx, o.members, beside)
	if err != nil {
		return err
	}
	out, err := preview.Render(&rollouts[0].FleetRollout, roster, fleet.Name(o.member), o.payload)
	if err != nil {
		return err
	}
	if !out.Targeted {
		fmt.Fprintf(a.ErrOut, "note: the rollout is not for %s: %s\n", o.member, out.Because)
	}
	_, err = a.Out.Write(out.YAML)
	return err
}
