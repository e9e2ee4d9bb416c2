// SPDX-License-Identifier: Apache-2.0

package sequencer

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// TestTranscripts plays the stories of testdata/transcripts. A line that begins with four blanks is what
// came out of the command above it; UPDATE_GOLDEN=1 writes those lines anew. A line that begins with a
// bar belongs to the command above it; # is for the reader.
//
//	members | name label=value ...     who is on the roster
//	strategy | yaml                    what the rollout says; retries N says how often a failure is tried again
//	seal                               the author seals what was said last; everybody takes the seal
//	revision R                         everybody that hears of it takes revision R
//	decide [NAME...]                   the stages as bars, and what each member decides and why
//	wait 10m                           time goes by, and all agents do what they do
//	sick, healthy NAME...              what the cluster is from now on
//	started, succeeded, ... NAME...    a member states a milestone, as if it had earned it
//	cut, join NAME...                  a member hears nothing and nobody hears it; and again
//	pause NAME "why", resume NAME      somebody tells the member's API to stop everyone; to lift all that is in force there
//	restart, reboot NAME...            the agent; the machine
//	forked NAME...                     a proof comes up that the member said two things in one position
//	carry NAME...                      the member finds that it runs this very payload already, and is well
func TestTranscripts(t *testing.T) {
	EachStory(t, func(t *testing.T, file, text string) {
		got := play(t, text)
		if os.Getenv("UPDATE_GOLDEN") != "" {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		} else if diff := cmp.Diff(text, got); diff != "" {
			t.Errorf("the story goes otherwise (- file, + now; UPDATE_GOLDEN=1 rewrites it):\n%s", diff)
		}
	})
}

// EachStory of testdata/transcripts, here and for the tests outside of the package.
func EachStory(t *testing.T, test func(t *testing.T, file, text string)) {
	t.Helper()
	files, err := filepath.Glob("testdata/transcripts/*.txt")
	if err != nil || len(files) < 8 {
		t.Fatalf("%d transcripts: %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			test(t, file, string(text))
		})
	}
}

// play a script and give it back with what came out.
func play(t *testing.T, text string) string {
	s := newStage()
	var out strings.Builder
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		if strings.HasPrefix(line, "    ") {
			continue
		}
		out.WriteString(line + "\n")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		var block []string
		for i+1 < len(lines) && strings.HasPrefix(lines[i+1], "| ") {
			i++
			out.WriteString(lines[i] + "\n")
			block = append(block, strings.TrimPrefix(lines[i], "| "))
		}
		if err := s.do(line, block); err != nil {
			t.Fatalf("line %d: %s: %v", i+1, line, err)
		}
		for _, l := range s.printed {
			out.WriteString(strings.TrimRight("    "+l, " ") + "\n")
		}
		s.printed = nil
	}
	return out.String()
}

// player is one member of a transcript.
type player struct {
	member   fleet.Member
	view     *ledger
	plan     *Plan
	progress Progress
	sick     bool
	cut      bool
	machine  machine
	// shown is what it was last seen to wait for.
	shown Decision
}

// stage is where the players play.
type stage struct {
	players  []*player
	targets  []fleet.Member
	strategy string
	retries  int
	number   uint64
	sealed   Sealed
	revision fleet.Revision
	newest   *Plan
	truth    *ledger
	commands int
	now      time.Duration
	// order in which the players act within one moment; deaf is who does not hear a thing that is said in it.
	order   func([]*player) []*player
	deaf    func() bool
	printed []string
	// of makes a member; wordy says in the log why each thing is said, and what members wait for.
	of    func(name string, labels ...string) fleet.Member
	wordy bool
	// spoken is all that was ever said, and plans are all that there were.
	spoken []Utterance
	seals  []Sealed
}

func newStage() *stage {
	return &stage{
		truth: newLedger(), retries: DefaultRetries,
		order: func(p []*player) []*player { return p }, deaf: func() bool { return false }, of: member,
	}
}

func (s *stage) print(format string, args ...any) {
	s.printed = append(s.printed, fmt.Sprintf(format, args...))
}

