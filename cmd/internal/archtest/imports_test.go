// SPDX-License-Identifier: Apache-2.0

package archtest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
)

// deciders get facts and the time as arguments, and know nobody who could ask for more.
var deciders = []string{
	"api/fleet", "api/v1alpha1", "source", "selection", "specialize", "sequencer", "sequencer/lattice", "sequencer/verify", "delivery",
}

// turn ties the stages together. It is handed a clock and everything that reaches out, as the deciders are.
const turn = "cmd/internal/agent/turn"

// stages of the pipeline, in its order.
var stages = []string{"source", "selection", "specialize", "sequencer", "delivery"}

// wirers may know every stage: the agent that is shipped, and the same agent in virtual time.
var wirers = []string{"cmd/internal/agent/...", "cmd/internal/sim/..."}

// uselessNames say where something was put, not what it is.
var uselessNames = []string{"util", "utils", "common", "helper", "helpers", "misc", "shared", "base", "pkg", "lib"}

// rules of who may import whom. Imports are direct ones: apimachinery and kustomize bring net/http with them.
var rules = slices.Concat([]rule{
	{
		name: "vocabulary", in: []string{"api/fleet"},
		only:    []string{"std"},
		because: "everyone imports it, so it must not bring anyone along",
	},
	{
		name: "objects", in: []string{"api/v1alpha1"},
		only:    []string{"std", "k8s.io/apimachinery/..."},
		because: "other people's programs import the types and should not have to resolve our dependencies",
	},
	{
		name: "pure-stages", in: []string{"source", "selection", "sequencer", "delivery"},
		only:    []string{"std", "./api/fleet", "./api/v1alpha1", "k8s.io/apimachinery/..."},
		because: "a decision that knows only the vocabulary can be tested with plain values",
	},
	{
		name: "lattice", in: []string{"sequencer/lattice"},
		only:    []string{"std", "./api/fleet"},
		because: "how records merge depends on records alone, not on what they are about",
	},
	{
		name: "engines", in: []string{"specialize"},
		only: []string{
			"std", "./api/fleet", "./api/v1alpha1", "k8s.io/apimachinery/...",
			"sigs.k8s.io/kustomize/...", "sigs.k8s.io/yaml", "helm.sh/helm/...",
			"github.com/google/cel-go/...", "github.com/fluxcd/pkg/envsubst",
		},
		because: "rendering is the engines and nothing that could look at a cluster or a network",
	},
	{
		name: "jail", in: []string{"specialize/jail"},
		only:    []string{"std", "./api/fleet", "./api/v1alpha1", "./specialize", "k8s.io/apimachinery/...", "golang.org/x/sys/unix"},
		because: "what locks a process up is small enough to be read as a whole",
	},
	{
		name: "source-disk", in: []string{"source/disk"},
		only:    []string{"std", "./api/fleet", "./api/v1alpha1"},
		because: "how bytes get onto a disk does not depend on what they are",
	},
	{
		name: "source-access", in: []string{"source/access"},
		only:    []string{"std", "./api/fleet", "./api/v1alpha1", "./source", "golang.org/x/crypto/...", "golang.org/x/net/..."},
		because: "who a server is and who we are to it does not depend on what is fetched",
	},
	{
		name: "source-git", in: []string{"source/git"},
		only: []string{
			"std", "./api/fleet", "./api/v1alpha1", "./source", "./source/access", "./source/disk", "github.com/go-git/...", "golang.org/x/crypto/...",
			"github.com/Masterminds/semver/v3", "github.com/fluxcd/pkg/sourceignore", "github.com/go-logr/logr",
		},
		because: "fetching a payload is git and nothing else",
	},
	{
		name: "source-chart", in: []string{"source/chart"},
		only: []string{
			"std", "./api/fleet", "./api/v1alpha1", "./source", "./source/access", "./source/disk", "github.com/google/go-containerregistry/...",
			"github.com/Masterminds/semver/v3", "sigs.k8s.io/yaml", "github.com/go-logr/logr",
		},
		because: "fetching a chart is an archive and where it lies; what it means is the engine's",
	},
	{
		name: "verify", in: []string{"sequencer/verify"},
		only:    []string{"std", "./api/fleet", "./sequencer"},
		because: "who judges a fleet by what it signed needs the plans, and nobody's word beside",
	},
	{
		name: "mesh", in: []string{"sequencer/mesh"},
		only: []string{
			"std", "./api/fleet", "./sequencer/lattice", "./sequencer/store",
			"github.com/libp2p/...", "github.com/multiformats/go-multiaddr/...", "github.com/multiformats/go-multiaddr-dns",
			"golang.org/x/time/rate", "github.com/go-logr/logr",
		},
		because: "the mesh carries records; whoever knows what they say does not belong on the wire",
	},
	{
		name: "store", in: []string{"sequencer/store"},
		only:    []string{"std", "./api/fleet", "./sequencer/lattice", "go.etcd.io/bbolt/..."},
		because: "the disk keeps what the lattice holds, as bytes",
	},
	{
		name: "delivery-kube", in: []string{"delivery/kube"},
		only: []string{
			"std", "./api/fleet", "./api/v1alpha1", "./delivery", "k8s.io/...", "github.com/fluxcd/...",
			"sigs.k8s.io/controller-runtime/pkg/client/...", "sigs.k8s.io/yaml", "golang.org/x/sync/...",
			"github.com/go-logr/logr",
		},
		because: "writing to a cluster is a client and server-side apply; no manager, no controller",
	},
	{
		name: "manifests", in: []string{"deploy", "examples"},
		only:    []string{"std"},
		because: "they are files to install; code that does something with them is in cmd/internal",
	},
	{
		name: "checker", in: []string{"cmd/internal/checker"},
		only:    []string{"std", "./api/fleet", "./api/v1alpha1", "./sequencer", "k8s.io/apimachinery/..."},
		because: "it goes through every state of the decisions, and of nothing else",
	},
	{
		name: "turn", in: []string{turn},
		only: []string{
			"std", "./api/fleet", "./api/v1alpha1", "./source", "./specialize", "./sequencer", "./delivery", "github.com/go-logr/logr",
		},
		because: "the product on one screen runs in an agent, in a simulator and in the CLI; only the first has a network and a store",
	},
	{
		name: "simulator", in: []string{"cmd/internal/sim"},
		never: []string{
			"./cmd/internal/agent", "./sequencer/mesh/...", "./sequencer/store/...", "./delivery/kube/...", "./source/git/...",
			"./source/chart/...", "github.com/libp2p/...",
		},
		because: "it plays everything around the turn, and the CLI links it",
	},
	{
		name: "commands", in: []string{"cmd/..."}, except: []string{"cmd/internal/...", "cmd/devfleet/...", "cmd/statebench/..."},
		never:   []string{"./source/...", "./selection/...", "./specialize/...", "./sequencer/...", "./delivery/..."},
		because: "a command reads its flags and calls cmd/internal, where the same thing can be tested and simulated",
	},
	{
		name: "devfleet-alone", in: []string{"cmd/devfleet/..."},
		never: []string{
			"./api/...", "./source/...", "./selection/...", "./specialize/...", "./sequencer/...",
			"./delivery/...", "./cmd/internal/...",
		},
		tests:   true,
		because: "the test bed must not share a mistake with what it tests",
	},
	{
		name: "devfleet-apart", in: []string{"..."}, except: []string{"cmd/devfleet/..."},
		never:   []string{"./cmd/devfleet/..."},
		tests:   true,
		because: "its module is all of Kubernetes; tests start its binary instead",
	},
	{
		name: "statebench", in: []string{"cmd/statebench/..."},
		never: []string{
			"./source/...", "./selection/...", "./specialize/...", "./delivery/...", "./cmd/...",
		},
		tests:   true,
		because: "it measures the mesh and its store beside others, as anyone could who imports them",
	},
	{
		name: "statebench-apart", in: []string{"..."}, except: []string{"cmd/statebench/..."},
		never:   []string{"./cmd/statebench/...", "go.etcd.io/etcd/client/...", "github.com/ipfs/...", "github.com/hsanjuan/..."},
		tests:   true,
		because: "its module has a whole etcd and another CRDT in it; nothing of ours is built on either",
	},
	{
		name: "commands-on-top", in: []string{"api/...", "source/...", "selection/...", "specialize/...", "sequencer/...", "delivery/..."},
		never:   []string{"./cmd/..."},
		tests:   true,
		because: "the wiring knows the parts; a part that knows the wiring cannot be used without it",
	},
	{
		name: "no-io", in: append(slices.Clone(deciders), turn),
		never: []string{
			"net", "net/http/...", "net/rpc/...", "net/smtp", "os", "os/...", "syscall", "unsafe", "plugin",
			"k8s.io/client-go/...", "sigs.k8s.io/controller-runtime/...", "github.com/libp2p/...",
		},
		because: "a package decides or it does; what decides is handed its facts",
	},
	{
		name: "no-clock", in: append(slices.Clone(deciders), turn),
		calls: []string{
			"time.Now", "time.Since", "time.Until", "time.Sleep", "time.After", "time.AfterFunc",
			"time.NewTimer", "time.NewTicker", "time.Tick",
		},
		because: "the time is a fleet.Moment among the arguments, so that hours are simulated in milliseconds",
	},
	{
		name: "no-own-context", in: append(slices.Clone(deciders), turn),
		calls:   []string{"context.Background", "context.TODO"},
		because: "work that nobody can cancel outlives the one who asked for it",
	},
	{
		name: "no-random", in: deciders,
		never:   []string{"math/rand", "math/rand/v2", "crypto/rand"},
		because: "every member has to come to the same decision from the same facts",
	},
	{
		name: "tests-stay-tests", in: []string{"..."},
		except:  []string{"*test"},
		never:   []string{"testing/...", "net/http/httptest", "pgregory.net/rapid", "go.uber.org/goleak", "github.com/google/go-cmp/..."},
		because: "what only tests need does not ship",
	},
	{
		name: "helm-in-one-file", in: []string{"..."}, except: []string{"specialize/helm.go", "specialize/compattest/..."},
		never:   []string{"helm.sh/helm/..."},
		tests:   true,
		because: "Helm 3's security fixes end in February 2027: the change to 4 has to be a one-file change",
	},
	{
		name: "git-in-one-package", in: []string{"..."}, except: []string{"source/git/...", "cmd/internal/gitserver/..."},
		never:   []string{"github.com/go-git/..."},
		because: "whoever needs a payload asks source.Source, or OCI will never be one",
	},
	{
		name: "libp2p-in-one-package", in: []string{"..."}, except: []string{"sequencer/mesh/...", "cmd/statebench/..."},
		never:   []string{"github.com/libp2p/...", "github.com/multiformats/..."},
		because: "a member is a fleet.MemberID everywhere else, so that the mesh can be replaced",
	},
	{
		name: "apply-in-one-package", in: []string{"..."}, except: []string{"delivery/kube/..."},
		never:   []string{"github.com/fluxcd/pkg/ssa/..."},
		because: "one package writes payloads to clusters, under one set of rules",
	},
	{
		name: "manager-in-the-agent", in: []string{"..."}, except: []string{"cmd/internal/agent/..."},
		never: []string{
			"sigs.k8s.io/controller-runtime", "sigs.k8s.io/controller-runtime/pkg/manager/...",
			"sigs.k8s.io/controller-runtime/pkg/controller/...", "sigs.k8s.io/controller-runtime/pkg/reconcile",
			"sigs.k8s.io/controller-runtime/pkg/builder",
		},
		because: "Turn is the product and runs without a manager; controller-runtime only calls it",
	},
	{
		name: "store-in-one-package", in: []string{"..."}, except: []string{"sequencer/store/..."},
		never:   []string{"go.etcd.io/bbolt/..."},
		because: "one package owns the file, its locks and its format",
	},
}, stagesApart())

