// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/cmd/internal/sim"
)

// simulation is what `flotilla simulate -o json` prints. Times are seconds from the moment the release was there.
type simulation struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Members   int    `json:"members"`
	Fleet     int    `json:"fleet"`
	// Weather that was asked for; the shares are 0 to 1.
	Weather struct {
		sim.Weather
		OfflineForSeconds float64 `json:"offlineForSeconds,omitempty"`
		RTTSeconds        float64 `json:"rttSeconds"`
		ApplySeconds      float64 `json:"applySeconds"`
	} `json:"weather"`
	Suspended bool   `json:"suspended,omitempty"`
	FirstSeed uint64 `json:"firstSeed"`
	sim.Forecast
	// Again plays the worst seed once more and tells it.
	Again string `json:"again"`
	again []string
	// Plays in the order of their seeds, without who waits for whom: the worst one says that.
	Plays []sim.Played `json:"plays"`
}

func simulationOf(play *sim.Play, o *simulate, played []sim.Played) simulation {
	s := simulation{
		Namespace: play.Name.Namespace, Name: play.Name.Name, Members: len(play.Targets), Fleet: len(play.Fleet),
		Suspended: play.Spec.Suspend, FirstSeed: o.first, Forecast: sim.Sum(played), Plays: played,
	}
	s.Weather.Weather = play.Weather
	s.Weather.OfflineForSeconds, s.Weather.RTTSeconds, s.Weather.ApplySeconds = o.offlineFor.Seconds(), o.rtt.Seconds(), o.applyTime.Seconds()
	s.again = append(slices.Clone(o.again), fmt.Sprintf("--seed %d", s.Worst.Seed), "--story")
	s.Again = strings.Join(s.again, " ")
	for i := range s.Plays {
		s.Plays[i].Waits, s.Plays[i].Story = nil, nil
	}
	return s
}

func (a *app) printSimulation(s *simulation, play *sim.Play) {
	for _, line := range s.Worst.Story {
		fmt.Fprintln(a.Out, plain(line))
	}
	if len(s.Worst.Story) > 0 {
		fmt.Fprintln(a.Out)
	}
	fmt.Fprintln(a.Out, wrap(fmt.Sprintf("%s/%s: %d of %s, %s; %s", s.Namespace, s.Name, s.Members, plural(s.Fleet, "member"), plural(s.Seeds, "seed"), weatherWords(play)), 0, 2))
	rows := [][]string{{"  STAGE", "CLUSTERS", "FIRST START", "LAST START", "PASSED"}}
	for i := range s.Stages {
		stage := &s.Stages[i]
		rows = append(rows, []string{
			fmt.Sprintf("  %d %s", i+1, stage.Name), fromTo(stage.Least, stage.Most), spreadWords(stage.FirstStart), spreadWords(stage.LastStart), spreadWords(stage.Passed),
		})
	}
	table(a.Out, rows)
	if s.Seeds > 1 {
		fmt.Fprintf(a.Out, "  the median of the seeds (and the worst)\n")
	}
	fmt.Fprintln(a.Out)
	for _, line := range endWords(s) {
		fmt.Fprintln(a.Out, wrap(line, 0, 2))
	}
	a.printWorst(s)
	fmt.Fprintf(a.Out, "\n%s\n", a.paint(grey, wrap(unplayed(play.Weather.ApplyTime), 0, 2)))
}

// printWorst seed: who does not have it in the end, and why.
func (a *app) printWorst(s *simulation) {
	worst := &s.Worst
	how := a.paint(green, "complete")
	switch worst.End {
	case sim.Halted:
		how = a.paint(red, "halted in stage "+worst.HaltedIn)
	case sim.CompleteWithExceptions:
		how = a.paint(yellow, "complete with exceptions")
	}
	which := fmt.Sprintf("seed %d", worst.Seed)
	if s.Seeds > 1 {
		which = "worst is " + which
	}
	fmt.Fprintf(a.Out, "\n%s: %s after %s, on %d of %s\n", which, how, plainDuration(seconds(worst.Seconds)), worst.Succeeded, plural(worst.Members, "member"))
	for _, w := range worst.Waits {
		front := fmt.Sprintf("  %s  ", padLeft(fmt.Sprint(len(w.Members)), 4))
		because := w.Because
		if len(w.Members) <= mostNear {
			because = namesOf(w.Members) + ": " + because
		}
		fmt.Fprintf(a.Out, "%s%s\n", front, wrap(because, len(front), len(front)))
	}
	if s.Worst.Story == nil {
		const to = "tell it:  "
		fmt.Fprintln(a.Out, to+overLines(s.again, len(to)))
	}
}

