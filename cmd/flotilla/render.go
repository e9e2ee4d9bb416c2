// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/cmd/internal/preview"
	"github.com/flotilla-dev/flotilla/cmd/internal/readapi"
)

type render struct {
	files   []string
	members string
	member  string
	all     bool
	inputs  preview.Inputs
	output  output
}

// inTheAgentsZone: templates can ask for the zone of the process, and agents render in UTC.
func inTheAgentsZone(*cobra.Command, []string) { time.Local = time.UTC }

func (a *app) renderCommand() *cobra.Command {
	var o render
	c := &cobra.Command{
		Use:   "render -f FILE (--member NAME | --all) --payload FOLDER",
		Short: "Print what members would run",
		Long: `Print the objects that a member would get, as YAML: the payload's files from a folder of this
machine, built as the member's agent builds them. It needs no cluster. Nothing outside of the payload's
folder is read.

With --all it prints what each member would get that the rollout is for: once for all members whose
objects are the same, with their names before it. The agents fetch charts, and read ConfigMaps and
Secrets from their cluster; here they are files, given with --chart and --object.`,
		Example: `  flotilla render -f rollouts/web.yaml --member eu-3 --members members/ --payload ../web
  flotilla render -f web.yaml --member eu-3 --members members/ --payload . | kubectl diff -f -

  # every variant, and a chart with values from a Secret
  flotilla render -f web.yaml --all --members members/ --payload ../web --chart ../charts/web --object values.yaml`,
		Args:   args(0, 0, "no names: give files with -f"),
		PreRun: inTheAgentsZone,
		RunE:   func(c *cobra.Command, _ []string) error { return a.runRender(c.Context(), o) },
	}
	c.Flags().StringArrayVarP(&o.files, "filename", "f", nil, "`file` with the rollout, - for standard input")
	c.Flags().StringVar(&o.member, "member", "", "`name` of the member to render for")
	c.Flags().BoolVar(&o.all, "all", false, "render for every member that the rollout is for")
	c.Flags().StringVar(&o.members, "members", "", "`file` or folder with the FleetMembers; the cluster's where left out")
	inputFlags(c, &o.inputs)
	c.Flags().StringVarP((*string)(&o.output), "output", "o", "yaml", "yaml or json")
	return c
}

// inputFlags are what the agents fetch, and what is files here.
func inputFlags(c *cobra.Command, in *preview.Inputs) {
	c.Flags().StringVar(&in.Payload, "payload", "", "`folder` with the payload: a checkout of spec.source, or its chart")
	c.Flags().StringVar(&in.Chart, "chart", "", "`folder` with the chart that spec.specialize.helm.chart names")
	c.Flags().StringArrayVar(&in.Objects, "object", nil, "`file` with ConfigMaps and Secrets of the rollout's namespace (may be repeated)")
	c.Flags().StringVar(&in.KubeVersion, "kube-version", "", "`version` of the members' Kubernetes that charts see, such as v1.36.0")
	c.Flags().StringSliceVar(&in.APIVersions, "api-versions", nil, "API `versions` of the members that charts see, such as apps/v1,monitoring.coreos.com/v1")
}

// one rollout with the members, and its payload opened.
func (a *app) one(ctx context.Context, files []string, members string) (*preview.Rollout, []fleet.Member, error) {
	rollouts, beside, err := a.readRollouts(files)
	if err != nil {
		return nil, nil, err
	}
	if len(rollouts) != 1 {
		return nil, nil, fmt.Errorf("%d rollouts; give a file with one", len(rollouts))
	}
	roster, err := a.roster(ctx, members, beside)
	if err != nil {
		return nil, nil, err
	}
	return &rollouts[0], roster, nil
}

// payload of a rollout. What is odd about the inputs is said on the error stream.
func (a *app) payload(r *preview.Rollout, in preview.Inputs) (*preview.Payload, error) {
	p, err := preview.Open(&r.FleetRollout, in)
	if err != nil {
		return nil, err
	}
	for _, note := range p.Notes {
		fmt.Fprintf(a.ErrOut, "note: %s\n", note)
	}
	return p, nil
}

func (a *app) runRender(ctx context.Context, o render) error {
	if err := o.output.check("yaml", "json"); err != nil {
		return err
	}
	switch {
	case o.member == "" && !o.all:
		return usage("say for whom: --member NAME, or --all")
	case o.member != "" && o.all:
		return usage("--member and --all exclude each other")
	case o.inputs.Payload == "":
		return usage("say where the payload is: --payload FOLDER, a checkout of the rollout's source")
	}
	rollout, roster, err := a.one(ctx, o.files, o.members)
	if err != nil {
		return err
	}
	payload, err := a.payload(rollout, o.inputs)
	if err != nil {
		return err
	}
	defer payload.Close() //nolint:errcheck // read only
	if o.all {
		return a.renderAll(payload, roster, o.output)
	}
	out, err := preview.Render(payload, roster, fleet.Name(o.member))
	if err != nil {
		return err
	}
	if !out.Targeted {
		fmt.Fprintf(a.ErrOut, "note: the rollout is not for %s: %s\n", o.member, out.Because)
	}
	return a.printVariants([]preview.Variant{{Manifest: out.Manifest}}, o.output)
}

// renderAll prints what can be rendered, whatever else cannot.
func (a *app) renderAll(payload *preview.Payload, roster []fleet.Member, o output) error {
	variants, err := preview.Variants(payload, roster)
	return errors.Join(a.printVariants(variants, o), err)
}

// variant as programs get it.
type variant struct {
	Members []fleet.Name `json:"members,omitempty"`
	Digest  string       `json:"digest"`
	Engine  string       `json:"engine"`
	Path    string       `json:"path"`
	Objects []any        `json:"objects"`
}

func (a *app) printVariants(variants []preview.Variant, o output) error {
	if o == "json" {
		list := readapi.List[variant]{Items: []variant{}}
		for i := range variants {
			v := variant{Members: variants[i].Members, Digest: variants[i].Digest.String(), Engine: variants[i].Engine, Path: variants[i].Path}
			for _, object := range variants[i].Objects {
				v.Objects = append(v.Objects, object.Object)
			}
			list.Items = append(list.Items, v)
		}
		_, err := o.structured(a.Out, list)
		return err
	}
	for i := range variants {
		body, err := variants[i].YAML()
		if err != nil {
			return err
		}
		if len(variants[i].Members) > 0 {
			if i > 0 {
				fmt.Fprintln(a.Out, "---")
			}
			names := make([]string, len(variants[i].Members))
			for n, m := range variants[i].Members {
				names[n] = string(m)
			}
			fmt.Fprintf(a.Out, "# %s: %s, %s, %s\n", plural(len(names), "member"), plural(len(variants[i].Objects), "object"), variants[i].Engine, variants[i].Digest.Short())
			fmt.Fprintf(a.Out, "# %s\n", strings.ReplaceAll(wrap(strings.Join(names, " "), 2, 2), "\n ", "\n#"))
		}
		if _, err := a.Out.Write(bytes.TrimPrefix(body, []byte("---\n"))); err != nil {
			return err
		}
	}
	return nil
}
