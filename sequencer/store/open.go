// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// ErrBusy is in the error of Open when another process holds the file.
var ErrBusy = errors.New("another process holds it")

// ErrSchema is in the error of Open when a newer version wrote the file.
var ErrSchema = errors.New("written by a newer version")

// errDamaged is in the error of what cannot be read as a bbolt file.
var errDamaged = errors.New("damaged")

// lockTimeout is how long Open waits for another process that is just ending.
const lockTimeout = time.Second

// growBy so many bytes a file grows, once it is larger than that. bbolt would double it up to 16 MiB: half of such a file may
// never have been written.
const growBy = 256 << 10

// openings bounds how often Open begins anew: what is damaged is set aside once, what is sparse is compacted once, and
// another process may have done either just before.
const openings = 8

// Open opens or begins the file at path, in a folder that exists. A damaged file is renamed to
// <path>.corrupt-<n> and a new one begun, a file that is mostly free pages is compacted; see [Store.Opened]. Errors are
// ErrBusy, ErrSchema (terminal: nothing is touched), and what the file system says.
func Open(path string) (*Store, error) {
	var told Opened
	for range openings {
		s, info, err := open(path)
		if err == nil {
			told.Behind = told.Behind || s.opened.Behind
			told.Mended += s.opened.Mended
		}
		switch {
		case err == nil && told.Compacted == 0 && s.sparse():
			if told.Compacted = s.compact(info.Size()); told.Compacted == 0 {
				s.opened = told
				return s, nil // as it is: there may be no room for a copy
			}
			err = s.Close() // of what has no name any more
		case err == nil:
			s.opened = told
			return s, nil
		case errors.Is(err, errDamaged) && !told.Recovered:
			told.Detail, err = setAside(path, info, err)
			told.Recovered = told.Detail != ""
		}
		if err != nil {
			return nil, fmt.Errorf("store %s: %w", path, err)
		}
	}
	return nil, fmt.Errorf("store %s: %w: others open it all the time", path, ErrBusy)
}

// setAside moves the damaged file away and says so; the detail is empty where another process did it before.
func setAside(path string, damaged os.FileInfo, why error) (detail string, err error) {
	file, err := hold(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = file.Close() }()
	if info, err := file.Stat(); err != nil || !os.SameFile(info, damaged) {
		return "", err
	}
	aside, err := moveAside(path)
	if err != nil {
		return "", fmt.Errorf("moving the damaged file aside: %w", errors.Join(err, why))
	}
	return fmt.Sprintf("%v; moved to %s", why, aside), nil
}

// asideKept bounds the damaged files that lie beside a store: on a bad disk they would fill it.
const asideKept = 8

