// SPDX-License-Identifier: Apache-2.0

//go:build !race

package mesh_test

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/mesh"
	"github.com/flotilla-dev/flotilla/sequencer/mesh/meshtest"
	"github.com/flotilla-dev/flotilla/sequencer/store"
)

// asShipped takes the settings of [mesh.LAN] for a network of tests.
func asShipped(c *mesh.Config) {
	lan := mesh.LAN()
	c.Heartbeat, c.Coalesce, c.SyncEvery, c.SyncGap, c.GossipBeat = lan.Heartbeat, lan.Coalesce, lan.SyncEvery, lan.SyncGap, lan.GossipBeat
	c.DialMin, c.DialMax, c.StreamTimeout, c.SessionTimeout = lan.DialMin, lan.DialMax, lan.StreamTimeout, lan.SessionTimeout
}

// quantile of spans, in milliseconds.
func quantile(spans []time.Duration, share float64) float64 {
	slices.Sort(spans)
	return float64(spans[int(share*float64(len(spans)-1))].Microseconds()) / 1000
}

// BenchmarkLocalWrite: one member of a connected mesh writes 512 bytes, until they are on its own disk. It writes
// again when all others have the record: they share the disk here, and would not elsewhere.
func BenchmarkLocalWrite(b *testing.B) {
	for _, members := range []int{1, 3, 5, 7, 9, 50, 200} {
		b.Run(fmt.Sprint("members=", members), func(b *testing.B) {
			w := meshtest.New(b, members, asShipped, func(c *mesh.Config) { c.Coalesce = time.Nanosecond })
			awaitMesh(b, w, members)
			body := make([]byte, 512)
			var spans []time.Duration
			for i := 0; b.Loop(); i++ {
				body[0], body[1], body[2] = byte(i), byte(i>>8), byte(i>>16)
				begin := time.Now()
				say(b, w.Node(0), fmt.Sprint("key", i%100), string(body))
				spans = append(spans, time.Since(begin))
				w.AwaitEqualRoots()
			}
			b.ReportMetric(quantile(spans, 0.5), "p50-ms")
			b.ReportMetric(quantile(spans, 0.99), "p99-ms")
		})
	}
}

// BenchmarkHeal: the halves of a mesh are apart, and both speak; from the moment when they may connect until all
// sets are equal.
func BenchmarkHeal(b *testing.B) {
	for _, members := range []int{20, 50, 200} {
		b.Run(fmt.Sprint("members=", members), func(b *testing.B) {
			w := meshtest.New(b, members, asShipped)
			awaitMesh(b, w, members)
			west, east := half(members)
			for i := 0; b.Loop(); i++ {
				b.StopTimer()
				w.Partition(west, east)
				say(b, w.Node(0), "west", strconv.Itoa(i))
				say(b, w.Node(1), "east", strconv.Itoa(i))
				w.AwaitEqualRoots(west...)
				w.AwaitEqualRoots(east...)
				b.StartTimer()
				w.Heal()
				w.AwaitEqualRoots()
			}
		})
	}
}

// awaitMesh polls until all members are connected, by others where not directly.
func awaitMesh(b *testing.B, w *meshtest.Network, members int) {
	b.Helper()
	index := map[fleet.MemberID]int{}
	for i := range members {
		index[w.Member(i).ID] = i
	}
	meshtest.Await(b, "a connected mesh", func() bool {
		reached := map[int]bool{0: true}
		for open := []int{0}; len(open) > 0; open = open[1:] {
			for _, p := range w.Node(open[0]).Peers() {
				if next := index[p.Member.ID]; p.Connected && !reached[next] {
					reached[next] = true
					open = append(open, next)
				}
			}
		}
		return len(reached) == members
	})
}

