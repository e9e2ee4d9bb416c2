// SPDX-License-Identifier: Apache-2.0

package jail

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/specialize"
)

// Renderer renders in children. The zero value is ready for use, by several goroutines at once.
type Renderer struct {
	// Program of the children; empty is this process's own. Its main calls ServeIfChild first.
	Program string
	// Memory that one child may use, in bytes; 0 is DefaultMemory.
	Memory int64
	// Time that one render may take of the processor; 0 is DefaultTime. A payload that takes more is refused.
	Time time.Duration
	// Patience is what it may take of the clock; 0 is ten times Time. After that it is tried again: a machine that is busy is
	// no fault of the payload.
	Patience time.Duration
}

// What a render may use. A payload at the bounds of specialize needs about half of it.
const (
	DefaultMemory = int64(1 << 30)
	DefaultTime   = time.Minute
)

// Bounds of what one child is given. They are over those of specialize, which it keeps to itself; a child that asks for
// more is none of ours any more.
const (
	maxAsks  = 200_000
	maxGiven = 256 << 20
)

// ErrUnavailable says that children cannot be locked up on this machine.
var ErrUnavailable = errors.New("payloads cannot be rendered in a jailed process here")

// Render is specialize.Render in a child. The error of a payload that takes too much is terminal; one of this machine is retryable.
func (r *Renderer) Render(ctx context.Context, in specialize.Input) (specialize.Manifest, error) {
	if in.Files == nil {
		return specialize.Render(in)
	}
	limit := r.Time
	if limit <= 0 {
		limit = DefaultTime
	}
	patience := r.Patience
	if patience <= 0 {
		patience = 10 * limit
	}
	within, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	child, err := r.start(within, limit)
	if err != nil {
		return specialize.Manifest{}, err
	}
	child.patience = patience
	manifest, err := child.render(in)
	ended := child.end(err != nil)
	switch {
	case err == nil || isFault(err):
		return manifest, err
	case ctx.Err() != nil:
		return specialize.Manifest{}, fmt.Errorf("render: %w", ctx.Err())
	}
	return specialize.Manifest{}, child.explain(within, err, ended, limit)
}

// Probe says whether children can be started and locked up here.
func (r *Renderer) Probe(ctx context.Context) error {
	_, err := r.Render(ctx, specialize.Input{Files: nothing{}, Path: "."})
	if fleet.ReasonOf(err, "") == v1alpha1.ReasonEmptyRender {
		return nil
	}
	return errors.Join(ErrUnavailable, err)
}

// nothing is an empty folder.
type nothing struct{}

func (nothing) Open(name string) (fs.File, error) {
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

func (nothing) Stat(name string) (fs.FileInfo, error) {
	if name == "." {
		return &info{FileName: ".", FileMode: fs.ModeDir | 0o555}, nil
	}
	return nil, &fs.PathError{Op: "stat", Path: name, Err: fs.ErrNotExist}
}

func (nothing) ReadDir(string) ([]fs.DirEntry, error) { return nil, nil }

// running is one child.
type running struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    io.ReadCloser
	stderr *tail
	memory int64
	// patience is what it was given of the clock.
	patience time.Duration
	asks     int
	given    int64
}

func (r *Renderer) start(ctx context.Context, limit time.Duration) (*running, error) {
	program := r.Program
	if program == "" {
		var err error
		if program, err = os.Executable(); err != nil {
			return nil, fmt.Errorf("render: %w", err)
		}
	}
	c := &running{memory: r.Memory, stderr: &tail{}}
	if c.memory <= 0 {
		c.memory = DefaultMemory
	}
	seconds := strconv.Itoa(int(limit.Seconds()) + 1)
	c.cmd = exec.CommandContext(ctx, program, childName, strconv.FormatInt(c.memory, 10), seconds) //nolint:gosec // our own program
	c.cmd.Env, c.cmd.Dir, c.cmd.Stderr = []string{}, "/", c.stderr
	var err error
	if c.in, err = c.cmd.StdinPipe(); err == nil {
		c.out, err = c.cmd.StdoutPipe()
	}
	if err == nil {
		err = c.cmd.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("start a process to render in: %w", err)
	}
	return c, nil
}

// end the child and wait for it; kill it first where it is of no more use.
func (c *running) end(kill bool) error {
	_ = c.in.Close()
	if kill {
		_ = c.cmd.Process.Kill()
	}
	return c.cmd.Wait()
}

func (c *running) render(in specialize.Input) (specialize.Manifest, error) {
	if err := write(c.in, requestOf(in)); err != nil {
		return specialize.Manifest{}, err
	}
	for {
		var m message
		if err := read(c.out, &m); err != nil {
			return specialize.Manifest{}, err
		}
		switch {
		case m.Done != nil:
			return m.Done.manifest()
		case m.Ask == nil:
			return specialize.Manifest{}, errors.New("the process says nothing that is known")
		}
		a, err := c.answer(in, *m.Ask)
		if err != nil {
			return specialize.Manifest{}, err
		}
		if err := write(c.in, a); err != nil {
			return specialize.Manifest{}, err
		}
	}
}

