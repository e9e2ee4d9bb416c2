// SPDX-License-Identifier: Apache-2.0

package fleet_test

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// goldenName carries the version: golden bytes of every version that was ever released keep decoding.
func goldenName(name string) string { return filepath.Join("testdata", name+".v1.golden") }

// checkGolden compares b with the hex in the golden file, or rewrites that.
func checkGolden(t *testing.T, name string, b []byte) {
	t.Helper()
	file := goldenName(name)
	if os.Getenv("UPDATE_GOLDEN") == "1" {
		text := hex.EncodeToString(b)
		var lines strings.Builder
		for len(text) > 64 {
			lines.WriteString(text[:64] + "\n")
			text = text[64:]
		}
		lines.WriteString(text + "\n")
		if err := os.WriteFile(file, []byte(lines.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(hex.EncodeToString(readGolden(t, file)), hex.EncodeToString(b)); diff != "" {
		t.Errorf("the bytes on the wire changed without a new WireVersion (-golden +now):\n%s", diff)
	}
}

func readGolden(t testing.TB, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return b
}

func TestGoldenBytesAreWritten(t *testing.T) {
	if fleet.WireVersion != 1 {
		t.Fatal("a new WireVersion needs golden files of its own; those of the old one only keep decoding")
	}
	for name, r := range sampleRecords(t) {
		checkGolden(t, name, r.Encode())
	}
	h := sampleHeartbeat()
	checkGolden(t, "heartbeat", h.Encode())
}

func TestGoldenBytesKeepDecoding(t *testing.T) {
	for name, want := range sampleRecords(t) {
		t.Run(name, func(t *testing.T) {
			got, err := fleet.DecodeRecord(readGolden(t, goldenName(name)))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("record (-want +got):\n%s", diff)
			}
			if err := got.Verify(ourFleet); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("heartbeat", func(t *testing.T) {
		got, err := fleet.DecodeHeartbeat(readGolden(t, goldenName("heartbeat")))
		if err != nil {
			t.Fatal(err)
		}
		if want := sampleHeartbeat(); !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
		if err := got.Verify(ourFleet); err != nil {
			t.Error(err)
		}
	})
}

func TestGoldenBodiesKeepDecoding(t *testing.T) {
	record := func(name string) *fleet.Record {
		r, err := fleet.DecodeRecord(readGolden(t, goldenName(name)))
		if err != nil {
			t.Fatal(err)
		}
		return &r
	}
	fact, err := fleet.DecodeFact(record("fact"))
	if err != nil || fact != sampleFact() {
		t.Errorf("fact: got %+v, %v", fact, err)
	}
	command, err := fleet.DecodeCommand(record("command-resume"))
	want := sampleCommand()
	want.ID = record("command-resume").Digest()
	if diff := cmp.Diff(want, command); err != nil || diff != "" {
		t.Errorf("command: %v\n%s", err, diff)
	}
	seal, err := fleet.DecodeSeal(record("seal"))
	if err != nil || seal != sampleSeal() {
		t.Errorf("seal: got %+v, %v", seal, err)
	}
	status, err := fleet.DecodeStatus(record("status"))
	if err != nil || status != sampleStatus() {
		t.Errorf("status: got %+v, %v", status, err)
	}
	floor, err := fleet.DecodeFloor(record("floor"))
	if diff := cmp.Diff(sampleFloor(), floor); err != nil || diff != "" {
		t.Errorf("floor: %v\n%s", err, diff)
	}
	proof, err := fleet.DecodeProof(record("proof"))
	if diff := cmp.Diff(sampleProof(t), proof); err != nil || diff != "" {
		t.Errorf("proof: %v\n%s", err, diff)
	}
	rollup, err := fleet.DecodeRollup(record("rollup"))
	if diff := cmp.Diff(sampleRollup(), rollup); err != nil || diff != "" {
		t.Errorf("rollup: %v\n%s", err, diff)
	}
}

// Digests name things in other members' records: they may change as little as the bytes.
func TestGoldenDigests(t *testing.T) {
	r := signed(t, factRecord(sampleFact()))
	other := sampleSeal()
	other.Term, other.Number = 9, 9
	for _, c := range []struct{ what, got, want string }{
		{"record", r.Digest().String(), "49d5821827ebeb5138adbab35381d7c3e7686fc637c1ab0a507b8b02ff1fa5e1"},
		{"seal", sampleSeal().Digest().String(), "fd2746b7838bf4b24bcb8cfb62f6b05f2316a11328686d8101e0c465ca0d8a0b"},
		{"content", sampleSeal().Content().String(), "3a3a74f3cc7cf1b41a65bfdac94f5c2db2dad238f4b01254e4e4b766d9866f88"},
		{"content elsewhere", other.Content().String(), "3a3a74f3cc7cf1b41a65bfdac94f5c2db2dad238f4b01254e4e4b766d9866f88"},
		{"of no parts", fleet.DigestOf("d").String(), "e7f3ae40b6cc78d7e7b2cc69f4c9c86a0e1fe71f82c88e20c37c962397a513c0"},
		{"of one empty part", fleet.DigestOf("d", nil).String(), "377339bdb4f949ced1c88cbb30891b9c121b549e765a15f6b3d20d7b5113084c"},
	} {
		if c.got != c.want {
			t.Errorf("%s: got %s, want %s", c.what, c.got, c.want)
		}
	}
	if sampleSeal().Digest() == other.Digest() {
		t.Error("two positions of a seal have one digest")
	}
}
