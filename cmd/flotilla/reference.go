// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/flotilla-dev/flotilla/cmd/internal/refdocs"
)

// referenceCommand prints docs/reference/cli.md. It is in no help text: whoever has the command has its --help.
func (a *app) referenceCommand() *cobra.Command {
	return &cobra.Command{
		Use: "reference", Short: "Print the reference of all commands, as Markdown", Hidden: true,
		Long:    "Print the reference of all commands, as Markdown. It is docs/reference/cli.md.",
		Example: "  flotilla reference > docs/reference/cli.md",
		Args:    args(0, 0, "nothing"),
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := fmt.Fprint(a.Out, refdocs.CLI(c.Root()))
			return err
		},
	}
}
