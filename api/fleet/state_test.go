// SPDX-License-Identifier: Apache-2.0

package fleet_test

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

func TestQuotasAndScopes(t *testing.T) {
	for _, c := range []struct {
		kind  fleet.Kind
		key   string
		quota int
		scope fleet.Scope
	}{
		{fleet.KindSeal, "", 2048, fleet.ScopeFleet},
		{fleet.KindFact, "", 4096, fleet.ScopeMilestones},
		{fleet.KindCommand, "", 1024, fleet.ScopeFleet},
		{fleet.KindProof, "", 1024, fleet.ScopeFleet},
		{fleet.KindRegister, "", 512, fleet.ScopeDetail},
		{fleet.KindFloor, fleet.FloorKey(fleet.KindFact), 2, fleet.ScopeMilestones},
		{fleet.KindFloor, fleet.FloorKey(fleet.KindCommand), 2, fleet.ScopeFleet},
		{fleet.KindFloor, fleet.FloorKey(fleet.KindSeal), 2, fleet.ScopeDetail},
		{fleet.KindFloor, "floor/02", 2, fleet.ScopeDetail},
		{fleet.KindRollup, "", 512, fleet.ScopeFleet},
		{fleet.KindReach, "reach", 1, fleet.ScopeFleet},
		{50, "", 64, fleet.ScopeMilestones}, {120, "", 64, fleet.ScopeFleet},
		{150, "", 64, fleet.ScopeDetail}, {250, "", 64, fleet.ScopeFleet},
	} {
		r := fleet.Record{Kind: c.kind, Key: c.key}
		if c.kind.Quota() != c.quota || r.Scope() != c.scope {
			t.Errorf("kind %d, key %q: quota %d, scope %d, want %d and %d", c.kind, c.key, c.kind.Quota(), r.Scope(), c.quota, c.scope)
		}
	}
	for k := range 256 {
		if fleet.Kind(k).Quota() <= 0 {
			t.Errorf("kind %d has no room", k)
		}
	}
}

func TestExpires(t *testing.T) {
	at := time.Date(2026, 11, 21, 23, 59, 59, 0, time.UTC)
	with := func(body string) fleet.Record {
		r := statusRecord(t, sampleStatus())
		r.Body = []byte(body)
		return r
	}
	status, rollup := sampleStatus(), sampleRollup()
	status.Time, rollup.Time = at.Unix(), at.Unix()+1
	own := statusRecord(t, status)
	own.Key = "inventory"
	for _, c := range []struct {
		what string
		r    fleet.Record
		day  int64
		ok   bool
	}{
		{"status", statusRecord(t, status), fleet.Day(at) + fleet.Lifetime, true},
		{"rollup of the next day", rollupRecord(t, rollup), fleet.Day(at) + fleet.Lifetime + 1, true},
		{"other register", own, 0, false},
		{"fact", factRecord(sampleFact()), 0, false},
		{"floor", floorRecord(sampleFloor()), 0, false},
		{"no time", with(`{}`), math.MinInt64, true},
		{"before 1970", with(`{"time":-5}`), math.MinInt64, true},
		{"end of time", with(`{"time":9223372036854775807}`), math.MaxInt64/86400 + fleet.Lifetime, true},
		{"1970", with(`{"time":0}`), math.MinInt64, true},
		{"no number", with(`{"time":"soon"}`), math.MinInt64, true},
		{"no JSON", with(`{"time":5`), math.MinInt64, true},
		{"fields of a later version", with(`{"time":86400,"more":{"time":5}}`), 1 + fleet.Lifetime, true},
	} {
		if day, ok := c.r.Expires(); day != c.day || ok != c.ok {
			t.Errorf("%s: day %d %v, want %d %v", c.what, day, ok, c.day, c.ok)
		}
	}
}

// TestRegistersSayWhen: one that ends is not let in without the time it was said; others need none.
func TestRegistersSayWhen(t *testing.T) {
	for at, want := range map[int64]bool{1: true, 1_795_000_000: true, 0: false, -1: false, math.MinInt64: false} {
		status, rollup := sampleStatus(), sampleRollup()
		status.Time, rollup.Time = at, at
		own := statusRecord(t, status)
		own.Key = "inventory"
		for what, c := range map[string]struct {
			r    fleet.Record
			want bool
		}{
			"status": {statusRecord(t, status), want}, "rollup": {rollupRecord(t, rollup), want}, "another register": {own, true},
		} {
			if err := fleet.CheckBody(&c.r); c.want != (err == nil) || err != nil && !errors.Is(err, fleet.ErrMalformed) {
				t.Errorf("%s said at %d: %v", what, at, err)
			}
		}
	}
}

