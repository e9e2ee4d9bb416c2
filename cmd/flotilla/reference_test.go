// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Every command says what it does, in a line and at length, and shows how it is called; every flag says what it is for.
func TestEveryCommandIsExplained(t *testing.T) {
	seen := 0
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		name := c.CommandPath()
		if c.Name() == "completion" || c.Name() == "help" || c.IsAdditionalHelpTopicCommand() {
			return
		}
		seen++
		if c.Short == "" || strings.HasSuffix(c.Short, ".") || len(c.Short) > 80 {
			t.Errorf("%s: Short %q", name, c.Short)
		}
		if c.Runnable() && !c.HasAvailableSubCommands() {
			if !strings.HasSuffix(strings.TrimSpace(c.Long), ".") {
				t.Errorf("%s: Long %q", name, c.Long)
			}
			if !strings.Contains(c.Example, "  flotilla ") {
				t.Errorf("%s: Example %q", name, c.Example)
			}
		}
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden && (f.Usage == "" || strings.HasSuffix(f.Usage, ".")) {
				t.Errorf("%s: --%s: usage %q", name, f.Name, f.Usage)
			}
		})
		for _, below := range c.Commands() {
			walk(below)
		}
	}
	walk(newApp("flotilla").root())
	if seen < 12 {
		t.Errorf("only %d commands", seen)
	}
}
