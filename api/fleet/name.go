// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
)

// Name of a member: a DNS label of at most 63 characters, unique in its fleet.
type Name string

// Revision of a payload as its source words it, such as main@sha1:<commit>.
type Revision string

// Short is the revision as tables print it: main@a1b2c3d.
func (r Revision) Short() string {
	branch, rest, found := strings.Cut(string(r), "@")
	if !found {
		return shorten(string(r))
	}
	if _, sum, ok := strings.Cut(rest, ":"); ok {
		rest = sum
	}
	return branch + "@" + shorten(rest)
}

// Commit is the hash after the last colon, or the whole revision where there is none.
func (r Revision) Commit() string {
	return string(r[strings.LastIndexByte(string(r), ':')+1:])
}

func shorten(s string) string {
	if len(s) > 7 {
		return s[:7]
	}
	return s
}

// Digest is a SHA-256 sum. The zero digest means "none".
type Digest [sha256.Size]byte

// DigestOf hashes parts under a domain string. Each part is preceded by its length, so that
// no two lists of parts give the same bytes.
func DigestOf(domain string, parts ...[]byte) Digest {
	h := sha256.New()
	var size [8]byte
	write := func(b []byte) {
		putUint64(size[:], uint64(len(b)))
		h.Write(size[:])
		h.Write(b)
	}
	write([]byte(domain))
	for _, p := range parts {
		write(p)
	}
	return Digest(h.Sum(nil))
}

// String is the full digest in hex.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// Short is the first seven hex digits, for people.
func (d Digest) Short() string { return d.String()[:7] }

// IsZero says whether the digest is "none".
func (d Digest) IsZero() bool { return d == Digest{} }

// MarshalText writes the digest in hex; the zero digest as nothing.
func (d Digest) MarshalText() ([]byte, error) {
	if d.IsZero() {
		return nil, nil
	}
	return []byte(d.String()), nil
}

// UnmarshalText reads what MarshalText wrote.
func (d *Digest) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*d = Digest{}
		return nil
	}
	parsed, err := ParseDigest(string(text))
	if err != nil {
		return err
	}
	*d = parsed
	return nil
}

// ParseDigest reads 64 hex digits.
func ParseDigest(s string) (Digest, error) {
	var d Digest
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(d) {
		return Digest{}, fmt.Errorf("digest %q: want 64 hex digits", clip(s, 80))
	}
	copy(d[:], b)
	return d, nil
}

// RolloutName is where a rollout is found in every member's API.
type RolloutName struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

// String is namespace/name.
func (r RolloutName) String() string { return r.Namespace + "/" + r.Name }

// ParseRolloutName reads namespace/name.
func ParseRolloutName(s string) (RolloutName, error) {
	ns, name, ok := strings.Cut(s, "/")
	if !ok || ns == "" || name == "" || strings.Contains(name, "/") {
		return RolloutName{}, fmt.Errorf("rollout %q: want namespace/name", clip(s, 140))
	}
	return RolloutName{Namespace: ns, Name: name}, nil
}

// Moment is the two clocks a decider gets. Only time windows read Wall; deadlines, ready times and
// soaks read Elapsed, which counts on while the machine is suspended and is not moved by an
// operator's hand (CLOCK_BOOTTIME). Elapsed values compare within one Boot only.
type Moment struct {
	Wall    time.Time
	Elapsed time.Duration
	// Boot names the run of the machine that Elapsed counts from.
	Boot string
}

func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return s[:most] + "..."
}

// BlobDigest names a body that travels apart from its record.
func BlobDigest(b []byte) Digest { return DigestOf("flotilla.dev/blob", b) }