// milestones by the words of a transcript.
var milestones = map[string][]fleet.FactKind{
	"started": {fleet.Started}, "succeeded": {fleet.Succeeded}, "soaked": {fleet.Succeeded, fleet.Soaked},
	"failed": {fleet.Failed}, "gaveup": {fleet.Failed, fleet.GaveUp}, "yielded": {fleet.Yielded}, "degraded": {fleet.Degraded},
}

func (s *stage) do(line string, block []string) error {
	verb, rest, _ := strings.Cut(line, " ")
	switch verb {
	case "members":
		return s.setMembers(block)
	case "strategy":
		s.strategy = strings.Join(block, "\n")
		return nil
	case "retries":
		_, err := fmt.Sscan(rest, &s.retries)
		return err
	case "seal":
		if err := s.seal(); err != nil {
			return err
		}
		return s.take()
	case "revision":
		s.revision = fleet.Revision(rest)
		return s.take()
	case "wait":
		d, err := time.ParseDuration(rest)
		if err != nil {
			return err
		}
		s.wait(d)
		return nil
	case "pause":
		name, why, _ := strings.Cut(rest, " ")
		return s.command(name, pause(s.commands, strings.Trim(why, `"`)))
	case "resume":
		return s.resume(rest)
	case "decide":
		return s.decide(strings.Fields(rest))
	}
	for _, name := range strings.Fields(rest) {
		p := s.find(name)
		if p == nil {
			return fmt.Errorf("no member %s", name)
		}
		if err := s.one(verb, p); err != nil {
			return err
		}
	}
	return nil
}

// one command for one member.
func (s *stage) one(verb string, p *player) error {
	switch verb {
	case "sick", "healthy":
		p.sick = verb == "sick"
	case "cut":
		p.cut = true
	case "join":
		p.cut = false
		s.truth.join(p.view)
		s.spread()
		if p.plan != s.newest {
			s.accept(p)
		}
	case "forked":
		s.truth.proven[p.member.ID] = true
		s.spread()
	case "restart":
		p.progress = restarted(fatal{}, p.progress)
	case "reboot":
		p.machine.wall = s.now
		p.machine.reboot()
	case "carry":
		p.progress = CarryOver(p.plan.Digest, s.moment(p))
		s.say(p, fleet.Succeeded)
	default:
		kinds, ok := milestones[verb]
		if !ok {
			return fmt.Errorf("unknown command")
		}
		s.say(p, kinds...)
	}
	return nil
}

func (s *stage) setMembers(block []string) error {
	s.targets = nil
	for _, line := range block {
		fields := strings.Fields(line)
		m := s.of(fields[0], fields[1:]...)
		s.targets = append(s.targets, m)
		if s.find(fields[0]) == nil {
			s.players = append(s.players, &player{member: m, view: newLedger()})
		}
	}
	return nil
}

func (s *stage) find(name string) *player {
	for _, p := range s.players {
		if string(p.member.Name) == name {
			return p
		}
	}
	return nil
}

func (s *stage) seal() error {
	s.number++
	sealed, err := Seal(checkout, Position{Author: fleet.AuthorGit, Number: s.number}, specWith(s.strategy), s.targets)
	if err != nil {
		return err
	}
	s.sealed = sealed
	s.seals = append(s.seals, sealed)
	return nil
}

// take the newest seal with the newest revision, everybody that hears of it.
func (s *stage) take() error {
	if s.number == 0 {
		if err := s.seal(); err != nil {
			return err
		}
	}
	p, err := Compile(s.sealed, s.revision)
	if err != nil {
		s.print("refused: %v", err)
		return nil
	}
	s.newest = p
	s.print("plan of seal %d at %s:", s.number, s.revision.Short())
	for i, stage := range p.Stages {
		s.print("%d %-8s %d at a time%s: %s", i+1, stage.Name, stage.MaxConcurrency, pacing(stage), names(stage.Members, 9))
	}
	for _, w := range p.Warnings {
		s.print("! %s", w)
	}
	for _, p := range s.players {
		if !p.cut {
			s.accept(p)
		}
	}
	return nil
}

func pacing(s Stage) string {
	out := ""
	if s.Tolerance > 0 {
		out += fmt.Sprintf(", %d may fail", s.Tolerance)
	}
	if s.Soak > 0 {
		out += ", soaks " + s.Soak.String()
	}
	return out
}