// BenchmarkReconcile: two members with 60,000 records, equal or with ten differences; bytes on the stream.
func BenchmarkReconcile(b *testing.B) {
	const writers, rollouts = 15, 1000
	held := rolledOut(b, writers, rollouts)
	for _, differences := range []int{0, 10} {
		b.Run(fmt.Sprint("differences=", differences), func(b *testing.B) {
			w := meshtest.New(b, writers, func(c *mesh.Config) { c.NoGossip, c.Heartbeat, c.SyncEvery = true, time.Hour, time.Hour })
			for i := range writers {
				w.Stop(i)
			}
			half := differences / 2
			fillAgain(b, w, 0, held[half:])
			fillAgain(b, w, 1, held[:len(held)-half])
			var bytes uint64
			for b.Loop() {
				b.StopTimer()
				fillAgain(b, w, 0, held[half:])
				fillAgain(b, w, 1, held[:len(held)-half])
				b.StartTimer()
				w.Start(0)
				w.Start(1)
				meshtest.Await(b, "the end of a session", func() bool { return w.Node(0).Stats().Sessions+w.Node(1).Stats().Sessions > 0 })
				w.AwaitEqualRoots()
				bytes = w.Node(0).Stats().SyncBytes + w.Node(1).Stats().SyncBytes
				w.Stop(0)
				w.Stop(1)
			}
			b.ReportMetric(float64(bytes), "bytes")
		})
	}
}

// fillAgain gives a stopped member a store with these records.
func fillAgain(b *testing.B, w *meshtest.Network, i int, records []fleet.Record) {
	b.Helper()
	w.Wipe(i)
	w.Start(i)
	must(b, w.Store(i).Put(records...))
	w.Stop(i)
}

// BenchmarkUpdates: 100,000 updates of ten keys, each on disk before the next; what the file has grown to.
func BenchmarkUpdates(b *testing.B) {
	for b.Loop() {
		path := filepath.Join(b.TempDir(), "state.db")
		s, err := store.Open(path)
		must(b, err)
		key := meshtest.Key(0)
		cfg := mesh.LAN()
		cfg.Key, cfg.Fleet, cfg.Store, cfg.Roster = key, meshtest.Fleet(), s, rosterOf(1)
		n, err := mesh.New(cfg)
		must(b, err)
		body := make([]byte, 512)
		var spans []time.Duration
		for i := range 100_000 {
			body[0], body[1], body[2] = byte(i), byte(i>>8), byte(i>>16)
			begin := time.Now()
			say(b, n, fmt.Sprint("key", i%10), string(body))
			spans = append(spans, time.Since(begin))
			if i == 999 {
				b.ReportMetric(size(b, path), "bytes-after-1k")
			}
		}
		must(b, s.Close())
		b.ReportMetric(size(b, path), "bytes-after-100k")
		b.ReportMetric(quantile(spans, 0.5), "p50-ms")
		b.ReportMetric(quantile(spans, 0.99), "p99-ms")
	}
}

func size(b *testing.B, path string) float64 {
	b.Helper()
	info, err := os.Stat(path)
	must(b, err)
	return float64(info.Size())
}

func rosterOf(members int) (all meshtest.Roster) {
	for i := range members {
		all = append(all, fleet.Member{
			ID: fleet.MemberIDOf(meshtest.Key(i).Public().(ed25519.PublicKey)), Name: fleet.Name(fmt.Sprintf("member-%05d", i)), Zone: "lab",
		})
	}
	return all
}

// indexed is a roster that large fleets can be looked up in.
type indexed struct {
	meshtest.Roster
	byID map[fleet.MemberID]fleet.Member
}

// Member by ID.
func (r indexed) Member(id fleet.MemberID) (fleet.Member, bool) {
	m, ok := r.byID[id]
	return m, ok
}

func index(all meshtest.Roster) indexed {
	r := indexed{all, map[fleet.MemberID]fleet.Member{}}
	for _, m := range all {
		r.byID[m.ID] = m
	}
	return r
}

// residentEnv names the store that TestResidentChild loads, and of how many members it is.
const residentEnv = "FLOTILLA_MESH_RESIDENT"

// held is what a process says of itself.
type held struct {
	Records, HeapBytes, ResidentBytes int
}

