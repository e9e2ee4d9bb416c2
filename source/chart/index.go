// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"bytes"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/source"
)

// maxWhole is the size of an index that is parsed in whole, where it is not written as Helm writes it: that
// takes about fifteen times as much memory.
const maxWhole = 4 << 20

// offer is one version of a chart as a repository has it.
type offer struct {
	version
	digest string   // of the archive; empty where the repository does not say
	urls   []string // of the archive, as an index words them
	// byDigest says that nobody asked whether the version is this archive: it binds nothing.
	byDigest bool
}

// listing is what an index says of one chart.
type listing struct {
	found  bool
	offers []offer
	// others are charts of similar names, where the index has not this one.
	others []string
}

// indexEntry is a version in an index.yaml. The other fields are for people.
type indexEntry struct {
	Version string   `json:"version"`
	Digest  string   `json:"digest"`
	URLs    []string `json:"urls"`
}

// parseIndex reads what an index.yaml says of a chart. An index is mostly about other charts, so the lines of
// this one are cut out and parsed version by version; only an index of another style is parsed in whole.
func parseIndex(index []byte, chart string, most int) (listing, error) {
	if looksLikePage(index) {
		return listing{}, retryable("open the URL in a browser: is it a page to log in, or does the repository live below another path?",
			"the server answers with a web page instead of an index.yaml")
	}
	s, ok := cut(index, chart)
	if ok && s.found {
		if offers, ok := s.offers(most); ok {
			return listing{found: true, offers: offers}, within(len(offers), most)
		}
	} else if ok {
		return listing{others: nearest(chart, s.names)}, nil
	}
	return parseWhole(index, chart, most)
}

func within(versions, most int) error {
	if versions > most {
		return tooLarge("let the repository drop old versions", "the index has more than %d versions of the chart", most)
	}
	return nil
}

func looksLikePage(body []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n\ufeff"), []byte("<"))
}

func parseWhole(index []byte, chart string, most int) (listing, error) {
	if len(index) > maxWhole {
		return listing{}, tooLarge("let 'helm repo index' write it", "the index is larger than %s and not laid out as Helm does", source.Size(maxWhole))
	}
	var whole struct {
		Entries map[string][]*indexEntry `json:"entries"`
	}
	var err error
	if bytes.HasPrefix(bytes.TrimSpace(index), []byte("{")) {
		err = json.Unmarshal(index, &whole)
	} else {
		err = yaml.Unmarshal(index, &whole)
	}
	if err != nil {
		return listing{}, retryable("is there a repository of charts at this URL?", "the index.yaml does not parse: %s", source.Printable(err.Error(), 200))
	}
	if whole.Entries == nil {
		return listing{}, retryable("is there a repository of charts at this URL?", "the index.yaml has no entries")
	}
	entries, found := whole.Entries[chart]
	if !found {
		return listing{others: nearest(chart, slices.Collect(maps.Keys(whole.Entries)))}, nil
	}
	var offers []offer
	for _, e := range entries {
		offers = e.appendTo(offers)
	}
	return listing{found: true, offers: offers}, within(len(offers), most)
}

// appendTo adds the offer of an entry; one whose version is none is left out, as Helm does.
func (e *indexEntry) appendTo(offers []offer) []offer {
	if e == nil {
		return offers
	}
	v, err := parseVersion(e.Version)
	if err != nil {
		return offers
	}
	digest, err := parseDigest(sha256Prefix + strings.ToLower(strings.TrimPrefix(e.Digest, sha256Prefix)))
	if err != nil {
		digest = "" // of another kind, or none
	}
	return append(offers, offer{version: v, digest: digest, urls: e.URLs})
}

// section is the lines of an index that are about one chart.
type section struct {
	lines []byte
	found bool
	names []string // of all charts
}

