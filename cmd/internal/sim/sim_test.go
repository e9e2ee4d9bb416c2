// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
)

// budget of seeds in which every planted bug must be found.
const budget = 400

func TestMain(m *testing.M) {
	debug.SetGCPercent(400) // worlds are small and short-lived
	os.Exit(m.Run())
}

// each runs a function for many seeds, on all processors, and gives the results in order.
func each(t *testing.T, n int, run func(seed uint64) (Result, error)) []Result {
	t.Helper()
	results := make([]Result, n)
	errs := make([]error, n)
	next := make(chan int)
	var work sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		work.Go(func() {
			for i := range next {
				results[i], errs[i] = run(uint64(i))
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	work.Wait()
	for i, err := range errs {
		if err != nil {
			t.Fatalf("seed %d: %v", i, err)
		}
	}
	return results
}

// wantFaults must each have struck in the swarm.
var wantFaults = []string{
	"message lost", "message doubled", "message late", "message overtaken", "message cut off",
	"partition: split", "partition: asymmetric", "partition: bridge", "partition: ring", "partition: flapping",
	"crash", "crash before the promise is kept", "crash after the promise is kept", "crash before publication",
	"crash after publication", "crash in the middle of a delivery", "pause", "store lost", "store torn", "store write failed",
	"api read failed", "api write failed", "api write without an answer", "apply failed", "ineligible", "clock drift",
	"wall clock jumps", "slow cluster", "hopeless release", "release bad in one cluster", "sick after success", "forked git",
	"frozen mirror", "stop", "go", "membership changes", "members leave", "members join", "spec changes", "equivocation proven", "API restored", "API restored and store lost",
	"old records replayed",
	"liar", "lie: Started", "lie: Succeeded", "lie: Soaked", "lie: Failed", "lie: GaveUp", "lie: Degraded", "lie: Yielded",
	"lie: two things in one position", "lie: a go", "lie: passes nothing on", "lie: withholds a record",
}

// wantSeen is what each rule needs to be asked at all, and the states that a proof of nothing would lack.
var wantSeen = []string{
	"a restored API noticed", "a new incarnation",
	// R1
	"two live seals", "a changed roster during an open plan", "a revision that nobody started", "a sibling revision refused",
	"a carry-over", "a yield in the canary", "a turn of who has yielded", "a turn of who is not targeted", "a removed canary",
	"a start withheld from a removed member",
	// R2, R3
	"a start behind a gate", "a start behind a stage with a liar", "a start behind the window", "a start withheld by a gate", "a start withheld by the window",
	// R4
	"a soak served", "degraded", "a start withheld by sickness",
	// R5, R6
	"gave up", "a release left in motion", "a last good release put back", "releases in motion at once",
	"a store lost between promise and publication", "rollouts in motion at once",
	// I17
	"equal roots of who heard the same",
	// R7, R11
	"a start withheld by a stop", "what runs is healed while a release waits",
}

func TestSwarm(t *testing.T) {
	swarm, _ := Find("swarm")
	faults, seen := map[string]int{}, map[string]int{}
	var turns, records int
	for _, r := range each(t, seeds, func(seed uint64) (Result, error) { return swarm.Run(seed, 30, false) }) {
		if len(r.Violations) > 0 {
			again, _ := swarm.Run(r.Seed, 30, true)
			t.Fatalf("seed %d; `go run ./cmd/flotilla-sim run -scenario swarm -clusters 30 -seed %d -story` tells it again:\n%s", r.Seed, r.Seed, strings.Join(again.Story[max(0, len(again.Story)-60):], "\n"))
		}
		turns, records = turns+r.Turns, records+r.Records
		for k, n := range r.Faults {
			faults[k] += n
		}
		for k, n := range r.Seen {
			seen[k] += n
		}
	}
	t.Logf("%d turns, %d records; %v; %v", turns, records, faults, seen)
	if few { // too few for what is rare; the run without the race detector asks for it
		return
	}
	for _, what := range wantFaults {
		if faults[what] == 0 {
			t.Errorf("vacuous: no %s", what)
		}
	}
	for _, what := range wantSeen {
		if seen[what] == 0 {
			t.Errorf("vacuous: %s was never seen", what)
		}
	}
}

// TestTrackRecord: every planted bug is found within a budget of seeds, by the rule that it breaks.
func TestTrackRecord(t *testing.T) {
	swarm, _ := Find("swarm")
	for i, bug := range Planted {
		if i%bugsApart != 0 {
			continue
		}
		t.Run(bug.ID, func(t *testing.T) {
			others := map[string]int{}
			for seed := range uint64(budget) {
				r, err := swarm.run(bug.from+seed, 12, false, bug)
				if err != nil {
					t.Fatal(err)
				}
				for _, v := range r.Violations {
					if strings.Contains(v, ": "+bug.Breaks+":") {
						t.Logf("%s: seed %d, %s", bug.Name, r.Seed, v)
						return
					}
					others[v]++
				}
			}
			t.Errorf("%s was not found in %d seeds; others: %v", bug.Name, budget, others)
		})
	}
}

// TestSeedsRepeat: one seed, one story.
func TestSeedsRepeat(t *testing.T) {
	swarm, _ := Find("swarm")
	for seed := range uint64(3) {
		a, err := swarm.Run(seed, 12, true)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := swarm.Run(seed, 12, true)
		if strings.Join(a.Story, "\n") != strings.Join(b.Story, "\n") || a.Turns != b.Turns {
			t.Errorf("seed %d tells two stories", seed)
		}
	}
}