// moveAside never overwrites what was moved aside before, and keeps the last asideKept of it.
func moveAside(path string) (string, error) {
	var numbers []int
	names, err := filepath.Glob(globLiteral(path) + asideSuffix + "*")
	if err != nil {
		return "", err
	}
	for _, name := range names {
		if n, err := strconv.Atoi(name[len(path)+len(asideSuffix):]); err == nil && n > 0 {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	next := 1
	if len(numbers) > 0 {
		next = numbers[len(numbers)-1] + 1
	}
	aside := path + asideSuffix + strconv.Itoa(next)
	if err := os.Rename(path, aside); err != nil {
		return "", err
	}
	for _, n := range numbers[:max(0, len(numbers)+1-asideKept)] {
		// What cannot be removed is tried again the next time.
		_ = os.Remove(path + asideSuffix + strconv.Itoa(n))
	}
	return aside, nil
}

const asideSuffix = ".corrupt-"

// hold opens the file and locks it. While it waited for the lock, another process may have put another file in its
// place; what that one left behind is nobody's to write to.
func hold(path string) (*os.File, error) {
	for range openings {
		file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		held, named := os.FileInfo(nil), os.FileInfo(nil)
		if err = lock(file, syscall.LOCK_EX); err == nil {
			held, err = file.Stat()
		}
		if err == nil {
			named, err = os.Stat(path)
		}
		if err == nil && os.SameFile(held, named) {
			return file, nil
		}
		_ = file.Close()
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	return nil, ErrBusy
}

// open gives what it opened, or could not.
func open(path string) (*Store, os.FileInfo, error) {
	file, err := hold(path)
	if err != nil {
		return nil, nil, explain(err)
	}
	info, err := file.Stat()
	if err != nil {
		return nil, nil, errors.Join(err, file.Close())
	}
	// A copy that a crash cut short; under the lock nobody else is making one.
	_ = os.Remove(path + compactSuffix)
	db, found, err := openFile(path, file)
	if err != nil {
		return nil, info, explain(err)
	}
	s := &Store{db: db, opened: Opened{Behind: found.behind}, slack: found.slack, marker: marker{path: path + markerSuffix}}
	for _, step := range []func() error{s.prepare, s.readSuspects, func() error { return syncFolder(path) }} {
		if err := guard(step); err != nil {
			// Closing a damaged file may fail like reading it did; the first error is the one to tell.
			_ = guard(db.Close)
			return nil, info, err
		}
	}
	return s, info, nil
}

func (s *Store) readSuspects() (err error) {
	s.marker.left, err = readMarker(s.marker.path)
	return err
}

func explain(err error) error {
	if errors.Is(err, ErrBusy) || errors.Is(err, bolterrors.ErrTimeout) {
		return &fleet.Error{Hint: "one agent per store: stop the other one", Err: ErrBusy}
	}
	return err
}

// openFile reads all of a file before bbolt does. The file is locked, and closed after an error.
func openFile(path string, file *os.File) (db *bbolt.DB, found pages, err error) {
	err = guard(func() (err error) {
		if found, err = examine(file); err != nil {
			return err
		}
		db, err = bbolt.Open(path, 0o600, &bbolt.Options{
			Timeout:      lockTimeout,
			FreelistType: bbolt.FreelistMapType,
			OpenFile:     func(string, int, os.FileMode) (*os.File, error) { return file, nil },
		})
		if err == nil {
			db.AllocSize = growBy
		}
		return err
	})
	if err != nil {
		_ = file.Close() // where bbolt has not
		return nil, pages{}, err
	}
	return db, found, nil
}

// guard turns a panic into an error that says damaged, and a fault at a mapped page into a panic: behind
// checkPages it should find nothing to do.
func guard(work func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", errDamaged, p)
		}
	}()
	return work()
}

func examine(file *os.File) (found pages, err error) {
	info, err := file.Stat()
	if err != nil || info.Size() == 0 {
		return pages{}, err
	}
	return checkPages(file, info.Size())
}

// lock waits for another process that is just ending. A file being written must not be taken for damaged.
func lock(file *os.File, how int) error {
	const pause = 20 * time.Millisecond
	for waited := time.Duration(0); ; waited += pause {
		err := syscall.Flock(int(file.Fd()), how|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return err
		}
		if waited >= lockTimeout {
			return ErrBusy
		}
		time.Sleep(pause)
	}
}

// buckets of each schema, from 1.
var buckets = [][][]byte{
	{bucketRecords, bucketBlobs, bucketMeta, bucketQuarantine},
	{bucketRecords, bucketBlobs, bucketMeta, bucketQuarantine, bucketPoison},
	{bucketPacked, bucketNames, bucketBlobs, bucketMeta, bucketQuarantine, bucketPoison},
}

// prepare makes the buckets of a new file, brings one of an older layout up to this one, and refuses a newer one.
func (s *Store) prepare() error {
	version, err := layoutOf(s.db)
	if err == nil && version == 0 {
		err = s.db.Update(begin)
	} else if err == nil && version < Schema {
		err = s.migrate(version)
	}
	if err != nil {
		return err
	}
	return s.readNames()
}

// begin makes what a file of this schema has.
func begin(tx *bbolt.Tx) error {
	for _, name := range buckets[Schema-1] {
		if _, err := tx.CreateBucketIfNotExists(name); err != nil {
			return err
		}
	}
	return tx.Bucket(bucketMeta).Put(keySchema, []byte(strconv.Itoa(Schema)))
}

func (s *Store) readNames() error {
	var damaged [][]byte
	err := s.db.View(func(tx *bbolt.Tx) (err error) {
		s.names, damaged, err = readNames(tx)
		return err
	})
	if err != nil {
		return err
	}
	s.opened.Mended = s.names.mended
	if len(damaged) > 0 {
		// Where the disk is full they are read as they are, and mended at the next start.
		_ = s.db.Update(func(tx *bbolt.Tx) error { return s.names.mend(tx, damaged) })
	}
	return nil
}

// layoutOf a file: 0 where it is new. It refuses a newer one, and one that lacks what its layout has.
func layoutOf(db *bbolt.DB) (version int, err error) {
	err = db.View(func(tx *bbolt.Tx) error {
		if first, _ := tx.Cursor().First(); first == nil {
			return nil
		}
		schema := ""
		if meta := tx.Bucket(bucketMeta); meta != nil {
			schema = string(meta.Get(keySchema))
		}
		version, err = strconv.Atoi(schema)
		switch {
		case err != nil || version < 1:
			return fmt.Errorf("%w: schema %q", errDamaged, schema)
		case version > Schema:
			return &fleet.Error{
				Kind: fleet.Terminal,
				Hint: "run the newer version again, or move the file away to begin anew",
				Err:  fmt.Errorf("%w: schema %d, this is %d", ErrSchema, version, Schema),
			}
		}
		for _, name := range buckets[version-1] {
			if tx.Bucket(name) == nil {
				return fmt.Errorf("%w: no bucket %q", errDamaged, name)
			}
		}
		return nil
	})
	return version, err
}

// syncFolder makes a new file's name as durable as its content.
func syncFolder(path string) error {
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
