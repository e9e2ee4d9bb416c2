// SPDX-License-Identifier: Apache-2.0

package fleet_test

import (
	"crypto/ed25519"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// believed says whether a member of the fleet would take the bytes for a record.
func believed(b []byte) error {
	r, err := fleet.DecodeRecord(b)
	if err != nil {
		return err
	}
	return r.Verify(ourFleet)
}

func heartbeatBelieved(b []byte) error {
	h, err := fleet.DecodeHeartbeat(b)
	if err != nil {
		return err
	}
	return h.Verify(ourFleet)
}

func TestEveryBitCounts(t *testing.T) {
	records := sampleRecords(t)
	h := sampleHeartbeat()
	for _, c := range []struct {
		what     string
		bytes    []byte
		believed func([]byte) error
	}{
		{"fact", encoded(records["fact"]), believed},
		{"command", encoded(records["command-resume"]), believed},
		{"heartbeat", h.Encode(), heartbeatBelieved},
	} {
		t.Run(c.what, func(t *testing.T) {
			if err := c.believed(c.bytes); err != nil {
				t.Fatalf("not even as it is: %v", err)
			}
			for bit := range len(c.bytes) * 8 {
				b := slices.Clone(c.bytes)
				b[bit/8] ^= 1 << (bit % 8)
				if c.believed(b) == nil {
					t.Errorf("believed with bit %d of byte %d flipped", bit%8, bit/8)
				}
			}
			for n := range len(c.bytes) {
				if c.believed(c.bytes[:n]) == nil {
					t.Errorf("believed when cut to %d bytes", n)
				}
			}
			if c.believed(append(slices.Clone(c.bytes), 0)) == nil {
				t.Error("believed with a byte more")
			}
		})
	}
}

func TestOtherFleet(t *testing.T) {
	r, h := signed(t, factRecord(sampleFact())), sampleHeartbeat()
	if err := r.Verify(otherFleet); !errors.Is(err, fleet.ErrFleet) {
		t.Errorf("record: got %v", err)
	}
	if err := h.Verify(otherFleet); !errors.Is(err, fleet.ErrFleet) {
		t.Errorf("heartbeat: got %v", err)
	}
	// Claiming the other fleet does not carry the signature over.
	r.Fleet, h.Fleet = otherFleet, otherFleet
	if err := r.Verify(otherFleet); !errors.Is(err, fleet.ErrSignature) {
		t.Errorf("record: got %v", err)
	}
	if err := h.Verify(otherFleet); !errors.Is(err, fleet.ErrSignature) {
		t.Errorf("heartbeat: got %v", err)
	}
}

func TestUnknownVersion(t *testing.T) {
	for _, version := range []byte{0, fleet.WireVersion + 1, 255} {
		r, h := signed(t, factRecord(sampleFact())), sampleHeartbeat()
		b := r.Encode()
		b[2] = version
		if _, err := fleet.DecodeRecord(b); !errors.Is(err, fleet.ErrVersion) {
			t.Errorf("record %d: got %v", version, err)
		}
		b = h.Encode()
		b[2] = version
		if _, err := fleet.DecodeHeartbeat(b); !errors.Is(err, fleet.ErrVersion) {
			t.Errorf("heartbeat %d: got %v", version, err)
		}
		for what, decode := range bodyDecoders() {
			if what == "status" || what == "rollup" {
				continue // JSON: it grows by fields
			}
			r := sampleRecords(t)[what]
			r.Body[0] = version
			if err := decode(&r); !errors.Is(err, fleet.ErrVersion) {
				t.Errorf("%s %d: got %v", what, version, err)
			}
		}
	}
}

// bodyDecoders by the sample that each reads.
func bodyDecoders() map[string]func(*fleet.Record) error {
	return map[string]func(*fleet.Record) error{
		"fact":           func(r *fleet.Record) error { _, err := fleet.DecodeFact(r); return err },
		"command-resume": func(r *fleet.Record) error { _, err := fleet.DecodeCommand(r); return err },
		"seal":           func(r *fleet.Record) error { _, err := fleet.DecodeSeal(r); return err },
		"status":         func(r *fleet.Record) error { _, err := fleet.DecodeStatus(r); return err },
		"floor":          func(r *fleet.Record) error { _, err := fleet.DecodeFloor(r); return err },
		"proof":          func(r *fleet.Record) error { _, err := fleet.DecodeProof(r); return err },
		"rollup":         func(r *fleet.Record) error { _, err := fleet.DecodeRollup(r); return err },
	}
}

// A body is read from a record of its own kind: a fact in a register could be unsaid, a register
// under a milestone's kind could never be.
func TestBodiesUnderAnotherKind(t *testing.T) {
	for what, decode := range bodyDecoders() {
		own := sampleRecords(t)[what]
		for k := range 256 {
			r := own
			r.Kind = fleet.Kind(k)
			switch err := decode(&r); {
			case r.Kind == own.Kind && err != nil:
				t.Errorf("%s: %v", what, err)
			case r.Kind != own.Kind && !errors.Is(err, fleet.ErrMalformed):
				t.Errorf("%s under kind %d: got %v", what, k, err)
			}
		}
	}
}

func TestBodiesUnderAnotherKey(t *testing.T) {
	for _, what := range []string{"fact", "seal", "status", "floor", "proof", "rollup"} {
		r := sampleRecords(t)[what]
		for _, key := range []string{"", r.Key + "x", strings.ToUpper(r.Key), r.Key[1:]} {
			r.Key = key
			if err := bodyDecoders()[what](&r); !errors.Is(err, fleet.ErrMalformed) {
				t.Errorf("%s under %q: got %v", what, key, err)
			}
		}
	}
}

// Nobody seals in another's name, and what comes from git is in no record.
func TestSealByAnother(t *testing.T) {
	for _, author := range []string{string(memberOf(2)), fleet.AuthorGit, ""} {
		s := sampleSeal()
		s.Author = author
		r := signed(t, sealRecord(s))
		if _, err := fleet.DecodeSeal(&r); !errors.Is(err, fleet.ErrMalformed) {
			t.Errorf("author %q: got %v", author, err)
		}
	}
}

// Every body is refused when cut short, when longer, and when a text in it could steer a terminal.
func TestMalformedBodies(t *testing.T) {
	for what, decode := range bodyDecoders() {
		whole := sampleRecords(t)[what]
		for n := range len(whole.Body) {
			r := whole
			r.Body = whole.Body[:n]
			if err := decode(&r); !errors.Is(err, fleet.ErrMalformed) {
				t.Errorf("%s cut to %d bytes: got %v", what, n, err)
			}
		}
		whole.Body = append(slices.Clone(whole.Body), '0')
		if err := decode(&whole); !errors.Is(err, fleet.ErrMalformed) {
			t.Errorf("%s with a byte more: got %v", what, err)
		}
	}
	for _, text := range []string{"\x1b[2J", "a\nb", "a\u202eb", "\xff"} {
		f := sampleFact()
		f.Detail = strings.Repeat("x", len(text))
		r := factRecord(f)
		r.Body = []byte(strings.Replace(string(r.Body), f.Detail, text, 1))
		if _, err := fleet.DecodeFact(&r); !errors.Is(err, fleet.ErrMalformed) {
			t.Errorf("detail %q: got %v", text, err)
		}
	}
	s := sampleStatus()
	r := statusRecord(t, s)
	r.Body = []byte(strings.Replace(string(r.Body), s.Because, `\u001b[2J`+strings.Repeat("long ", 200), 1))
	got, err := fleet.DecodeStatus(&r)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Because) > fleet.MaxDetail || strings.Contains(got.Because, "\x1b") {
		t.Errorf("because is neither cut nor plain: %q", got.Because)
	}
}

