// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"slices"
	"strings"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// Verdict on one rule, or in one finding.
type Verdict string

// The verdicts.
const (
	// Kept: everything that was looked at is as it should be.
	Kept Verdict = "Kept"
	// Unjudged: what would decide it is not here.
	Unjudged Verdict = "Unjudged"
	// Broken: the records show it.
	Broken Verdict = "Broken"
)

// Why something cannot be judged.
type Why string

// The reasons.
const (
	// NotHeard: the member may have said it; nobody who was asked holds all that it said.
	NotHeard Why = "NotHeard"
	// Retired: the member took it out of the fleet's state itself.
	Retired Why = "Retired"
	// Lost: the member has gone on to another release and would not say it again, if all stores were lost at once.
	Lost Why = "Lost"
	// NoSeal: the plan's seal, or a body of it, is not here.
	NoSeal Why = "NoSeal"
	// NoVersion: the seal was compiled by rules that this version does not know.
	NoVersion Why = "NoVersion"
	// ByClocks: only the members' clocks speak against it, and clocks may be wrong.
	ByClocks Why = "ByClocks"
	// Disbelieved: it rests on the word of a member that was believed then, and is not any more.
	Disbelieved Why = "Disbelieved"
	// Stranger: its writer is on no roster that is here.
	Stranger Why = "Stranger"
)

// Lack is what would decide a finding, and of whom.
type Lack struct {
	Why Why `json:"why"`
	// Members by name; none where it is no member's.
	Members []fleet.Name `json:"members,omitempty"`
}

// Said is one signed record, to be read.
type Said struct {
	Record   fleet.Digest   `json:"record"`
	Writer   fleet.Name     `json:"writer"`
	WriterID fleet.MemberID `json:"writerID"`
	Epoch    uint64         `json:"epoch"`
	Seq      uint64         `json:"seq"`
	What     string         `json:"what"`
	// Time is the writer's wall clock in Unix seconds; 0 where the record says none.
	Time int64 `json:"time,omitempty"`
	// Forged: it does not bear its writer's signature, so that whoever made it, the writer said no such thing.
	Forged bool `json:"forged,omitempty"`
}

// Finding is one place where a rule is broken, or cannot be judged.
type Finding struct {
	Verdict Verdict `json:"verdict"`
	// Rollout, Revision and Plan that it is about; empty where it is about a member alone.
	Rollout  string         `json:"rollout,omitempty"`
	Revision fleet.Revision `json:"revision,omitempty"`
	Plan     fleet.Digest   `json:"plan,omitzero"`
	// Member that it is about.
	Member fleet.Name `json:"member,omitempty"`
	Story  string     `json:"story"`
	// Lacks are set where it cannot be judged.
	Lacks []Lack `json:"lacks,omitempty"`
	// Said are the very records that show it.
	Said []Said `json:"said,omitempty"`
	// Absent: it rests on something that is not here, so that a later look may take it back.
	Absent bool `json:"absent,omitempty"`
}

// Rule and what was found.
type Rule struct {
	// ID as docs/rules.md has it.
	ID   string `json:"id"`
	What string `json:"what"`
	// Checked is how often there was something to look at; a rule that was never tried was not kept either.
	Checked  int       `json:"checked"`
	Verdict  Verdict   `json:"verdict"`
	Findings []Finding `json:"findings,omitempty"`
	// More findings there were than are listed.
	More int `json:"more,omitempty"`
}

// Result of a look.
type Result struct {
	Verdict Verdict `json:"verdict"`
	// Members of the roster, Rollouts and Plans that records are about, Judged of these plans could be compiled.
	Members  int `json:"members"`
	Rollouts int `json:"rollouts"`
	Plans    int `json:"plans"`
	Judged   int `json:"judged"`
	// Records that were read, each with its signature checked.
	Records int    `json:"records"`
	Rules   []Rule `json:"rules"`
}

// MaxFindings that are listed of a rule and verdict; the others are counted.
const MaxFindings = 1000

// The rules, in the order in which they are told.
const (
	ruleSigned = iota
	ruleMembers
	ruleOneWord
	ruleSealed
	ruleExclude
	ruleGaveUp
	ruleEarned
	ruleWindow
	ruleMotion
	ruleGate
	ruleSuccess
	ruleHopeless
	ruleOrder
	ruleStops
)

