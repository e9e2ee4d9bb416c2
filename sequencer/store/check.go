// SPDX-License-Identifier: Apache-2.0

package store

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"go.etcd.io/bbolt"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// MaxFindings is how many findings a report lists; the others are counted.
const MaxFindings = 100

// Report is what lies in a file.
type Report struct {
	File   string `json:"file"`
	Bytes  int64  `json:"bytes"`
	Schema int    `json:"schema"`
	// Fleets, Kinds and Writers count the records that read back as they were written.
	Fleets  []FleetCount  `json:"fleets"`
	Kinds   []KindCount   `json:"kinds"`
	Writers []WriterCount `json:"writers"`
	Records int           `json:"records"`
	// Blobs and BlobBytes are those that have their digest.
	Blobs     int   `json:"blobs"`
	BlobBytes int64 `json:"blobBytes"`
	// Unreadable are records that were set apart when they did not read back; Quarantined are kept from who acts on records;
	// Suspects were looked at when the last process ended.
	Unreadable  int `json:"unreadable"`
	Quarantined int `json:"quarantined"`
	Suspects    int `json:"suspects"`
	// Meta are the keys of the agent's own values.
	Meta []string `json:"meta"`
	// Aside are damaged files that were set aside before.
	Aside []string `json:"aside,omitempty"`
	// Findings are what is wrong, at most MaxFindings of them; More counts the others.
	Findings []Finding `json:"findings"`
	More     int       `json:"more,omitempty"`
}

// FleetCount is how many records bear a fleet's digest.
type FleetCount struct {
	Fleet   string `json:"fleet"`
	Records int    `json:"records"`
}

// KindCount is how many records are of a kind; one that this version does not know goes by its number.
type KindCount struct {
	Kind    string `json:"kind"`
	Records int    `json:"records"`
}

// WriterCount is what a member wrote: how many records, and the position of the newest.
type WriterCount struct {
	Writer  fleet.MemberID `json:"writer"`
	Records int            `json:"records"`
	Epoch   uint64         `json:"epoch"`
	Seq     uint64         `json:"seq"`
}

// Finding is one thing that is wrong.
type Finding struct {
	// What is wrong, and Where in the file.
	What  string `json:"what"`
	Where string `json:"where"`
	// Do says what the agent makes of it, and what is left for people to do.
	Do string `json:"do"`
}

// What there is to do, where it is the same for several findings.
const (
	doRecord  = "nothing: at its next start the agent sets the record apart, and another member brings it again"
	doForged  = "the agent would believe it, and nobody else: stop the agent, move the file away and find out who writes to this disk; the other members bring the records back"
	doForeign = "if --fleet names the fleet of this agent: stop it and move the file away; an agent stores no record of another fleet, so two may have used one folder"
	doBlob    = "nothing: the agent takes it for absent and gets it from another member"
	doMeta    = "nothing: the agent takes it for never set"
)

// Check reads a file and changes nothing, as one may a file that no process holds. With a fleet that is not zero every
// record has to bear it. An error says that the file could not be read, and why: it is missing, ErrBusy, ErrSchema, or what
// the file system says. Damage is no error: it is in the report's findings.
func Check(path string, of fleet.Digest) (Report, error) {
	c := check{of: of, r: Report{
		File: path, Fleets: []FleetCount{}, Kinds: []KindCount{}, Writers: []WriterCount{}, Meta: []string{}, Findings: []Finding{},
	}}
	if err := c.run(); err != nil {
		return Report{}, fmt.Errorf("store %s: %w", path, err)
	}
	return c.r, nil
}

// check is a report while it is made.
type check struct {
	of        fleet.Digest
	r         Report
	fleets    map[fleet.Digest]int
	kinds     map[fleet.Kind]int
	writers   map[fleet.MemberID]*WriterCount
	positions map[position]fleet.Digest
	// names of a file of this schema.
	names names
}

type position struct {
	writer     fleet.MemberID
	epoch, seq uint64
}