func (s *stage) accept(p *player) {
	accepted := Release{}
	order := Newer
	if p.plan != nil {
		accepted = p.plan.Release
		if accepted.Revision == s.newest.Release.Revision {
			order = Equal
		}
	}
	if Accept(accepted, s.newest.Release, order) == Take {
		p.plan = s.newest
		p.progress = Progress{}
		s.spoke(p, fleet.Accepted)
	}
}

// say, and everybody that is not cut off hears it at once.
func (s *stage) say(p *player, kinds ...fleet.FactKind) {
	s.spoke(p, kinds...)
	p.view.say(p.plan, p.member.ID, kinds...)
	if p.cut {
		return
	}
	s.truth.join(p.view)
	for _, other := range s.players {
		if !other.cut && !s.deaf() {
			other.view.join(s.truth)
		}
	}
}

// spread tells everybody who can hear it all that was ever said, and says that it did.
func (s *stage) spread() bool {
	for _, p := range s.players {
		if !p.cut {
			p.view.join(s.truth)
		}
	}
	return true
}

func (s *stage) command(name string, c fleet.Command) error {
	p := s.find(name)
	if p == nil {
		return fmt.Errorf("no member %q", name)
	}
	s.commands++
	c.By = p.member.ID
	s.spoken = append(s.spoken, Utterance{By: p.member.Name, At: s.now, ID: c.ID, Command: c})
	p.view.hear(c)
	if !p.cut {
		s.truth.join(p.view)
		s.spread()
	}
	return nil
}

// resume lifts the stops and sicknesses that the member knows of.
func (s *stage) resume(name string) error {
	p := s.find(name)
	if p == nil {
		return fmt.Errorf("no member %q", name)
	}
	c := resume(s.commands)
	for _, stop := range Stops(p.view.commands) {
		c.Lifts = append(c.Lifts, stop.ID)
		s.print("lifts %q", stop.Reason)
	}
	for _, m := range s.targets {
		if isDegraded(p.plan, p.view, m.ID) {
			c.Lifts = append(c.Lifts, milestone{p.plan.Digest, m.ID, fleet.Degraded}.record())
			s.print("lifts the sickness of %s", m.Name)
		}
	}
	return s.command(name, c)
}

func (s *stage) moment(p *player) fleet.Moment {
	p.machine.wall = s.now
	return p.machine.now()
}

// wait lets time go by, from one moment at which something is due to the next.
func (s *stage) wait(d time.Duration) {
	end := s.now + d
	for {
		s.settle()
		next := s.due()
		if s.now+next > end || next == 0 {
			break
		}
		s.now += next
	}
	s.now = end
	s.settle()
}

// settle lets everybody act until nothing comes of it: what one says may let another one go.
func (s *stage) settle() {
	for moved := true; moved; {
		moved = s.act() || s.spread() && s.act()
	}
}

// due is when the first of the clocks runs out.
func (s *stage) due() time.Duration {
	var next time.Duration
	for _, p := range s.players {
		if p.progress.Phase == "" {
			continue
		}
		_, _, wait := p.progress.Observe(Observation{Healthy: !p.sick}, s.pace(p), s.moment(p))
		if wait > 0 && (next == 0 || wait < next) {
			next = wait
		}
	}
	return next
}

func (s *stage) pace(p *player) Pace {
	place, _ := p.plan.Place(p.member.ID)
	stage := p.plan.Stages[place.Stage]
	return Pace{MinReadyTime: stage.MinReadyTime, Soak: stage.Soak, ProgressDeadline: stage.ProgressDeadline, RetryInterval: 30 * time.Second, Retries: s.retries}
}

