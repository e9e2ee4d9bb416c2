// SPDX-License-Identifier: Apache-2.0

package sequencer

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

var (
	planA = fleet.DigestOf("test/plan", []byte("a"))
	planB = fleet.DigestOf("test/plan", []byte("b"))
	// brisk is the pace of the table below.
	brisk = Pace{MinReadyTime: time.Minute, Soak: 5 * time.Minute, ProgressDeadline: 10 * time.Minute, RetryInterval: 30 * time.Second, Retries: 2}
)

// TestProgress follows one member through a script of looks: "+" healthy, "-" not, "!" hopeless,
// "*" hopeless by its own word and healthy all the same, "b" begin,
// "R" a reboot, "f" the attempt fails from outside (an apply that was refused), each at a time. What is
// said is written behind it.
func TestProgress(t *testing.T) {
	for _, tc := range []struct {
		name, script, want string
		pace               Pace
	}{
		{"healthy at once", "b@0s +@0s +@59s +@1m +@5m59s +@6m +@1h", "b@0s:1 +@1m:Succeeded +@6m:Soaked", brisk},
		{"nobody looked in time", "b@0s +@0s +@1h +@1h4m +@1h5m", "b@0s:1 +@1h:Succeeded +@1h5m:Soaked", brisk},
		{"no times at all", "b@0s +@0s", "b@0s:1 +@0s:Succeeded,Soaked", Pace{ProgressDeadline: time.Minute}},
		{"no minReadyTime", "b@0s -@0s +@3s +@1m3s", "b@0s:1 +@3s:Succeeded +@1m3s:Soaked", Pace{Soak: time.Minute, ProgressDeadline: time.Minute}},
		{"no soak", "b@0s +@10s +@1m10s", "b@0s:1 +@1m10s:Succeeded,Soaked", Pace{MinReadyTime: time.Minute, ProgressDeadline: time.Minute}},
		{"a flap begins minReadyTime again", "b@0s +@0s -@50s +@55s +@1m +@1m54s +@1m55s", "b@0s:1 +@1m55s:Succeeded", brisk},
		{"a flap begins the soak again", "b@0s +@0s +@1m -@5m +@5m10s +@10m +@10m10s", "b@0s:1 +@1m:Succeeded +@10m10s:Soaked", brisk},
		{"healthy just before the deadline", "b@0s -@0s +@9m59s +@10m30s +@10m59s", "b@0s:1 +@10m59s:Succeeded", brisk},
		{"not healthy in time, twice, then well", "b@0s -@0s -@9m59s -@10m b@10m30s -@10m30s -@20m30s b@21m30s +@22m +@23m",
			"b@0s:1 -@10m:Failed b@10m30s:2 -@20m30s:Failed b@21m30s:3 +@23m:Succeeded", brisk},
		{"no attempt is left", "b@0s !@1s b@31s !@32s b@2m !@2m1s +@3m b@1h +@1h +@2h", "b@0s:1 !@1s:Failed b@31s:2 !@32s:Failed b@2m:3 !@2m1s:Failed,GaveUp b@1h:no", brisk},
		{"hopeless, and well all the same", "b@0s *@0s *@1m", "b@0s:1 *@1m:Succeeded", brisk},
		{"hopeless ends the attempt before its deadline", "b@0s +@0s !@1s", "b@0s:1 !@1s:Failed", brisk},
		{"an apply that is refused", "b@0s f@1s f@2s b@31s +@31s +@1m31s f@2m", "b@0s:1 f@1s:Failed f@2s:no b@31s:2 +@1m31s:Succeeded f@2m:no", brisk},
		{"no retries", "b@0s -@0s -@10m b@11m", "b@0s:1 -@10m:Failed,GaveUp b@11m:no", Pace{MinReadyTime: time.Minute, ProgressDeadline: 10 * time.Minute}},
		{"begun again in the middle", "b@0s +@0s b@30s +@1m b@2m +@6m b@7m", "b@0s:1 b@30s:no +@1m:Succeeded b@2m:no +@6m:Soaked b@7m:no", brisk},
		{"sick in the soak", "b@0s +@0s +@1m -@2m -@11m59s -@12m -@20m +@21m +@26m", "b@0s:1 +@1m:Succeeded -@12m:Degraded +@26m:Soaked", brisk},
		{"sick after it", "b@0s +@0s +@1m +@6m -@1h +@1h9m -@1h10m -@1h19m -@1h20m -@9h", "b@0s:1 +@1m:Succeeded +@6m:Soaked -@1h20m:Degraded", brisk},
		{"a reboot begins minReadyTime again", "b@0s +@0s R@30s +@40s +@1m +@1m39s +@1m40s", "b@0s:1 +@1m40s:Succeeded", brisk},
		{"a reboot begins the soak again", "b@0s +@0s +@1m R@5m +@6m +@10m59s +@11m", "b@0s:1 +@1m:Succeeded +@11m:Soaked", brisk},
		{"a reboot begins the deadline again", "b@0s -@0s R@9m -@10m -@19m59s -@20m", "b@0s:1 -@20m:Failed", brisk},
		{"a reboot begins sickness again", "b@0s +@0s +@1m +@6m -@10m R@19m -@20m -@29m59s -@30m", "b@0s:1 +@1m:Succeeded +@6m:Soaked -@30m:Degraded", brisk},
		{"a reboot takes nothing back", "b@0s +@0s +@1m R@2m b@3m -@3m f@4m", "b@0s:1 +@1m:Succeeded b@3m:no f@4m:no", brisk},
		{"a reboot gives no attempt back", "b@0s !@0s b@30s !@30s R@40s b@41s !@41s R@42s b@43s", "b@0s:1 !@0s:Failed b@30s:2 !@30s:Failed b@41s:3 !@41s:Failed,GaveUp b@43s:no", brisk},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var p Progress
			var got []string
			m := machine{}
			for _, step := range strings.Fields(tc.script) {
				what, when, _ := strings.Cut(step, "@")
				d, err := time.ParseDuration(when)
				if err != nil {
					t.Fatal(err)
				}
				m.wall = d
				before := p
				var said []fleet.FactKind
				switch what {
				case "b":
					p = p.Begin(planA, m.now())
					got = append(got, fmt.Sprintf("%s:%s", step, attempt(before, p)))
				case "f":
					p, said = p.Fail(tc.pace, m.now())
					if len(said) == 0 {
						got = append(got, step+":no")
					}
				case "R":
					m.reboot()
				default:
					p, said, _ = p.Observe(Observation{Healthy: strings.Contains("+*", what), Hopeless: strings.Contains("!*", what)}, tc.pace, m.now())
				}
				if len(said) > 0 {
					got = append(got, step+":"+kinds(said))
				}
			}
			if s := strings.Join(got, " "); s != tc.want {
				t.Errorf("got  %s\nwant %s", s, tc.want)
			}
		})
	}
}

