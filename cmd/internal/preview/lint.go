// SPDX-License-Identifier: Apache-2.0

package preview

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/cmd/internal/fleetrepo"
	"github.com/flotilla-dev/flotilla/specialize"
)

// How bad a finding is.
const (
	// SeverityError: the agents would refuse it.
	SeverityError = "error"
	// SeverityWarning: it would run, and is perhaps not what was meant.
	SeverityWarning = "warning"
)

// Finding of a look at files.
type Finding struct {
	File     string `json:"file"`
	Line     int    `json:"line,omitempty"`
	Severity string `json:"severity"`
	// Rollout that it is about, and the members that it is so for, where it is not so for all.
	Rollout string       `json:"rollout,omitempty"`
	Members []fleet.Name `json:"members,omitempty"`
	// Reason as it would stand in a condition.
	Reason  string `json:"reason"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

// Where it is.
func (f Finding) Where() Where { return Where{f.File, f.Line} }

// Sentence says what it is: the message with its members and what to do.
func (f Finding) Sentence() string {
	message := f.Message
	if len(f.Members) > 0 {
		message = "for " + fewNames(f.Members) + ": " + message
	}
	if f.Hint != "" {
		message += " (" + f.Hint + ")"
	}
	return message
}

// Report of a look at files, sorted by file and line.
type Report struct {
	Findings []Finding `json:"findings"`
	Errors   int       `json:"errors"`
	Warnings int       `json:"warnings"`
	// Rollouts and Members that were read, and Rendered manifests.
	Rollouts int `json:"rollouts"`
	Members  int `json:"members"`
	Rendered int `json:"rendered,omitempty"`
}

// Payloads says where the payload of a rollout is; false: it is not rendered.
type Payloads func(fleet.RolloutName) (Inputs, bool)

// linter collects findings about one set of files.
type linter struct {
	report   Report
	payloads Payloads
	// roster is nil where nobody said who the members are.
	roster []fleet.Member
	// seen are the files that something was found wrong in.
	seen map[string]bool
}

// LintRepository looks at a fleet repository in a folder of this machine, as the agents read it.
func LintRepository(dir string, payloads Payloads) (Report, error) {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Report{}, fmt.Errorf("%s: no such folder", dir)
	case err != nil:
		return Report{}, err
	case !info.IsDir():
		return Report{}, fmt.Errorf("%s is no folder; to look at one file, give it with -f", dir)
	}
	report, err := lintRepository(os.DirFS(dir), payloads)
	if err != nil {
		return Report{}, fmt.Errorf("%s: %w", dir, err)
	}
	for i := range report.Findings {
		report.Findings[i].File = path.Join(filepath.ToSlash(dir), report.Findings[i].File)
	}
	return report, nil
}

func lintRepository(files fs.FS, payloads Payloads) (Report, error) {
	content := fleetrepo.Read(files)
	l := &linter{payloads: payloads, seen: map[string]bool{}}
	written, err := l.walk(files)
	if err != nil {
		return Report{}, err
	}
	if len(content.Faults) == 0 && len(content.Members) == 0 && len(content.Rollouts) == 0 {
		return Report{}, fmt.Errorf("no member in %s/ and no rollout in %s/ or %s/NAMESPACE/%s/: not a fleet repository",
			fleetrepo.MembersFolder, fleetrepo.RolloutsFolder, fleetrepo.TenantsFolder, fleetrepo.RolloutsFolder)
	}
	whole := true
	for _, fault := range content.Faults {
		whole = whole && !isIn(fault.File, fleetrepo.MembersFolder)
		if !l.seen[fault.File] {
			l.fault(written, fault)
		}
	}
	l.report.Members, l.report.Rollouts = len(content.Members), len(written)
	if whole {
		l.roster = content.Members
		if l.roster == nil {
			l.roster = []fleet.Member{}
		}
	}
	for i := range written {
		r := &written[i]
		name := l.nameOf(r)
		if declared, ok := content.Rollouts[name]; ok && declared.File == r.File {
			l.rollout(r)
		}
	}
	return l.done(), nil
}

// LintFiles looks at manifests that were read one by one, with what was wrong with them. Without members they are
// looked at by themselves. A rollout without a namespace is of the one that kubectl would use.
func LintFiles(m Manifests, wrong error, payloads Payloads) Report {
	l := &linter{payloads: payloads, seen: map[string]bool{}}
	l.fail(nil, Where{}, wrong)
	if len(m.Members) > 0 {
		roster, err := Roster(m.Members)
		l.fail(nil, Where{}, err)
		if err == nil {
			l.roster = roster
		}
	}
	l.report.Rollouts, l.report.Members = len(m.Rollouts), len(m.Members)
	first := map[fleet.RolloutName]Where{}
	for i := range m.Rollouts {
		r := &m.Rollouts[i]
		if other, twice := first[l.nameOf(r)]; twice {
			l.fail(r, r.Where, fmt.Errorf("FleetRollout %s is in %s too", l.nameOf(r), other))
		}
		first[l.nameOf(r)] = r.Where
		if r.Validate() == nil {
			l.rollout(r)
		}
	}
	return l.done()
}

// walk the files of a fleet repository, and say what is wrong with each by itself.
func (l *linter) walk(files fs.FS) ([]Rollout, error) {
	var rollouts []Rollout
	err := fs.WalkDir(files, ".", func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if strings.HasPrefix(entry.Name(), ".") && file != "." && !declares(file) {
				return fs.SkipDir
			}
			return nil
		}
		if ext := path.Ext(file); ext != ".yaml" && ext != ".yml" {
			return nil
		}
		body, err := fs.ReadFile(files, file)
		if err != nil {
			return nil // whoever needs the file says so: the agents' own reader does
		}
		m, wrong := Parse(file, body)
		if !declares(file) {
			l.astray(&m)
			return nil
		}
		for i := range m.Rollouts {
			if tenant, ok := tenantOf(file); ok && m.Rollouts[i].Namespace == "" {
				m.Rollouts[i].Namespace = tenant
			}
		}
		l.fail(nil, Where{File: file}, wrong)
		rollouts = append(rollouts, m.Rollouts...)
		return nil
	})
	return rollouts, err
}

// declares says whether the agents read a file, or what is in a folder.
func declares(file string) bool {
	tenant, ok := tenantOf(file)
	return isIn(file, fleetrepo.MembersFolder) || isIn(file, fleetrepo.RolloutsFolder) || ok && tenant != ""
}

func isIn(file, folder string) bool { return file == folder || strings.HasPrefix(file, folder+"/") }

// tenantOf a file in tenants/NAMESPACE/rollouts.
func tenantOf(file string) (string, bool) {
	rest, found := strings.CutPrefix(file, fleetrepo.TenantsFolder+"/")
	tenant, below, _ := strings.Cut(rest, "/")
	return tenant, found && isIn(below, fleetrepo.RolloutsFolder)
}

// astray warns of what lies where no agent looks.
func (l *linter) astray(m *Manifests) {
	for i := range m.Rollouts {
		r := &m.Rollouts[i]
		l.add(Finding{
			File: r.File, Line: r.Line, Severity: SeverityWarning, Rollout: r.Name, Reason: v1alpha1.ReasonInvalid,
			Message: "the agents do not read this FleetRollout", Hint: "they read rollouts/ and tenants/NAMESPACE/rollouts/",
		})
	}
	for i := range m.Members {
		r := &m.Members[i]
		l.add(Finding{
			File: r.File, Line: r.Line, Severity: SeverityWarning, Reason: v1alpha1.ReasonInvalid,
			Message: "the agents do not read this FleetMember", Hint: "they read members/",
		})
	}
}

// fault of the agents' own reader about a file that seemed well.
func (l *linter) fault(written []Rollout, fault fleetrepo.Fault) {
	for i := range written {
		r := &written[i]
		if r.File == fault.File && (fault.Rollout.Name == "" || fault.Rollout.Name == r.Name) {
			l.fail(r, r.Where, fault.Err)
			return
		}
	}
	l.fail(nil, Where{File: fault.File}, fault.Err)
}

func (l *linter) nameOf(r *Rollout) fleet.RolloutName {
	return fleet.RolloutName{Namespace: r.Namespace, Name: r.Name}
}

// fail adds an error, or each of those that it joins. One of a rollout stands at the field that it speaks of.
func (l *linter) fail(r *Rollout, at Where, err error) {
	if err == nil {
		return
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			l.fail(r, at, e)
		}
		return
	}
	l.add(l.finding(r, at, err))
}

// finding of one error: where, which reason, and the sentence without what stands in other fields.
func (l *linter) finding(r *Rollout, at Where, err error) Finding {
	var located *Fault
	if r != nil {
		at = r.At(err.Error())
	}
	if errors.As(err, &located) {
		at, err = located.Where, located.Err
	}
	f := Finding{File: at.File, Line: at.Line, Severity: SeverityError, Reason: fleet.ReasonOf(err, v1alpha1.ReasonInvalid), Message: err.Error()}
	var known *fleet.Error
	if errors.As(err, &known) && known.Hint != "" {
		f.Hint = known.Hint
		f.Message = strings.TrimSuffix(f.Message, " ("+known.Hint+")")
	}
	if r != nil {
		f.Rollout = l.nameOf(r).String()
		f.Message = strings.TrimPrefix(f.Message, f.Rollout+": ")
	}
	return f
}

func (l *linter) add(f Finding) {
	if f.Severity == SeverityError {
		l.seen[f.File] = true
	}
	l.report.Findings = append(l.report.Findings, f)
}

func (l *linter) warn(r *Rollout, message, hint string) {
	at := r.At(message)
	l.add(Finding{
		File: at.File, Line: at.Line, Severity: SeverityWarning, Rollout: l.nameOf(r).String(),
		Reason: v1alpha1.ReasonInvalid, Message: message, Hint: hint,
	})
}

// rollout that is well by itself: is it so for this fleet, and with its payload?
func (l *linter) rollout(r *Rollout) {
	l.secrets(r)
	if err := specialize.Check(r.Spec.Specialize); err != nil {
		l.fail(r, r.Where, err)
		return
	}
	if l.roster == nil {
		return
	}
	plan, err := of(l.nameOf(r), r.Spec, l.roster, dealsFor(&r.Spec))
	if err != nil {
		l.fail(r, r.Where, err)
		return
	}
	for _, warning := range plan.Warnings {
		l.warn(r, warning, "")
	}
	l.rounding(r, &plan)
	l.render(r)
}

// secrets warns of what cannot work without one.
func (l *linter) secrets(r *Rollout) {
	git := r.Spec.Source.Git
	if git != nil && strings.HasPrefix(git.URL, "ssh://") && r.Spec.Source.SecretRef == nil {
		l.warn(r, "spec.source.git.url: an ssh URL without spec.source.secretRef: no server lets an agent in without a key",
			"name a Secret with the keys identity and known_hosts")
	}
}

// rounding warns of tolerance that is written and comes to nothing.
func (l *linter) rounding(r *Rollout, plan *Plan) {
	s := r.Spec.Strategy
	if s == nil {
		return
	}
	for i := range plan.Stages {
		stage := &plan.Stages[i]
		field, v := "spec.strategy.maxUnavailable", s.MaxUnavailable
		for n := range s.Stages {
			if s.Stages[n].Name == stage.Name && s.Stages[n].MaxUnavailable != nil {
				field, v = fmt.Sprintf("spec.strategy.stages[%d].maxUnavailable", n), s.Stages[n].MaxUnavailable
			}
		}
		if v != nil && v.Type == intstr.String && v.StrVal != "0%" && stage.MaxUnavailable == 0 {
			l.warn(r, fmt.Sprintf("%s: %s of the %s of stage %s is 0 (rounded down)", field, v.StrVal, clusters(stage.Clusters), stage.Name), "")
		}
	}
}

func clusters(n int) string {
	if n == 1 {
		return "1 cluster"
	}
	return fmt.Sprintf("%d clusters", n)
}

// render the payload for every member, where it is given. What fails for several members alike is said once.
func (l *linter) render(r *Rollout) {
	in, given := l.payloads(l.nameOf(r))
	if !given {
		return
	}
	payload, err := Open(&r.FleetRollout, in)
	if err != nil {
		l.fail(r, r.Where, err)
		return
	}
	defer payload.Close() //nolint:errcheck // read only
	for _, note := range payload.Notes {
		l.warn(r, note, "")
	}
	variants, err := Variants(payload, l.roster)
	l.report.Rendered += len(variants)
	if err != nil {
		l.unrendered(r, err)
	}
}

func (l *linter) unrendered(r *Rollout, err error) {
	all := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		all = joined.Unwrap()
	}
	var found []Finding
	for _, e := range all {
		f := l.finding(r, r.Where, e)
		member := fleet.Name("")
		if rest, ok := strings.CutPrefix(f.Message, f.Rollout+" for "); ok {
			name, message, _ := strings.Cut(rest, ": ")
			member, f.Message = fleet.Name(name), strings.ReplaceAll(message, ": "+name+" has ", ": the member has ")
		}
		same := slices.IndexFunc(found, func(other Finding) bool {
			return other.Message == f.Message && other.Hint == f.Hint && other.Reason == f.Reason
		})
		if same < 0 {
			found, same = append(found, f), len(found)
		}
		if member != "" {
			found[same].Members = append(found[same].Members, member)
		}
	}
	for _, f := range found {
		l.add(f)
	}
}

func (l *linter) done() Report {
	found := l.report.Findings
	slices.SortStableFunc(found, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
	})
	found = slices.CompactFunc(found, func(a, b Finding) bool { return a.Where() == b.Where() && a.Sentence() == b.Sentence() })
	if found == nil {
		found = []Finding{}
	}
	l.report.Findings = found
	for i := range found {
		if found[i].Severity == SeverityError {
			l.report.Errors++
		} else {
			l.report.Warnings++
		}
	}
	return l.report
}