// BenchmarkResident: what a process of its own holds that has loaded the state of a fleet into a node: four facts
// of each member in each of five rollouts, with and without its five status registers. The file is the store's.
func BenchmarkResident(b *testing.B) {
	for _, members := range []int{1, 1000, 10_000} {
		for _, status := range []bool{false, true} {
			b.Run(fmt.Sprintf("members=%d/status=%t", members, status), func(b *testing.B) {
				records := rolledOut(b, members, 5)
				if status {
					records = append(records, statuses(b, members, 5)...)
				}
				path := filepath.Join(b.TempDir(), "state.db")
				s, err := store.Open(path)
				must(b, err)
				for part := range slices.Chunk(records, 100) {
					must(b, s.Put(part...))
				}
				must(b, s.Close())
				encoded := 0
				for i := range records {
					encoded += len(records[i].Encode())
				}
				var child held
				for b.Loop() {
					child = loadElsewhere(b, path, members)
				}
				if child.Records != len(records) {
					b.Fatalf("%d records loaded, want %d", child.Records, len(records))
				}
				b.ReportMetric(float64(len(records)), "records")
				b.ReportMetric(float64(encoded), "record-bytes")
				b.ReportMetric(size(b, path), "file-bytes")
				b.ReportMetric(float64(child.HeapBytes)/(1<<20), "heap-MiB")
				b.ReportMetric(float64(child.ResidentBytes)/(1<<20), "resident-MiB")
			})
		}
	}
}

func statuses(b *testing.B, members, rollouts int) (records []fleet.Record) {
	b.Helper()
	for i := range members {
		for n := range rollouts {
			name := fleet.RolloutName{Namespace: "team", Name: fmt.Sprint("rollout-", n)}
			body, err := fleet.Status{
				Rollout: name, Accepted: fleet.Revision("8f3b6a1d0c9e4f7a8b2c5d6e7f8091a2b3c4d5e6"), Seal: fleet.Digest{1}, Plan: fleet.Digest{2},
				Installed: fleet.Revision("8f3b6a1d0c9e4f7a8b2c5d6e7f8091a2b3c4d5e6"), Phase: "Succeeded", Because: "it runs and is healthy",
				Objects: 12, Time: time.Now().Unix(),
			}.Encode()
			must(b, err)
			r := fleet.Record{Fleet: meshtest.Fleet(), Epoch: 1, Seq: uint64(1000 + n), Kind: fleet.KindRegister, Key: fleet.StatusKey(name), Body: body}
			must(b, r.Sign(meshtest.Key(i)))
			records = append(records, r)
		}
	}
	return records
}

// loadElsewhere runs TestResidentChild in a process of its own.
func loadElsewhere(b *testing.B, path string, members int) (child held) {
	b.Helper()
	program, err := os.Executable()
	must(b, err)
	cmd := exec.CommandContext(b.Context(), program, "-test.run", "^TestResidentChild$", "-test.v")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %s", residentEnv, members, path))
	out, err := cmd.CombinedOutput()
	if err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if _, text, ok := strings.Cut(line, "held: "); ok {
			must(b, json.Unmarshal([]byte(text), &child))
		}
	}
	return child
}

// TestResidentChild is a process of BenchmarkResident.
func TestResidentChild(t *testing.T) {
	asked, path, ok := strings.Cut(os.Getenv(residentEnv), " ")
	if !ok {
		t.Skip("it runs within BenchmarkResident")
	}
	members, err := strconv.Atoi(asked)
	must(t, err)
	s, err := store.Open(path)
	must(t, err)
	cfg := mesh.LAN()
	cfg.Key, cfg.Fleet, cfg.Store, cfg.Roster = meshtest.Key(0), meshtest.Fleet(), s, index(rosterOf(members))
	n, err := mesh.New(cfg)
	must(t, err)
	n.Root()
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	text, err := json.Marshal(held{Records: length(n), HeapBytes: int(m.HeapAlloc), ResidentBytes: resident()})
	must(t, err)
	t.Log("held: " + string(text))
	runtime.KeepAlive(n)
	must(t, s.Close())
}