func (c *check) find(what, where, do string) {
	if len(c.r.Findings) == MaxFindings {
		c.r.More++
		return
	}
	c.r.Findings = append(c.r.Findings, Finding{what, where, do})
}

func (c *check) run() error {
	file, err := os.Open(c.r.File)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	if err := lock(file, syscall.LOCK_SH); err != nil {
		if errors.Is(err, ErrBusy) {
			return &fleet.Error{Hint: "an agent is at work with it: stop the agent, then check", Err: ErrBusy}
		}
		return err
	}
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errors.New("it is no file")
	}
	c.r.Bytes = info.Size()
	if c.r.Aside, err = filepath.Glob(globLiteral(c.r.File) + asideSuffix + "*"); err != nil {
		return err
	}
	marked, err := readMarker(c.r.File + markerSuffix)
	if err != nil {
		return err
	}
	c.r.Suspects = len(marked)
	if info.Size() == 0 {
		c.find("the file is empty", "byte 0", "nothing: the agent begins anew, and the other members bring back what they hold")
		return nil
	}
	err = c.read(file)
	if errors.Is(err, errDamaged) {
		c.find(err.Error(), "the file as a whole",
			"nothing: at its next start the agent renames the file to "+filepath.Base(c.r.File)+asideSuffix+"N and begins anew; the other members bring back what they hold")
		return nil
	}
	return err
}

// globLiteral is a pattern for the path itself.
func globLiteral(path string) string {
	var b []byte
	for i := range len(path) {
		if c := path[i]; c == '*' || c == '?' || c == '[' || c == '\\' {
			b = append(b, '\\')
		}
		b = append(b, path[i])
	}
	return string(b)
}

// read what is in a file that has something in it.
func (c *check) read(file *os.File) error {
	return guard(func() error {
		found, err := examine(file)
		if err != nil {
			return err
		}
		if found.behind {
			c.find("one of the two meta pages is damaged", "page 0 or 1",
				"nothing: the agent goes on from the other one. What was written last may be missing; the other members bring it back")
		}
		db, err := bbolt.Open(c.r.File, 0, &bbolt.Options{
			ReadOnly: true, Timeout: lockTimeout,
			OpenFile: func(string, int, os.FileMode) (*os.File, error) { return file, nil },
		})
		if err != nil {
			return err
		}
		if c.r.Schema, err = layoutOf(db); err == nil {
			err = db.View(c.contents)
		}
		return errors.Join(err, db.Close())
	})
}

// contents of the buckets.
func (c *check) contents(tx *bbolt.Tx) error {
	c.fleets, c.kinds = map[fleet.Digest]int{}, map[fleet.Kind]int{}
	c.writers, c.positions = map[fleet.MemberID]*WriterCount{}, map[position]fleet.Digest{}
	if tx.Bucket(bucketPacked) != nil {
		if err := c.readNames(tx); err != nil {
			return err
		}
	}
	for _, bucket := range []struct {
		name []byte
		each func(key, value []byte)
	}{
		{bucketRecords, func(at, value []byte) {
			r, err := decode(at, value)
			c.record(fmt.Sprintf("record at %x", at), &r, err)
		}},
		{bucketPacked, func(at, rest []byte) {
			where := fmt.Sprintf("record at %x", at)
			if p, ok := readPlace(at, c.names.name); ok {
				where = fmt.Sprintf("%s %q of %s", p.kind, p.key, p.writer.writer)
			}
			r, err := unpack(at, rest, c.names.name)
			c.record(where, &r, err)
		}},
		{bucketBlobs, c.blob},
		{bucketMeta, c.meta},
		{bucketQuarantine, func([]byte, []byte) { c.r.Unreadable++ }},
		{bucketPoison, func([]byte, []byte) { c.r.Quarantined++ }},
	} {
		held := tx.Bucket(bucket.name)
		if held == nil {
			continue // of another schema than the file is
		}
		err := held.ForEach(func(key, value []byte) error { bucket.each(key, value); return nil })
		if err != nil {
			return err
		}
	}
	c.sort()
	return nil
}