func TestGroup(t *testing.T) {
	fact := sampleFact()
	started := factRecord(fact)
	fact.Kind = fleet.Soaked
	soaked := factRecord(fact)
	if started.Group() != soaked.Group() || started.Group() != fleet.PlanGroup(fact.Plan) {
		t.Error("milestones of one plan are in two groups")
	}
	command, other := commandRecord(sampleCommand()), commandRecord(sampleCommand())
	other.Key += "x"
	// Under a fact's key, of another kind: no fact.
	borrowed := command
	borrowed.Key = started.Key
	groups := []fleet.Group{started.Group(), command.Group(), other.Group(), borrowed.Group()}
	slices.SortFunc(groups, func(a, b fleet.Group) int { return slices.Compare(a[:], b[:]) })
	if len(slices.Compact(groups)) != 4 {
		t.Errorf("groups are shared: %x", groups)
	}
	for _, key := range []string{"", "abc", strings.Repeat("x", 64)} {
		r := fleet.Record{Kind: fleet.KindFact, Key: key}
		if r.Group() == (fleet.Group{}) {
			t.Errorf("key %q has no group", key)
		}
	}
}

func TestFloorRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := fleet.Floor{
			Kind: rapid.SampledFrom([]fleet.Kind{fleet.KindFact, fleet.KindCommand}).Draw(t, "kind"), Writer: memberOf(1),
			Epoch: rapid.Uint64().Draw(t, "epoch"), Seq: rapid.Uint64().Draw(t, "seq"),
		}
		for _, b := range rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "keep") {
			want.Keep = append(want.Keep, fleet.Group{b})
		}
		r := travelled(t, floorRecord(want))
		got, err := fleet.DecodeFloor(&r)
		if err != nil {
			t.Fatal(err)
		}
		slices.SortFunc(want.Keep, func(a, b fleet.Group) int { return slices.Compare(a[:], b[:]) })
		if want.Keep = slices.Compact(want.Keep); len(want.Keep) == 0 {
			want.Keep = nil
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("-want +got:\n%s", diff)
		}
	})
}

func TestFloorRefusals(t *testing.T) {
	full := sampleFloor()
	full.Keep = nil
	for i := range fleet.MaxKeep {
		full.Keep = append(full.Keep, fleet.Group{byte(i >> 8), byte(i)})
	}
	r := signed(t, floorRecord(full))
	if _, err := fleet.DecodeFloor(&r); err != nil {
		t.Errorf("as many groups as may be: %v", err)
	}
	full.Keep = append(full.Keep, fleet.Group{9})
	endless := full
	endless.Keep = nil
	for i := range 1<<16 + 1 {
		endless.Keep = append(endless.Keep, fleet.Group{byte(i >> 16), byte(i >> 8), byte(i)})
	}
	other := sampleFloor()
	other.Kind = fleet.KindSeal
	swapped, twice := floorRecord(sampleFloor()), floorRecord(sampleFloor())
	first := len(swapped.Body) - 3*8
	copy(swapped.Body[first:], slices.Concat(swapped.Body[first+8:first+16], swapped.Body[first:first+8]))
	copy(twice.Body[first:], twice.Body[first+8:first+16])
	register := sampleFloor()
	register.Kind = fleet.KindRegister
	for what, r := range map[string]fleet.Record{
		"a group more": floorRecord(full), "more than the count holds": floorRecord(endless), "of seals": floorRecord(other),
		"groups out of order": swapped, "a group twice": twice, "of registers": floorRecord(register),
	} {
		if _, err := fleet.DecodeFloor(&r); !errors.Is(err, fleet.ErrMalformed) {
			t.Errorf("%s: got %v", what, err)
		}
	}
}

