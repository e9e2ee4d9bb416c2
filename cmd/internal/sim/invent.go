// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"crypto/ed25519"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// MostInvented members of a fleet that is not there: with more, a play takes minutes for each seed.
const MostInvented = 2000

// Group of members of an invented fleet.
type Group struct {
	Labels map[string]string
	// Members in it; 0 is all that are left.
	Members int
}

// Invent a fleet of so many members, c01 and on. The groups take theirs one after the other; what is left has no label.
func Invent(clusters int, groups ...Group) ([]fleet.Member, error) {
	if clusters < 1 || clusters > MostInvented {
		return nil, fmt.Errorf("%d clusters: 1 to %d can be invented", clusters, MostInvented)
	}
	digits := max(2, len(fmt.Sprint(clusters)))
	out := make([]fleet.Member, clusters)
	for i := range out {
		out[i] = fleet.Member{
			ID: simulatedID(i), Name: fleet.Name(fmt.Sprintf("c%0*d", digits, i+1)), Incarnation: 1, Labels: map[string]string{},
		}
	}
	left := out
	for _, g := range groups {
		n := g.Members
		if n == 0 {
			n = len(left)
		}
		if n > len(left) || n == 0 {
			return nil, fmt.Errorf("labels %s are for %d members, and %d are left of %d", labelWords(g.Labels), max(n, 1), len(left), clusters)
		}
		for i := range left[:n] {
			maps.Copy(left[i].Labels, g.Labels)
		}
		left = left[n:]
	}
	return out, nil
}

// simulatedKey of the i-th member: the same in every fleet.
func simulatedKey(i int) ed25519.PrivateKey {
	seed := fleet.DigestOf("flotilla.dev/sim-key", []byte{byte(i >> 16), byte(i >> 8), byte(i)})
	return ed25519.NewKeyFromSeed(seed[:])
}

func simulatedID(i int) fleet.MemberID {
	return fleet.MemberIDOf(simulatedKey(i).Public().(ed25519.PublicKey))
}

func labelWords(labels map[string]string) string {
	words := make([]string, 0, len(labels))
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		words = append(words, key+"="+labels[key])
	}
	return strings.Join(words, ",")
}
