// SPDX-License-Identifier: Apache-2.0

// Package preview answers: what would a rollout do, before anybody runs it?
//
// It reads manifests as strictly as an API server would, and says where in which file something is
// wrong; it compiles a rollout for a roster, and renders it for one member, with the very code that
// the agents run. It needs no cluster.
package preview

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kjson "sigs.k8s.io/json"
	kyaml "sigs.k8s.io/yaml"

	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// maxFile bounds one file, in bytes: a thousand members are about half a megabyte.
const maxFile = 16 << 20

// Manifests of our kinds, as files have them. Other kinds may lie beside them and are passed over.
type Manifests struct {
	Rollouts []Rollout
	Members  []Member
}

// Rollout and where it begins.
type Rollout struct {
	Where
	v1alpha1.FleetRollout

	written document
}

// At is where the field stands that a sentence speaks of first; where it speaks of none, where the rollout begins.
func (r *Rollout) At(sentence string) Where {
	path := pathInside.FindString(sentence)
	if path == "" || r.written.node == nil {
		return r.Where
	}
	return r.written.at(r.written.find(path))
}

// Member and where it begins.
type Member struct {
	Where
	v1alpha1.FleetMember
}

// Where something is written.
type Where struct {
	File string
	// Line counted from 1; 0 is unknown.
	Line int
}

func (w Where) String() string {
	if w.Line == 0 {
		return w.File
	}
	return w.File + ":" + strconv.Itoa(w.Line)
}

// Fault is something wrong in a file.
type Fault struct {
	Where
	Err error
}

func (f *Fault) Error() string { return f.Where.String() + ": " + f.Err.Error() }

// Unwrap gives what is wrong.
func (f *Fault) Unwrap() error { return f.Err }

// Parse the documents of one file. The error joins a [Fault] for everything that is wrong; what is
// right is returned with it.
func Parse(file string, body []byte) (Manifests, error) {
	var m Manifests
	if len(body) > maxFile {
		return m, &Fault{Where{File: file}, fmt.Errorf("%d bytes; at most %d", len(body), maxFile)}
	}
	var faults []error
	for _, d := range documents(file, body) {
		faults = append(faults, m.document(d)...)
	}
	return m, errors.Join(faults...)
}

// document of a YAML stream.
type document struct {
	where Where // of its first line
	text  []byte
	// json of the object, and the node it came from; for an item of a list both are the item's.
	json []byte
	node *yaml.Node
}

var separator = regexp.MustCompile(`^---(\s|$)`)

// documents splits a stream. A line that begins with --- is never part of anything in it.
func documents(file string, body []byte) []document {
	out := []document{{where: Where{file, 1}}}
	for i, line := range bytes.SplitAfter(body, []byte("\n")) {
		if separator.Match(line) {
			out = append(out, document{where: Where{file, i + 1}})
			line = append([]byte("   "), line[3:]...) // what follows on the line belongs to the document
		}
		last := &out[len(out)-1]
		last.text = append(last.text, line...)
	}
	return out
}

// document adds what one document holds, and says what is wrong with it.
func (m *Manifests) document(d document) []error {
	raw, err := kyaml.YAMLToJSONStrict(d.text)
	if err != nil {
		return []error{d.syntax(err)}
	}
	if string(raw) == "null" {
		return nil
	}
	var root yaml.Node
	if err := yaml.Unmarshal(d.text, &root); err != nil || len(root.Content) == 0 {
		return []error{d.syntax(err)}
	}
	d.json, d.node = raw, root.Content[0]
	return m.object(d)
}

var lineIn = regexp.MustCompile(`line (\d+): `)

// syntax moves the parser's line, which counts from the document's beginning, into the file's.
func (d *document) syntax(err error) error {
	if err == nil {
		err = errors.New("not a YAML document")
	}
	at, message := d.where, strings.TrimPrefix(strings.TrimPrefix(err.Error(), "error converting YAML to JSON: "), "yaml: ")
	if found := lineIn.FindStringSubmatchIndex(message); found != nil {
		if n, convErr := strconv.Atoi(message[found[2]:found[3]]); convErr == nil {
			at.Line += n - 1
			message = message[:found[0]] + message[found[1]:]
		}
	}
	return &Fault{at, errors.New(strings.TrimPrefix(message, "unmarshal errors:\n  "))}
}

// object of any kind.
func (m *Manifests) object(d document) []error {
	var head struct {
		metav1.TypeMeta `json:",inline"`
		Items           []json.RawMessage `json:"items"`
	}
	if _, err := kjson.UnmarshalStrict(d.json, &head); err != nil {
		return []error{d.fault(d.node, "not a Kubernetes object: %s", err)}
	}
	group, _, _ := strings.Cut(head.APIVersion, "/")
	ours := group == v1alpha1.GroupVersion.Group
	switch {
	case head.Kind == "List" && head.APIVersion == "v1", ours && strings.HasSuffix(head.Kind, "List"):
		return m.items(d, head.Items)
	case head.APIVersion == "" || head.Kind == "":
		return []error{d.fault(d.node, "apiVersion and kind are needed")}
	case !ours:
		return nil
	case head.APIVersion != v1alpha1.GroupVersion.String():
		return []error{d.fault(d.node, "apiVersion: %s is not known here; this version knows %s", head.APIVersion, v1alpha1.GroupVersion)}
	case head.Kind == "FleetRollout":
		r := Rollout{Where: d.at(d.node), written: d}
		faults := d.decode(&r.FleetRollout)
		if len(faults) == 0 {
			faults = d.problems(r.Problems())
		}
		m.Rollouts = append(m.Rollouts, r)
		return faults
	case head.Kind == "FleetMember":
		member := Member{Where: d.at(d.node)}
		faults := d.decode(&member.FleetMember)
		if len(faults) == 0 {
			faults = d.problems(member.Problems())
		}
		m.Members = append(m.Members, member)
		return faults
	}
	return []error{d.fault(d.node, "kind: %s has no kind %s; there are FleetRollout and FleetMember", v1alpha1.GroupVersion, head.Kind)}
}

// items of a list, as kubectl get -o yaml prints them.
func (m *Manifests) items(d document, items []json.RawMessage) []error {
	nodes := child(d.node, "items")
	if nodes == nil || len(nodes.Content) != len(items) {
		return nil // null, or an alias: a list of nothing that is ours
	}
	var faults []error
	for i, item := range items {
		faults = append(faults, m.object(document{where: d.where, json: item, node: nodes.Content[i]})...)
	}
	return faults
}