// act is one round of all agents: start or retry where it is allowed, look at the cluster, say what it earns.
func (s *stage) act() (moved bool) {
	for _, p := range s.order(s.players) {
		if p.plan == nil {
			continue
		}
		now := s.moment(p)
		d := Decide(p.plan, p.view, p.member.ID, now)
		s.watch(p, d)
		if d.Reason == WasRemoved {
			continue
		}
		due, _ := p.progress.MayRetry(now)
		switch {
		case d.Verdict == Go && d.Reason == MayStart:
			s.log(p, "starts", d.Because())
			p.progress = p.progress.Begin(p.plan.Digest, now)
			s.say(p, fleet.Started)
			moved = true
		case due && !Permitted(p.plan, p.view):
			continue // a retry is a start, and there is a stop
		case due:
			p.progress = p.progress.Begin(p.plan.Digest, now)
			s.log(p, "tries again", fmt.Sprintf("attempt %d", p.progress.Attempts))
			moved = true
		}
		if p.progress.Phase == "" {
			continue
		}
		next, said, _ := p.progress.Observe(Observation{Healthy: !p.sick}, s.pace(p), now)
		p.progress = next
		for _, k := range said {
			s.say(p, k)
			s.log(p, k.String(), s.because(p, k, next, now))
			moved = true
		}
	}
	return moved
}

// because says why a milestone is earned.
func (s *stage) because(p *player, k fleet.FactKind, next Progress, now fleet.Moment) string {
	pace, again := s.pace(p), ""
	if k == fleet.Failed && next.Phase == Retrying {
		_, wait := next.MayRetry(now)
		again = "tries again in " + wait.String()
	}
	if !s.wordy {
		return again
	}
	switch k {
	case fleet.Succeeded:
		return "healthy for " + pace.MinReadyTime.String()
	case fleet.Soaked:
		return "healthy for " + pace.Soak.String() + " beyond its success"
	case fleet.Failed:
		return strings.TrimSuffix("not healthy within "+pace.ProgressDeadline.String()+"; "+again, "; ")
	case fleet.GaveUp:
		return fmt.Sprintf("attempt %d was the last one", next.Attempts)
	case fleet.Degraded:
		return "unhealthy for " + pace.ProgressDeadline.String() + " after its success"
	}
	return again
}

// watch what a member waits for: a line where that is another thing than before, whoever is still missing of it.
func (s *stage) watch(p *player, d Decision) {
	same := d.Verdict == p.shown.Verdict && d.Reason == p.shown.Reason && d.Gate == p.shown.Gate
	p.shown = d
	if s.wordy && !same && (d.Verdict == Wait || d.Verdict == Hold || d.Verdict == Out) {
		s.log(p, d.Verdict.String(), d.Because())
	}
}

func (s *stage) log(p *player, what, why string) {
	s.print("%-9s %-6s %-11s %s", s.now, p.member.Name, what, why)
}

// marks of a bar, by state.
var marks = map[MemberState]byte{Pending: '.', Progressing: '>', Soaking: 's', Complete: '#', HasFailed: 'x', LeftPlan: '-', IsDegraded: '!', Removed: '~'}

// decide prints the newest plan's stages as bars, a mark for each member by rank, and what each member decides.
func (s *stage) decide(only []string) error {
	if len(only) == 0 {
		for _, t := range Tallies(s.newest, s.truth) {
			var bar []byte
			for _, m := range t.Stage.Members {
				bar = append(bar, marks[StateOf(s.newest, s.truth, m.ID)])
			}
			state := "closed"
			switch {
			case t.Passed:
				state = "passed"
			case t.Open:
				state = "open"
			}
			s.print("%-8s [%s] %s", t.Stage.Name, bar, state)
		}
	}
	shown := 0
	for _, p := range s.players {
		if len(only) > 0 && !slices.Contains(only, string(p.member.Name)) {
			continue
		}
		shown++
		d := Decide(p.plan, p.view, p.member.ID, s.moment(p))
		where := ""
		if p.plan != s.newest {
			where = " (at " + p.plan.Release.Revision.Short() + ")"
		}
		s.print("%-6s %-5s %s%s", p.member.Name, d.Verdict, d.Because(), where)
	}
	if len(only) > 0 && shown != len(only) {
		return fmt.Errorf("some of %v are no members", only)
	}
	return nil
}

// fatal ends a test that has no way on.
type fatal struct{}

func (fatal) Helper()                           {}
func (fatal) Fatal(args ...any)                 { panic(fmt.Sprint(args...)) }
func (fatal) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