// attempt that Begin began, or no.
func attempt(before, after Progress) string {
	if reflect.DeepEqual(before, after) {
		return "no"
	}
	return fmt.Sprint(after.Attempts)
}

func kinds(said []fleet.FactKind) string {
	out := make([]string, len(said))
	for i, k := range said {
		out[i] = k.String()
	}
	return strings.Join(out, ",")
}

// machine is a virtual clock: wall counts on through reboots, Elapsed begins anew with each.
type machine struct {
	wall, booted time.Duration
	boots        int
}

func (m *machine) now() fleet.Moment {
	return fleet.Moment{Elapsed: m.wall - m.booted, Boot: fmt.Sprintf("boot-%d", m.boots+1)}
}

func (m *machine) reboot() { m.booted, m.boots = m.wall, m.boots+1 }

func TestBackOff(t *testing.T) {
	for _, tc := range []struct {
		interval time.Duration
		retries  int
		want     string
	}{
		{30 * time.Second, 7, "30s 1m0s 2m0s 4m0s 8m0s 10m0s 10m0s"},
		{3 * time.Minute, 3, "3m0s 6m0s 10m0s"},
		{time.Hour, 2, "10m0s 10m0s"},
		{0, 2, "0s 0s"},
		{time.Second, 0, ""},
	} {
		pace := brisk
		pace.RetryInterval, pace.Retries = tc.interval, tc.retries
		p := Progress{}.Begin(planA, at(0))
		var got []string
		for now := time.Duration(0); ; {
			next, said := p.Fail(pace, at(now))
			p = next
			if slices.Contains(said, fleet.GaveUp) {
				break
			}
			due, wait := p.MayRetry(at(now))
			_, _, told := p.Observe(Observation{}, pace, at(now))
			if due != (wait == 0) || told != wait {
				t.Fatalf("due %v, wait %s, and Observe says %s", due, wait, told)
			}
			got = append(got, wait.String())
			if early, _ := p.MayRetry(at(now + wait - 1)); early && wait > 0 {
				t.Error("due too early")
			}
			now += wait
			if late, left := p.MayRetry(at(now)); !late || left != 0 {
				t.Errorf("not due after %s", wait)
			}
			p = p.Begin(planA, at(now))
		}
		if s := strings.Join(got, " "); s != tc.want {
			t.Errorf("every %s: %s, want %s", tc.interval, s, tc.want)
		}
		if due, _ := p.MayRetry(at(1e15)); due {
			t.Error("a retry after GaveUp")
		}
	}
}

