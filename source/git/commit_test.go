// SPDX-License-Identifier: Apache-2.0

package git

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

const treeLine = "tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n"

func TestParseCommit(t *testing.T) {
	parent := "parent 1111111111111111111111111111111111111111\n"
	who := "author Ada L. <ada@example.com> 1700000000 +0100\ncommitter Bob <b@example.com> 1700000000 +0100\n"
	for _, tc := range []struct {
		name, raw       string
		parents         int
		author, subject string
		fails           string
	}{
		{"plain", treeLine + who + "\nFix it\n\nbecause\n", 0, "Ada L. <ada@example.com>", "Fix it", ""},
		{"merge", treeLine + parent + strings.ReplaceAll(parent, "1", "2") + who + "\nMerge\n", 2, "Ada L. <ada@example.com>", "Merge", ""},
		{"signed", treeLine + parent + who + "gpgsig -----BEGIN SSH SIGNATURE-----\n parent 2222\n tree 33\n -----END SSH SIGNATURE-----\n\nSigned\n", 1, "Ada L. <ada@example.com>", "Signed", ""},
		{"no message", treeLine + who + "\n", 0, "Ada L. <ada@example.com>", "", ""},
		{"terminal escapes", treeLine + who + "\n\x1b[31mred\x07\xff\n", 0, "Ada L. <ada@example.com>", "[31mred?", ""},
		{"long", treeLine + who + "\n" + strings.Repeat("ä", 500), 0, "Ada L. <ada@example.com>", strings.Repeat("ä", 100) + "...", ""},
		{"no author", treeLine + "\nx", 0, "", "x", ""},
		{"no tree", parent + who + "\nx", 0, "", "", "does not begin with its tree"},
		{"two trees", treeLine + treeLine + who + "\nx", 0, "", "", "second list"},
		{"late parent", treeLine + who + parent + "\nx", 0, "", "", "second list"},
		{"short parent", treeLine + "parent 11\n" + who + "\nx", 0, "", "", "parent"},
		{"upper case", strings.ToUpper(treeLine) + who + "\nx", 0, "", "", "tree"},
		{"empty", "", 0, "", "", "tree"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, err := parseCommit([]byte(tc.raw))
			if tc.fails != "" {
				wantError(t, err, fleet.Terminal, v1alpha1.ReasonFetchFailed, tc.fails)
				return
			}
			if err != nil || len(c.parents) != tc.parents || c.author != tc.author || c.subject != tc.subject {
				t.Errorf("%d parents, %q, %q, %v", len(c.parents), c.author, c.subject, err)
			}
		})
	}
}

func TestParseTree(t *testing.T) {
	entry := func(mode, name string) string { return mode + " " + name + "\x00" + strings.Repeat("h", 20) }
	good := entry("100644", "b.txt") + entry("40000", "b") + entry("100755", "run") + entry("120000", "link") + entry("160000", "module") + entry("100664", "old")
	entries, err := parseTree([]byte(good))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, fmt.Sprintf("%s %o", e.name, e.mode))
	}
	if want := []string{"b 40000", "b.txt 100644", "link 120000", "module 160000", "old 100664", "run 100755"}; !slices.Equal(names, want) {
		t.Errorf("%v, want %v", names, want)
	}
	for _, bad := range []string{
		entry("100644", ""), entry("100644", "."), entry("40000", ".."), entry("100644", "a/b"), entry("40000", ".Git"),
		entry("100644", "a\xff"), entry("100644", strings.Repeat("x", 256)), entry("100644", "a") + entry("100644", "a"),
		entry("", "a"), entry("644", "a"), entry("200000", "a"), entry("1006449", "a"), entry("10064x", "a"), entry("020000", "tty"),
		"100644 a", "100644 a\x00short", "\x00", strings.Repeat("x", 100),
	} {
		if _, err := parseTree([]byte(bad)); err == nil {
			t.Errorf("%.60q is taken", bad)
		} else {
			wantError(t, err, fleet.Terminal, v1alpha1.ReasonFetchFailed, "")
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(treeLine + "author A <a> 1 +0\n\nx"))
	f.Add([]byte("100644 a\x00" + strings.Repeat("h", 20)))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if c, err := parseCommit(raw); err == nil && (len(c.subject) > 210 || len(c.author) > 210 || strings.ContainsAny(c.subject+c.author, "\n\x1b")) {
			t.Errorf("%q by %q", c.subject, c.author)
		}
		entries, err := parseTree(raw)
		for i, e := range entries {
			if err != nil || !validName(e.name) || i > 0 && e.name <= entries[i-1].name {
				t.Errorf("%v, %v", entries, err)
			}
		}
	})
}
