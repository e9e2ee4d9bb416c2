// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/flotilla-dev/flotilla/cmd/internal/readapi"
)

// States of what a member holds, for --state.
var holdStates = []string{"same", "differs", "unknown", "hearsay", "quiet", "doubted", "alone", "duplicate", "forked"}

// holdColumns of the table.
var holdColumns = []column{
	{head: "NAME"}, {head: "ZONE"}, {head: "AGE", loose: true}, {head: "ANCHOR"}, {head: "STATE"}, {head: "ROOT"}, {head: "CONNECTED"},
	{head: "VERSION", wide: true}, {head: "AGENT", wide: true}, {head: "ID", wide: true},
}

// membersCommand lists the same members as get members, by what they hold.
func (a *app) membersCommand() *cobra.Command {
	o := getMembers{listing: listing{kind: "members", columns: holdColumns}, known: holdStates, row: holdCells}
	o.words = holdWords
	c := &cobra.Command{
		Use:   "members [NAME...]",
		Short: "Show who holds the same state of the fleet, as one member hears the others",
		Long: `Show the members of the fleet, and whether each holds the same state as the member that your
kubeconfig points at, as that one hears them.

AGE is the time since it was heard last. STATE is "same" where it holds the same records, or since
when it differs: some seconds while news travel. ROOT names all that it holds: equal roots, equal
records. In words stand: hearsay (only a neighbour heard it, AGE ago or longer), quiet (nothing for
three of its heartbeats: no news), doubted (members next to it lost it), alone (the member that answers hears nobody), duplicate (two live agents use its key) and
forked (its key signed two things at once; what it says counts for nothing).`,
		Example: `  flotilla members
  flotilla members --state differs,forked,duplicate
  flotilla members -l region=eu -w`,
		RunE: func(c *cobra.Command, names []string) error {
			o.names = names
			return a.runGetMembers(c.Context(), o)
		},
		ValidArgsFunction: a.completeMembers,
	}
	o.chooseBy(c, "STATE")
	return c
}

// holdCells by holdColumns.
func holdCells(m readapi.FleetMember) []cell {
	root := "-"
	if !m.Root.IsZero() {
		root = m.Root.Short()
	}
	words := holdWords(m)
	state := cell{text: strings.Join(words, ", "), news: strings.Join(words, ", "), color: yellow}
	switch {
	case m.Forked || m.Duplicate:
		state.color = red
	case words[0] == "same" && len(words) == 1:
		state.color = green
	}
	if m.DiffersSeconds > 0 && !m.SameState && !m.Self {
		state.text = strings.Replace(state.text, "differs", "differs "+age(seconds(m.DiffersSeconds)), 1)
	}
	heard := heardCell(m)
	heard.text = strings.TrimSuffix(heardWords("", m.HeardSeconds, m.Self), " ago")
	out := append(text(string(m.Name), m.Zone), heard, cell{text: yes(m.Anchor)}, state)
	return append(out, text(root, yes(m.Connected || m.Self), orDash(m.KubernetesVersion), orDash(m.AgentVersion), string(m.ID))...)
}

// holdWords of a member: what it holds, and what is amiss with it.
func holdWords(m readapi.FleetMember) []string {
	var out []string
	switch {
	case m.Self || m.SameState:
		out = append(out, "same")
	case m.HeardSeconds == nil && m.Root.IsZero():
		out = append(out, "unknown")
	default:
		out = append(out, "differs")
	}
	for _, flag := range []struct {
		is   bool
		word string
	}{
		{m.Hearsay, "hearsay"}, {m.Presence == readapi.PresenceQuiet, "quiet"}, {m.Doubted, "doubted"}, {m.Presence == readapi.PresenceAlone, "alone"},
		{m.Duplicate, "duplicate"}, {m.Forked, "forked"},
	} {
		if flag.is {
			out = append(out, flag.word)
		}
	}
	return out
}
