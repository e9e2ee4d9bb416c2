// SPDX-License-Identifier: Apache-2.0

package git

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/flotilla-dev/flotilla/source"
)

// commit is what is read of a commit object: strictly, over its raw bytes, so that nobody can show one
// history to a check and another to a reader.
type commit struct {
	links
	author, subject string
}

// links of a commit to its tree and its parents.
type links struct {
	tree    plumbing.Hash
	parents []plumbing.Hash
}

func parseCommit(raw []byte) (commit, error) {
	var c commit
	header, message, _ := bytes.Cut(raw, []byte("\n\n"))
	lines := strings.Split(string(header), "\n")
	tree, ok := strings.CutPrefix(lines[0], "tree ")
	var err error
	if c.tree, err = parseHash(tree); !ok || err != nil {
		return commit{}, unreadable("malformed commit: it does not begin with its tree")
	}
	rest := lines[1:]
	for len(rest) > 0 && strings.HasPrefix(rest[0], "parent ") {
		h, err := parseHash(strings.TrimPrefix(rest[0], "parent "))
		if err != nil {
			return commit{}, unreadable("malformed commit: parent %q", source.Clip(rest[0], 60))
		}
		c.parents, rest = append(c.parents, h), rest[1:]
	}
	for _, line := range rest {
		switch key, value, _ := strings.Cut(line, " "); key {
		case "tree", "parent":
			return commit{}, unreadable("malformed commit: a second list of links")
		case "author":
			who, _, _ := strings.Cut(value, ">")
			c.author = source.Printable(who, 200)
			if strings.Contains(c.author, "<") {
				c.author += ">"
			}
		}
	}
	c.subject = source.Printable(string(message[:min(len(message), 4096)]), 200)
	return c, nil
}

// treeEntry is one name in a folder.
type treeEntry struct {
	name string
	mode uint32
	hash plumbing.Hash
}

// Types of entries, as git numbers them.
const (
	modeType      = 0o170000
	modeFolder    = 0o040000
	modeFile      = 0o100000
	modeLink      = 0o120000
	modeSubmodule = 0o160000
)

// parseTree reads a folder, sorted by name. A name that could lead out of the folder, or stand for two
// things, is an attack or a broken tool; either way nothing of the revision is used.
func parseTree(raw []byte) ([]treeEntry, error) {
	var entries []treeEntry
	for len(raw) > 0 {
		head, rest, ok := bytes.Cut(raw, []byte{0})
		mode, name, named := strings.Cut(string(head), " ")
		var e treeEntry
		if !ok || !named || len(rest) < len(e.hash) {
			return nil, unreadable("malformed folder")
		}
		raw = rest[copy(e.hash[:], rest):]
		if e.name = name; !validName(name) {
			return nil, unreadable("a file is named %q, which is refused", source.Printable(name, 100))
		}
		if e.mode, ok = parseMode(mode); !ok {
			return nil, unreadable("%q has mode %q, which is refused", source.Printable(name, 100), source.Clip(mode, 20))
		}
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b treeEntry) int { return cmp.Compare(a.name, b.name) })
	for i := 1; i < len(entries); i++ {
		if entries[i].name == entries[i-1].name {
			return nil, unreadable("the name %q is there twice", source.Printable(entries[i].name, 100))
		}
	}
	return entries, nil
}

func validName(name string) bool {
	const most = 255
	switch {
	case name == "", name == ".", name == "..", strings.EqualFold(name, ".git"), len(name) > most:
		return false
	}
	return !strings.Contains(name, "/") && utf8.ValidString(name)
}

func parseMode(s string) (uint32, bool) {
	var mode uint32
	if s == "" || len(s) > 6 {
		return 0, false
	}
	for _, c := range []byte(s) {
		if c < '0' || c > '7' {
			return 0, false
		}
		mode = mode<<3 | uint32(c-'0')
	}
	switch mode & modeType {
	case modeFolder, modeFile, modeLink, modeSubmodule:
		return mode, true
	}
	return 0, false
}
