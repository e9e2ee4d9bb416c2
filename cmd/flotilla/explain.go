// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/cmd/internal/readapi"
)

type explain struct {
	name, member string
	output       output
}

func (a *app) explainCommand() *cobra.Command {
	var o explain
	c := &cobra.Command{
		Use:   "explain NAME [MEMBER]",
		Short: "Say why a member may or may not go now",
		Long: `Say why a member may or may not start a rollout's release now, check by check, from the facts that
the member your kubeconfig points at holds. Without MEMBER it explains that one.`,
		Example: `  flotilla explain web -n apps
  flotilla explain web us-4 -n apps
  flotilla explain web us-4 -n apps -o json`,
		Args: args(1, 2, "the name of a rollout and, if you like, of a member"),
		RunE: func(c *cobra.Command, names []string) error {
			o.name = names[0]
			if len(names) > 1 {
				o.member = names[1]
			}
			return a.runExplain(c.Context(), o)
		},
		ValidArgsFunction: a.completeRolloutAndMember,
	}
	c.Flags().StringVarP((*string)(&o.output), "output", "o", "", "json or yaml")
	return c
}

func (a *app) runExplain(ctx context.Context, o explain) error {
	if err := o.output.check("json", "yaml"); err != nil {
		return err
	}
	e, err := asking(ctx, a, o.name, func(ctx context.Context, agent *readapi.Client, full fleet.RolloutName) (readapi.Explanation, error) {
		return agent.Explain(ctx, full, fleet.Name(o.member))
	})
	if err != nil {
		return err
	}
	if done, err := o.output.structured(a.Out, e); done {
		return err
	}
	printer{app: a, out: a.Out, width: min(width, a.width())}.explanation(&e)
	return nil
}

// explanation in full: where the member stands, the checks, the decision, and what helps.
func (p printer) explanation(e *readapi.Explanation) {
	fmt.Fprintln(p.out, wrapTo(p.width, opening(e), 0, 0))
	if len(e.Checks) > 0 {
		fmt.Fprintln(p.out)
	}
	name := 0
	for _, c := range e.Checks {
		name = max(name, columns(c.Name))
	}
	for _, c := range e.Checks {
		mark := p.paint(green, "✓")
		if !c.OK {
			mark = p.paint(red, "✗")
		}
		text := c.Text
		if since := p.ago(c.Since); since != "" {
			if text != "" {
				text += ", "
			}
			text += since + " ago"
		}
		indent := 2 + 2 + name + 2
		fmt.Fprintf(p.out, "  %s %s  %s\n", mark, pad(c.Name, name), wrapTo(p.width, text, indent, indent))
	}
	fmt.Fprintf(p.out, "\n%s\n", wrapTo(p.width, e.Sentence+" (seen from "+string(e.SeenFrom)+")", 0, 0))
	for _, help := range e.Helps {
		const to = "to help: "
		fmt.Fprintf(p.out, "%s%s\n", to, wrapTo(p.width, help, len(to), len(to)))
	}
}

// opening says where the member stands before it is said why.
func opening(e *readapi.Explanation) string {
	member, release := string(e.Member), e.Revision.Short()
	if e.Revision == "" {
		return fmt.Sprintf("%s/%s has no release yet; %s sees:", e.Namespace, e.Rollout, e.SeenFrom)
	}
	subject := member
	if e.Runs != "" && e.Runs != e.Revision {
		subject = fmt.Sprintf("%s runs %s. It", member, e.Runs.Short())
	}
	switch e.Verdict {
	case "Go":
		if e.State == "Pending" {
			return fmt.Sprintf("%s may start %s:", subject, release)
		}
		return fmt.Sprintf("%s has started %s:", subject, release)
	case "Done":
		return fmt.Sprintf("%s succeeded with %s:", subject, release)
	case "Out":
		return fmt.Sprintf("%s has no part in %s:", subject, release)
	}
	return fmt.Sprintf("%s may not start %s:", subject, release)
}
