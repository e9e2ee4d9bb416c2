// SPDX-License-Identifier: Apache-2.0

package fleet_test

import (
	"bytes"
	"errors"
	"reflect"
	"testing"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

func sampleNotice() fleet.Notice {
	n := fleet.Notice{
		Fleet: ourFleet, Life: fleet.LifeID{7: 9}, Counter: 3,
		About: memberOf(2), AboutLife: fleet.LifeID{1}, AboutCounter: 1 << 33,
	}
	n.Sign(keyOf(1))
	return n
}

func TestGoldenNotice(t *testing.T) {
	want := sampleNotice()
	checkGolden(t, "notice", want.Encode())
	got, err := fleet.DecodeNotice(readGolden(t, goldenName("notice")))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if err := got.Verify(ourFleet); err != nil {
		t.Error(err)
	}
	if !fleet.IsNotice(got.Encode()) {
		t.Error("it is not known by its first bytes")
	}
	h := sampleHeartbeat()
	if fleet.IsNotice(h.Encode()) || fleet.IsNotice([]byte("F")) {
		t.Error("something else is taken for a notice")
	}
}

func TestNoticeIsRefused(t *testing.T) {
	good := sampleNotice()
	itself := good
	itself.About = memberOf(1)
	itself.Sign(keyOf(1))
	change := func(i int) []byte {
		b := good.Encode()
		b[i] ^= 1
		return b
	}
	for name, c := range map[string]struct {
		bytes []byte
		want  error
	}{
		"empty":             {nil, fleet.ErrMalformed},
		"cut short":         {good.Encode()[:100], fleet.ErrMalformed},
		"something behind":  {append(good.Encode(), 0), fleet.ErrMalformed},
		"too large":         {make([]byte, fleet.MaxNotice+1), fleet.ErrMalformed},
		"a heartbeat":       {change(1), fleet.ErrMalformed},
		"a later version":   {change(2), fleet.ErrVersion},
		"about its writer":  {itself.Encode(), fleet.ErrMalformed},
		"of another fleet":  {change(3), fleet.ErrFleet},
		"of another writer": {change(35), fleet.ErrSignature},
		"of another life":   {change(67), fleet.ErrSignature},
		"another count":     {change(82), fleet.ErrSignature},
		"about another":     {change(83), fleet.ErrSignature},
		"another last life": {change(115), fleet.ErrSignature},
		"another last beat": {change(130), fleet.ErrSignature},
		"signature changed": {change(131), fleet.ErrSignature},
	} {
		t.Run(name, func(t *testing.T) {
			n, err := fleet.DecodeNotice(c.bytes)
			if err == nil {
				err = n.Verify(ourFleet)
			}
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

// TestNoticeSignatureIsItsOwn: a heartbeat's signature over the same bytes is none of a notice.
func TestNoticeSignatureIsItsOwn(t *testing.T) {
	n, h := sampleNotice(), sampleHeartbeat()
	n.Sig = h.Sig
	if err := n.Verify(ourFleet); !errors.Is(err, fleet.ErrSignature) {
		t.Errorf("got %v", err)
	}
}

func FuzzDecodeNotice(f *testing.F) {
	n := sampleNotice()
	f.Add(n.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := fleet.DecodeNotice(b)
		if err != nil {
			return
		}
		if again := n.Encode(); !bytes.Equal(again, b) {
			t.Fatalf("two encodings of one notice:\n%x\n%x", b, again)
		}
		if n.Writer == n.About {
			t.Fatal("a member that lost itself")
		}
	})
}