func requestOf(in specialize.Input) request {
	q := request{
		Path: in.Path, Spec: in.Spec, Member: in.Member, Rollout: in.Rollout,
		Kube: in.Cluster.KubeVersion, APIs: in.Cluster.APIVersions, Chart: in.Chart != nil,
	}
	for _, ref := range slices.SortedFunc(maps.Keys(in.Cluster.Objects), func(a, b specialize.Reference) int {
		return strings.Compare(a.Kind+"/"+a.Name, b.Kind+"/"+b.Name)
	}) {
		q.Objects = append(q.Objects, object{ref, in.Cluster.Objects[ref]})
	}
	return q
}

// answer an ask from the files that the input has. The child is not trusted: it gets what fs.FS gives, so much and no more.
func (c *running) answer(in specialize.Input, q ask) (answer, error) {
	from := in.Files
	if q.Chart {
		from = in.Chart
	}
	if c.asks++; c.asks > maxAsks || from == nil {
		return answer{}, errors.New("it asked for more than a payload can hold")
	}
	var a answer
	var err error
	var found fs.FileInfo
	switch q.Op {
	case opLstat:
		found, err = fs.Lstat(from, q.Name)
	case opStat:
		found, err = fs.Stat(from, q.Name)
	case opRead:
		a.Content, err = readFile(from, q.Name)
		c.given += int64(len(a.Content))
	case opReadDir:
		a.Entries, err = readDir(from, q.Name)
		c.given += int64(64 * len(a.Entries))
	default:
		err = fs.ErrInvalid
	}
	if c.given > maxGiven {
		return answer{}, errors.New("it asked for more than a payload can hold")
	}
	if found != nil && err == nil {
		a.Info = infoOf(found)
	}
	a.Failed = faultOf(err)
	return a, nil
}

// readFile gives at most what fits into a message; specialize refuses less.
func readFile(from fs.FS, name string) ([]byte, error) {
	const most = maxFrame / 2
	f, err := from.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // nothing was written
	return io.ReadAll(io.LimitReader(f, most))
}

func readDir(from fs.FS, name string) ([]*info, error) {
	entries, err := fs.ReadDir(from, name)
	out := make([]*info, 0, len(entries))
	for _, e := range entries {
		out = append(out, &info{FileName: e.Name(), FileMode: e.Type()})
	}
	return out, err
}

func (d *result) manifest() (specialize.Manifest, error) {
	if d.Failed != nil {
		return specialize.Manifest{}, said{d.Failed.err()}
	}
	m := specialize.Manifest{Digest: d.Digest, Engine: d.Engine, Path: d.Path}
	for _, raw := range d.Objects {
		o := &unstructured.Unstructured{}
		if err := o.UnmarshalJSON(raw); err != nil {
			return specialize.Manifest{}, err
		}
		m.Objects = append(m.Objects, o)
	}
	return m, nil
}

// said is what the child says of the payload, not what became of the child.
type said struct{ error }

func (s said) Unwrap() error { return s.error }

func isFault(err error) bool {
	var s said
	return errors.As(err, &s)
}

// explain what became of a child that gave no result.
func (c *running) explain(ctx context.Context, err, ended error, limit time.Duration) error {
	var exit *exec.ExitError
	words := c.stderr.String()
	switch {
	case errors.As(ended, &exit) && exit.ExitCode() == exitUnlocked:
		return fmt.Errorf("%w: %s", ErrUnavailable, words)
	case errors.As(ended, &exit) && exit.UserTime()+exit.SystemTime() >= limit:
		return tooMuch("rendering takes over %s of the processor", limit)
	case ctx.Err() != nil:
		return fmt.Errorf("rendering was not done after %s, for most of which it waited: the machine is busy", c.patience)
	case strings.Contains(words, "out of memory") || strings.Contains(words, "cannot allocate memory"):
		return tooMuch("rendering takes over %d MiB of memory", c.memory>>20)
	case strings.Contains(words, "stack exceeds") || strings.Contains(words, "stack overflow"):
		return tooMuch("rendering goes too deep: a template or a value that holds itself?")
	}
	return fmt.Errorf("the process that renders ended: %w; %s", errors.Join(err, ended), words)
}

func tooMuch(format string, args ...any) error {
	return &fleet.Error{
		Kind: fleet.Terminal, Reason: v1alpha1.ReasonTooLarge, Err: fmt.Errorf(format, args...),
		Hint: "split the payload, or look for a loop over a large number in its templates",
	}
}

// tail keeps the first and most telling bytes of what a child says as it ends.
type tail struct{ kept bytes.Buffer }

// Write is in io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	const most = 2 << 10
	t.kept.Write(p[:min(len(p), max(0, most-t.kept.Len()))])
	return len(p), nil
}

func (t *tail) String() string {
	line, _, _ := strings.Cut(strings.TrimSpace(t.kept.String()), "\n")
	return line
}
