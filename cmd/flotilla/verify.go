// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/flotilla-dev/flotilla/cmd/internal/audit"
)

// exportTimeout of an export where --request-timeout does not say: it is the whole state of a fleet.
const exportTimeout = 5 * time.Minute

// settleTime is how long something that is missing may be on its way.
const settleTime = 10 * time.Second

type verification struct {
	from    []string
	members string
	settle  time.Duration
	output  output
}

func (a *app) verifyCommand() *cobra.Command {
	var o verification
	c := &cobra.Command{
		Use:   "verify",
		Short: "Check by what the members signed whether the fleet kept its rules",
		Long: `Check by what the members signed whether the fleet kept its rules: windows, gates, order, stops, one
word per member. It asks the member that your kubeconfig points at for all records that it holds, or
reads what 'flotilla export' wrote. It believes nobody: every signature is checked, every plan is
compiled anew, and every start is counted again.

A rule is kept, broken, or cannot be judged, because a record that would decide it is not there; then
it says whose. Members' clocks only hint. Several exports, of several members or of several days, are
judged as one: what one of them lacks another may have, and a member that told two stories is found.

Whose key is whose says the roster, by default the one in the exports; give your own with --members.
Ends with exit code 1 where a rule is broken. What is missing is no breach.`,
		Example: `  flotilla verify
  flotilla verify --members members/

  # without a cluster, and as one: what two members held
  flotilla export --context eu-1 > eu-1.facts
  flotilla export --context us-1 > us-1.facts
  flotilla verify --from eu-1.facts --from us-1.facts -o json`,
		Args: args(0, 0, "no names"),
		RunE: func(c *cobra.Command, _ []string) error { return a.runVerify(c.Context(), &o) },
	}
	f := c.Flags()
	f.StringArrayVar(&o.from, "from", nil, "`file` that 'flotilla export' wrote, - for standard input (may be repeated); no cluster is asked then")
	f.StringVar(&o.members, "members", "", "`file` or folder with the FleetMembers to believe")
	f.DurationVar(&o.settle, "settle", settleTime, "`time` that a missing record may take to arrive before a live fleet is accused")
	f.StringVarP((*string)(&o.output), "output", "o", "", "json or yaml")
	fixed(c, "output", "json", "yaml")
	return c
}

func (a *app) exportCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "export",
		Short: "Write all that the members signed, as one of them holds it",
		Long: `Write all records that the member your kubeconfig points at holds, with their signatures, the seals
that they are about and the roster, to standard output: one JSON object a line. 'flotilla verify --from'
judges it, wherever that is. It holds what rollouts say and which members there are, and no addresses
and no secrets.

Agents retire old records. Whoever wants to prove later what happened keeps exports.`,
		Example: `  flotilla export > fleet.facts
  flotilla export | flotilla verify --from -`,
		Args: args(0, 0, "no names"),
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := a.askFacts(c.Context(), a.Out)
			return err
		},
	}
}