func TestRetires(t *testing.T) {
	f := sampleFloor()
	f.Keep = []fleet.Group{fleet.PlanGroup(fleet.Digest{7})}
	fact := func(epoch, seq uint64, plan byte) fleet.Record {
		return fleet.Record{Writer: f.Writer, Kind: fleet.KindFact, Epoch: epoch, Seq: seq, Key: fleet.FactKey(fleet.Digest{plan}, 1)}
	}
	others, command := fact(1, 1, 1), fact(1, 1, 1)
	others.Writer, command.Kind = memberOf(2), fleet.KindCommand
	for _, c := range []struct {
		what string
		r    fleet.Record
		want bool
	}{
		{"before", fact(f.Epoch, f.Seq-1, 1), true},
		{"of an earlier epoch", fact(f.Epoch-1, f.Seq+1, 1), true},
		{"at the floor", fact(f.Epoch, f.Seq, 1), false},
		{"of a later epoch", fact(f.Epoch+1, 0, 1), false},
		{"of a group that stays", fact(1, 1, 7), false},
		{"another's", others, false},
		{"of another kind", command, false},
	} {
		if got := f.Retires(&c.r); got != c.want {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
	}
}

func TestProofRefusals(t *testing.T) {
	good := sampleProof(t)
	by := func(seed byte, r fleet.Record, change func(*fleet.Record)) fleet.Record {
		change(&r)
		if err := r.Sign(keyOf(seed)); err != nil {
			t.Fatal(err)
		}
		return r
	}
	forged := good.B
	forged.Sig = slices.Clone(forged.Sig)
	forged.Sig[9]++
	elsewhere := by(2, good.B, func(r *fleet.Record) { r.Fleet = otherFleet })
	body, _ := good.Encode()
	n := len(good.A.Encode())
	backwards := slices.Concat(body[:1], body[1+2+n:], body[1:1+2+n])
	for what, change := range map[string]func(*fleet.Record){
		"two epochs": func(r *fleet.Record) {
			r.Body, _ = fleet.Proof{A: good.A, B: by(2, good.B, func(r *fleet.Record) { r.Epoch++ })}.Encode()
		},
		"two positions": func(r *fleet.Record) {
			r.Body, _ = fleet.Proof{A: good.A, B: by(2, good.B, func(r *fleet.Record) { r.Seq++ })}.Encode()
		},
		"two writers": func(r *fleet.Record) {
			r.Body, _ = fleet.Proof{A: good.A, B: by(3, good.B, func(*fleet.Record) {})}.Encode()
		},
		"forged":                    func(r *fleet.Record) { r.Body, _ = fleet.Proof{A: good.A, B: forged}.Encode() },
		"another fleet":             func(r *fleet.Record) { r.Body, _ = fleet.Proof{A: good.A, B: elsewhere}.Encode() },
		"in that fleet":             func(r *fleet.Record) { r.Fleet = otherFleet },
		"backwards":                 func(r *fleet.Record) { r.Body = backwards },
		"one twice":                 func(r *fleet.Record) { r.Body = slices.Concat(body[:1+2+n], body[1:1+2+n]) },
		"another's key":             func(r *fleet.Record) { r.Key = fleet.ProofKey(memberOf(1)) },
		"no two records":            func(r *fleet.Record) { r.Body = []byte{fleet.WireVersion, 0, 1, 7, 0, 1, 8} },
		"longer than can be signed": func(r *fleet.Record) { r.Body = append([]byte{fleet.WireVersion}, make([]byte, fleet.MaxRecord)...) },
	} {
		r := proofRecord(t, good)
		change(&r)
		if _, err := fleet.DecodeProof(&r); !errors.Is(err, fleet.ErrMalformed) {
			t.Errorf("%s: got %v", what, err)
		}
	}
	// A record of a later version is not for this one to judge.
	r := proofRecord(t, good)
	r.Body = slices.Clone(body)
	r.Body[1+2+2]++
	if _, err := fleet.DecodeProof(&r); !errors.Is(err, fleet.ErrVersion) || errors.Is(err, fleet.ErrMalformed) {
		t.Errorf("of a later version: got %v", err)
	}
	if _, ok := (fleet.Proof{A: good.A, B: good.A}).Encode(); ok {
		t.Error("one record is proof of two")
	}
	if again, ok := (fleet.Proof{A: good.B, B: good.A}).Encode(); !ok || !slices.Equal(again, body) {
		t.Error("a proof depends on which record came first")
	}
}

// Whatever two things a member says that others decide by: they fit into a proof.
func TestProofsOfTheLongestFit(t *testing.T) {
	name := fleet.RolloutName{Namespace: strings.Repeat("n", 63), Name: strings.Repeat("r", 253)}
	fact, command, seal := sampleFact(), sampleCommand(), sampleSeal()
	fact.Detail, command.Reason = strings.Repeat("x", fleet.MaxDetail), strings.Repeat("x", fleet.MaxDetail)
	command.Rollout, seal.Rollout = name, name
	command.Lifts = make([]fleet.Digest, fleet.MaxLifts)
	longest := commandRecord(command)
	longest.Key = strings.Repeat("k", fleet.MaxKey)
	some := []fleet.Record{factRecord(fact), longest, sealRecord(seal)}
	for i := range some {
		for j := range some {
			a, b := some[i], some[j]
			a.Epoch, a.Seq, b.Epoch, b.Seq = 1, 1, 1, 1
			b.Key = "x" + b.Key[1:]
			p := fleet.Proof{A: signed(t, a), B: signed(t, b)}
			r := signed(t, proofRecord(t, p))
			if _, err := fleet.DecodeProof(&r); err != nil {
				t.Errorf("%s and %s: %v", a.Kind, b.Kind, err)
			}
		}
	}
	large := fleet.Proof{A: signed(t, fleet.Record{Body: make([]byte, 6000)}), B: signed(t, fleet.Record{Body: make([]byte, 6001)})}
	if _, ok := large.Encode(); ok {
		t.Error("a proof larger than a record")
	}
}

func TestRollupRefusals(t *testing.T) {
	long := strings.Repeat("x", 64)
	for what, change := range map[string]func(*fleet.Rollup){
		"zone of two parts":   func(u *fleet.Rollup) { u.Zone = "a/b" },
		"long zone":           func(u *fleet.Rollup) { u.Zone = long },
		"negative members":    func(u *fleet.Rollup) { u.Members = -1 },
		"negative count":      func(u *fleet.Rollup) { u.Stages[0].Counts["Soaked"] = -1 },
		"long stage":          func(u *fleet.Rollup) { u.Stages[1].Name = long },
		"stage with a colour": func(u *fleet.Rollup) { u.Stages[1].Name = "\x1b[31m" },
		"long state":          func(u *fleet.Rollup) { u.Stages[1].Counts[long] = 1 },
		"state with a break":  func(u *fleet.Rollup) { u.Stages[1].Counts["a\nb"] = 1 },
		"long member":         func(u *fleet.Rollup) { u.Failing[0] = fleet.Name(long) },
		"turned member":       func(u *fleet.Rollup) { u.Failing[0] = "a\u202eb" },
		"many stages":         func(u *fleet.Rollup) { u.Stages = make([]fleet.StageRollup, 65) },
		"many states": func(u *fleet.Rollup) {
			for i := range 40 {
				u.Stages[0].Counts[strings.Repeat("s", i+1)] = 1
			}
		},
	} {
		u := sampleRollup()
		change(&u)
		r := rollupRecord(t, u)
		if _, err := fleet.DecodeRollup(&r); !errors.Is(err, fleet.ErrMalformed) {
			t.Errorf("%s: got %v", what, err)
		}
	}
	many := sampleRollup()
	many.Failing = slices.Repeat([]fleet.Name{"eu-1"}, 100)
	r := signed(t, rollupRecord(t, many))
	got, err := fleet.DecodeRollup(&r)
	if err != nil || len(got.Failing) != fleet.MaxFailing || len(many.Failing) != 100 {
		t.Errorf("many failing: %d named, %v", len(got.Failing), err)
	}
	r.Body = []byte(strings.Replace(string(r.Body), `"failing":[`, `"failing":["eu-1",`, 1))
	if _, err := fleet.DecodeRollup(&r); !errors.Is(err, fleet.ErrMalformed) {
		t.Errorf("one more than is written: got %v", err)
	}
}

// The longest status that an agent has to say is no longer than a register may be, whatever signs are in it; the same is true
// of a rollup with every stage that a rollout can have.
func TestLongestStatusFits(t *testing.T) {
	name := fleet.RolloutName{Namespace: strings.Repeat("n", 63), Name: strings.Repeat("r", 253)}
	for _, sign := range []string{"x", "<", "&", `"`, `\`, "\u2028", "\xff", "é", "\x1b"} {
		text := func(n int) string { return strings.Repeat(sign, n/len(sign)) }
		revision := fleet.Revision(fleet.Cut(text(255)) + "@sha256:" + strings.Repeat("0", 64))
		r := statusRecord(t, fleet.Status{
			Rollout: name, Accepted: revision, Installed: revision, Seal: fleet.Digest{1}, Plan: fleet.Digest{1},
			Phase: text(1000), Because: text(1000), Objects: math.MinInt, Time: math.MaxInt64,
		})
		if err := r.Sign(keyOf(1)); err != nil {
			t.Errorf("with %q: %v", sign, err)
		}
		if _, err := fleet.DecodeStatus(&r); err != nil {
			t.Errorf("with %q: %v", sign, err)
		}
		t.Logf("%d bytes with %q", len(r.Body), sign)
	}
	u := fleet.Rollup{Rollout: name, Zone: strings.Repeat("z", 63), Plan: fleet.Digest{1}, Root: fleet.Digest{1}, Members: 1000, Time: 1 << 40}
	for range 33 {
		counts := map[string]int{"Succeeded": 1000, "Degraded": 1000, "Failed": 1000, "Waiting": 1000}
		u.Stages = append(u.Stages, fleet.StageRollup{Name: strings.Repeat("s", 63), Counts: counts})
	}
	for range 10 {
		u.Failing = append(u.Failing, fleet.Name(strings.Repeat("m", 63)))
	}
	r := signed(t, rollupRecord(t, u))
	if _, err := fleet.DecodeRollup(&r); err != nil {
		t.Error(err)
	}
	t.Logf("rollup of %d bytes", len(r.Body))
}
