// SPDX-License-Identifier: Apache-2.0

package git

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/flotilla-dev/flotilla/source"
)

// This file is git's pack protocol as far as fetching needs it: version 2, in which one small request asks
// for the references that matter, and version 0, in which a server begins with all it has.
// https://git-scm.com/docs/gitprotocol-v2, https://git-scm.com/docs/gitprotocol-pack

const (
	maxPacket   = 65520
	service     = "git-upload-pack"
	protocolTwo = "version=2"
)

// packet is one of pkt-line's: data, or one of the marks between.
type packet struct {
	mark byte // 0 is data, '0' ends a message, '1' a section, '2' an answer
	data []byte
}

func readPacket(r io.Reader, buf []byte) (packet, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return packet{}, err
	}
	n, err := strconv.ParseUint(string(head[:]), 16, 16)
	switch {
	case err != nil || n == 3 || n > maxPacket:
		return packet{}, fmt.Errorf("%w: a line of length %q", errNotGit, source.Printable(string(head[:]), 4))
	case n < 3:
		return packet{mark: '0' + byte(n)}, nil
	}
	data := buf[:n-4]
	if _, err := io.ReadFull(r, data); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return packet{}, err
	}
	if said, ok := bytes.CutPrefix(data, []byte("ERR ")); ok {
		return packet{}, fmt.Errorf("%w: %s", errSaid, source.Printable(string(said), 200))
	}
	return packet{data: data}, nil
}

var (
	errNotGit = errors.New("not git's protocol")
	errSaid   = errors.New("the server says")
)

// writePacket adds a line of data.
func writePacket(b *bytes.Buffer, format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	fmt.Fprintf(b, "%04x%s", len(line)+4, line)
}

const (
	flushPacket = "0000"
	delimPacket = "0001"
)

// greeting is what a server says first.
type greeting struct {
	two  bool
	caps map[string]string
	refs refs // all of them, in version 0
}

// refs are a server's references, with tags peeled down to what they name.
type refs struct {
	hashes map[string]plumbing.Hash
	head   string // the branch that HEAD is, where the server says so
}