// The key of a command names its rollout or none: where the body cannot be read, the key is believed.
func TestCommandUnderAnothersKey(t *testing.T) {
	c := sampleCommand()
	for key, want := range map[string]fleet.RolloutName{
		c.Rollout.String() + "/Pause/1": c.Rollout, c.Rollout.String() + "/": c.Rollout, "stop": {}, c.Rollout.String(): {}, "/web/1": {}, "shop//1": {}, "": {},
		"another/one/Pause/1": {Namespace: "another", Name: "one"},
	} {
		r := commandRecord(c)
		r.Key = key
		name, named := fleet.CommandRollout(key)
		if name != want || named != (want != fleet.RolloutName{}) {
			t.Errorf("key %q names %v %v", key, name, named)
		}
		if err := fleet.CheckBody(&r); (err == nil) != (!named || want == c.Rollout) || err != nil && !errors.Is(err, fleet.ErrMalformed) {
			t.Errorf("key %q: %v", key, err)
		}
	}
	c.Rollout = fleet.RolloutName{Namespace: "shop/web", Name: "x"} // whose key names shop/web
	r := commandRecord(c)
	if err := fleet.CheckBody(&r); !errors.Is(err, fleet.ErrMalformed) {
		t.Errorf("a slash in a namespace: %v", err)
	}
}

