// SPDX-License-Identifier: Apache-2.0

package git

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// lines of the protocol; "0000" and its kind are the marks.
func lines(all ...string) string {
	var b bytes.Buffer
	for _, line := range all {
		if len(line) == 4 && strings.Trim(line, "012") == "" {
			b.WriteString(line)
			continue
		}
		writePacket(&b, "%s", line)
	}
	return b.String()
}

const (
	hashA = "0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a"
	hashB = "0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b"
	zeros = "0000000000000000000000000000000000000000"
)

func TestGreetings(t *testing.T) {
	for name, tc := range map[string]struct {
		in   string
		want string // references, or a part of the error
	}{
		"version 0":     {lines("# service=git-upload-pack\n", "0000", hashA+" HEAD\x00side-band-64k symref=HEAD:refs/heads/main\n", hashB+" refs/tags/v1\n", hashA+" refs/tags/v1^{}\n", "0000"), "HEAD=" + hashA + " refs/tags/v1=" + hashA},
		"without http":  {lines(hashA+" refs/heads/x\x00agent=a\n", "0000"), "refs/heads/x=" + hashA},
		"version 1":     {lines("version 1\n", hashA+" refs/heads/x\x00agent=a\n", "0000"), "refs/heads/x=" + hashA},
		"empty":         {lines("# service=git-upload-pack\n", "0000", zeros+" capabilities^{}\x00agent=a\n", "0000"), ""},
		"empty, old":    {lines("# service=git-upload-pack\n", "0000", "0000"), ""},
		"version 2":     {lines("version 2\n", "agent=git/2\n", "object-format=sha1\n", "0000"), "two"},
		"sha256":        {lines("version 2\n", "object-format=sha256\n", "0000"), "names its objects by sha256"},
		"sha256, old":   {lines(strings.Repeat("a", 64)+" HEAD\x00object-format=sha256\n", "0000"), "names its objects by sha256"},
		"ends too soon": {lines(hashA + " refs/heads/x\x00agent=a\n"), io.ErrUnexpectedEOF.Error()},
		"a page":        {"<html>", errNotGit.Error()},
		"nothing":       {"", io.ErrUnexpectedEOF.Error()},
		"an error":      {lines("ERR access denied\n"), "the server says: access denied"},
		"no hash":       {lines("xyz refs/heads/x\x00\n", "0000"), errNotGit.Error()},
		"a section":     {lines(hashA+" refs/heads/x\x00\n", "0001"), errNotGit.Error()},
	} {
		g, err := readGreeting(strings.NewReader(tc.in))
		got := ""
		if g.two {
			got = "two"
		}
		for _, ref := range []string{"HEAD", "refs/heads/x", "refs/tags/v1"} {
			if h, ok := g.refs.hashes[ref]; ok {
				got = strings.TrimSpace(got + " " + ref + "=" + h.String())
			}
		}
		if err != nil {
			got = err.Error()
		}
		if got != tc.want && (err == nil || !strings.Contains(got, tc.want)) {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

func TestPacks(t *testing.T) {
	for name, tc := range map[string]struct {
		two  bool
		in   string
		want string
	}{
		"version 0":       {false, lines("NAK\n", "\x02progress", "\x01PA", "\x01CK", "0000"), "PACK"},
		"two ACKs":        {false, lines("ACK "+hashA+"\n", "ACK "+hashA+"\n", "\x01PACK", "0000"), "PACK"},
		"version 2":       {true, lines("shallow-info\n", "0001", "packfile\n", "\x01PACK", "0000"), "PACK"},
		"an error inside": {true, lines("packfile\n", "\x01PA", "\x03disk full", "0000"), "the server says: disk full"},
		"an error":        {true, lines("ERR upload-pack: not our ref"), "not our ref"},
		"no pack":         {true, lines("acknowledgments\n", "NAK\n", "0000"), "no pack"},
		"cut":             {true, lines("packfile\n", "\x01PA"), io.ErrUnexpectedEOF.Error()},
		"another band":    {true, lines("packfile\n", "\x07PA"), errNotGit.Error()},
		"not one":         {false, lines("something else\n"), errNotGit.Error()},
	} {
		r, err := readPack(strings.NewReader(tc.in), tc.two)
		var got []byte
		if err == nil {
			got, err = io.ReadAll(r)
		}
		if err != nil {
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%s: %v, want %q", name, err, tc.want)
			}
			continue
		}
		if string(got) != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
	if _, err := packRequest(greeting{caps: map[string]string{}}, plumbing.NewHash(hashA), nil); err == nil {
		t.Error("a server without side bands is asked for a pack")
	}
}

func FuzzProtocol(f *testing.F) {
	f.Add([]byte(lines("# service=git-upload-pack\n", "0000", hashA+" HEAD\x00symref=HEAD:refs/heads/main\n", hashB+" refs/tags/v1^{}\n", "0000")))
	f.Add([]byte(lines("version 2\n", "agent=git/2\n", "0000")))
	f.Add([]byte(lines(hashA+" refs/tags/v1 peeled:"+hashB+"\n", hashA+" HEAD symref-target:refs/heads/main\n", "0000")))
	f.Add([]byte(lines("packfile\n", "\x01PACK", "\x02x", "0000")))
	f.Add([]byte(lines("NAK\n", "\x01PACK", "\x03x")))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if g, err := readGreeting(bytes.NewReader(raw)); err == nil {
			for name, h := range g.refs.hashes {
				if h.IsZero() || strings.HasSuffix(name, "^{}") {
					t.Errorf("%q at %s", name, h)
				}
			}
		}
		if all, err := readRefs(bytes.NewReader(raw)); err == nil {
			for name, h := range all.hashes {
				if h.IsZero() {
					t.Errorf("%q at nothing", name)
				}
			}
		}
		for _, two := range []bool{false, true} {
			r, err := readPack(bytes.NewReader(raw), two)
			if err != nil {
				continue
			}
			n, err := io.Copy(io.Discard, r)
			var known *fleet.Error
			if n > int64(len(raw)) || err != nil && errors.As(err, &known) && known.Kind != fleet.Retryable {
				t.Errorf("%d bytes of %d, %v", n, len(raw), err)
			}
		}
	})
}
