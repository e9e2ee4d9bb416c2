// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"
)

// report is one run.
type report struct {
	Command  string            `json:"command"`
	Date     string            `json:"date"`
	Machine  machine           `json:"machine"`
	Versions map[string]string `json:"versions"`
	Settings []string          `json:"settings"`
	Seconds  float64           `json:"seconds"`
	// PeakMiB is the most memory that the process had resident.
	PeakMiB float64 `json:"peakMiB"`
	Rows    []row   `json:"rows"`
	// LeftOut says what did not run, and why.
	LeftOut []string `json:"leftOut,omitempty"`
}

// row is one system in one part of the run.
type row struct {
	Part    string   `json:"part"`
	System  string   `json:"system"`
	Nodes   int      `json:"nodes"`
	Figures []figure `json:"figures,omitempty"`
	Outcome string   `json:"outcome,omitempty"`
}

// figure is one measured number.
type figure struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
}

func (r *row) add(name string, value float64) { r.Figures = append(r.Figures, figure{name, value}) }

// say adds a sentence to the outcome.
func (r *row) say(format string, args ...any) {
	if r.Outcome != "" {
		r.Outcome += "; "
	}
	r.Outcome += fmt.Sprintf(format, args...)
}

type machine struct {
	Processor string `json:"processor"`
	Cores     int    `json:"cores"`
	Go        string `json:"go"`
	// LoadBefore and LoadAfter are the kernel's averages over one minute: what others did here meanwhile shows
	// in the first, and in the second together with this run.
	LoadBefore string `json:"loadBefore"`
	LoadAfter  string `json:"loadAfter"`
}

func thisMachine() machine {
	return machine{Processor: processor(), Cores: runtime.NumCPU(), Go: runtime.Version(), LoadBefore: load()}
}

func processor() string {
	file, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if name, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

func load() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(b), " ")
	return first
}

// peakMiB is the most memory that this process had resident.
func peakMiB() float64 {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 64)
			if err == nil {
				return kib / 1024
			}
		}
	}
	return 0
}

// versions of what is measured, as it is linked.
func versions() map[string]string {
	wanted := []string{
		"go.etcd.io/etcd/server/v3", "go.etcd.io/bbolt", "github.com/ipfs/go-ds-crdt", "github.com/hsanjuan/ipfs-lite",
		"github.com/ipfs/boxo", "github.com/ipfs/go-ds-pebble", "github.com/libp2p/go-libp2p", "github.com/libp2p/go-libp2p-pubsub",
	}
	found := map[string]string{}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return found
	}
	for _, m := range info.Deps {
		if slices.Contains(wanted, m.Path) {
			found[m.Path] = m.Version
		}
	}
	return found
}

// settings say how each system is set up.
var settings = []string{
	"payload 512 B of noise; every system is called in its own process, without a client's connection",
	"ours: mesh.LAN() (heartbeats 5 s, reconciliation 30 s, records wait 50 ms for company), bbolt with fsync, every record signed and verified",
	"etcd: embed's defaults (heartbeat 100 ms, election 1,000 ms, snapshot every 10,000), fsync on, no TLS between members",
	"go-ds-crdt: defaults but rebroadcast every 5 s (as in its own example; the default is 1 min); ipfs-lite as DAG service, pebble without fsync (its usual wiring); " +
		"gossipsub's queues raised from 32 to 1,024, as ours are",
	"libp2p over tcp on loopback; up to 9 nodes everyone dials everyone, above that each dials 8 others",
}

func (r *report) finish(begin time.Time) {
	r.Seconds = time.Since(begin).Seconds()
	r.PeakMiB = peakMiB()
	r.Machine.LoadAfter = load()
}

func (r *report) json(out io.Writer) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(r)
}

// markdown prints a table for every part, in the order in which they ran.
func (r *report) markdown(out io.Writer) {
	fmt.Fprintf(out, "`%s`, %s. %s, %d cores, %s; load %s before, %s after; %.0f s, at most %.0f MiB resident.\n",
		r.Command, r.Date, r.Machine.Processor, r.Machine.Cores, r.Machine.Go, r.Machine.LoadBefore, r.Machine.LoadAfter, r.Seconds, r.PeakMiB)
	var linked []string
	for path, version := range r.Versions {
		linked = append(linked, path+" "+version)
	}
	slices.Sort(linked)
	fmt.Fprintf(out, "\nLinked: %s.\n\n", strings.Join(linked, ", "))
	for _, s := range r.Settings {
		fmt.Fprintf(out, "- %s\n", s)
	}
	for _, p := range parts {
		var rows []row
		for _, w := range r.Rows {
			if w.Part == p.name {
				rows = append(rows, w)
			}
		}
		if len(rows) > 0 {
			fmt.Fprintf(out, "\n%s\n\n", p.title)
			table(out, rows)
		}
	}
	for _, s := range r.LeftOut {
		fmt.Fprintf(out, "\nLeft out: %s\n", s)
	}
}

func table(out io.Writer, rows []row) {
	var columns []string
	outcomes := false
	for _, w := range rows {
		outcomes = outcomes || w.Outcome != ""
		for _, f := range w.Figures {
			if !slices.Contains(columns, f.Name) {
				columns = append(columns, f.Name)
			}
		}
	}
	head := append([]string{"", "nodes"}, columns...)
	if outcomes {
		head = append(head, "outcome")
	}
	fmt.Fprintf(out, "| %s |\n|%s\n", strings.Join(head, " | "), strings.Repeat("---|", len(head)))
	for _, w := range rows {
		cells := []string{w.System, strconv.Itoa(w.Nodes)}
		for _, name := range columns {
			cell := ""
			if i := slices.IndexFunc(w.Figures, func(f figure) bool { return f.Name == name }); i >= 0 {
				cell = number(w.Figures[i].Value)
			}
			cells = append(cells, cell)
		}
		if outcomes {
			cells = append(cells, w.Outcome)
		}
		fmt.Fprintf(out, "| %s |\n", strings.Join(cells, " | "))
	}
}

// number with three digits that count.
func number(v float64) string {
	switch {
	case v >= 1000:
		digits := strconv.FormatFloat(v, 'f', 0, 64)
		for i := len(digits) - 3; i > 0; i -= 3 {
			digits = digits[:i] + "," + digits[i:]
		}
		return digits
	case v >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}
