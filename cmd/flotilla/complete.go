// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// completionPatience with a cluster: who presses a key does not want to wait for one that is away.
const completionPatience = 2 * time.Second

// completer completes an argument or the value of a flag.
type completer = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective)

// completeRollouts of the namespace, for the first so many arguments; 0 is all of them.
func (a *app) completeRollouts(most int) completer {
	return func(c *cobra.Command, given []string, begun string) ([]string, cobra.ShellCompDirective) {
		if most > 0 && len(given) >= most {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return a.quickly(c, begun, given, func(ctx context.Context) ([]string, error) {
			names, err := a.rolloutNames(ctx, false)
			var out []string
			for _, n := range names {
				out = append(out, n.Name)
			}
			return out, err
		})
	}
}

// completeRolloutAndMember of commands that take both.
func (a *app) completeRolloutAndMember(c *cobra.Command, given []string, begun string) ([]string, cobra.ShellCompDirective) {
	switch len(given) {
	case 0:
		return a.completeRollouts(1)(c, given, begun)
	case 1:
		return a.completeMembers(c, nil, begun)
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}

// completeMembers of the fleet.
func (a *app) completeMembers(c *cobra.Command, given []string, begun string) ([]string, cobra.ShellCompDirective) {
	return a.quickly(c, begun, given, func(ctx context.Context) ([]string, error) {
		members, err := a.members(ctx)
		var out []string
		for _, m := range members {
			out = append(out, string(m.Name))
		}
		return out, err
	})
}

// completeNamespaces that have rollouts.
func (a *app) completeNamespaces(c *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
	return a.quickly(c, begun, nil, func(ctx context.Context) ([]string, error) {
		names, err := a.rolloutNames(ctx, true)
		var out []string
		for _, n := range names {
			out = append(out, n.Namespace)
		}
		return out, err
	})
}

// quickly ask, and say nothing of what went wrong: there is nowhere to say it.
func (a *app) quickly(c *cobra.Command, begun string, given []string, ask func(context.Context) ([]string, error)) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(c.Context(), completionPatience)
	defer cancel()
	found, err := ask(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	found = slices.DeleteFunc(found, func(s string) bool { return !strings.HasPrefix(s, begun) || slices.Contains(given, s) })
	slices.Sort(found)
	return slices.Compact(found), cobra.ShellCompDirectiveNoFileComp
}

// fixed words that a flag takes.
func fixed(c *cobra.Command, flag string, words ...string) {
	complete(c, flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
}

func complete(c *cobra.Command, flag string, by completer) {
	if err := c.RegisterFlagCompletionFunc(flag, by); err != nil {
		panic(errors.Join(errors.New("the flag is defined where this is called"), err))
	}
}
