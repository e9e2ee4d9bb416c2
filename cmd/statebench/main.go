// SPDX-License-Identifier: Apache-2.0

// Statebench answers: what do our mesh, etcd and go-ds-crdt take for the same work, on the same machine, in one run?
//
// It prints tables and, with -json, everything it measured. Only ratios transfer to other machines: all
// replicas share this one's processors and its disk.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"time"

	logging "github.com/ipfs/go-log/v2"
)

// part is one table of the report.
type part struct{ name, title string }

var parts = []part{
	{"local", "**Sequential writes of one caller**, until accepted: ours when it is on the member's own disk, etcd when a majority has it. Milliseconds."},
	{"writers", "**50 writers at once**, one key each, spread over all replicas for some seconds: writes accepted, and how long after the last one every replica showed the last of each."},
	{"minority", "**Partition of 5: 2 and 3.** 20 writes on each side, then healed."},
	{"visible", "**One write, visible on every replica**, one at a time; milliseconds from calling put, of each other replica and of the last one. Bytes and CPU are for that write, those of idling deducted."},
	{"burst", "**Every node writes at once**, until everyone has everything."},
	{"heal", "**Partition of half**, a write of every node in it, healed: until everyone has everything."},
	{"fresh", "**A fresh node** where the others hold many keys, each put alone: until it holds them all. Bytes are what it sent and received."},
	{"disk", "**Many updates of 10 keys**, one at a time, on one node alone, for at most 45 s: the disk afterwards."},
	{"stranger", "**A stranger overwrites the owner's key.**"},
	{"reimage", "**An owner whose disk was lost** writes its key again at once."},
	{"stall", "**One replica says that it has something and never hands it over.**"},
}

// bench is one run.
type bench struct {
	folder                  string
	only, systems           []string
	members, nodes, further []int
	short                   bool
	deadline                time.Time
	report                  report
	failed                  bool
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "statebench:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	b := &bench{report: report{
		Command: strings.Join(append([]string{"statebench"}, args...), " "), Date: time.Now().UTC().Format(time.DateOnly),
		Machine: thisMachine(), Versions: versions(), Settings: settings,
	}}
	jsonFile, err := b.parse(args)
	if err != nil {
		return err
	}
	// What fails on purpose is not worth a line.
	logging.SetupLogging(logging.Config{Level: logging.LevelFatal, Stderr: true})
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if b.folder, err = os.MkdirTemp(b.folder, "statebench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.folder)
	begin := time.Now()
	for _, scenario := range []func(context.Context){
		b.runMembers, b.runMinority, b.runStranger, b.runReimage, b.runStall, b.runFresh, b.runDisk, b.runSpread,
	} {
		scenario(ctx)
	}
	b.report.finish(begin)
	b.report.markdown(os.Stdout)
	if jsonFile != "" {
		if err := b.writeJSON(jsonFile); err != nil {
			return err
		}
	}
	if b.failed {
		return errors.New("some parts failed: see what was left out")
	}
	return ctx.Err()
}

func (b *bench) writeJSON(name string) error {
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(b.report.json(file), file.Close())
}

func (b *bench) parse(args []string) (jsonFile string, err error) {
	flags := flag.NewFlagSet("statebench", flag.ContinueOnError)
	only := flags.String("only", "", "parts, with commas between; default all: "+strings.Join(partNames(), ","))
	systems := flags.String("systems", "ours,etcd,crdt", "what to run")
	members := flags.String("members", "1,3,5,7,9", "sizes for the parts local and writers")
	nodes := flags.String("nodes", "5,20,50", "sizes for visible, burst and heal, of ours and go-ds-crdt")
	further := flags.String("further", "100,200", "sizes of ours alone")
	flags.BoolVar(&b.short, "short", false, "about a minute: fewer of everything")
	limit := flags.Duration("limit", 10*time.Minute, "nothing is begun after this")
	flags.StringVar(&b.folder, "dir", "", "where to put the stores: a disk, or fsync costs nothing; default the system's folder for temporary files")
	flags.StringVar(&jsonFile, "json", "", "file for everything that was measured")
	if err := flags.Parse(args); err != nil {
		return "", err
	}
	if flags.NArg() > 0 {
		return "", fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if b.short {
		set := map[string]bool{}
		flags.Visit(func(f *flag.Flag) { set[f.Name] = true })
		for name, value := range map[string]*string{"members": members, "nodes": nodes, "further": further} {
			if !set[name] {
				*value = map[string]string{"members": "1,3", "nodes": "5", "further": "20"}[name]
			}
		}
	}
	b.deadline = time.Now().Add(*limit)
	if b.only, err = choose("only", *only, partNames()); err != nil {
		return "", err
	}
	if b.systems, err = choose("systems", *systems, []string{"ours", "etcd", "crdt"}); err != nil {
		return "", err
	}
	for _, list := range []struct {
		name, text string
		sizes      *[]int
	}{{"members", *members, &b.members}, {"nodes", *nodes, &b.nodes}, {"further", *further, &b.further}} {
		if *list.sizes, err = sizes(list.text); err != nil {
			return "", fmt.Errorf("-%s: %w", list.name, err)
		}
	}
	return jsonFile, nil
}

func partNames() []string {
	var names []string
	for _, p := range parts {
		names = append(names, p.name)
	}
	return names
}

func choose(flag, text string, from []string) ([]string, error) {
	if text == "" {
		return from, nil
	}
	chosen := strings.Split(text, ",")
	for _, name := range chosen {
		if !slices.Contains(from, name) {
			return nil, fmt.Errorf("-%s: %q is none of %s", flag, name, strings.Join(from, ", "))
		}
	}
	return chosen, nil
}

func sizes(text string) ([]int, error) {
	if text == "" {
		return nil, nil
	}
	var all []int
	for word := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(word)
		if err != nil || n < 1 || n > 500 {
			return nil, fmt.Errorf("%q is no size between 1 and 500", word)
		}
		all = append(all, n)
	}
	return all, nil
}

// wants says whether any of these parts is to be run.
func (b *bench) wants(names ...string) bool {
	return slices.ContainsFunc(names, func(name string) bool { return slices.Contains(b.only, name) })
}

// fewer is n, or in a short run a fifth of it.
func (b *bench) fewer(n int) int {
	if b.short {
		return max(n/5, 1)
	}
	return n
}

// try runs one system in some parts, in a folder of its own, unless it is too late. What fails is told and does not
// keep the others from running.
func (b *bench) try(ctx context.Context, system, what string, work func(ctx context.Context, folder string) error) {
	if !slices.Contains(b.systems, system) || ctx.Err() != nil {
		return
	}
	title := what + ", " + system
	if time.Now().After(b.deadline) {
		b.report.LeftOut = append(b.report.LeftOut, title+": no time left")
		return
	}
	fmt.Fprintf(os.Stderr, "%s  %s\n", time.Now().Format(time.TimeOnly), title)
	folder, err := os.MkdirTemp(b.folder, system+"-")
	if err == nil {
		err = errors.Join(work(ctx, folder), os.RemoveAll(folder))
	}
	if err != nil {
		b.failed = true
		b.report.LeftOut = append(b.report.LeftOut, fmt.Sprintf("%s: %v", title, err))
		fmt.Fprintln(os.Stderr, "  failed:", err)
	}
}

func (b *bench) record(r row) { b.report.Rows = append(b.report.Rows, r) }
