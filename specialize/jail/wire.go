// SPDX-License-Identifier: Apache-2.0

package jail

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/specialize"
)

// maxFrame is more than a manifest or a file can be: both are at most 32 MiB, and base64 adds a third.
const maxFrame = 64 << 20

// request is what the child is to render. The files stay with the parent.
type request struct {
	Path    string
	Spec    *v1alpha1.Specialize
	Member  fleet.Member
	Rollout fleet.RolloutName
	Kube    string
	APIs    []string
	Objects []object
	Chart   bool
}

// object is one entry of specialize.Cluster.Objects.
type object struct {
	specialize.Reference
	Data map[string]string
}

// message from the child: it asks for a file, or is done.
type message struct {
	Ask  *ask    `json:",omitempty"`
	Done *result `json:",omitempty"`
}

// ask for something of one of the two file systems.
type ask struct {
	Chart    bool `json:",omitempty"` // of the chart's files, not the source's
	Op, Name string
}

// The operations of an ask.
const (
	opLstat   = "lstat"
	opStat    = "stat"
	opReadDir = "readdir"
	opRead    = "read"
)

// answer to an ask.
type answer struct {
	Info    *info   `json:",omitempty"`
	Entries []*info `json:",omitempty"`
	Content []byte  `json:",omitempty"`
	Failed  *fault  `json:",omitempty"`
}

// result of a render.
type result struct {
	Objects []json.RawMessage
	Digest  fleet.Digest
	Engine  string
	Path    string
	Failed  *fault `json:",omitempty"`
}

// info is an fs.FileInfo and an fs.DirEntry.
type info struct {
	FileName string
	FileSize int64
	FileMode fs.FileMode
}

func (i *info) Name() string               { return i.FileName }
func (i *info) Size() int64                { return i.FileSize }
func (i *info) Mode() fs.FileMode          { return i.FileMode }
func (i *info) Type() fs.FileMode          { return i.FileMode.Type() }
func (i *info) ModTime() time.Time         { return time.Time{} }
func (i *info) IsDir() bool                { return i.FileMode.IsDir() }
func (i *info) Sys() any                   { return nil }
func (i *info) Info() (fs.FileInfo, error) { return i, nil }

func infoOf(of fs.FileInfo) *info { return &info{of.Name(), of.Size(), of.Mode()} }

// fault is an error on its way over the pipe.
type fault struct {
	Text, Reason, Hint string
	Kind               fleet.ErrorKind
	Known, Missing     bool // a fleet.Error; fs.ErrNotExist
}

func faultOf(err error) *fault {
	if err == nil {
		return nil
	}
	f := &fault{Text: err.Error(), Missing: errors.Is(err, fs.ErrNotExist)}
	var known *fleet.Error
	if errors.As(err, &known) {
		f.Known, f.Kind, f.Reason = true, known.Kind, known.Reason
		// The hint is in the text, and fleet.Error will add it again.
		if text, ok := strings.CutSuffix(f.Text, " ("+known.Hint+")"); ok {
			f.Text, f.Hint = text, known.Hint
		}
	}
	return f
}

// plain is an error of the other side, word for word.
type plain struct {
	text    string
	missing bool
}

func (p plain) Error() string { return p.text }

func (p plain) Is(target error) bool { return p.missing && target == fs.ErrNotExist }

func (f *fault) err() error {
	if f == nil {
		return nil
	}
	err := plain{f.Text, f.Missing}
	if !f.Known {
		return err
	}
	return &fleet.Error{Kind: f.Kind, Reason: f.Reason, Hint: f.Hint, Err: err}
}

func write(w io.Writer, what any) error {
	body, err := json.Marshal(what)
	if err != nil {
		return err
	}
	if len(body) > maxFrame {
		return errFrame
	}
	frame := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(body)), uint32(len(body))) //nolint:gosec // bounded above
	_, err = w.Write(append(frame, body...))
	return err
}

var errFrame = fmt.Errorf("more than %d MiB in one message", maxFrame>>20)

func read(r io.Reader, into any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxFrame {
		return errFrame
	}
	body := make([]byte, 0, min(n, 1<<16))
	for uint32(len(body)) < n { //nolint:gosec // at most maxFrame
		part := make([]byte, min(n-uint32(len(body)), 1<<20)) //nolint:gosec // at most maxFrame
		if _, err := io.ReadFull(r, part); err != nil {
			return err
		}
		body = append(body, part...)
	}
	return json.Unmarshal(body, into)
}
