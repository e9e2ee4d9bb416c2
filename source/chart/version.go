// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/source"
)

const (
	sha256Prefix = "sha256:"
	maxVersion   = 128 // bytes of a version's text
)

// version of a chart.
type version struct {
	text string // as the repository spells it: v1.4.2, 1.4
	sem  *semver.Version
}

func parseVersion(text string) (version, error) {
	if len(text) > maxVersion {
		return version{}, fmt.Errorf("longer than %d bytes", maxVersion)
	}
	sem, err := semver.NewVersion(text)
	if err != nil {
		return version{}, errors.New("not a version such as 1.4.2")
	}
	return version{text: text, sem: sem}, nil
}

// key is the same for all spellings of one version.
func (v version) key() string { return v.sem.String() }

// compare versions by SemVer's precedence. Where that is equal, build metadata is compared as pre-releases
// are, so that every two versions have an order and all members the same one.
func (v version) compare(w version) int {
	if c := v.sem.Compare(w.sem); c != 0 {
		return c
	}
	return compareMetadata(v.sem.Metadata(), w.sem.Metadata())
}

func compareMetadata(a, b string) int {
	if a == "" || b == "" {
		return cmp.Compare(a, b)
	}
	return slices.CompareFunc(strings.Split(a, "."), strings.Split(b, "."), func(a, b string) int {
		if aDigits, bDigits := digits(a), digits(b); aDigits != bDigits {
			if aDigits {
				return -1
			}
			return 1
		} else if aDigits {
			a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
			return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
		}
		return cmp.Compare(a, b)
	})
}

func digits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// wanted is what a spec asks for: one version, or the highest of a range.
type wanted struct {
	text  string
	exact version // the zero version for a range
	rng   *semver.Constraints
}

func parseWanted(text string) (wanted, error) {
	hint := "write a version such as 1.4.2, or a range such as 1.x or '>=1.2.0 <2.0.0'"
	if text == "" || len(text) > maxVersion {
		return wanted{}, malformed(hint, "version %q: it is empty or longer than %d bytes", source.Clip(text, 80), maxVersion)
	}
	if _, err := semver.StrictNewVersion(strings.TrimPrefix(text, "v")); err == nil {
		exact, err := parseVersion(text)
		if err != nil {
			return wanted{}, malformed(hint, "version %q: %w", text, err)
		}
		return wanted{text: text, exact: exact}, nil
	}
	rng, err := semver.NewConstraint(text)
	if err != nil {
		return wanted{}, malformed(hint, "version %q: it is neither a version nor a range", source.Clip(text, 80))
	}
	return wanted{text: text, rng: rng}, nil
}

func exactly(v version) wanted { return wanted{text: v.text, exact: v} }

func (w wanted) isExact() bool { return w.rng == nil }

// takes says whether a version may be it.
func (w wanted) takes(v version) bool {
	if w.isExact() {
		return v.compare(w.exact) == 0
	}
	return w.rng.Check(v.sem)
}

// choose the highest that is wanted; of several spellings of one version the one that was written, else the first.
func (w wanted) choose(all []offer) (offer, bool) {
	var best offer
	found := false
	for _, o := range all {
		if !w.takes(o.version) {
			continue
		}
		c := 1
		if found {
			c = o.compare(best.version)
		}
		if c > 0 || c == 0 && o.text == w.text && best.text != w.text {
			best, found = o, true
		}
	}
	return best, found
}

// newest versions of a list, for people.
func newest(all []offer) string {
	sorted := slices.SortedFunc(slices.Values(all), func(a, b offer) int { return b.compare(a.version) })
	sorted = slices.CompactFunc(sorted, func(a, b offer) bool { return a.compare(b.version) == 0 })
	var names []string
	for _, o := range sorted[:min(3, len(sorted))] {
		names = append(names, o.text)
	}
	return strings.Join(names, ", ")
}

// revisionOf words a version and the digest of its archive: 1.4.2@sha256:<digest>.
func revisionOf(v version, digest string) fleet.Revision {
	return fleet.Revision(v.text + "@" + sha256Prefix + digest)
}

// parseRevision reads what revisionOf words.
func parseRevision(rev fleet.Revision) (version, string, error) {
	text, sum, found := strings.Cut(string(rev), "@")
	v, err := parseVersion(text)
	switch {
	case !found:
		err = errors.New("want <version>@sha256:<digest of the archive>")
	case err == nil:
		sum, err = parseDigest(sum)
	}
	if err != nil {
		return version{}, "", malformed("", "revision %q: %w", source.Clip(string(rev), 240), err)
	}
	return v, sum, nil
}

// parseDigest reads sha256:<64 hex digits>.
func parseDigest(s string) (string, error) {
	sum, found := strings.CutPrefix(s, sha256Prefix)
	if raw, err := hex.DecodeString(sum); !found || err != nil || len(raw) != sha256.Size || strings.ToLower(sum) != sum {
		return "", errors.New("want sha256: and 64 lower-case hex digits")
	}
	return sum, nil
}

func digestOf(archive []byte) string {
	sum := sha256.Sum256(archive)
	return hex.EncodeToString(sum[:])
}

// relation of two revisions: versions are ordered, and one version is one archive.
func relation(from, to fleet.Revision) (source.Relation, error) {
	a, aDigest, err := parseRevision(from)
	if err != nil {
		return source.Unrelated, err
	}
	b, bDigest, err := parseRevision(to)
	if err != nil {
		return source.Unrelated, err
	}
	switch c := b.compare(a); {
	case c > 0:
		return source.Descends, nil
	case c < 0:
		return source.Precedes, nil
	case aDigest == bDigest:
		return source.Same, nil
	}
	return source.Unrelated, nil
}