// readNames that records use.
func (c *check) readNames(tx *bbolt.Tx) (err error) {
	if c.names, _, err = readNames(tx); err != nil {
		return err
	}
	for _, found := range []struct {
		count    int
		what, do string
	}{
		{c.names.mended, "%d values that records use: one of two copies is damaged", "nothing: at its next start the agent writes it anew from the other one"},
		{c.names.lost, "%d values that records use: both copies are damaged", doRecord},
	} {
		if found.count > 0 {
			c.find(fmt.Sprintf(found.what, found.count), "names", found.do)
		}
	}
	return nil
}

// record that lies somewhere, or why it cannot be read.
func (c *check) record(where string, r *fleet.Record, err error) {
	if err != nil {
		c.find(err.Error(), where, doRecord)
		return
	}
	where = fmt.Sprintf("%s %q of %s, at %d.%d", r.Kind, r.Key, r.Writer, r.Epoch, r.Seq)
	of := c.of
	if of.IsZero() {
		of = r.Fleet
	}
	if err := r.Verify(of); err != nil {
		do := doForged
		if errors.Is(err, fleet.ErrFleet) {
			do = doForeign
		}
		c.find(err.Error(), where, do)
		return
	}
	if err := fleet.CheckBody(r); err != nil {
		c.find(err.Error(), where, "nothing: the agent carries it and acts on nothing that it cannot read")
	}
	digest, spot := r.Digest(), position{r.Writer, r.Epoch, r.Seq}
	if other, ok := c.positions[spot]; ok && other != digest {
		c.find("two records of one writer in one position", where,
			"nothing here: the writer signed both. Its key is used twice; give that member another one")
	}
	c.positions[spot] = digest
	c.r.Records++
	c.fleets[r.Fleet]++
	c.kinds[r.Kind]++
	w := c.writers[r.Writer]
	if w == nil {
		w = &WriterCount{Writer: r.Writer}
		c.writers[r.Writer] = w
	}
	if w.Records++; r.Epoch > w.Epoch || r.Epoch == w.Epoch && r.Seq > w.Seq {
		w.Epoch, w.Seq = r.Epoch, r.Seq
	}
}

func (c *check) blob(key, content []byte) {
	if digest := fleet.BlobDigest(content); string(digest[:]) != string(key) {
		c.find(fmt.Sprintf("a blob of %d bytes does not have its digest", len(content)), fmt.Sprintf("blob %x", key), doBlob)
		return
	}
	c.r.Blobs++
	c.r.BlobBytes += int64(len(content))
}

func (c *check) meta(key, value []byte) {
	if string(key) == string(keySchema) {
		return
	}
	if _, ok := unseal(value); !ok && c.r.Schema > 1 {
		c.find("a value does not have its checksum", fmt.Sprintf("meta %q", key), doMeta)
		return
	}
	c.r.Meta = append(c.r.Meta, string(key))
}

func (c *check) sort() {
	for _, id := range slices.SortedFunc(maps.Keys(c.fleets), func(a, b fleet.Digest) int { return cmp.Compare(a.String(), b.String()) }) {
		c.r.Fleets = append(c.r.Fleets, FleetCount{id.String(), c.fleets[id]})
	}
	if c.of.IsZero() && len(c.r.Fleets) > 1 {
		c.find(fmt.Sprintf("records of %d fleets", len(c.r.Fleets)), "records",
			"say with --fleet which it should be; an agent stores no record of another fleet, so two may have used one folder")
	}
	for _, kind := range slices.Sorted(maps.Keys(c.kinds)) {
		name := kind.String()
		if name == fleet.Kind(0).String() {
			name = fmt.Sprintf("kind %d", kind)
		}
		c.r.Kinds = append(c.r.Kinds, KindCount{name, c.kinds[kind]})
	}
	for _, w := range c.writers {
		c.r.Writers = append(c.r.Writers, *w)
	}
	slices.SortFunc(c.r.Writers, func(a, b WriterCount) int { return cmp.Compare(a.Writer, b.Writer) })
}
