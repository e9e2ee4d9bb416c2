// SPDX-License-Identifier: Apache-2.0

// Package fleetrepo answers: what does the fleet repository say at one commit?
//
// Members lie in members/, rollouts in rollouts/ and tenants/<namespace>/rollouts/, in files of any
// name. Reading is pure. A file that cannot be used is a [Fault] that names it; all others count.
package fleetrepo

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// Folders of the repository.
const (
	MembersFolder  = "members"
	RolloutsFolder = "rollouts"
	TenantsFolder  = "tenants"
)

// maxFile bounds one file; a FleetRollout is a few kilobytes.
const maxFile = 1 << 20

// Content of the repository at one commit.
type Content struct {
	// Members sorted by name.
	Members []fleet.Member
	// Rollouts by name.
	Rollouts map[fleet.RolloutName]Declared
	// Faults of files that cannot be used.
	Faults []Fault
}

// Declared is one rollout and the file it is in.
type Declared struct {
	File string
	Spec v1alpha1.FleetRolloutSpec
}

// Fault of one file.
type Fault struct {
	File string
	// Rollout that the file is about, where that much could be read.
	Rollout fleet.RolloutName
	Err     error
}

func (f Fault) Error() string { return fmt.Sprintf("%s: %v", f.File, f.Err) }

// Read the repository from its root. A fault in a member's file is the whole roster's: with a member
// missing from it, every rollout would be sealed for fewer clusters than its author meant.
func Read(files fs.FS) Content {
	c := Content{Rollouts: map[fleet.RolloutName]Declared{}}
	c.Members = append(c.Members, c.readMembers(files)...)
	c.readRollouts(files, RolloutsFolder, "")
	tenants, err := fs.ReadDir(files, TenantsFolder)
	if err == nil {
		for _, t := range tenants {
			if t.IsDir() {
				c.readRollouts(files, path.Join(TenantsFolder, t.Name(), RolloutsFolder), t.Name())
			}
		}
	}
	return c
}

// ReadMembers reads a folder of FleetMember manifests.
func ReadMembers(files fs.FS) ([]fleet.Member, []Fault) {
	var c Content
	members := c.membersIn(files, ".")
	return members, c.Faults
}

func (c *Content) readMembers(files fs.FS) []fleet.Member { return c.membersIn(files, MembersFolder) }

func (c *Content) membersIn(files fs.FS, folder string) []fleet.Member {
	var out []fleet.Member
	whereIs := map[string]string{}
	c.each(files, folder, func(file string, doc []byte) error {
		var m v1alpha1.FleetMember
		if err := decode(doc, "FleetMember", &m); err != nil {
			return err
		}
		member, err := MemberOf(&m)
		if err != nil {
			return err
		}
		for _, key := range []string{m.Name, m.Spec.PeerID} {
			if other, ok := whereIs[key]; ok {
				return fmt.Errorf("%s is in %s too", key, other)
			}
			whereIs[key] = file
		}
		out = append(out, member)
		return nil
	})
	slices.SortFunc(out, func(a, b fleet.Member) int { return strings.Compare(string(a.Name), string(b.Name)) })
	return out
}

// MemberOf is the manifest as the rest of the code knows it.
func MemberOf(m *v1alpha1.FleetMember) (fleet.Member, error) {
	if err := m.Validate(); err != nil {
		return fleet.Member{}, err
	}
	id := fleet.MemberID(m.Spec.PeerID)
	if _, err := id.PublicKey(); err != nil {
		return fleet.Member{}, fmt.Errorf("spec.peerID: %w", err)
	}
	return fleet.Member{
		ID: id, Name: fleet.Name(m.Name), Labels: m.Labels, Addresses: m.Spec.Addresses,
		Zone:        orElse(m.Spec.Zone, "default"),
		Incarnation: uint64(max(m.Spec.Incarnation, 1)),
	}, nil
}

func (c *Content) readRollouts(files fs.FS, folder, namespace string) {
	c.each(files, folder, func(file string, doc []byte) error {
		var r v1alpha1.FleetRollout
		if err := decode(doc, "FleetRollout", &r); err != nil {
			return err
		}
		name := fleet.RolloutName{Namespace: orElse(r.Namespace, namespace), Name: r.Name}
		err := checkRollout(&r, name, namespace)
		if other, ok := c.Rollouts[name]; ok && err == nil {
			err = fmt.Errorf("FleetRollout %s is in %s too", name, other.File)
		}
		if err != nil {
			return Fault{File: file, Rollout: name, Err: err}
		}
		c.Rollouts[name] = Declared{File: file, Spec: r.Spec}
		return nil
	})
}

func checkRollout(r *v1alpha1.FleetRollout, name fleet.RolloutName, namespace string) error {
	switch {
	case name.Namespace == "":
		return fmt.Errorf("metadata.namespace: required; the payload and its service account live there")
	case namespace != "" && name.Namespace != namespace:
		return fmt.Errorf("metadata.namespace: %q, but the folder is tenants/%s", name.Namespace, namespace)
	}
	return r.Validate()
}

// each document of each YAML file below the folder, in order of path.
func (c *Content) each(files fs.FS, folder string, use func(file string, doc []byte) error) {
	err := fs.WalkDir(files, folder, func(file string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !isYAML(file) {
			return err
		}
		body, err := readFile(files, file, entry)
		if err != nil {
			c.fault(file, err)
			return nil
		}
		for _, doc := range documents(body) {
			if err := use(file, doc); err != nil {
				c.fault(file, err)
			}
		}
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.fault(folder, err)
	}
}

func (c *Content) fault(file string, err error) {
	if f, ok := err.(Fault); ok { //nolint:errorlint // made in this file, never wrapped
		c.Faults = append(c.Faults, f)
		return
	}
	c.Faults = append(c.Faults, Fault{File: file, Err: err})
}

func readFile(files fs.FS, file string, entry fs.DirEntry) ([]byte, error) {
	info, err := entry.Info()
	if err != nil {
		return nil, err
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("%d bytes; at most %d", info.Size(), maxFile)
	}
	return fs.ReadFile(files, file)
}

// documents of a YAML stream that hold anything.
func documents(body []byte) [][]byte {
	var out [][]byte
	for _, doc := range strings.Split("\n"+string(body), "\n---") {
		for _, line := range strings.Split(doc, "\n") {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
				out = append(out, []byte(doc))
				break
			}
		}
	}
	return out
}

// decode strictly: a misspelt field is an error, not a default.
func decode(doc []byte, kind string, into any) error {
	var head metav1.TypeMeta
	if err := yaml.Unmarshal(doc, &head); err != nil {
		return err
	}
	if head.APIVersion != v1alpha1.GroupVersion.String() || head.Kind != kind {
		return fmt.Errorf("%s %s where %s %s is expected", head.APIVersion, head.Kind, v1alpha1.GroupVersion, kind)
	}
	if err := yaml.UnmarshalStrict(doc, into); err != nil {
		return err
	}
	raw, err := yaml.YAMLToJSON(doc)
	if err != nil {
		return err
	}
	return v1alpha1.CheckWritten(raw)
}

func isYAML(file string) bool {
	ext := path.Ext(file)
	return ext == ".yaml" || ext == ".yml"
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