// stagesApart is a rule per stage: it imports no other one, in tests neither.
func stagesApart() []rule {
	var apart []rule
	for _, stage := range stages {
		others := slices.DeleteFunc(slices.Clone(stages), func(s string) bool { return s == stage })
		for i := range others {
			others[i] = "./" + others[i] + "/..."
		}
		apart = append(apart, rule{
			name: "stages-apart-" + stage, in: []string{stage + "/..."}, never: others, tests: true,
			because: "each stage can be replaced without the others; " + turn + " ties them together",
		})
	}
	return apart
}

// importFindings is all that is said about imports and names.
func importFindings(t *tree) []finding {
	var found []finding
	for _, r := range rules {
		found = append(found, r.check(t)...)
	}
	return slices.Concat(found, suitesIn(t, []string{"cmd/internal/sim/..."}), unruled(t, rules),
		knowAll(t, stages, wirers), badNames(t, uselessNames))
}

func TestImports(t *testing.T) {
	for _, f := range importFindings(repository(t)) {
		t.Error(f)
	}
}

// A row for a package that is not there forbids nothing.
func TestRowsAreAboutSomething(t *testing.T) {
	packages := repository(t).packages()
	for _, r := range rules {
		for _, pattern := range r.in {
			if !slices.ContainsFunc(packages, func(dir string) bool { return within(dir, []string{pattern}) }) {
				t.Errorf("rule %s: no package is %s", r.name, pattern)
			}
		}
		if r.because == "" || r.only == nil && r.never == nil && r.calls == nil {
			t.Errorf("rule %s forbids nothing or says not why", r.name)
		}
	}
}