func TestTooManyLifts(t *testing.T) {
	c := sampleCommand()
	c.Lifts = make([]fleet.Digest, fleet.MaxLifts+1)
	r := signed(t, commandRecord(c))
	if _, err := fleet.DecodeCommand(&r); !errors.Is(err, fleet.ErrMalformed) {
		t.Errorf("got %v", err)
	}
}

// A signature of one thing is none of another.
func TestSignaturesKeepToTheirDomain(t *testing.T) {
	key := keyOf(1)
	r := signed(t, factRecord(sampleFact()))
	content := r.Encode()[:len(r.Encode())-ed25519.SignatureSize]
	for _, domain := range []string{"", "flotilla.dev/heartbeat\n", "flotilla.dev/record"} {
		r.Sig = ed25519.Sign(key, append([]byte(domain), content...))
		if err := r.Verify(ourFleet); !errors.Is(err, fleet.ErrSignature) {
			t.Errorf("domain %q: got %v", domain, err)
		}
	}
	for _, sig := range [][]byte{nil, {}, make([]byte, 63), make([]byte, 64), make([]byte, 65)} {
		r.Sig = sig
		if err := r.Verify(ourFleet); !errors.Is(err, fleet.ErrSignature) {
			t.Errorf("signature of %d bytes: got %v", len(sig), err)
		}
	}
	// Another's signature under this writer's name.
	if err := r.Sign(keyOf(2)); err != nil {
		t.Fatal(err)
	}
	r.Writer = memberOf(1)
	if err := r.Verify(ourFleet); !errors.Is(err, fleet.ErrSignature) {
		t.Errorf("signed by another: got %v", err)
	}
	// No key is behind the name: what Encode puts in its place is never asked.
	r.Writer = "nobody"
	if err := r.Verify(ourFleet); err == nil {
		t.Error("a writer without a key is believed")
	}
	h := sampleHeartbeat()
	h.Writer = "nobody"
	if err := h.Verify(ourFleet); err == nil {
		t.Error("a heartbeat without a key is believed")
	}
}

// roster of a fleet in a test.
type roster map[fleet.MemberID]fleet.Member

func (r roster) Member(id fleet.MemberID) (fleet.Member, bool) { m, ok := r[id]; return m, ok }

func TestAuthorize(t *testing.T) {
	ours := roster{memberOf(1): {ID: memberOf(1), Name: "one"}}
	for what, r := range sampleRecords(t) {
		if err := fleet.Authorize(ours, &r); err != nil {
			t.Errorf("%s of a member: %v", what, err)
		}
		if err := r.Sign(keyOf(2)); err != nil {
			t.Fatal(err)
		}
		if err := fleet.Authorize(ours, &r); !errors.Is(err, fleet.ErrStranger) {
			t.Errorf("%s of a stranger: got %v", what, err)
		}
		if err := fleet.Authorize(roster{}, &r); !errors.Is(err, fleet.ErrStranger) {
			t.Errorf("%s in an empty fleet: got %v", what, err)
		}
	}
}

func encoded(r fleet.Record) []byte { return r.Encode() }
