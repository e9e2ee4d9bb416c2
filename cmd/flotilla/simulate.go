// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/cmd/internal/preview"
	"github.com/flotilla-dev/flotilla/cmd/internal/sim"
)

type simulate struct {
	files    []string
	members  string
	clusters int
	labels   []string

	offline, fail, slow, loss  portion
	offlineFor, rtt, applyTime time.Duration

	first  uint64
	seeds  int
	story  bool
	output output
	// again is the command without what says which seeds, flag by flag.
	again []string
}

// mostSeeds of one call.
const mostSeeds = 10000

func (a *app) simulateCommand() *cobra.Command {
	o := simulate{loss: portion{"1%", 0.01}}
	c := &cobra.Command{
		Use:   "simulate -f FILE",
		Short: "Play a rollout through a fleet in virtual time, before it is there",
		Long: `Play a rollout with the agents' own code through a fleet in virtual time: your members, or a fleet
that is invented. Some of it may be offline, fail or be slow, as you say; who, a seed draws. It says
when each stage would start and be passed, how many clusters would be exposed, how it would end, and
who would wait for whom. One seed is one play, and is always the same one.

The stages, lots, gates, soaks, deadlines, retries and suspend are those of the file. The payload is
not: nothing is rendered or applied, and a cluster refuses nothing. It is well as soon as it is
started, or after --apply-time, and never where a cluster fails. Nobody pauses or pushes meanwhile,
and nothing of the rollout was there before.

Ends with exit code 0 however the plays end, and 1 where the rollout would be refused.`,
		Example: `  flotilla simulate -f rollouts/web.yaml --members members/ --offline 8% --fail 2%
  flotilla simulate -f web.yaml --clusters 200 --label ring=canary:5 --label region=eu --apply-time 40s
  flotilla simulate -f web.yaml --members members/ --offline 8% --seed 13 --story`,
		Args:   args(0, 0, "no names: give a file with -f"),
		PreRun: inTheAgentsZone,
		RunE: func(c *cobra.Command, _ []string) error {
			o.again = a.callAgain(c)
			return a.runSimulate(c.Context(), c.Flags(), o)
		},
	}
	flags := c.Flags()
	flags.SortFlags = false // also those of the command that plays the worst seed again: as they were given
	flags.StringArrayVarP(&o.files, "filename", "f", nil, "`file` or folder with the rollout, - for standard input (may be repeated)")
	flags.StringVar(&o.members, "members", "", "`file` or folder with the FleetMembers; the cluster's where left out")
	flags.IntVar(&o.clusters, "clusters", 0, "`number` of members of a fleet to invent instead, c01 and on")
	flags.StringArrayVar(&o.labels, "label", nil, "`labels` of the next invented members, as key=value,key=value:number; without the number, of all that are left (may be repeated)")
	flags.Var(&o.offline, "offline", "`share` of the targets that nobody hears from, such as 8%")
	flags.DurationVar(&o.offlineFor, "offline-for", 0, "`time` from the beginning after which they are back; the whole time where left out")
	flags.Var(&o.fail, "fail", "`share` of the targets where the payload never gets well")
	flags.Var(&o.slow, "slow", "`share` of the targets where it takes ten times the --apply-time")
	flags.DurationVar(&o.applyTime, "apply-time", 0, "`time` until the payload is well where it does get well, give or take a quarter")
	flags.DurationVar(&o.rtt, "rtt", 50*time.Millisecond, "`time` to another member and back, give or take a tenth")
	flags.Var(&o.loss, "loss", "`share` of the messages that are lost")
	flags.Uint64Var(&o.first, "seed", 1, "`number` of the first seed")
	flags.IntVar(&o.seeds, "seeds", 20, "`number` of seeds to play, one after the other from the first")
	flags.BoolVar(&o.story, "story", false, "tell one seed line by line")
	flags.StringVarP((*string)(&o.output), "output", "o", "", "json or yaml")
	fixed(c, "output", "json", "yaml")
	return c
}

