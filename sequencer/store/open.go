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

// Open opens or begins the file at path, in a folder that exists. A damaged file is renamed to
// <path>.corrupt-<n> and a new one begun; see [Store.Opened]. Errors are ErrBusy, ErrSchema
// (terminal: nothing is touched), and what the file system says.
func Open(path string) (*Store, error) {
	s, err := open(path)
	if !errors.Is(err, errDamaged) {
		return s, err
	}
	aside, renameErr := moveAside(path)
	if renameErr != nil {
		return nil, fmt.Errorf("store %s: moving the damaged file aside: %w", path, errors.Join(renameErr, err))
	}
	detail := fmt.Sprintf("%v; moved to %s", err, aside)
	if s, err = open(path); err != nil {
		return nil, err
	}
	s.opened = Opened{Recovered: true, Detail: detail}
	return s, nil
}

// moveAside never overwrites what was moved aside before.
func moveAside(path string) (string, error) {
	for n := 1; ; n++ {
		aside := path + ".corrupt-" + strconv.Itoa(n)
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

func open(path string) (*Store, error) {
	db, err := openFile(path)
	if err != nil {
		return nil, fmt.Errorf("store %s: %w", path, err)
	}
	s := &Store{db: db}
	for _, step := range []func() error{s.prepare, func() error { return syncFolder(path) }} {
		if err := step(); err != nil {
			// Closing a damaged file may fail like reading it did; the first error is the one to tell.
			_ = guard(db.Close)
			return nil, fmt.Errorf("store %s: %w", path, err)
		}
	}
	return s, nil
}

// openFile tells three things apart: someone holds the file, the file system says no, the file is damaged.
func openFile(path string) (*bbolt.DB, error) {
	var (
		db   *bbolt.DB
		file *os.File
	)
	err := guard(func() (err error) {
		db, err = bbolt.Open(path, 0o600, &bbolt.Options{
			Timeout:      lockTimeout,
			FreelistType: bbolt.FreelistMapType,
			OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
				if file, err = os.OpenFile(name, flag, mode); err != nil {
					return nil, err
				}
				return file, examine(file)
			},
		})
		return err
	})
	if err == nil {
		return db, nil
	}
	if file != nil {
		// Where bbolt has not closed it, it is locked.
		_ = file.Close()
	}
	if errors.Is(err, ErrBusy) || errors.Is(err, bolterrors.ErrTimeout) {
		return nil, &fleet.Error{Hint: "one agent per store: stop the other one", Err: ErrBusy}
	}
	return nil, err
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

// examine locks the file, as bbolt will once more, and reads all of it before bbolt does.
func examine(file *os.File) error {
	if err := lock(file); err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil || info.Size() == 0 {
		return err
	}
	return checkPages(file, info.Size())
}

// lock waits for another process that is just ending. A file being written must not be taken for damaged.
func lock(file *os.File) error {
	const pause = 20 * time.Millisecond
	for waited := time.Duration(0); ; waited += pause {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return err
		}
		if waited >= lockTimeout {
			return ErrBusy
		}
		time.Sleep(pause)
	}
}

var buckets = [][]byte{bucketRecords, bucketBlobs, bucketMeta, bucketQuarantine}

// prepare makes the buckets of a new file and refuses one of a newer layout.
func (s *Store) prepare() error {
	var held []byte
	present := 0
	err := s.db.View(func(tx *bbolt.Tx) error {
		if meta := tx.Bucket(bucketMeta); meta != nil {
			held = append(held, meta.Get(keySchema)...)
		}
		return tx.ForEach(func([]byte, *bbolt.Bucket) error { present++; return nil })
	})
	if err != nil {
		return err
	}
	if present > 0 {
		return s.checkLayout(string(held))
	}
	return s.db.Update(func(tx *bbolt.Tx) error {
		for _, name := range buckets {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return tx.Bucket(bucketMeta).Put(keySchema, []byte(strconv.Itoa(Schema)))
	})
}

func (s *Store) checkLayout(schema string) error {
	version, err := strconv.Atoi(schema)
	if err != nil || version < 1 {
		return fmt.Errorf("%w: schema %q", errDamaged, schema)
	}
	if version > Schema {
		return &fleet.Error{
			Kind: fleet.Terminal,
			Hint: "run the newer version again, or move the file away to begin anew",
			Err:  fmt.Errorf("%w: schema %d, this is %d", ErrSchema, version, Schema),
		}
	}
	return s.db.View(func(tx *bbolt.Tx) error {
		for _, name := range buckets {
			if tx.Bucket(name) == nil {
				return fmt.Errorf("%w: no bucket %q", errDamaged, name)
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