// readGreeting reads a greeting up to its end.
func readGreeting(r io.Reader) (greeting, error) {
	buf := make([]byte, maxPacket)
	p, err := readPacket(r, buf)
	if err == nil && bytes.HasPrefix(p.data, []byte("# service=")) {
		if p, err = readPacket(r, buf); err == nil && p.mark == '0' {
			p, err = readPacket(r, buf)
		}
	}
	g := greeting{caps: map[string]string{}, refs: refs{hashes: map[string]plumbing.Hash{}}}
	g.two = strings.TrimSpace(string(p.data)) == "version 2"
	for first := true; err == nil && p.mark == 0; first = false {
		line := strings.TrimSuffix(string(p.data), "\n")
		switch {
		case g.two && !first:
			name, value, _ := strings.Cut(line, "=")
			g.caps[name] = value
		case !g.two && line != "version 1":
			if err := g.advertised(line); err != nil {
				return greeting{}, err
			}
		}
		p, err = readPacket(r, buf)
	}
	if err == nil && p.mark != '0' {
		err = errNotGit
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err == nil {
		err = g.check()
	}
	return g, err
}

// advertised reads one reference of version 0; behind the first one are the capabilities.
func (g *greeting) advertised(line string) error {
	line, caps, first := strings.Cut(line, "\x00")
	for _, c := range strings.Fields(caps) {
		name, value, _ := strings.Cut(c, "=")
		if branch, ok := strings.CutPrefix(value, "HEAD:"); ok && first && name == "symref" {
			g.refs.head = branch
			continue
		}
		g.caps[name] = value
	}
	hash, name, ok := strings.Cut(line, " ")
	if hash == "shallow" {
		return nil
	}
	if strings.Trim(hash, "0") == "" && strings.HasSuffix(name, "^{}") {
		return nil // a repository without a reference says its capabilities so
	}
	h, err := parseHash(hash)
	if !ok || err != nil {
		if g.caps["object-format"] == "sha256" {
			return g.check()
		}
		return fmt.Errorf("%w: a reference %q", errNotGit, source.Printable(line, 80))
	}
	// What an annotated tag names comes behind it, and takes its place.
	g.refs.hashes[strings.TrimSuffix(name, "^{}")] = h
	return nil
}

func (g *greeting) check() error {
	if format := g.caps["object-format"]; format != "" && format != "sha1" {
		return unreadable("the repository names its objects by %s, and only sha1 is read", source.Printable(format, 20))
	}
	return nil
}

// refsRequest asks for the references that begin with one of the prefixes; all where there are none.
func refsRequest(caps map[string]string, prefixes []string) []byte {
	b := command("ls-refs", caps)
	writePacket(b, "peel\n")
	writePacket(b, "symrefs\n")
	for _, p := range prefixes {
		writePacket(b, "ref-prefix %s\n", p)
	}
	b.WriteString(flushPacket)
	return b.Bytes()
}

func command(name string, caps map[string]string) *bytes.Buffer {
	var b bytes.Buffer
	writePacket(&b, "command=%s\n", name)
	if _, ok := caps["agent"]; ok {
		writePacket(&b, "agent=%s\n", userAgent)
	}
	if _, ok := caps["object-format"]; ok {
		writePacket(&b, "object-format=sha1\n")
	}
	b.WriteString(delimPacket)
	return &b
}

// readRefs reads the answer to refsRequest.
func readRefs(r io.Reader) (refs, error) {
	buf, out := make([]byte, maxPacket), refs{hashes: map[string]plumbing.Hash{}}
	for {
		p, err := readPacket(r, buf)
		switch {
		case errors.Is(err, io.EOF):
			return refs{}, io.ErrUnexpectedEOF
		case err != nil:
			return refs{}, err
		case p.mark == '0':
			return out, nil
		case p.mark != 0:
			return refs{}, errNotGit
		}
		fields := strings.Split(strings.TrimSuffix(string(p.data), "\n"), " ")
		if len(fields) < 2 {
			return refs{}, errNotGit
		}
		hash, name := fields[0], fields[1]
		for _, attribute := range fields[2:] {
			if peeled, ok := strings.CutPrefix(attribute, "peeled:"); ok {
				hash = peeled
			}
			if target, ok := strings.CutPrefix(attribute, "symref-target:"); ok && name == headName {
				out.head = target
			}
		}
		h, err := parseHash(hash)
		if err != nil {
			return refs{}, fmt.Errorf("%w: a reference %q", errNotGit, source.Printable(string(p.data), 80))
		}
		out.hashes[name] = h
	}
}

// packRequest asks for a commit and its history without what the haves reach.
func packRequest(g greeting, want plumbing.Hash, haves []plumbing.Hash) ([]byte, error) {
	if g.two {
		b := command("fetch", g.caps)
		for _, option := range []string{"no-progress", "ofs-delta", "want " + want.String()} {
			writePacket(b, "%s\n", option)
		}
		for _, h := range haves {
			writePacket(b, "have %s\n", h)
		}
		writePacket(b, "done\n")
		b.WriteString(flushPacket)
		return b.Bytes(), nil
	}
	if _, ok := g.caps["side-band-64k"]; !ok {
		return nil, fetchFailed("use a server of this century", errors.New("the server cannot tell a pack from a message (side-band-64k)"))
	}
	caps := []string{"side-band-64k"}
	for _, c := range []string{"ofs-delta", "no-progress"} {
		if _, ok := g.caps[c]; ok {
			caps = append(caps, c)
		}
	}
	if _, ok := g.caps["agent"]; ok {
		caps = append(caps, "agent="+userAgent)
	}
	var b bytes.Buffer
	writePacket(&b, "want %s %s\n", want, strings.Join(caps, " "))
	b.WriteString(flushPacket)
	for _, h := range haves {
		writePacket(&b, "have %s\n", h)
	}
	writePacket(&b, "done\n")
	return b.Bytes(), nil
}

// packReader reads the pack in an answer to packRequest.
type packReader struct {
	from io.Reader
	buf  []byte
	rest []byte
	err  error
}

// readPack reads up to where the pack begins.
func readPack(r io.Reader, two bool) (*packReader, error) {
	pr := &packReader{from: r, buf: make([]byte, maxPacket)}
	for {
		p, err := readPacket(r, pr.buf)
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, err
		}
		line := strings.TrimSuffix(string(p.data[:min(len(p.data), 64)]), "\n")
		word, _, _ := strings.Cut(line, " ")
		switch {
		case two && line == "packfile":
			return pr, nil
		case two && (p.mark != '0' && p.mark != '2'), !two && slices.Contains([]string{"ACK", "NAK"}, word):
			continue // what it has in common with us, and other sections
		case !two && p.mark == 0:
			pr.band(p)
			return pr, pr.err
		}
		return nil, fmt.Errorf("%w: no pack", errNotGit)
	}
}

// band takes a packet of the pack apart: its first byte says what the rest is.
func (r *packReader) band(p packet) {
	switch {
	case p.mark != 0:
		r.err = io.EOF
	case len(p.data) == 0:
	case p.data[0] == 1:
		r.rest = p.data[1:]
	case p.data[0] == 2: // of its progress
	case p.data[0] == 3:
		r.err = fetchFailed("", fmt.Errorf("%w: %s", errSaid, source.Printable(string(p.data[1:]), 200)))
	default:
		r.err = errNotGit
	}
}

func (r *packReader) Read(b []byte) (int, error) {
	for len(r.rest) == 0 && r.err == nil {
		p, err := readPacket(r.from, r.buf)
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			r.err = err
			break
		}
		r.band(p)
	}
	if len(r.rest) == 0 {
		return 0, r.err
	}
	n := copy(b, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}