// check what makes no sense however the rollout is.
func (o *simulate) check(given *pflag.FlagSet) error {
	if err := o.output.check("json", "yaml"); err != nil {
		return err
	}
	const longest = 1000 * time.Hour
	for _, d := range []struct {
		flag        string
		least, most time.Duration
		given       time.Duration
	}{{"offline-for", time.Second, longest, o.offlineFor}, {"apply-time", 0, longest, o.applyTime}, {"rtt", 0, time.Minute, o.rtt}} {
		if given.Changed(d.flag) && (d.given < d.least || d.given > d.most) {
			return usage("--%s %s: from %s to %s", d.flag, d.given, plainDuration(d.least), plainDuration(d.most))
		}
	}
	switch {
	case o.seeds < 1 || o.seeds > mostSeeds:
		return usage("--seeds %d: 1 to %d", o.seeds, mostSeeds)
	case o.first > 1<<62:
		return usage("--seed %d is too large", o.first)
	case o.story && given.Changed("seeds") && o.seeds != 1:
		return usage("--story tells one seed: say which with --seed, and leave out --seeds")
	case o.members != "" && given.Changed("clusters"):
		return usage("--members and --clusters exclude each other: the fleet is there or invented")
	case len(o.labels) > 0 && !given.Changed("clusters"):
		return usage("--label is for an invented fleet: say how large with --clusters")
	case given.Changed("offline-for") && o.offline.of == 0:
		return usage("--offline-for: say with --offline how many are")
	case o.loss.of > 0.9:
		return usage("--loss %s: at most 90%%", o.loss.text)
	}
	return nil
}

func (a *app) runSimulate(ctx context.Context, given *pflag.FlagSet, o simulate) error {
	if err := o.check(given); err != nil {
		return err
	}
	play, err := a.play(ctx, given, &o)
	if err != nil {
		return err
	}
	if err := play.Fault(); err != nil {
		return usage("%w", err)
	}
	var played []sim.Played
	if o.story {
		one, err := play.Run(ctx, o.first, true)
		if err != nil {
			return err
		}
		played = append(played, one)
	} else {
		progress := a.progress(o.seeds)
		played, err = play.RunAll(ctx, o.first, o.seeds, progress.done)
		progress.end()
		if err != nil {
			return err
		}
	}
	s := simulationOf(play, &o, played)
	if done, err := o.output.structured(a.Out, s); done {
		return err
	}
	a.printSimulation(&s, play)
	return nil
}

// play of the one rollout in the files, and its fleet.
func (a *app) play(ctx context.Context, given *pflag.FlagSet, o *simulate) (*sim.Play, error) {
	rollouts, beside, err := a.readRollouts(o.files)
	if err != nil {
		return nil, err
	}
	if len(rollouts) != 1 {
		return nil, usage("one rollout is played at a time; these are %d", len(rollouts))
	}
	var roster []fleet.Member
	if given.Changed("clusters") {
		roster, err = o.invent()
	} else {
		roster, err = a.roster(ctx, o.members, beside)
		if err != nil && o.members == "" && len(beside) == 0 {
			err = fmt.Errorf("%w, or invent some with --clusters", err)
		}
	}
	if err != nil {
		return nil, err
	}
	r := &rollouts[0]
	name := fleet.RolloutName{Namespace: r.Namespace, Name: r.Name}
	if _, err := preview.Of(name, r.Spec, roster); err != nil {
		return nil, &preview.Fault{Where: r.Where, Err: err}
	}
	targets, err := preview.Targets(&r.FleetRollout, roster)
	if err != nil {
		return nil, err
	}
	return &sim.Play{
		Name: name, Spec: r.Spec, Fleet: roster, Targets: targets,
		Weather: sim.Weather{
			Offline: o.offline.of, OfflineFor: o.offlineFor, Fail: o.fail.of, Slow: o.slow.of,
			RTT: o.rtt, Loss: o.loss.of, ApplyTime: o.applyTime,
		},
	}, nil
}