// TestRetryAfterReboot: the pause before a retry ends with the boot that it was counted in, also when the
// failure itself came from outside, in a boot that the progress had not seen yet.
func TestRetryAfterReboot(t *testing.T) {
	m := machine{}
	p := Progress{}.Begin(planA, m.now())
	m.wall = time.Hour
	m.reboot()
	p, _ = p.Fail(brisk, m.now())
	if due, wait := p.MayRetry(m.now()); due || wait != 30*time.Second {
		t.Errorf("after a failure in the new boot: due %v in %s, want 30s", due, wait)
	}
	m.reboot()
	if due, _ := p.MayRetry(m.now()); !due {
		t.Error("the pause of another boot cannot be told: due at once")
	}
}

func TestNewPlanBeginsAnew(t *testing.T) {
	p := Progress{}.Begin(planA, at(0))
	for range 3 {
		p, _ = p.Fail(brisk, at(0))
		p = p.Begin(planA, at(time.Hour))
	}
	if p.Phase != Resigned {
		t.Fatalf("phase %s", p.Phase)
	}
	if q := p.Begin(planB, at(time.Hour)); q.Phase != Working || q.Attempts != 1 || q.Plan != planB {
		t.Errorf("begins the next plan with %+v", q)
	}
}

func TestCarryOver(t *testing.T) {
	p := CarryOver(planA, at(time.Minute))
	if p, said, wait := p.Observe(Observation{Healthy: true}, brisk, at(2*time.Minute)); len(said) > 0 || wait != 4*time.Minute || p.Phase != Ready {
		t.Errorf("said %v, waits %s, phase %s", said, wait, p.Phase)
	}
	if _, said, _ := p.Observe(Observation{Healthy: true}, brisk, at(6*time.Minute)); kinds(said) != "Soaked" {
		t.Errorf("after its soak it said %v", said)
	}
	p, _, _ = p.Observe(Observation{}, brisk, at(2*time.Minute))
	if _, said, _ := p.Observe(Observation{}, brisk, at(12*time.Minute)); kinds(said) != "Degraded" {
		t.Errorf("sick after it carried over, it said %v", said)
	}
}

// look is one observation that was made.
type look struct {
	at      time.Duration
	boot    int
	healthy bool
	attempt int
}

// witness writes down what a member saw and said, and judges it by that.
type witness struct {
	pace      Pace
	looks     []look
	said      map[fleet.FactKind]time.Duration
	failures  int
	succeeded bool
}

// judge a milestone at the moment it is said.
func (w *witness) judge(t *rapid.T, k fleet.FactKind) {
	now := w.looks[len(w.looks)-1]
	if _, again := w.said[k]; again && k != fleet.Failed {
		t.Fatalf("%s twice", k)
	}
	w.said[k] = now.at
	_, gaveUp := w.said[fleet.GaveUp]
	switch k {
	case fleet.Succeeded:
		w.succeeded = true
		if gaveUp {
			t.Fatal("Succeeded after GaveUp")
		}
		if held := w.run(true, now.attempt); held < w.pace.MinReadyTime {
			t.Fatalf("Succeeded after %s of health in this attempt, want %s", held, w.pace.MinReadyTime)
		}
	case fleet.Soaked:
		if !w.succeeded {
			t.Fatal("Soaked without success")
		}
		if held := min(w.run(true, now.attempt), now.at-w.said[fleet.Succeeded]); held < w.pace.Soak {
			t.Fatalf("Soaked after %s of health since the success, want %s", held, w.pace.Soak)
		}
	case fleet.Failed:
		w.failures++
		if w.succeeded || w.failures > w.pace.Retries+1 {
			t.Fatalf("Failed for the %d. time, success %v", w.failures, w.succeeded)
		}
	case fleet.GaveUp:
		if w.succeeded || w.failures != w.pace.Retries+1 {
			t.Fatalf("GaveUp after %d failures with %d retries, success %v", w.failures, w.pace.Retries, w.succeeded)
		}
	case fleet.Degraded:
		if sick := w.run(false, now.attempt); !w.succeeded || sick < w.pace.ProgressDeadline {
			t.Fatalf("Degraded after %s of sickness, success %v", sick, w.succeeded)
		}
	}
}

