// SPDX-License-Identifier: Apache-2.0

package jail

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/specialize"
)

func TestMain(m *testing.M) {
	ServeIfChild()
	if len(os.Args) > 1 && os.Args[1] == "try-to-escape" {
		escape()
	}
	os.Exit(m.Run())
}

func folder(files map[string]string) fstest.MapFS {
	out := fstest.MapFS{}
	for name, content := range files {
		out[name] = &fstest.MapFile{Data: []byte(content)}
	}
	return out
}

const configMap = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: b}\n"

var payloads = map[string]map[string]string{
	"plain":     {"a.yaml": configMap},
	"kustomize": {"kustomization.yaml": "resources: [a.yaml]\nnamePrefix: x-\nconfigMapGenerator: [{name: g, files: [a.yaml]}]\n", "a.yaml": configMap},
	"helm": {
		"Chart.yaml": "apiVersion: v2\nname: c\nversion: 1.0.0\n", "values.yaml": "v: 1\n",
		"templates/a.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: {{ .Release.Name }}}\ndata: {v: {{ .Values.v | quote }}, kube: {{ .Capabilities.KubeVersion.Version }}}\n",
	},
	"broken": {"kustomization.yaml": "resources: [none.yaml]\n"},
	"empty":  {"README.md": "nothing"},
	"remote": {"kustomization.yaml": "resources: [https://example.com/x.yaml]\n"},
}

func input(files fs.FS) specialize.Input {
	return specialize.Input{
		Files: files, Path: ".", Rollout: fleet.RolloutName{Namespace: "shop", Name: "web"},
		Member:  fleet.Member{Name: "eu-1", Zone: "eu", Labels: map[string]string{"region": "eu"}},
		Cluster: specialize.Cluster{KubeVersion: "v1.36.3"},
	}
}

// A child renders what this process does, to the byte, and says the same of what it cannot render.
func TestSameAsOutside(t *testing.T) {
	for name, files := range payloads {
		t.Run(name, func(t *testing.T) {
			in := input(folder(files))
			want, wantErr := specialize.Render(in)
			got, err := new(Renderer).Render(t.Context(), in)
			if fmt.Sprint(err) != fmt.Sprint(wantErr) || fleet.ReasonOf(err, "") != fleet.ReasonOf(wantErr, "") || fleet.KindOf(err) != fleet.KindOf(wantErr) {
				t.Fatalf("inside %v, outside %v", err, wantErr)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("outside, inside:\n%s", diff)
			}
		})
	}
}

// The source's own errors come back as they were: what may be tried again is.
func TestErrorsOfTheSource(t *testing.T) {
	away := &fleet.Error{Kind: fleet.Retryable, Reason: v1alpha1.ReasonFetchFailed, Hint: "wait", Err: errors.New("the mirror is away")}
	_, err := new(Renderer).Render(t.Context(), input(failing{folder(payloads["plain"]), away}))
	var got *fleet.Error
	if !errors.As(err, &got) || got.Kind != fleet.Retryable || got.Reason != away.Reason || got.Hint != "wait" || !strings.Contains(err.Error(), "the mirror is away") {
		t.Errorf("%v", err)
	}
}

type failing struct {
	fstest.MapFS
	err error
}

func (f failing) ReadDir(string) ([]fs.DirEntry, error) { return nil, f.err }

func chart(template string) fstest.MapFS {
	return folder(map[string]string{"Chart.yaml": "apiVersion: v2\nname: c\nversion: 1.0.0\n", "values.yaml": "count: 2000000000\nturns: 2000\n", "templates/a.yaml": template})
}

// What would end the agent ends the child.
func TestBombs(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector's own memory is over the limits")
	}
	for name, c := range map[string]struct {
		template string
		renderer Renderer
		says     string
	}{
		"memory": {"{{ range until (int .Values.count) }}x{{ end }}", Renderer{Memory: 256 << 20}, "256 MiB of memory"},
		"time": {
			`{{ $n := int .Values.turns }}{{ range until $n }}{{ range until $n }}{{ range until $n }}{{ end }}{{ end }}{{ end }}`,
			Renderer{Time: time.Second, Patience: time.Minute}, "over 1s of the processor",
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.renderer.Render(t.Context(), input(chart(c.template)))
			if fleet.ReasonOf(err, "") != v1alpha1.ReasonTooLarge || fleet.KindOf(err) != fleet.Terminal || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v", err)
			}
		})
	}
}

// slow files, as on a disk that others use.
type slow struct {
	fstest.MapFS
	by time.Duration
}

// Open waits before it opens.
func (s slow) Open(name string) (fs.File, error) {
	<-time.After(s.by)
	return s.MapFS.Open(name)
}

