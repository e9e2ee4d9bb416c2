// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/go-logr/logr"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/store"
)

// storeFile is the fleet's state in the data folder.
const storeFile = "fleet.db"

// writersShown in the table; JSON has all of them.
const writersShown = 20

// StoreCheck says what to check and how to print what was found.
type StoreCheck struct {
	// DataDir of an agent, or File itself.
	DataDir, File string
	// Fleet is the name that the records have to be of; empty: of any one.
	Fleet string
	// Output is empty for a table, or json.
	Output string
}

// CheckStore checks the fleet state of an agent that is not running, changes nothing, and prints what it found. Sound says
// that nothing was; an error says that it cannot be read.
func CheckStore(out io.Writer, o StoreCheck) (sound bool, err error) {
	if o.Output != "" && o.Output != "json" {
		return false, fmt.Errorf("-o %s: json, or nothing for a table", o.Output)
	}
	if o.File == "" {
		o.File = filepath.Join(o.DataDir, storeFile)
	}
	var of fleet.Digest
	if o.Fleet != "" {
		of = FleetID(o.Fleet)
	}
	report, err := store.Check(o.File, of)
	if err != nil {
		return false, err
	}
	if o.Output == "json" {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		err = encoder.Encode(report)
	} else {
		_, err = io.WriteString(out, storeTable(&report))
	}
	return len(report.Findings) == 0, err
}

// tellOpened says in the log what opening the store met.
func tellOpened(log logr.Logger, o store.Opened) {
	if o.Recovered {
		log.Info("the fleet state on disk was damaged and begun anew; the others bring it back", "detail", o.Detail)
	}
	if o.Behind {
		log.Info("the fleet state on disk was damaged where it says what is newest; what was written last may be missing, and the others bring it back")
	}
	if o.Mended > 0 {
		log.Info("the fleet state on disk was damaged where values that records use are written; they were mended from their copies", "values", o.Mended)
	}
	if o.Compacted > 0 {
		log.Info("the fleet state on disk was mostly free pages and copied", "freed", o.Compacted)
	}
}

// storeTable is the report for people.
func storeTable(r *store.Report) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d bytes", r.File, r.Bytes)
	if r.Schema > 0 {
		fmt.Fprintf(&b, ", schema %d", r.Schema)
	}
	b.WriteByte('\n')
	for _, f := range r.Fleets {
		fmt.Fprintf(&b, "fleet %s\n", f.Fleet)
	}
	rows := [][]string{{"KIND", "RECORDS"}}
	for _, k := range r.Kinds {
		rows = append(rows, []string{k.Kind, fmt.Sprint(k.Records)})
	}
	columns(&b, rows)
	rows = [][]string{{"WRITER", "RECORDS", "NEWEST EPOCH", "SEQ"}}
	for i, w := range r.Writers {
		if i == writersShown {
			break
		}
		rows = append(rows, []string{string(w.Writer), fmt.Sprint(w.Records), fmt.Sprint(w.Epoch), fmt.Sprint(w.Seq)})
	}
	columns(&b, rows)
	if more := len(r.Writers) - writersShown; more > 0 {
		fmt.Fprintf(&b, "and %d more; -o json lists all\n", more)
	}
	columns(&b, [][]string{
		{"RECORDS", "BLOBS", "BYTES IN BLOBS", "UNREADABLE", "QUARANTINED", "SUSPECTS"},
		{
			fmt.Sprint(r.Records), fmt.Sprint(r.Blobs), fmt.Sprint(r.BlobBytes),
			fmt.Sprint(r.Unreadable), fmt.Sprint(r.Quarantined), fmt.Sprint(r.Suspects),
		},
	})
	for _, aside := range r.Aside {
		fmt.Fprintf(&b, "\nset aside before: %s\n", aside)
	}
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "\n%s\n  where: %s\n  to do: %s\n", fleet.Cut(f.What), fleet.Cut(f.Where), f.Do)
	}
	if r.More > 0 {
		fmt.Fprintf(&b, "\nand %d more like these\n", r.More)
	}
	if len(r.Findings) == 0 {
		b.WriteString("\nsound\n")
	}
	return b.String()
}

// columns of a table after an empty line; nothing where there is only a heading.
func columns(b *strings.Builder, rows [][]string) {
	if len(rows) < 2 {
		return
	}
	b.WriteByte('\n')
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	w.Flush()
}