func rules() []Rule {
	return []Rule{
		ruleSigned:   {ID: "signed", What: "every record bears its writer's signature, and reads as what it is"},
		ruleMembers:  {ID: "members", What: "every writer is a member, or was one when the plan was sealed"},
		ruleOneWord:  {ID: "R1-word", What: "nobody signed two things in one position"},
		ruleSealed:   {ID: "R1", What: "milestones are of sealed plans, by members that the plan is for"},
		ruleExclude:  {ID: "I12", What: "who left a plan never started it"},
		ruleGaveUp:   {ID: "R5", What: "nothing follows a give-up, and no give-up a success"},
		ruleEarned:   {ID: "R4", What: "a success follows a start or an earlier success, a soak its success"},
		ruleWindow:   {ID: "R2", What: "every start had its place in the window of its stage"},
		ruleMotion:   {ID: "I1", What: "no more in motion, and without success, than the stage allows"},
		ruleGate:     {ID: "I2", What: "no start before the gates of all earlier stages"},
		ruleSuccess:  {ID: "I13", What: "a real success in every stage before a start"},
		ruleHopeless: {ID: "I4", What: "a release that succeeded nowhere stayed in the first stage"},
		ruleOrder:    {ID: "I14", What: "no member went back to an older release"},
		ruleStops:    {ID: "I16", What: "no start under a stop that the member itself had given"},
	}
}

func (r *Result) check(rule int) { r.Rules[rule].Checked++ }

func (r *Result) add(rule int, f Finding) {
	at := &r.Rules[rule]
	n := 0
	for i := range at.Findings {
		if at.Findings[i].Verdict == f.Verdict {
			n++
		}
	}
	worst(&at.Verdict, f.Verdict)
	worst(&r.Verdict, f.Verdict)
	if n >= MaxFindings {
		at.More++
		return
	}
	at.Findings = append(at.Findings, f)
}

func worst(v *Verdict, other Verdict) {
	if *v != Broken {
		*v = other
	}
}

// Absences says that something broken rests on what is not here: a second look may take it back.
func (r *Result) Absences() bool {
	return slices.ContainsFunc(r.Rules, func(rule Rule) bool {
		return slices.ContainsFunc(rule.Findings, func(f Finding) bool { return f.Verdict == Broken && f.Absent })
	})
}

// finding as the rules make it.
type finding struct {
	plan   *plan
	member fleet.MemberID
	story  string
	words  []*word
	lacks  []lack
	absent bool
}

// lack of one member's word.
type lack struct {
	why    Why
	member fleet.MemberID
}

func (b *book) broken(rule int, f finding) { b.result.add(rule, b.tell(Broken, f)) }

func (b *book) unjudged(rule int, f finding) { b.result.add(rule, b.tell(Unjudged, f)) }

// of puts the member's name in the place of the first "it" of its story, or before it.
func of(name, story string) string {
	if rest, ok := strings.CutPrefix(story, "it "); ok {
		return name + " " + rest
	}
	if before, rest, ok := strings.Cut(story, " it "); ok {
		return before + " " + name + " " + rest
	}
	return name + ": " + story
}

func (b *book) tell(v Verdict, f finding) Finding {
	out := Finding{Verdict: v, Story: f.story, Absent: f.absent}
	if f.member != "" {
		out.Member = b.name(f.member)
		out.Story = of(string(out.Member), f.story)
	}
	if f.plan != nil {
		out.Plan = f.plan.digest
		if f.plan.Plan != nil {
			out.Rollout, out.Revision = f.plan.Rollout.String(), f.plan.Release.Revision
		}
	}
	for _, l := range f.lacks {
		at := slices.IndexFunc(out.Lacks, func(there Lack) bool { return there.Why == l.why })
		if at < 0 {
			at, out.Lacks = len(out.Lacks), append(out.Lacks, Lack{Why: l.why})
		}
		if l.member != "" {
			out.Lacks[at].Members = append(out.Lacks[at].Members, b.name(l.member))
		}
	}
	for _, w := range f.words {
		out.Said = append(out.Said, b.said(w))
	}
	return out
}