// invent the fleet that --clusters and --label say.
func (o *simulate) invent() ([]fleet.Member, error) {
	groups := make([]sim.Group, len(o.labels))
	for i, text := range o.labels {
		group, err := groupOf(text)
		if err != nil {
			return nil, err
		}
		groups[i] = group
	}
	roster, err := sim.Invent(o.clusters, groups...)
	if err != nil {
		return nil, usageError{err}
	}
	return roster, nil
}

// groupOf members, as --label writes it.
func groupOf(text string) (sim.Group, error) {
	wrong := usage("--label %q: key=value, several with commas, and :number for so many of the members, such as ring=canary,region=eu:5", text)
	group := sim.Group{Labels: map[string]string{}}
	labels, count, counted := strings.Cut(text, ":")
	if counted {
		n, err := strconv.Atoi(count)
		if err != nil || n < 1 {
			return group, wrong
		}
		group.Members = n
	}
	for label := range strings.SplitSeq(labels, ",") {
		key, value, ok := strings.Cut(label, "=")
		if _, twice := group.Labels[key]; !ok || twice || len(validation.IsQualifiedName(key)) > 0 || len(validation.IsValidLabelValue(value)) > 0 {
			return group, wrong
		}
		group.Labels[key] = value
	}
	return group, nil
}

// portion is a part of something, written in percent.
type portion struct {
	text string
	of   float64
}

var _ pflag.Value = (*portion)(nil)

var percent = regexp.MustCompile(`^[0-9]{1,3}(\.[0-9]{1,3})?%$`)

// Set is in pflag.Value.
func (s *portion) Set(text string) error {
	of, err := strconv.ParseFloat(strings.TrimSuffix(text, "%"), 64)
	if !percent.MatchString(text) || err != nil || of > 100 {
		return fmt.Errorf("a share from 0%% to 100%%, such as 8%%")
	}
	s.text, s.of = text, of/100
	return nil
}

// String is in pflag.Value.
func (s *portion) String() string { return s.text }

// Type is in pflag.Value.
func (s *portion) Type() string { return "share" }

// callAgain is the command that was called, without what says which seeds and how to print them.
func (a *app) callAgain(c *cobra.Command) []string {
	call := []string{a.name + " " + c.Name()}
	which := map[string]bool{"seed": true, "seeds": true, "story": true, "output": true}
	c.Flags().Visit(func(f *pflag.Flag) {
		if which[f.Name] {
			return
		}
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand
		}
		values := []string{f.Value.String()}
		if list, ok := f.Value.(pflag.SliceValue); ok {
			values = list.GetSlice()
		}
		for _, v := range values {
			call = append(call, name+" "+quoted(v))
		}
	})
	return call
}

var needsNoQuotes = regexp.MustCompile(`^[-A-Za-z0-9_./:=%,@+]+$`)

// quoted for a shell, where it needs to be.
func quoted(s string) string {
	if needsNoQuotes.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// patience before progress is shown.
const patience = time.Second

// progress of the seeds, on a terminal. The zero progress shows nothing.
type progress struct {
	mu    sync.Mutex
	to    *os.File
	of    int
	began time.Time
	shown bool
}

func (a *app) progress(seeds int) *progress {
	file, ok := a.ErrOut.(*os.File)
	if !ok || os.Getenv("TERM") == "dumb" || !term.IsTerminal(int(file.Fd())) {
		return &progress{}
	}
	return &progress{to: file, of: seeds, began: time.Now()}
}

func (p *progress) done(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.to != nil && time.Since(p.began) > patience {
		p.shown = true
		fmt.Fprintf(p.to, "\r\x1b[K%d of %d seeds played", n, p.of)
	}
}

// end takes the line away.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shown {
		fmt.Fprint(p.to, "\r\x1b[K")
	}
}