// overLines breaks a command between its flags, as a shell reads it.
func overLines(call []string, indent int) string {
	var out strings.Builder
	column := indent
	for i, part := range call {
		part = plain(part)
		switch size := columns(part); {
		case i == 0:
			column += size
		case column+1+size+len(` \`) > width:
			out.WriteString(" \\\n" + strings.Repeat(" ", indent))
			column = indent + size
		default:
			out.WriteByte(' ')
			column += 1 + size
		}
		out.WriteString(part)
	}
	return out.String()
}

func namesOf(members []fleet.Name) string {
	names := make([]string, len(members))
	for i, n := range members {
		names[i] = string(n)
	}
	return strings.Join(names, ", ")
}

// weatherWords say what is not as on a fine day, and for how many.
func weatherWords(play *sim.Play) string {
	w := &play.Weather
	percent := func(of float64) string { return fmt.Sprintf("%g%%", float64(int(of*1e5+0.5))/1e3) }
	offline, fail, slow := play.Shares()
	var out []string
	if play.Spec.Suspend {
		out = append(out, "suspended")
	}
	if w.Offline > 0 {
		how := fmt.Sprintf("%s offline (%s)", percent(w.Offline), plural(offline, "member"))
		if w.OfflineFor > 0 {
			how += " for " + plainDuration(w.OfflineFor)
		}
		out = append(out, how)
	}
	if w.Fail > 0 {
		out = append(out, fmt.Sprintf("%s fail (%d)", percent(w.Fail), fail))
	}
	if w.Slow > 0 {
		out = append(out, fmt.Sprintf("%s slow (%d)", percent(w.Slow), slow))
	}
	if w.ApplyTime > 0 {
		out = append(out, "well after "+plainDuration(w.ApplyTime))
	}
	return strings.Join(append(out, fmt.Sprintf("%s round trip, %s loss", w.RTT, percent(w.Loss))), ", ")
}

// spreadWords: the median, and the worst where that is another one.
func spreadWords(s sim.Spread) string {
	word := func(t *float64) string {
		if t == nil {
			return "never"
		}
		return plainDuration(seconds(*t))
	}
	median, worst := word(s.Median), word(s.Worst)
	if median == worst {
		return median
	}
	return fmt.Sprintf("%s (%s)", median, worst)
}

func fromTo(least, most int) string {
	if least == most {
		return fmt.Sprint(least)
	}
	return fmt.Sprintf("%d-%d", least, most)
}

// endWords say how the seeds ended, and what was at risk.
func endWords(s *simulation) []string {
	var ends []string
	add := func(n int, how string) {
		if n > 0 {
			ends = append(ends, fmt.Sprintf("%s %d", how, n))
		}
	}
	add(s.Complete, "complete in")
	add(s.Exceptions, "complete with exceptions in")
	for i := range s.Stages {
		add(s.HaltedIn[s.Stages[i].Name], "halted in stage "+s.Stages[i].Name+" in")
	}
	out := []string{fmt.Sprintf("ends: %s of %s; the last milestone after %s", strings.Join(ends, ", "), plural(s.Seeds, "seed"), spreadWords(s.Seconds))}
	risk := fmt.Sprintf("exposed: at most %s had started and not succeeded at one time", plural(s.MostExposed, "cluster"))
	if s.StartedByFirstFailure > 0 {
		risk += fmt.Sprintf("; at most %d had started when the first failure was said", s.StartedByFirstFailure)
	}
	return append(out, risk)
}

// unplayed says what a play leaves out.
func unplayed(applyTime time.Duration) string {
	payload := "the payload is well as soon as it is started (see --apply-time)"
	if applyTime > 0 {
		payload = "the payload takes the time that you gave"
	}
	return "Not played: rendering, applying, pruning and what a cluster refuses; " + payload + ". Nobody pauses or pushes meanwhile."
}