// run is how long up to now every look was healthy (or not), in one boot and one attempt.
func (w *witness) run(healthy bool, attempt int) time.Duration {
	now := w.looks[len(w.looks)-1]
	since := now.at
	for _, l := range slices.Backward(w.looks) {
		if l.healthy != healthy || l.boot != now.boot || l.attempt != attempt {
			break
		}
		since = l.at
	}
	return now.at - since
}

func drawPace(t *rapid.T) Pace {
	seconds := func(what string, most int) time.Duration {
		return time.Duration(rapid.IntRange(0, most).Draw(t, what)) * time.Second
	}
	return Pace{
		MinReadyTime: seconds("minReadyTime", 60), Soak: seconds("soak", 90), ProgressDeadline: 10*time.Second + seconds("deadline", 60),
		RetryInterval: seconds("retryInterval", 20), Retries: rapid.IntRange(0, 3).Draw(t, "retries"),
	}
}

// TestProgressProperties drives a member through random health, reboots, refused applies and impatient
// Begins, with its agent restarted at every single step.
func TestProgressProperties(t *testing.T) {
	total := map[string]int{}
	checks(t, 3, func(t *rapid.T) {
		m := machine{}
		w := witness{pace: drawPace(t), said: map[fleet.FactKind]time.Duration{}}
		p := Progress{}.Begin(planA, m.now())
		sickly := rapid.IntRange(1, 8).Draw(t, "sickly")
		for range rapid.IntRange(10, 60).Draw(t, "steps") {
			m.wall += time.Duration(rapid.IntRange(0, 40).Draw(t, "seconds")) * time.Second
			if rapid.IntRange(0, 20).Draw(t, "reboot") == 20 {
				m.reboot()
			}
			o := Observation{Healthy: rapid.IntRange(0, 8).Draw(t, "health") < sickly}
			o.Hopeless = !o.Healthy && rapid.IntRange(0, 9).Draw(t, "hopeless") == 9
			w.looks = append(w.looks, look{m.wall, m.boots, o.Healthy, p.Attempts})
			twin := restarted(t, p)
			next, said, wait := p.Observe(o, w.pace, m.now())
			again, saidAgain, waitAgain := twin.Observe(o, w.pace, m.now())
			if !reflect.DeepEqual(next, again) || !slices.Equal(said, saidAgain) || wait != waitAgain {
				t.Fatalf("a restart changes %+v %v %s to %+v %v %s", next, said, wait, again, saidAgain, waitAgain)
			}
			for _, k := range said {
				w.judge(t, k)
				total[k.String()]++
			}
			p = restarted(t, next)
			w.promise(t, p, o, m.now(), wait)
			p = w.meddle(t, p, m.now(), total)
			if p.Attempts > w.pace.Retries+1 {
				t.Fatalf("attempt %d with %d retries", p.Attempts, w.pace.Retries)
			}
		}
	})
	for _, k := range []string{"Succeeded", "Soaked", "Failed", "GaveUp", "Degraded", "retry", "refused"} {
		if total[k] == 0 {
			t.Errorf("vacuous: no %s", k)
		}
	}
	t.Logf("seen: %v", total)
}

// meddle as an agent does: retry when it is due, begin when it need not, and fail from outside.
func (w *witness) meddle(t *rapid.T, p Progress, now fleet.Moment, total map[string]int) Progress {
	if due, _ := p.MayRetry(now); due || rapid.IntRange(0, 9).Draw(t, "impatient") == 9 && p.Phase != Retrying {
		before := p
		p = p.Begin(planA, now)
		if before.Phase != Retrying && !reflect.DeepEqual(before, p) {
			t.Fatalf("Begin changed %+v to %+v", before, p)
		}
		if before.Phase == Retrying {
			total["retry"]++
		}
	}
	if rapid.IntRange(0, 19).Draw(t, "refused") == 19 {
		next, said := p.Fail(w.pace, now)
		if p.Phase != Working && (len(said) > 0 || !reflect.DeepEqual(p, next)) {
			t.Fatalf("Fail changed %+v to %+v and said %v", p, next, said)
		}
		for _, k := range said {
			w.judge(t, k)
			total["refused"]++
		}
		p = next
	}
	return p
}

