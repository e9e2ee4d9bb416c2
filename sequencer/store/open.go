// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
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
		if err == nil && s.opened.Behind {
			told.Behind = true
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

// moveAside never overwrites what was moved aside before.
func moveAside(path string) (string, error) {
	for n := 1; ; n++ {
		aside := path + asideSuffix + strconv.Itoa(n)
		_, err := os.Lstat(aside)
		if err == nil {
			continue
		}
		if !errors.Is(err, os.ErrNotExist) {
			return "", err
		}
		return aside, os.Rename(path, aside)
	}
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
	db, behind, err := openFile(path, file)
	if err != nil {
		return nil, info, explain(err)
	}
	s := &Store{db: db, opened: Opened{Behind: behind}, marker: marker{path: path + markerSuffix}}
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
func openFile(path string, file *os.File) (db *bbolt.DB, behind bool, err error) {
	err = guard(func() (err error) {
		if behind, err = examine(file); err != nil {
			return err
		}
		db, err = bbolt.Open(path, 0o600, &bbolt.Options{
			Timeout:      lockTimeout,
			FreelistType: bbolt.FreelistMapType,
			OpenFile:     func(string, int, os.FileMode) (*os.File, error) { return file, nil },
		})
		return err
	})
	if err != nil {
		_ = file.Close() // where bbolt has not
		return nil, false, err
	}
	return db, behind, nil
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

func examine(file *os.File) (behind bool, err error) {
	info, err := file.Stat()
	if err != nil || info.Size() == 0 {
		return false, err
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
}

// prepare makes the buckets of a new file, brings one of an older layout up to this one, and refuses a newer one.
func (s *Store) prepare() error {
	version, err := layoutOf(s.db)
	switch {
	case err != nil || version == Schema:
		return err
	case version == 0:
		return s.db.Update(func(tx *bbolt.Tx) error {
			for _, name := range buckets[Schema-1] {
				if _, err := tx.CreateBucketIfNotExists(name); err != nil {
					return err
				}
			}
			return tx.Bucket(bucketMeta).Put(keySchema, []byte(strconv.Itoa(Schema)))
		})
	}
	return s.migrate()
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

// migrate from schema 1, in one transaction: after a crash the file is of the one or of the other.
func (s *Store) migrate() error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		if _, err := tx.CreateBucketIfNotExists(bucketPoison); err != nil {
			return err
		}
		meta, values := tx.Bucket(bucketMeta), map[string][]byte{}
		err := meta.ForEach(func(key, value []byte) error {
			values[string(key)] = seal(value)
			return nil
		})
		if err != nil {
			return err
		}
		values[string(keySchema)] = []byte(strconv.Itoa(Schema))
		for key, value := range values {
			if err := meta.Put([]byte(key), value); err != nil {
				return err
			}
		}
		return nil
	})
}

// syncFolder makes a new file's name as durable as its content.
func syncFolder(path string) error {
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