// Every rule finds what breaks it, and nothing else.
func TestImportRulesCanFail(t *testing.T) {
	names := []string{"suites-in-tests", "a-row-each", "one-place-knows-all", "names-say-something"}
	for _, r := range rules {
		names = append(names, r.name)
	}
	brokenTrees(t, "imports", names, importFindings)
}

// brokenTrees runs the checks on every small tree of a folder. The comment of each archive lists, as
// "rule where: what", all that is to be found in it; every rule is broken by one tree at least.
func brokenTrees(t *testing.T, folder string, names []string, check func(*tree) []finding) {
	archives, err := filepath.Glob(filepath.Join("testdata", folder, "*.txtar"))
	if err != nil || len(archives) == 0 {
		t.Fatalf("no trees: %v", err)
	}
	broken := map[string]bool{}
	for _, name := range archives {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			files := fstest.MapFS{}
			for _, f := range archive.Files {
				files[f.Name] = &fstest.MapFile{Data: f.Data}
			}
			small, err := load(files)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range check(small) {
				got = append(got, f.rule+" "+f.where+": "+f.what)
				broken[f.rule] = true
			}
			slices.Sort(got)
			want := strings.FieldsFunc(string(archive.Comment), func(r rune) bool { return r == '\n' })
			want = slices.DeleteFunc(want, func(line string) bool { return strings.HasPrefix(line, "#") })
			if diff := cmp.Diff(strings.Join(want, "\n"), strings.Join(got, "\n")); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
	for _, name := range names {
		if !broken[name] {
			t.Errorf("no tree breaks the rule %s: it may be unable to fail", name)
		}
	}
}

// repository is the tree that this test is in, read once for all tests.
func repository(t *testing.T) *tree {
	t.Helper()
	whole, err := readRepository()
	if err != nil {
		t.Fatal(err)
	}
	return whole
}

var readRepository = sync.OnceValues(func() (*tree, error) {
	root := filepath.Join("..", "..", "..")
	if _, err := os.Stat(filepath.Join(root, "go.mod")); err != nil {
		return nil, fmt.Errorf("the repository's root is not where it was: %w", err)
	}
	return load(os.DirFS(root))
})
