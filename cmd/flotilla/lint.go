// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/cmd/internal/preview"
)

type lint struct {
	dir      string
	files    []string
	members  string
	payload  []string
	payloads string
	chart    []string
	inputs   preview.Inputs // but its folders
	output   output
}

func (a *app) lintCommand() *cobra.Command {
	var o lint
	c := &cobra.Command{
		Use:   "lint [FOLDER | -f FILE]",
		Short: "Say what is wrong in a fleet repository, before it is pushed",
		Long: `Read a fleet repository as the agents do, and say what they would refuse and what is perhaps not
meant: unknown and misspelt fields, two of one name, targets and overrides that match nobody, empty
stages, tolerance that rounds to nothing. FOLDER is the current one where left out. With payloads it
renders every rollout for every member too. It needs no cluster.

With -f it looks at some files alone; at what depends on the members, too, if they are among them or
given with --members.

Each line of its output is FILE:LINE: error or warning: what, and where it helps what to do. Ends with
exit code 1 where there are errors; warnings alone are exit code 0.`,
		Example: `  flotilla lint
  flotilla lint fleet/ -o json

  # with payloads: apps/web from its own checkout, all others from ../NAMESPACE/NAME or ../NAME
  flotilla lint fleet/ --payload apps/web=../web --payloads ..

  # one file
  flotilla lint -f rollouts/web.yaml --members members/`,
		Args:   args(0, 1, "a folder, or files with -f"),
		PreRun: inTheAgentsZone,
		RunE: func(_ *cobra.Command, names []string) error {
			o.dir = "."
			if len(names) > 0 {
				o.dir = names[0]
			}
			if len(names) > 0 && len(o.files) > 0 {
				return usage("a folder and -f exclude each other")
			}
			return a.runLint(o)
		},
	}
	c.Flags().StringArrayVarP(&o.files, "filename", "f", nil, "`file` or folder to look at by itself, - for standard input (may be repeated)")
	c.Flags().StringVar(&o.members, "members", "", "with -f: `file` or folder with the FleetMembers")
	c.Flags().StringArrayVar(&o.payload, "payload", nil, "`NAME=FOLDER` with the payload of a rollout, NAME or NAMESPACE/NAME (may be repeated)")
	c.Flags().StringVar(&o.payloads, "payloads", "", "`folder` with the payloads of all rollouts, in NAMESPACE/NAME or NAME below it")
	c.Flags().StringArrayVar(&o.chart, "chart", nil, "`NAME=FOLDER` with the chart that a rollout's spec.specialize.helm.chart names (may be repeated)")
	c.Flags().StringArrayVar(&o.inputs.Objects, "object", nil, "`file` with ConfigMaps and Secrets that the payloads need (may be repeated)")
	c.Flags().StringVar(&o.inputs.KubeVersion, "kube-version", "", "`version` of the members' Kubernetes that charts see, such as v1.36.0")
	c.Flags().StringSliceVar(&o.inputs.APIVersions, "api-versions", nil, "API `versions` of the members that charts see")
	c.Flags().StringVarP((*string)(&o.output), "output", "o", "", "json or yaml")
	return c
}

func (a *app) runLint(o lint) error {
	if err := o.output.check("json", "yaml"); err != nil {
		return err
	}
	if o.members != "" && len(o.files) == 0 {
		return usage("--members goes with -f; a fleet repository has its own in members/")
	}
	pairs, err := o.pairs()
	if err != nil {
		return err
	}
	var report preview.Report
	if len(o.files) == 0 {
		if report, err = preview.LintRepository(o.dir, pairs.of); err != nil {
			return err
		}
	} else if report, err = a.lintFiles(o, pairs); err != nil {
		return err
	}
	if err := pairs.unused(&report); err != nil {
		return err
	}
	done, err := o.output.structured(a.Out, report)
	switch {
	case err != nil:
		return err
	case !done:
		a.printReport(&report)
	}
	if report.Errors > 0 {
		return exit{code: exitError}
	}
	return nil
}