// A machine that is busy is no fault of the payload: it is tried again, and no fleet is told that the release failed.
func TestBusyMachineIsNoFaultOfThePayload(t *testing.T) {
	files := slow{fstest.MapFS{
		"kustomization.yaml": {Data: []byte("resources: [a.yaml]\n")},
		"a.yaml":             {Data: []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n")},
	}, 2 * time.Second}
	r := &Renderer{Patience: time.Second}
	_, err := r.Render(t.Context(), specialize.Input{Path: ".", Files: files, Rollout: fleet.RolloutName{Namespace: "a", Name: "b"}})
	if err == nil || fleet.KindOf(err) != fleet.Retryable {
		t.Errorf("%v is %v, want it to be tried again", err, fleet.KindOf(err))
	}
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := new(Renderer).Render(ctx, input(folder(payloads["plain"]))); !errors.Is(err, context.Canceled) || fleet.KindOf(err) != fleet.Retryable {
		t.Errorf("%v", err)
	}
}

func TestProbe(t *testing.T) {
	if err := new(Renderer).Probe(t.Context()); err != nil {
		t.Errorf("%v", err)
	}
	if err := (&Renderer{Program: "/nowhere"}).Probe(t.Context()); !errors.Is(err, ErrUnavailable) {
		t.Errorf("%v", err)
	}
}

// A child that is none of ours gets no more than a payload, and what it says is bounded.
func TestHostileChild(t *testing.T) {
	c := &running{}
	in := input(folder(payloads["plain"]))
	if a, err := c.answer(in, ask{Op: opRead, Name: "../../etc/passwd"}); err != nil || a.Failed == nil {
		t.Errorf("a name outside: %+v %v", a, err)
	}
	if _, err := c.answer(in, ask{Chart: true, Op: opRead, Name: "a.yaml"}); err == nil {
		t.Error("files of a chart that is not there")
	}
	c.asks = maxAsks
	if _, err := c.answer(in, ask{Op: opStat, Name: "."}); err == nil {
		t.Error("it may ask for ever")
	}
	if err := read(bytes.NewReader([]byte{0xff, 0xff, 0xff, 0xff}), &message{}); !errors.Is(err, errFrame) {
		t.Errorf("a frame of 4 GiB: %v", err)
	}
	if err := read(bytes.NewReader([]byte{0x03, 0xff, 0xff, 0xff, 1}), &message{}); err == nil {
		t.Error("a frame that ends early")
	}
}

func FuzzMessage(f *testing.F) {
	var seed bytes.Buffer
	_ = write(&seed, message{Ask: &ask{Op: opRead, Name: "a"}})
	f.Add(seed.Bytes())
	seed.Reset()
	_ = write(&seed, message{Done: &result{Engine: "plain"}})
	f.Add(seed.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		var m message
		if err := read(bytes.NewReader(b), &m); err == nil && m.Done != nil {
			_, _ = m.Done.manifest()
		}
	})
}

// escape tries everything that a payload must not be able to do, and says what worked.
func escape() {
	if err := lock(1<<30, 60); err != nil {
		fmt.Println("cannot be locked up:", err)
		os.Exit(exitUnlocked)
	}
	try := func(what string, err error) {
		if err == nil {
			fmt.Println("could", what)
		}
	}
	_, err := os.ReadFile("/proc/self/environ")
	try("read a file", err)
	_, err = os.Open(os.Args[0])
	try("open its own program", err)
	try("write a file", os.WriteFile("/tmp/escaped", nil, 0o600))
	_, err = net.Dial("tcp", "127.0.0.1:1")
	try("open a socket", refusedElsewhere(err))
	_, err = net.Listen("tcp", "127.0.0.1:0")
	try("listen", err)
	try("start a program", exec.Command("/bin/true").Run())
	try("signal its parent", syscall.Kill(os.Getppid(), 0))
	try("change the parent's limits", prlimitParent())
	try("look for the parent's memory", syscall.PtraceAttach(os.Getppid()))
	fmt.Println("done")
	os.Exit(0)
}

// refusedElsewhere: a connection that nobody answers was one all the same.
func refusedElsewhere(err error) error {
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nil
	}
	return err
}

func TestNothingCanBeReached(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), os.Args[0], "try-to-escape").CombinedOutput() //nolint:gosec // this test's own program
	if err != nil || strings.TrimSpace(string(out)) != "done" {
		t.Errorf("%v: %s", err, out)
	}
}

func BenchmarkRender(b *testing.B) {
	for _, name := range []string{"plain", "kustomize", "helm"} {
		in := input(folder(payloads[name]))
		b.Run(name+"/jailed", func(b *testing.B) {
			for b.Loop() {
				if _, err := new(Renderer).Render(b.Context(), in); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/in-process", func(b *testing.B) {
			for b.Loop() {
				if _, err := specialize.Render(in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
