// SPDX-License-Identifier: Apache-2.0

package jail

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/flotilla-dev/flotilla/specialize"
)

// childName is the first argument of a child.
const childName = "render-child"

// exitUnlocked: the child could not lock itself up, and did nothing.
const exitUnlocked = 3

// ServeIfChild serves the parent and ends the process, if this process was started as a child; it returns at once if
// not. It is called first thing in main, and in TestMain of whoever starts children.
func ServeIfChild() {
	if len(os.Args) != 4 || os.Args[1] != childName {
		return
	}
	memory, err := strconv.ParseInt(os.Args[2], 10, 64)
	seconds, err2 := strconv.ParseUint(os.Args[3], 10, 32)
	if err = errors.Join(err, err2); err == nil {
		// Where the pod's memory ends before the child's, the kernel is to take the child and not the agent.
		_ = os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0o600)
		debug.SetMemoryLimit(memory / 4 * 3)
		time.Local = time.UTC               // templates can ask for the zone, and every member is to render alike
		err = lock(uint64(memory), seconds) //nolint:gosec // the parent's own number
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cannot be locked up:", err)
		os.Exit(exitUnlocked)
	}
	if err := serve(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// serve one render.
func serve(r io.Reader, w io.Writer) error {
	var q request
	if err := read(r, &q); err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	pipe := &pipe{r: r, w: w}
	in := specialize.Input{
		Files: &files{pipe: pipe}, Path: q.Path, Spec: q.Spec, Member: q.Member, Rollout: q.Rollout,
		Cluster: specialize.Cluster{KubeVersion: q.Kube, APIVersions: q.APIs},
	}
	for _, o := range q.Objects {
		if in.Cluster.Objects == nil {
			in.Cluster.Objects = map[specialize.Reference]map[string]string{}
		}
		in.Cluster.Objects[o.Reference] = o.Data
	}
	if q.Chart {
		in.Chart = &files{pipe: pipe, chart: true}
	}
	manifest, err := specialize.Render(in)
	done := &result{Digest: manifest.Digest, Engine: manifest.Engine, Path: manifest.Path, Failed: faultOf(err)}
	for _, o := range manifest.Objects {
		raw, err := o.MarshalJSON()
		if err != nil {
			return err
		}
		done.Objects = append(done.Objects, raw)
	}
	return write(w, message{Done: done})
}

// pipe to the parent: one ask at a time.
type pipe struct {
	r io.Reader
	w io.Writer
}

func (p *pipe) ask(q ask) (answer, error) {
	if err := write(p.w, message{Ask: &q}); err != nil {
		return answer{}, err
	}
	var a answer
	if err := read(p.r, &a); err != nil {
		return answer{}, err
	}
	return a, a.Failed.err()
}

// files that the parent has.
type files struct {
	pipe  *pipe
	chart bool
}

var (
	_ fs.ReadDirFS  = (*files)(nil)
	_ fs.StatFS     = (*files)(nil)
	_ fs.ReadFileFS = (*files)(nil)
	_ fs.ReadLinkFS = (*files)(nil)
)

func (f *files) info(op, name string) (fs.FileInfo, error) {
	a, err := f.pipe.ask(ask{f.chart, op, name})
	if err != nil {
		return nil, err
	}
	if a.Info == nil {
		return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	return a.Info, nil
}

// Lstat is in fs.ReadLinkFS.
func (f *files) Lstat(name string) (fs.FileInfo, error) { return f.info(opLstat, name) }

// Stat is in fs.StatFS.
func (f *files) Stat(name string) (fs.FileInfo, error) { return f.info(opStat, name) }

// ReadLink is in fs.ReadLinkFS. Nobody follows links in a payload.
func (f *files) ReadLink(name string) (string, error) {
	return "", &fs.PathError{Op: "readlink", Path: name, Err: fs.ErrInvalid}
}

// ReadDir is in fs.ReadDirFS.
func (f *files) ReadDir(name string) ([]fs.DirEntry, error) {
	a, err := f.pipe.ask(ask{f.chart, opReadDir, name})
	entries := make([]fs.DirEntry, 0, len(a.Entries))
	for _, e := range a.Entries {
		entries = append(entries, e)
	}
	return entries, err
}

// ReadFile is in fs.ReadFileFS.
func (f *files) ReadFile(name string) ([]byte, error) {
	a, err := f.pipe.ask(ask{f.chart, opRead, name})
	return a.Content, err
}

// Open is in fs.FS. A folder is read with ReadDir.
func (f *files) Open(name string) (fs.File, error) {
	found, err := f.Stat(name)
	if err != nil {
		return nil, err
	}
	if found.IsDir() {
		return &file{info: found, Reader: bytes.NewReader(nil)}, nil
	}
	content, err := f.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return &file{info: found, Reader: bytes.NewReader(content)}, nil
}

// file that is held in memory.
type file struct {
	*bytes.Reader
	info fs.FileInfo
}

// Stat is in fs.File.
func (f *file) Stat() (fs.FileInfo, error) { return f.info, nil }

// Close is in fs.File.
func (f *file) Close() error { return nil }
