// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func exported(t testing.TB, e *Evidence) []byte {
	t.Helper()
	var b bytes.Buffer
	h := Header{By: "c1", Agent: "v0.1.0", Time: time.Unix(1_800_000_000, 0).UTC()}
	if err := Write(&b, h, e); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestExportReadsBack(t *testing.T) {
	s := well(t)
	s.Zoned = true
	h, got, err := Read(bytes.NewReader(exported(t, &s.Evidence)))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(s.Evidence, got); diff != "" {
		t.Error(diff)
	}
	if h.Format != Format || h.By != "c1" || h.Fleet != s.Fleet {
		t.Errorf("header %+v", h)
	}
}

// TestExportIsWhole: cut at whatever place, it is refused.
func TestExportIsWhole(t *testing.T) {
	s := well(t)
	whole := exported(t, &s.Evidence)
	lines := bytes.SplitAfter(whole, []byte("\n"))
	for n := range len(lines) - 1 {
		if _, _, err := Read(bytes.NewReader(bytes.Join(lines[:n], nil))); !errors.Is(err, ErrMalformed) {
			t.Errorf("the first %d lines: %v", n, err)
		}
	}
	for _, n := range []int{1, len(whole) / 2, len(whole) - 10} {
		if _, _, err := Read(bytes.NewReader(whole[:n])); !errors.Is(err, ErrMalformed) {
			t.Errorf("the first %d bytes: %v", n, err)
		}
	}
}

func TestExportRefused(t *testing.T) {
	s := well(t)
	whole := string(exported(t, &s.Evidence))
	first, rest, _ := strings.Cut(whole, "\n")
	for name, c := range map[string]struct{ text, want string }{
		"nothing":            {"", "it is empty"},
		"something else":     {"apiVersion: v1\n", "it does not begin as flotilla.dev/facts/v1 does"},
		"another version":    {strings.Replace(whole, "facts/v1", "facts/v2", 1), "it does not begin as flotilla.dev/facts/v1 does"},
		"two in one":         {whole + whole, "something follows its last line"},
		"a line left out":    {first + "\n" + rest[strings.Index(rest, "\n")+1:], "its last line tells of"},
		"no JSON":            {first + "\n{\n" + rest, "line 2"},
		"no record":          {first + "\n" + `{"record":"AAAA"}` + "\n" + rest, "line 2"},
		"a member of no key": {first + "\n" + `{"member":{"id":"x","name":"c1"}}` + "\n" + rest, "want the peer ID"},
		"an endless line":    {first + "\n" + `{"body":"` + strings.Repeat("A", maxLine), "a line of more than"},
	} {
		if _, _, err := Read(strings.NewReader(c.text)); err == nil || !strings.Contains(err.Error(), c.want) || !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// TestNewerLinesArePassedOver: a newer agent may tell more.
func TestNewerLinesArePassedOver(t *testing.T) {
	s := well(t)
	first, rest, _ := strings.Cut(string(exported(t, &s.Evidence)), "\n")
	text := strings.Replace(first, "{", `{"newer":1,`, 1) + "\n" + `{"newer":{"x":1}}` + "\n" + rest
	if _, _, err := Read(strings.NewReader(text)); err != nil {
		t.Error(err)
	}
}

// FuzzRead: whatever the bytes are, they are refused, or read back as they were; and nothing in them ends who checks them.
func FuzzRead(f *testing.F) {
	s := newScene(&testing.T{}, 2)
	s.say(s.canary(), whole...)
	good := exported(f, &s.Evidence)
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add([]byte(`{"format":"flotilla.dev/facts/v1","fleet":""}` + "\n" + `{"end":{}}` + "\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, e, err := Read(bytes.NewReader(b))
		if err != nil {
			return
		}
		Check(e)
		var again bytes.Buffer
		if err := Write(&again, h, &e); err != nil {
			t.Skip(err) // a time that JSON cannot write
		}
		_, second, err := Read(&again)
		if err != nil {
			t.Fatalf("what was read is not read again: %v", err)
		}
		if diff := cmp.Diff(e.Records, second.Records); diff != "" {
			t.Error(diff)
		}
	})
}
