// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"regexp"
	"strings"
	"testing"

	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// judge a manifest as one who reads files does: the first thing that is wrong, or nothing.
func judge(t *testing.T, manifest string) error {
	t.Helper()
	raw, err := yaml.YAMLToJSON([]byte(manifest))
	if err != nil {
		t.Fatal(err)
	}
	var rollout v1alpha1.FleetRollout
	var member v1alpha1.FleetMember
	into, validate := any(&rollout), rollout.Validate
	if strings.HasPrefix(strings.TrimSpace(manifest), "kind: FleetMember") {
		into, validate = &member, member.Validate
	}
	strict, err := kjson.UnmarshalStrict(raw, into)
	if err == nil && len(strict) > 0 {
		err = strict[0]
	}
	if err == nil {
		err = v1alpha1.CheckWritten(raw)
	}
	if err == nil {
		err = validate()
	}
	return err
}

// What the API server refuses is refused in files, about the same field, and where the sentence is our own in the same words.
func TestValidateRefuses(t *testing.T) {
	for _, tc := range refusals {
		t.Run(tc.name, func(t *testing.T) {
			err := judge(t, tc.manifest)
			if err == nil {
				t.Fatalf("accepted; the API server says: %s", tc.want)
			}
			field, words, ours := parts(tc.want)
			got := strings.ReplaceAll(err.Error(), "metadata.name: \"", "\"")
			switch {
			case ours && !strings.HasSuffix(got, words):
				t.Errorf("\ngot  %s\nwant %s", err, words)
			case decodes(err):
			case field != "" && !about(err, field):
				t.Errorf("not about %s: %s", field, err)
			}
		})
	}
}

// decodes: the value is none of the field's type, so that there is no object to validate.
func decodes(err error) bool {
	return strings.HasPrefix(err.Error(), "json: ") || strings.HasPrefix(err.Error(), "time: ") || strings.HasPrefix(err.Error(), "unknown field")
}

var generic = regexp.MustCompile(` in body | value: \{| Duplicate value|Required value|Unsupported value|Too long|strict decoding`)

// parts of an API server's sentence: the field, what follows it, and whether those are the schema's own words.
func parts(want string) (field, words string, ours bool) {
	field, words, _ = strings.Cut(want, ": ")
	if strings.HasPrefix(field, "<nil>") || strings.HasPrefix(want, "strict") {
		field = ""
	}
	_, words, _ = strings.Cut(words, ": ")
	// A value that is no duration is refused by the decoder, which knows no sentence of ours.
	return field, words, !generic.MatchString(want) && !strings.Contains(words, "a duration such as") && words != ""
}

func TestValidateAccepts(t *testing.T) {
	for _, tc := range accepted {
		if err := judge(t, tc.manifest); err != nil {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

// Each rule says what is wrong and what would be right.
func TestValidateWords(t *testing.T) {
	for _, tc := range []struct{ manifest, want string }{
		{source("git: {url: 'git@github.com:acme/web.git'}"), `spec.source.git.url: "git@github.com:acme/web.git": an https, http or ssh URL: https://host/path or ssh://git@host/path; write it as ssh://git@github.com/acme/web.git`},
		{source("git: {url: 'git.example.com:web'}"), `spec.source.git.url: "git.example.com:web": an https, http or ssh URL: https://host/path or ssh://git@host/path; write it as ssh://git.example.com/web`},
		{source("git: {url: /srv/git/web}"), `spec.source.git.url: "/srv/git/web": an https, http or ssh URL: https://host/path or ssh://git@host/path`},
		{source("git: {url: 'https://g/x', ref: {commit: abc}}"), `spec.source.git.ref.commit: "abc" is not a full commit hash of 40 hex digits`},
		{source("git: {url: 'https://g/x', ref: {branch: ''}}"), `spec.source.git.ref.branch: empty; leave it out, or give it a value`},
		{special("helm: {valuesFrom: [{kind: Secret, name: a}, {kind: Secret, name: b, targetPath: ''}]}"), `spec.specialize.helm.valuesFrom[1].targetPath: a path such as image.tag, or leave it out`},
		{special("helm: {crds: Create}"), `spec.specialize.helm.crds: "Create": one of Skip, CreateReplace`},
		{special("overrides: [{name: a, names: []}]"), `spec.specialize.overrides[0].names: at least 1 item; for every member of the fleet write names: ["*"]`},
		{special("overrides: [{name: a, matchExpressions: [{key: a, operator: in, values: [b]}]}]"), `spec.specialize.overrides[0]: selector: "in" is not a valid label selector operator`},
		{strategy("stages: [{name: a, names: [x]}, {name: a, names: [q]}]"), `spec.strategy.stages[1]: "a" is there twice`},
		{strategy("progressDeadline: 5s"), `spec.strategy.progressDeadline: "5s": at least 10s`},
		{source("git: {url: 'https://g/x'}, timeout: -5s"), `spec.source.timeout: "-5s": a duration such as 90s, 15m or 48h (there is no unit for days: 7 days is 168h)`},
		{delivery("retries: 101"), `spec.delivery.retries: 101: at most 100`},
		{rollout("Web"), `metadata.name: "Web": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')`},
		{"kind: FleetMember\nmetadata: {name: a, labels: {region: 'e u'}}\nspec: {peerID: " + peer + "}", `metadata.labels.region: "e u": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')`},
		{member("a", "incarnation: 0, peerID: "+peer), `spec.incarnation: 0: at least 1`},
	} {
		if err := judge(t, tc.manifest); err == nil || err.Error() != tc.want {
			t.Errorf("\ngot  %v\nwant %s\nof %s", err, tc.want, tc.manifest)
		}
	}
}

// All that is wrong is said, in the order of the fields.
func TestProblems(t *testing.T) {
	var r v1alpha1.FleetRollout
	if err := yaml.Unmarshal([]byte(strings.Join([]string{
		"metadata: {name: web}", "spec:", "  source: {git: {url: x}, path: /a}", "  specialize: {helm: {hooks: Run}}",
		"  strategy: {stages: [{name: a, size: 0}]}", "  delivery: {retries: -1}",
	}, "\n")), &r); err != nil {
		t.Fatal(err)
	}
	var fields []string
	for _, p := range r.Problems() {
		fields = append(fields, strings.TrimPrefix(p.Field, "spec."))
	}
	const want = "source.git.url source.path targets specialize.helm.hooks strategy.stages[0].size delivery.retries"
	if got := strings.Join(fields, " "); got != want {
		t.Errorf("\ngot  %s\nwant %s", got, want)
	}
}

// about: the error is of the field, or of one in it.
func about(err error, field string) bool {
	rest, found := strings.CutPrefix(err.Error(), field)
	return found && strings.ContainsAny(rest[:1], ":[.")
}

// Whatever bytes a file holds, reading it ends with an error or without, and not with a panic.
func FuzzCheckWritten(f *testing.F) {
	for _, tc := range refusals {
		raw, err := yaml.YAMLToJSON([]byte(tc.manifest))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		wrong := v1alpha1.CheckWritten(raw)
		var r v1alpha1.FleetRollout
		if err := kjson.UnmarshalCaseSensitivePreserveInts(raw, &r); err != nil {
			return
		}
		for _, p := range r.Problems() {
			if p.Field == "" || p.Message == "" {
				t.Errorf("a problem without field or words: %+v", p)
			}
		}
		_ = wrong
	})
}