// askFacts of the member that the kubeconfig points at.
func (a *app) askFacts(ctx context.Context, copied io.Writer) (audit.Input, error) {
	limit := exportTimeout
	if said, err := time.ParseDuration(*a.flags.Timeout); err == nil && said > 0 {
		limit = said
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	agent, err := a.agent(ctx)
	if err != nil {
		return audit.Input{}, err
	}
	header, evidence, err := agent.Facts(ctx, copied)
	return audit.Input{From: "member " + string(header.By), Header: header, Evidence: evidence}, err
}

func (a *app) runVerify(ctx context.Context, o *verification) error {
	if err := o.output.check("json", "yaml"); err != nil {
		return err
	}
	if o.settle < 0 {
		return usage("--settle %s: a time, such as 10s; 0s does not wait", o.settle)
	}
	var trusted audit.Trusted
	if o.members != "" {
		members, err := a.roster(ctx, o.members, nil)
		if err != nil {
			return err
		}
		trusted = audit.Trusted{From: o.members, Members: members}
	}
	report, err := a.judge(ctx, o, trusted)
	if err != nil {
		return err
	}
	done, err := o.output.structured(a.Out, report)
	switch {
	case err != nil:
		return err
	case !done:
		a.printVerdicts(&report)
	}
	if report.Verdict == audit.Broken {
		return exit{code: exitError}
	}
	return nil
}

// judge files, or the fleet. A live fleet that seems to have broken a rule for want of a record is looked at once more.
func (a *app) judge(ctx context.Context, o *verification, trusted audit.Trusted) (audit.Report, error) {
	if len(o.from) > 0 {
		inputs, err := audit.ReadFiles(o.from, a.In)
		if err != nil {
			return audit.Report{}, err
		}
		return audit.Judge(inputs, trusted)
	}
	for look := 0; ; look++ {
		input, err := a.askFacts(ctx, nil)
		if err != nil {
			return audit.Report{}, err
		}
		report, err := audit.Judge([]audit.Input{input}, trusted)
		if err != nil || look > 0 || o.settle == 0 || !report.Absences() {
			return report, err
		}
		fmt.Fprintf(a.ErrOut, "note: something is missing that may be on its way; looking again in %s\n", plainDuration(o.settle))
		select {
		case <-ctx.Done():
			return audit.Report{}, ctx.Err()
		case <-time.After(o.settle):
		}
	}
}

// mostTold findings of a rule that are printed; -o json has them all.
const mostTold = 5

// printVerdicts on one screen: what was looked at, each rule, and of what is not kept the story.
func (a *app) printVerdicts(r *audit.Report) {
	for _, e := range r.Exports {
		when := ""
		if !e.Time.IsZero() {
			when = ", " + e.Time.UTC().Format(time.RFC3339)
		}
		fmt.Fprintf(a.Out, "%s: %s as %s held them%s\n", plain(e.From), plural(e.Records, "record"), plain(string(e.By)), when)
	}
	fmt.Fprintf(a.Out, "%s, %s checked, %s in %s", plural(r.Members, "member"), plural(r.Records, "signature"), plural(r.Plans, "plan"), plural(r.Rollouts, "rollout"))
	if missing := r.Plans - r.Judged; missing > 0 {
		fmt.Fprintf(a.Out, " (%d without a seal that can be used)", missing)
	}
	fmt.Fprintln(a.Out)
	if r.Roster.Own {
		fmt.Fprintf(a.Out, "roster: yours, %s\n\n", plain(r.Roster.From))
	} else {
		fmt.Fprint(a.Out, "roster: the one in the exports, which nobody signed; --members gives your own\n\n")
	}
	for i := range r.Rules {
		a.printRule(&r.Rules[i])
	}
	fmt.Fprintln(a.Out)
	switch {
	case r.Records == 0:
		fmt.Fprintln(a.Out, a.paint(yellow, "There was nothing to look at."))
	case r.Verdict == audit.Broken:
		fmt.Fprintln(a.Out, a.paint(red, "BROKEN: "+brokenRules(r)))
	case r.Verdict == audit.Unjudged:
		fmt.Fprintln(a.Out, a.paint(yellow, "Nothing is broken; some of it cannot be judged."))
	default:
		fmt.Fprintln(a.Out, a.paint(green, "All rules were kept."))
	}
}

func brokenRules(r *audit.Report) string {
	var ids []string
	for i := range r.Rules {
		if r.Rules[i].Verdict == audit.Broken {
			ids = append(ids, r.Rules[i].ID)
		}
	}
	return strings.Join(ids, ", ")
}

func (a *app) printRule(r *audit.Rule) {
	mark, color := "✓", green
	switch {
	case r.Verdict == audit.Broken:
		mark, color = "✗", red
	case r.Verdict == audit.Unjudged:
		mark, color = "?", yellow
	case r.Checked == 0:
		mark, color = "-", grey
	}
	looks := "nothing to look at"
	if r.Checked > 0 {
		looks = fmt.Sprint(r.Checked)
	}
	fmt.Fprintf(a.Out, "%s %s%s (%s)\n", a.paint(color, mark), pad(r.ID, 8), r.What, looks)
	a.printFindings(r, true)
	a.printFindings(r, false)
}

// printFindings of one verdict: the broken ones with the records that show them, the others with what they lack.
func (a *app) printFindings(r *audit.Rule, broken bool) {
	told, left := 0, 0
	for i := range r.Findings {
		f := &r.Findings[i]
		switch {
		case (f.Verdict == audit.Broken) != broken:
		case told == mostTold:
			left++
		default:
			told++
			a.printFinding(f)
		}
	}
	if left > 0 {
		fmt.Fprintf(a.Out, "    and %d more; -o json has them\n", left)
	}
}

// mostSaid records that a finding shows.
const mostSaid = 4

func (a *app) printFinding(f *audit.Finding) {
	const indent = 4
	where := strings.TrimSpace(f.Rollout + " " + f.Revision.Short())
	if f.Rollout == "" && !f.Plan.IsZero() {
		where = "plan " + f.Plan.Short()
	}
	story := strings.TrimPrefix(where+": "+f.Story, ": ")
	for _, l := range f.Lacks {
		story += "; " + lackWords(l)
	}
	fmt.Fprintf(a.Out, "    %s\n", wrap(story, indent, indent))
	if f.Verdict != audit.Broken {
		return
	}
	for i, s := range f.Said {
		if i == mostSaid {
			fmt.Fprintf(a.Out, "      and %s more\n", plural(len(f.Said)-i, "record"))
			break
		}
		when := ""
		if s.Time > 0 {
			when = ", " + time.Unix(s.Time, 0).UTC().Format(time.RFC3339)
		}
		format := "      %s signed %s (%d.%d%s)\n"
		if s.Forged {
			format = "      in the name of %s, and not signed by it: %s (%d.%d%s)\n"
		}
		fmt.Fprintf(a.Out, format, plain(string(s.Writer)), plain(s.What), s.Epoch, s.Seq, when)
	}
}

// lackWords say what would decide it.
func lackWords(l audit.Lack) string {
	var names []string
	for _, m := range l.Members {
		names = append(names, string(m))
	}
	who := someOf(names)
	switch l.Why {
	case audit.NotHeard:
		return "what " + who + " said may not be all here: export from there"
	case audit.Retired:
		return who + " has retired old records"
	case audit.Lost:
		return who + " has gone on since, and says older things again nowhere: an older export may have them"
	case audit.NoSeal:
		return "no export has it: one from before may"
	case audit.NoVersion:
		return "a newer flotilla can judge it"
	case audit.ByClocks:
		return "clocks may be wrong, so it is no breach"
	case audit.Disbelieved:
		return who + " was believed then and is not any more"
	case audit.Stranger:
		return "what it says counts for nothing here"
	}
	return string(l.Why)
}
