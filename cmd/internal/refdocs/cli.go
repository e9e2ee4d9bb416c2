// SPDX-License-Identifier: Apache-2.0

package refdocs

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// CLI is the page of a command and all below it.
func CLI(root *cobra.Command) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s# %s\n\n%s\n", generated, root.Name(), root.Long)
	if flags := flagsOf(root.PersistentFlags()); flags != "" {
		b.WriteString("\nEvery command takes these, and kubectl's other flags for choosing a cluster and a user:\n\n" + flags)
	}
	for _, c := range root.Commands() {
		command(&b, c)
	}
	return b.String()
}

func command(b *strings.Builder, c *cobra.Command) {
	if c.Hidden || c.Name() == "help" || c.Name() == "completion" {
		return
	}
	if c.IsAdditionalHelpTopicCommand() {
		fmt.Fprintf(b, "\n## %s\n\n```\n%s\n```\n", c.Short, strings.TrimSpace(c.Long))
		return
	}
	fmt.Fprintf(b, "\n## %s\n\n%s.\n", c.CommandPath(), strings.TrimSuffix(c.Short, "."))
	if c.Runnable() && !c.HasAvailableSubCommands() {
		fmt.Fprintf(b, "\n```\n%s\n```\n", c.UseLine())
	}
	if c.Long != "" {
		fmt.Fprintf(b, "\n%s\n", c.Long)
	}
	if len(c.Aliases) > 0 {
		fmt.Fprintf(b, "\nAlso: `%s`\n", strings.Join(c.Aliases, "`, `"))
	}
	if c.Example != "" {
		fmt.Fprintf(b, "\n```sh\n%s\n```\n", dedent(c.Example))
	}
	if flags := flagsOf(c.NonInheritedFlags()); flags != "" {
		b.WriteString("\n" + flags)
	}
	for _, below := range c.Commands() {
		command(b, below)
	}
}

func flagsOf(flags *pflag.FlagSet) string {
	var rows []string
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		kind, usage := pflag.UnquoteUsage(f)
		name := "`--" + f.Name
		if f.Shorthand != "" {
			name = "`-" + f.Shorthand + "`, " + name
		}
		if kind != "" {
			name += " " + kind
		}
		preset := ""
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "[]" && f.DefValue != "0" && f.DefValue != "0s" {
			preset = "`" + f.DefValue + "`"
		}
		rows = append(rows, fmt.Sprintf("| %s` | %s | %s |", name, cell(usage), preset))
	})
	if len(rows) == 0 {
		return ""
	}
	return "| flag | | default |\n|---|---|---|\n" + strings.Join(rows, "\n") + "\n"
}

// dedent takes the two columns off that help texts have.
func dedent(s string) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	for i := range lines {
		lines[i] = strings.TrimPrefix(lines[i], "  ")
	}
	return strings.Join(lines, "\n")
}
