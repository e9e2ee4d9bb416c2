// SPDX-License-Identifier: Apache-2.0

package fleet_test

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// What libp2p calls the keys of the seeds 00.., 01.. and ff...
var libp2pIDs = map[byte]fleet.MemberID{
	0x00: "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN",
	0x01: "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5",
	0xff: "12D3KooWHoSyTgntm77sXShoeX9uNkqKNMhHxKtskaHqnA54SrSG",
}

func TestMemberIDIsThePeerID(t *testing.T) {
	for seed, want := range libp2pIDs {
		if got := memberOf(seed); got != want {
			t.Errorf("seed %02x: got %s, want %s", seed, got, want)
		}
	}
}

func TestMemberIDRoundTrip(t *testing.T) {
	check := func(t interface{ Fatalf(string, ...any) }, key ed25519.PublicKey) {
		id := fleet.MemberIDOf(key)
		got, err := id.PublicKey()
		if err != nil || !got.Equal(key) {
			t.Fatalf("%x is %s is %x, %v", []byte(key), id, []byte(got), err)
		}
		if !strings.HasPrefix(string(id), "12D3KooW") || len(id) != 52 {
			t.Fatalf("%s is no peer ID", id)
		}
	}
	check(t, make([]byte, 32))
	check(t, []byte(strings.Repeat("\xff", 32)))
	rapid.Check(t, func(t *rapid.T) {
		check(t, rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "key"))
	})
}

func TestMemberIDRefusals(t *testing.T) {
	good := string(libp2pIDs[1])
	for what, id := range map[string]string{
		"empty":                         "",
		"RSA key":                       "QmetnfKUnd122BZJYv2nHLRDNFugfwSDxJfZ73trvzffaK",
		"secp256k1 key":                 "16Uiu2HAmByow1KSWi17sDkLo4Lx3g2or83JYJQZ7jWNy7rP8BNZH",
		"CIDv1":                         "bafzaajaiaejcbcui3ipxeqhrsx6vfxfthr4lu4wkm4e36gkbefbbg4abwa2a63tp",
		"cut short":                     good[:51],
		"a letter more":                 good + "1",
		"one more leading zero":         "1" + good,
		"leading zero for a last digit": "1" + good[:51],
		"no leading zero":               "2" + good[1:],
		"zero is not in the alphabet":   good[:51] + "0",
		"O is not in the alphabet":      good[:51] + "O",
		"I is not in the alphabet":      good[:51] + "I",
		"l is not in the alphabet":      good[:51] + "l",
		"not ASCII":                     good[:50] + "é",
		"blank before":                  " " + good[:51],
		"blank after":                   good + " ",
		"a line break for a digit":      good[:51] + "\n",
		"another multihash":             "12D3KooX" + good[8:],
		"smaller than any key's":        strings.Repeat("1", 52),
		"larger than any key's":         "1" + strings.Repeat("z", 51),
		"upper case":                    strings.ToUpper(good),
	} {
		if key, err := fleet.MemberID(id).PublicKey(); err == nil {
			t.Errorf("%s: %q is taken for %x", what, id, []byte(key))
		}
	}
}

// One key has one ID: no other text of the right shape names it.
func TestMemberIDIsCanonical(t *testing.T) {
	alphabet := "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
	rapid.Check(t, func(t *rapid.T) {
		b := []byte(libp2pIDs[rapid.SampledFrom([]byte{0, 1, 0xff}).Draw(t, "seed")])
		for range rapid.IntRange(1, 3).Draw(t, "changes") {
			at := rapid.IntRange(0, len(b)-1).Draw(t, "at")
			b[at] = alphabet[rapid.IntRange(0, len(alphabet)-1).Draw(t, "digit")]
		}
		id := fleet.MemberID(b)
		key, err := id.PublicKey()
		if err == nil && fleet.MemberIDOf(key) != id {
			t.Fatalf("%s and %s are one key", id, fleet.MemberIDOf(key))
		}
	})
}

func TestCut(t *testing.T) {
	x := func(n int) string { return strings.Repeat("x", n) }
	for _, c := range []struct{ what, in, want string }{
		{"empty", "", ""},
		{"short", "stage canary", "stage canary"},
		{"as long as may be", x(256), x(256)},
		{"a byte more", x(257), x(253) + "..."},
		{"two-byte rune at the edge", x(252) + "ééé", x(252) + "..."},
		{"two-byte rune before the edge", x(251) + "ééé", x(251) + "é..."},
		{"three-byte rune over the edge by one", x(251) + "€€", x(251) + "..."},
		{"three-byte rune over the edge by two", x(252) + "€€", x(252) + "..."},
		{"three-byte rune before the edge", x(250) + "€€€", x(250) + "€..."},
		{"four-byte rune over the edge", x(250) + "😀😀", x(250) + "..."},
		{"four-byte rune before the edge", x(249) + "😀😀", x(249) + "😀..."},
		{"not UTF-8", "a\xffb", "a\uFFFDb"},
		{"grows by replacing", strings.Repeat("\xff", 100), strings.Repeat("\uFFFD", 84) + "..."},
		{"lines", "a\r\nb\tc", "a  b c"},
		{"escape sequence", "\x1b[31mred", " [31mred"},
		{"other direction", "a\u202eb\u2066c", "a b c"},
		{"right to left letters stay", "שלום", "שלום"},
	} {
		if got := fleet.Cut(c.in); got != c.want {
			t.Errorf("%s: got %q, want %q", c.what, got, c.want)
		}
	}
}

