// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// Format of an export and its history. It is one JSON object a line: first the header, then members, seals,
// bodies and records in any order, last how many of each there were. Who reads it passes over fields and lines that it does not
// know; what is in a record nobody can change, for it is signed.
//
//	flotilla.dev/facts/v1  2026-11
const Format = "flotilla.dev/facts/v1"

// Bounds of an export, in bytes and in lines. Whatever is larger is refused, and not kept in memory until then.
const (
	MaxExport = 1 << 30
	MaxLines  = 1 << 21
	maxLine   = 2 << 20 // a body of 1 MiB in base64
)

// ErrMalformed is in the error of Read where the bytes are no export.
var ErrMalformed = errors.New("no export of facts")

// Header says who exported, for people; none of it is signed.
type Header struct {
	Format string       `json:"format"`
	Fleet  fleet.Digest `json:"fleet"`
	// By is the member that was asked, ByID its key.
	By   fleet.Name     `json:"by"`
	ByID fleet.MemberID `json:"byID"`
	// Agent is its version, Time its wall clock.
	Agent string    `json:"agent,omitempty"`
	Time  time.Time `json:"time"`
	// Zoned as in Evidence.
	Zoned bool `json:"zoned,omitempty"`
}

// line of an export: one of its fields.
type line struct {
	Member *memberLine `json:"member,omitempty"`
	Seal   *sealLine   `json:"seal,omitempty"`
	Body   []byte      `json:"body,omitempty"`
	Record []byte      `json:"record,omitempty"`
	End    *counts     `json:"end,omitempty"`
}

type memberLine struct {
	fleet.Member
	// Complete: the export holds everything that this member holds.
	Complete bool `json:"complete,omitempty"`
}

type sealLine struct {
	Namespace      string       `json:"namespace"`
	Name           string       `json:"name"`
	Author         string       `json:"author"`
	Term           uint64       `json:"term,omitempty"`
	Number         uint64       `json:"number"`
	CompileVersion uint16       `json:"compileVersion"`
	Spec           fleet.Digest `json:"spec"`
	Members        fleet.Digest `json:"members"`
}

type counts struct {
	Members int `json:"members"`
	Seals   int `json:"seals"`
	Bodies  int `json:"bodies"`
	Records int `json:"records"`
}

func (c counts) String() string {
	return fmt.Sprintf("members %d, seals %d, bodies %d, records %d", c.Members, c.Seals, c.Bodies, c.Records)
}

// Write an export. The header's Format and Fleet are filled in.
func Write(w io.Writer, h Header, e *Evidence) error {
	h.Format, h.Fleet, h.Zoned = Format, e.Fleet, e.Zoned
	out := json.NewEncoder(w)
	if err := out.Encode(h); err != nil {
		return err
	}
	for i := range e.Roster {
		m := e.Roster[i]
		if err := out.Encode(line{Member: &memberLine{m, e.Complete[m.ID]}}); err != nil {
			return err
		}
	}
	for _, s := range e.Seals {
		l := sealLine{
			Namespace: s.Rollout.Namespace, Name: s.Rollout.Name, Author: s.Author, Term: s.Term, Number: s.Number,
			CompileVersion: s.CompileVersion, Spec: s.Spec, Members: s.Members,
		}
		if err := out.Encode(line{Seal: &l}); err != nil {
			return err
		}
	}
	for _, body := range e.Bodies {
		if err := out.Encode(line{Body: body}); err != nil {
			return err
		}
	}
	for i := range e.Records {
		if err := out.Encode(line{Record: e.Records[i].Encode()}); err != nil {
			return err
		}
	}
	return out.Encode(line{End: &counts{len(e.Roster), len(e.Seals), len(e.Bodies), len(e.Records)}})
}

// Read an export. One that was cut short is refused: what it lacks could have been anything.
func Read(r io.Reader) (Header, Evidence, error) {
	in := reader{lines: bufio.NewReaderSize(r, 64<<10)}
	first, err := in.next()
	if err != nil {
		return Header{}, Evidence{}, in.wrong(err)
	}
	var h Header
	if err := json.Unmarshal(first, &h); err != nil || h.Format != Format {
		return Header{}, Evidence{}, in.wrong(fmt.Errorf("it does not begin as %s does", Format))
	}
	e := Evidence{Fleet: h.Fleet, Zoned: h.Zoned, Complete: map[fleet.MemberID]bool{}}
	for {
		b, err := in.next()
		if errors.Is(err, io.EOF) {
			err = errors.New("it was cut short: its last line is not there")
		}
		if err != nil {
			return Header{}, Evidence{}, in.wrong(err)
		}
		var l line
		if err := json.Unmarshal(b, &l); err != nil {
			return Header{}, Evidence{}, in.wrong(err)
		}
		if l.End != nil {
			return h, e, in.end(*l.End, &e)
		}
		if err := e.take(&l); err != nil {
			return Header{}, Evidence{}, in.wrong(err)
		}
	}
}

// take what a line holds.
func (e *Evidence) take(l *line) error {
	switch {
	case l.Member != nil:
		if _, err := l.Member.ID.PublicKey(); err != nil {
			return err
		}
		e.Roster = append(e.Roster, l.Member.Member)
		if l.Member.Complete {
			e.Complete[l.Member.ID] = true
		}
	case l.Seal != nil:
		s := l.Seal
		e.Seals = append(e.Seals, fleet.Seal{
			Rollout: fleet.RolloutName{Namespace: s.Namespace, Name: s.Name}, Author: s.Author, Term: s.Term, Number: s.Number,
			CompileVersion: s.CompileVersion, Spec: s.Spec, Members: s.Members,
		})
	case len(l.Body) > 0:
		e.Bodies = append(e.Bodies, l.Body)
	case len(l.Record) > 0:
		record, err := fleet.DecodeRecord(l.Record)
		if err != nil {
			return err
		}
		e.Records = append(e.Records, record)
	}
	return nil
}

// reader of bounded lines.
type reader struct {
	lines  *bufio.Reader
	number int
	bytes  int
}

// next line, without its end; io.EOF where there is none.
func (r *reader) next() ([]byte, error) {
	r.number++
	var whole []byte
	for {
		part, err := r.lines.ReadSlice('\n')
		whole = append(whole, part...)
		r.bytes += len(part)
		switch {
		case len(whole) > maxLine:
			return nil, fmt.Errorf("a line of more than %d bytes", maxLine)
		case r.bytes > MaxExport || r.number > MaxLines:
			return nil, fmt.Errorf("more than %d lines or %d bytes", MaxLines, MaxExport)
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(whole) > 0:
			return whole, nil
		case err != nil:
			return nil, err
		default:
			return bytes.TrimRight(whole, "\r\n"), nil
		}
	}
}

// end compares what was announced with what came, and wants nothing after it.
func (r *reader) end(want counts, e *Evidence) error {
	if got := (counts{len(e.Roster), len(e.Seals), len(e.Bodies), len(e.Records)}); got != want {
		return r.wrong(fmt.Errorf("its last line tells of %s; there are %s", want, got))
	}
	if _, err := r.next(); !errors.Is(err, io.EOF) {
		return r.wrong(errors.New("something follows its last line"))
	}
	return nil
}

func (r *reader) wrong(err error) error {
	if errors.Is(err, io.EOF) {
		err = errors.New("it is empty")
	}
	return fmt.Errorf("line %d: %w: %w", r.number, ErrMalformed, err)
}
