// SPDX-License-Identifier: Apache-2.0

package specialize

import "testing"

func TestIsRemote(t *testing.T) {
	for text, want := range map[string]bool{
		"../../base":                 false,
		"deployment.yaml":            false,
		"./overlays/eu-1":            false,
		"a/b:c.yaml":                 false, // a file's name, once the first folder is over
		"a/user@host":                false,
		"-":                          false,
		"github.com.yaml":            false,
		"https://example.com/x.yaml": true,
		"HTTP:example.com":           true,
		"http:/one-slash":            true,
		"ssh://git@host/repo":        true,
		"file:///repo":               true,
		"oci://host/repo":            true,
		"git::https://host/repo":     true,
		"git@host:repo":              true,
		"git@host/org/repo":          true,
		"user-1@host/org/repo":       true,
		"host:org/repo":              true,
		"github.com/org/repo":        true,
		"GitHub.com:org/repo":        true,
		"\thttps://example.com/tab":  true,
	} {
		if got := isRemote(text); got != want {
			t.Errorf("isRemote(%q) = %v", text, got)
		}
	}
	for text, want := range map[string]bool{
		"apiVersion: builtin\nkind: PrefixTransformer\n": false,
		"{apiVersion: builtin}":                          false,
		"@host/org/repo":                                 false,
		"git@host/org/repo: x\napiVersion: builtin\n":    true,
		"http: //x": true,
	} {
		if got := beginsRemote(text); got != want {
			t.Errorf("beginsRemote(%q) = %v", text, got)
		}
	}
}