func (a *app) lintFiles(o lint, pairs *pairs) (preview.Report, error) {
	var all preview.Manifests
	var faults []error
	for _, path := range append(o.files, o.members) {
		if path == "" {
			continue
		}
		m, err := preview.Read(path, a.In)
		var fault *preview.Fault
		if err != nil && !errors.As(err, &fault) {
			return preview.Report{}, err
		}
		faults = append(faults, err)
		all.Rollouts, all.Members = append(all.Rollouts, m.Rollouts...), append(all.Members, m.Members...)
	}
	if len(all.Rollouts)+len(all.Members) == 0 && errors.Join(faults...) == nil {
		return preview.Report{}, fmt.Errorf("%s: no FleetRollout and no FleetMember", strings.Join(o.files, ", "))
	}
	for i := range all.Rollouts {
		if r := &all.Rollouts[i]; r.Namespace == "" {
			r.Namespace = orElse(*a.flags.Namespace, metav1.NamespaceDefault)
		}
	}
	return preview.LintFiles(all, errors.Join(faults...), pairs.of), nil
}

func (a *app) printReport(r *preview.Report) {
	for _, f := range r.Findings {
		color := yellow
		if f.Severity == preview.SeverityError {
			color = red
		}
		fmt.Fprintf(a.Out, "%s: %s: %s\n", f.Where(), a.paint(color, f.Severity), f.Sentence())
	}
	rendered := ""
	if r.Rendered > 0 {
		rendered = fmt.Sprintf(", rendered to %s", plural(r.Rendered, "manifest"))
	}
	fmt.Fprintf(a.Out, "%s and %s%s: %s, %s\n", plural(r.Rollouts, "rollout"), plural(r.Members, "member"), rendered,
		plural(r.Errors, "error"), plural(r.Warnings, "warning"))
}

// pairs are the payloads and charts of a lint, by rollout.
type pairs struct {
	all     string // folder with the payloads of all others
	inputs  preview.Inputs
	payload map[string]string
	chart   map[string]string
	used    map[string]bool
}

func (o *lint) pairs() (*pairs, error) {
	p := &pairs{all: o.payloads, inputs: o.inputs, payload: map[string]string{}, chart: map[string]string{}, used: map[string]bool{}}
	for _, list := range []struct {
		flag  string
		given []string
		into  map[string]string
	}{{"payload", o.payload, p.payload}, {"chart", o.chart, p.chart}} {
		for _, pair := range list.given {
			name, folder, found := strings.Cut(pair, "=")
			if !found || name == "" || folder == "" {
				return nil, usage("--%s %s: NAME=FOLDER, such as apps/web=../web", list.flag, pair)
			}
			if list.into[name] != "" {
				return nil, usage("--%s: %s is there twice", list.flag, name)
			}
			list.into[name], p.used[name] = folder, false
		}
	}
	return p, nil
}

// unused says which name is no rollout's. Where there are errors it may be that of a rollout that was not rendered.
func (p *pairs) unused(report *preview.Report) error {
	if report.Errors > 0 {
		return nil
	}
	if report.Members == 0 && (p.all != "" || len(p.used) > 0) {
		return usage("to render payloads the members are needed: give them with --members")
	}
	for _, name := range slices.Sorted(maps.Keys(p.used)) {
		if !p.used[name] {
			return usage("--payload and --chart: %s is no rollout here", name)
		}
	}
	return nil
}

// of a rollout; false where nobody said where its payload is.
func (p *pairs) of(name fleet.RolloutName) (preview.Inputs, bool) {
	in := p.inputs
	for _, key := range []string{name.Name, name.String()} {
		if folder, ok := p.payload[key]; ok {
			in.Payload, p.used[key] = folder, true
		}
		if folder, ok := p.chart[key]; ok {
			in.Chart, p.used[key] = folder, true
		}
	}
	if p.all == "" || in.Payload != "" {
		return in, in.Payload != ""
	}
	for _, folder := range []string{filepath.Join(p.all, name.Namespace, name.Name), filepath.Join(p.all, name.Name)} {
		if info, err := os.Stat(folder); err == nil && info.IsDir() {
			in.Payload = folder
			return in, true
		}
	}
	in.Payload = filepath.Join(p.all, name.Namespace, name.Name)
	return in, true // and opening it says that it is not there
}