func TestCutIsShortAndStays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := string(rapid.SliceOfN(rapid.Byte(), 0, 600).Draw(t, "bytes"))
		if rapid.Bool().Draw(t, "text") {
			in = rapid.StringN(0, 300, -1).Draw(t, "runes")
		}
		got := fleet.Cut(in)
		if len(got) > fleet.MaxDetail || !utf8.ValidString(got) || fleet.Cut(got) != got {
			t.Fatalf("Cut(%q) = %q, of %d bytes", in, got, len(got))
		}
	})
}

func TestDigestText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := anyDigest(t)
		text, err := want.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var got fleet.Digest
		if err := got.UnmarshalText(text); err != nil || got != want {
			t.Fatalf("%s is %s, %v", text, got, err)
		}
		if parsed, err := fleet.ParseDigest(want.String()); err != nil || parsed != want {
			t.Fatalf("%s is %s, %v", want, parsed, err)
		}
		if want.Short() != want.String()[:7] {
			t.Fatal(want.Short())
		}
	})
	whole := strings.Repeat("ab", 32)
	for _, s := range []string{whole[:62], whole[:63], whole + "ab", whole[:62] + "xy", " " + whole[1:], strings.Repeat("ab ", 32)} {
		d := fleet.DigestOf("kept")
		if err := d.UnmarshalText([]byte(s)); err == nil || d != fleet.DigestOf("kept") {
			t.Errorf("%q: got %v, digest %s", s, err, d)
		}
	}
	if _, err := fleet.ParseDigest(""); err == nil {
		t.Error("nothing is a digest")
	}
}

// The zero digest is "none", in text and in JSON, both ways.
func TestZeroDigest(t *testing.T) {
	if !(fleet.Digest{}).IsZero() || fleet.DigestOf("x").IsZero() {
		t.Error("IsZero is wrong")
	}
	if text, err := (fleet.Digest{}).MarshalText(); err != nil || len(text) != 0 {
		t.Errorf("got %q, %v", text, err)
	}
	d := fleet.DigestOf("x")
	if err := d.UnmarshalText(nil); err != nil || !d.IsZero() {
		t.Errorf("got %s, %v", d, err)
	}
	b, err := json.Marshal(fleet.Status{Plan: fleet.DigestOf("x")})
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(b), `"seal"`) || !strings.Contains(string(b), `"plan":"`+fleet.DigestOf("x").String()) {
		t.Errorf("got %s", b)
	}
}

// No two lists of parts hash alike because their bytes run together the same way.
func TestDigestOfPartsApart(t *testing.T) {
	seen := map[fleet.Digest]string{}
	for _, parts := range [][]string{
		{}, {""}, {"", ""}, {"ab"}, {"a", "b"}, {"", "ab"}, {"ab", ""}, {"a", "", "b"},
	} {
		for _, domain := range []string{"", "a", "d"} {
			raw := make([][]byte, len(parts))
			for i, p := range parts {
				raw[i] = []byte(p)
			}
			d, name := fleet.DigestOf(domain, raw...), fmt.Sprintf("%q %q", domain, parts)
			if other, ok := seen[d]; ok {
				t.Errorf("%s and %s are both %s", name, other, d.Short())
			}
			seen[d] = name
		}
	}
}

func TestRevision(t *testing.T) {
	for _, c := range []struct {
		in            fleet.Revision
		short, commit string
	}{
		{"main@sha1:a1b2c3d4e5f6", "main@a1b2c3d", "a1b2c3d4e5f6"},
		{"feature/x@sha256:0123456789", "feature/x@0123456", "0123456789"},
		{"v1.2.3@sha1:abc", "v1.2.3@abc", "abc"},
		{"main@a1b2c3d4e5f6", "main@a1b2c3d", "main@a1b2c3d4e5f6"},
		{"sha1:a1b2c3d4e5f6", "sha1:a1", "a1b2c3d4e5f6"},
		{"", "", ""},
		{"@", "@", "@"},
	} {
		if got := c.in.Short(); got != c.short {
			t.Errorf("%q short: got %q, want %q", c.in, got, c.short)
		}
		if got := c.in.Commit(); got != c.commit {
			t.Errorf("%q commit: got %q, want %q", c.in, got, c.commit)
		}
	}
}

func TestParseRolloutName(t *testing.T) {
	got, err := fleet.ParseRolloutName("shop/checkout")
	if err != nil || got.String() != "shop/checkout" || got.Name != "checkout" {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, s := range []string{"", "checkout", "/checkout", "shop/", "shop/a/b", "/"} {
		if got, err := fleet.ParseRolloutName(s); err == nil {
			t.Errorf("%q is taken for %+v", s, got)
		}
	}
}

func TestErrors(t *testing.T) {
	cause := errors.New("path apps/web: not there")
	wrapped := fmt.Errorf("rollout shop/web: %w", &fleet.Error{
		Kind: fleet.Terminal, Reason: "PathNotFound", Hint: "look at spec.source.path", Err: cause,
	})
	if got := wrapped.Error(); got != "rollout shop/web: path apps/web: not there (look at spec.source.path)" {
		t.Errorf("got %q", got)
	}
	if fleet.KindOf(wrapped) != fleet.Terminal || fleet.ReasonOf(wrapped, "Other") != "PathNotFound" || !errors.Is(wrapped, cause) {
		t.Error("kind, reason or cause got lost")
	}
	if fleet.KindOf(cause) != fleet.Retryable || fleet.ReasonOf(cause, "Other") != "Other" || fleet.KindOf(nil) != fleet.Retryable {
		t.Error("an error without a kind is to be tried again")
	}
	outer := &fleet.Error{Kind: fleet.Refused, Err: wrapped}
	if fleet.KindOf(outer) != fleet.Refused || fleet.ReasonOf(outer, "Other") != "Other" {
		t.Error("the outermost error decides")
	}
}
