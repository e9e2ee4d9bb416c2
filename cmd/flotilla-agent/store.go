// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"

	"github.com/flotilla-dev/flotilla/cmd/internal/agent"
)

// Exit codes of store check beside 0, which is sound.
const (
	exitUnsound    = 1
	exitUnreadable = 2
)

func storeCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "store", Short: "Look at the fleet state on disk", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(storeCheckCommand())
	return c
}

func storeCheckCommand() *cobra.Command {
	o := agent.StoreCheck{DataDir: agent.DefaultConfig().DataDir}
	c := &cobra.Command{
		Use: "check [FILE]", Short: "Say what is in the fleet state on disk and whether it is sound; nothing is changed",
		Long: `Says what is in the fleet state on disk and whether it is sound. It changes nothing, needs no cluster,
and refuses a file that an agent is at work with.

Exit codes: 0 it is sound; 1 something is wrong, and each finding says what the agent makes of it and
what is left to do; 2 it cannot be read.`,
		Example: `  flotilla-agent store check --data-dir /var/lib/flotilla
  flotilla-agent store check fleet.db.corrupt-1 -o json`,
		Args: func(c *cobra.Command, files []string) error { return unreadable(cobra.MaximumNArgs(1)(c, files)) },
		RunE: func(c *cobra.Command, files []string) error {
			if len(files) == 1 {
				o.File = files[0]
			}
			sound, err := agent.CheckStore(c.OutOrStdout(), o)
			if err == nil && !sound {
				return exit{exitUnsound, nil}
			}
			return unreadable(err)
		},
	}
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return unreadable(err) })
	f := c.Flags()
	f.StringVar(&o.DataDir, "data-dir", o.DataDir, "folder of the agent, where no FILE is given")
	f.StringVar(&o.Fleet, "fleet", "", "name of the fleet that every record has to be of; left out: of any one")
	f.StringVarP(&o.Output, "output", "o", "", "json, or a table where left out")
	return c
}

func unreadable(err error) error {
	if err == nil {
		return nil
	}
	return exit{exitUnreadable, err}
}