// promise: the wait that Observe returns is exactly when time alone changes something.
func (w *witness) promise(t *rapid.T, p Progress, o Observation, now fleet.Moment, wait time.Duration) {
	o.Hopeless = false
	look := func(after time.Duration) ([]fleet.FactKind, bool) {
		then := now
		then.Elapsed += after
		_, said, _ := p.Observe(o, w.pace, then)
		due, _ := p.MayRetry(then)
		return said, due
	}
	if wait == 0 {
		if said, _ := look(1e6 * time.Second); len(said) > 0 && p.Phase != Retrying {
			t.Fatalf("no wait was told, and time alone brings %v to %+v", said, p)
		}
		return
	}
	if said, due := look(wait - 1); len(said) > 0 || due {
		t.Fatalf("a wait of %s was told, and before it is over %v comes to %+v", wait, said, p)
	}
	if said, due := look(wait); len(said) == 0 && !due {
		t.Fatalf("a wait of %s was told, and nothing comes of it in %+v", wait, p)
	}
}

// restarted is the progress as another run of the agent finds it in the cluster's API.
func restarted(t tb, p Progress) Progress {
	b, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	var out Progress
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(p, out) {
		t.Fatalf("%s is read back as %+v, was %+v", b, out, p)
	}
	return out
}

// TestRebootNeverShortens: of two members with the same health and no failure, the one that is rebooted
// on the way says nothing earlier than the other.
func TestRebootNeverShortens(t *testing.T) {
	var later int
	checks(t, 5, func(t *rapid.T) {
		pace := drawPace(t)
		pace.ProgressDeadline = 1e6 * time.Second
		steady, shaken := machine{}, machine{}
		a, b := Progress{}.Begin(planA, steady.now()), Progress{}.Begin(planA, shaken.now())
		said, saidB := map[fleet.FactKind]time.Duration{}, map[fleet.FactKind]time.Duration{}
		for range 80 {
			step := time.Duration(rapid.IntRange(0, 20).Draw(t, "seconds")) * time.Second
			steady.wall, shaken.wall = steady.wall+step, shaken.wall+step
			if rapid.IntRange(0, 15).Draw(t, "reboot") == 15 {
				shaken.reboot()
			}
			o := Observation{Healthy: rapid.IntRange(0, 12).Draw(t, "health") < 12}
			var kindsA, kindsB []fleet.FactKind
			a, kindsA, _ = a.Observe(o, pace, steady.now())
			b, kindsB, _ = b.Observe(o, pace, shaken.now())
			for _, k := range kindsA {
				said[k] = steady.wall
			}
			for _, k := range kindsB {
				saidB[k] = shaken.wall
				if _, ok := said[k]; !ok {
					t.Fatalf("after a reboot %s comes at %s, without one not yet", k, shaken.wall)
				}
				if saidB[k] > said[k] {
					later++
				}
			}
		}
	})
	if later == 0 {
		t.Error("vacuous: no reboot ever delayed anything")
	}
}

// TestProgressGolden fixes how a progress lies in the cluster's API: another version of the agent reads it.
func TestProgressGolden(t *testing.T) {
	var b strings.Builder
	write := func(what string, p Progress) {
		text, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s\n  %s\n", what, text)
	}
	p := Progress{}.Begin(planA, at(time.Second))
	write("begun", p)
	p, _, _ = p.Observe(Observation{}, brisk, at(2*time.Second))
	write("sick", p)
	failed, _ := p.Fail(brisk, at(3*time.Second))
	write("failed", failed)
	p, _, _ = p.Observe(Observation{Healthy: true}, brisk, at(4*time.Second))
	write("healthy", p)
	p, _, _ = p.Observe(Observation{Healthy: true}, brisk, at(64*time.Second))
	write("succeeded", p)
	p, _, _ = p.Observe(Observation{Healthy: true}, brisk, at(time.Hour))
	write("soaked", p)
	p, _, _ = p.Observe(Observation{}, brisk, at(2*time.Hour))
	p, _, _ = p.Observe(Observation{}, brisk, at(3*time.Hour))
	write("degraded", p)
	golden(t, "progress.golden", b.String())
}
