// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/cmd/internal/preview"
	"github.com/flotilla-dev/flotilla/cmd/internal/readapi"
)

type defaults struct {
	show    bool
	files   []string
	members string
}

// withDefaults adds to explain what it says of a file: what counts where nothing was written.
func (a *app) withDefaults(c *cobra.Command) *cobra.Command {
	var o defaults
	c.Use = "explain NAME [MEMBER] | --defaults -f FILE"
	c.Long += `

With --defaults it asks nobody: it reads a rollout from a file and prints every field that counts, with
where its value comes from. With --members the stages that nobody wrote are among them.`
	c.Example += `

  # what counts in this file, written or not
  flotilla explain --defaults -f rollouts/web.yaml`
	positional, run := c.Args, c.RunE
	c.Args = func(c *cobra.Command, names []string) error {
		switch {
		case o.show && len(names) > 0:
			return usage("--defaults takes no names: give the rollout's file with -f")
		case o.show:
			return nil
		case len(o.files) > 0 || o.members != "":
			return usage("-f and --members go with --defaults")
		}
		return positional(c, names)
	}
	c.RunE = func(c *cobra.Command, names []string) error {
		if !o.show {
			return run(c, names)
		}
		return a.runDefaults(c, o)
	}
	c.Flags().BoolVar(&o.show, "defaults", false, "explain the fields of a file instead, with the defaults")
	c.Flags().StringArrayVarP(&o.files, "filename", "f", nil, "with --defaults: `file` with the rollout, - for standard input")
	c.Flags().StringVar(&o.members, "members", "", "with --defaults: `file` or folder with the FleetMembers")
	return c
}

// explained is a rollout's settings, for programs.
type explained struct {
	Namespace string             `json:"namespace,omitempty"`
	Name      string             `json:"name"`
	Settings  []v1alpha1.Setting `json:"settings"`
}

func (a *app) runDefaults(c *cobra.Command, o defaults) error {
	format := output(c.Flag("output").Value.String())
	if err := format.check("json", "yaml"); err != nil {
		return err
	}
	rollouts, beside, err := a.readRollouts(o.files)
	if err != nil {
		return err
	}
	var roster []fleet.Member
	if o.members != "" || len(beside) > 0 {
		if roster, err = a.roster(c.Context(), o.members, beside); err != nil {
			return err
		}
	}
	var all []explained
	for i := range rollouts {
		r := &rollouts[i]
		settings, err := preview.Effective(&r.FleetRollout, roster)
		if err != nil {
			return &preview.Fault{Where: r.Where, Err: err}
		}
		all = append(all, explained{r.Namespace, r.Name, settings})
	}
	if done, err := format.structured(a.Out, readapi.List[explained]{Items: all}); done {
		return err
	}
	for i, e := range all {
		if i > 0 {
			fmt.Fprintln(a.Out)
		}
		fmt.Fprintf(a.Out, "%s/%s\n", e.Namespace, e.Name)
		a.printSettings(e.Settings)
	}
	return nil
}

func (a *app) printSettings(settings []v1alpha1.Setting) {
	rows := make([][]string, len(settings))
	for i, s := range settings {
		rows[i] = []string{"  " + s.Field, plain(s.Value), s.From}
		if s.From == v1alpha1.FromSpec {
			rows[i][2] = ""
		}
	}
	table(a.Out, rows)
}
