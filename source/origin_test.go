// SPDX-License-Identifier: Apache-2.0

package source

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/flotilla-dev/flotilla/api/v1alpha1"
)

// TestNamesAreOfOneOriginOnly: no text that somebody writes into a source makes its names those of another, or he
// would be shown what was fetched with another's credentials.
func TestNamesAreOfOneOriginOnly(t *testing.T) {
	private := Origin{
		Source: v1alpha1.Source{Git: &v1alpha1.GitSource{URL: "https://git.example/private"}, SecretRef: &v1alpha1.LocalReference{Name: "git"}},
		Reader: Reader{Namespace: "team", ServiceAccount: "flotilla"},
	}
	repository := private
	repository.Reader.ServiceAccount = ""
	for name, victim := range map[string]Origin{"a rollout": private, "the fleet repository": repository} {
		forged := Origin{Source: v1alpha1.Source{
			Git: &v1alpha1.GitSource{URL: victim.Git.URL}, Ignore: "secret team/git as " + victim.Reader.ServiceAccount + "\n",
		}}
		if forged.Files() == victim.Files() {
			t.Errorf("%s: somebody without its Secret has its files, by what he ignores", name)
		}
	}
	listed, one := private, private
	listed.Git = &v1alpha1.GitSource{URL: private.Git.URL, SparseCheckout: []string{"a", "b"}}
	one.Git = &v1alpha1.GitSource{URL: private.Git.URL, SparseCheckout: []string{"a\nb"}}
	if listed.Files() == one.Files() {
		t.Error("two folders have the name of one with a line break")
	}
	chart := Origin{Source: v1alpha1.Source{Helm: &v1alpha1.HelmSource{URL: "https://charts.example", Chart: "a#b"}}}
	other := Origin{Source: v1alpha1.Source{Helm: &v1alpha1.HelmSource{URL: "https://charts.example#a", Chart: "b"}}}
	if chart.Place() == other.Place() || chart.Place() == (Origin{Source: v1alpha1.Source{Git: &v1alpha1.GitSource{URL: "https://charts.example#a#b"}}}).Place() {
		t.Error("two places have one name")
	}
}

// TestNamesTellOriginsApart, whatever is in their fields.
func TestNamesTellOriginsApart(t *testing.T) {
	text := rapid.StringMatching(`[a\n#" ]{0,3}(secret|proxy|with submodules)?[a\n#" /]{0,3}`)
	type fields struct {
		URL, Ignore, Namespace, Account, Secret, Proxy string
		Sparse                                         [2]string
		Submodules                                     bool
	}
	draw := func(t *rapid.T, name string) fields {
		return fields{
			URL: text.Draw(t, name), Ignore: text.Draw(t, name), Namespace: text.Draw(t, name), Account: text.Draw(t, name),
			Secret: text.Draw(t, name), Proxy: text.Draw(t, name), Sparse: [2]string{text.Draw(t, name), text.Draw(t, name)}, Submodules: rapid.Bool().Draw(t, name),
		}
	}
	of := func(f fields) Origin {
		return Origin{
			Source: v1alpha1.Source{
				Git:    &v1alpha1.GitSource{URL: f.URL, SparseCheckout: f.Sparse[:], RecurseSubmodules: f.Submodules},
				Ignore: f.Ignore, SecretRef: &v1alpha1.LocalReference{Name: f.Secret}, ProxySecretRef: &v1alpha1.LocalReference{Name: f.Proxy},
			},
			Reader: Reader{f.Namespace, f.Account},
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b := draw(t, "a"), draw(t, "b")
		if (of(a).Files() == of(b).Files()) != (a == b) {
			t.Fatalf("%+v and %+v", a, b)
		}
	})
}