// cut finds them, in an index that is laid out as Helm and its kin write it: entries on a line, below it the
// names of charts, equally indented. It says false for any other layout.
func cut(index []byte, chart string) (section, bool) {
	var s section
	inEntries, inside, start, depth := false, false, 0, 0
	at := 0
	for line := range bytes.Lines(index) {
		from := at
		at += len(line)
		text := bytes.TrimRight(line, " \t\r\n")
		rest := bytes.TrimLeft(text, " ")
		indent := len(text) - len(rest)
		switch {
		case len(rest) == 0 || rest[0] == '#':
		case rest[0] == '\t' && indent <= depth, indent == 0 && (bytes.HasPrefix(rest, []byte("...")) || from > 0 && bytes.HasPrefix(rest, []byte("---"))):
			return section{}, false
		case indent == 0 && string(rest) == "entries:":
			if depth > 0 || inEntries {
				return section{}, false
			}
			inEntries = true
		case !inEntries:
		case indent == 0:
			inEntries = false
			if inside {
				s.lines, inside = index[start:from], false
			}
		case depth == 0 && rest[0] == '-', indent < depth:
			return section{}, false
		case depth == 0 || indent == depth && rest[0] != '-':
			depth = indent
			name, ok := plainKey(rest)
			if !ok || name == chart && s.found {
				return section{}, false
			}
			if inside {
				s.lines, inside = index[start:from], false
			}
			s.names = append(s.names, name)
			if name == chart {
				s.found, inside, start = true, true, at
			}
		}
	}
	if inside {
		s.lines = index[start:]
	}
	return s, len(s.names) > 0
}

// plainKey is the name in a line that has nothing but the key of a mapping, or an empty list with it.
func plainKey(line []byte) (string, bool) {
	name, found := strings.CutSuffix(strings.TrimSuffix(string(line), " []"), ":")
	if len(name) > 2 && (name[0] == '"' || name[0] == '\'') && name[0] == name[len(name)-1] {
		name = name[1 : len(name)-1]
	}
	return name, found && name != "" && strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._/-") == ""
}

// offers of a section, parsed item by item. It says false where that is not how the lines are meant.
func (s section) offers(most int) ([]offer, bool) {
	var offers []offer
	for item, ok := range s.items() {
		if !ok {
			return nil, false
		}
		var entries []*indexEntry
		if err := yaml.Unmarshal(item, &entries); err != nil || len(entries) != 1 {
			return nil, false
		}
		if offers = entries[0].appendTo(offers); len(offers) > most {
			break
		}
	}
	return offers, true
}

// items of the list that a section is, each with its dash.
func (s section) items() iter.Seq2[[]byte, bool] {
	return func(yield func([]byte, bool) bool) {
		start, at, depth := -1, 0, 0
		for line := range bytes.Lines(s.lines) {
			from := at
			at += len(line)
			rest := bytes.TrimLeft(line, " ")
			indent := len(line) - len(rest)
			switch {
			case len(bytes.TrimSpace(rest)) == 0 || start < 0 && rest[0] == '#':
			case start < 0:
				if rest[0] != '-' {
					yield(nil, false)
					return
				}
				start, depth = from, indent
			case indent < depth && rest[0] != '#':
				yield(nil, false)
				return
			case indent == depth && (bytes.HasPrefix(rest, []byte("- ")) || len(bytes.TrimSpace(rest)) == 1 && rest[0] == '-'):
				if !yield(s.lines[start:from], true) {
					return
				}
				start = from
			}
		}
		if start >= 0 {
			yield(s.lines[start:], true)
		}
	}
}

// nearest names to one that is not there.
func nearest(name string, all []string) []string {
	type ranked struct {
		name     string
		distance int
	}
	var near []ranked
	for _, other := range all {
		d := fleet.Slips(source.Clip(name, 64), source.Clip(other, 64))
		if strings.Contains(other, name) || strings.Contains(name, other) {
			d = min(d, 1)
		}
		if d <= max(2, len(name)/3) {
			near = append(near, ranked{other, d})
		}
	}
	slices.SortFunc(near, func(a, b ranked) int {
		if a.distance != b.distance {
			return a.distance - b.distance
		}
		return strings.Compare(a.name, b.name)
	})
	var names []string
	for _, n := range near[:min(3, len(near))] {
		names = append(names, source.Clip(n.name, 80))
	}
	return names
}

// noChart words that a chart is not there.
func noChart(chart string, near []string) error {
	hint := "check its name"
	if len(near) > 0 {
		hint = "did you mean " + strings.Join(near, " or ") + "?"
	}
	return missing(hint, "the repository has no chart %q", chart)
}

// noVersion words that no version is the wanted one.
func noVersion(w wanted, all []offer) error {
	what := fmt.Sprintf("the chart has no version in the range %q", w.text)
	if w.isExact() {
		what = fmt.Sprintf("the chart has no version %s", w.text)
	}
	if len(all) == 0 {
		return missing("", "%s, and no other", what)
	}
	hint := "its newest are " + newest(all)
	if !w.isExact() && slices.ContainsFunc(all, func(o offer) bool { return o.sem.Prerelease() != "" }) {
		hint += "; a range takes pre-releases only where it names one, as in >=1.0.0-0"
	}
	return missing(hint, "%s", what)
}
