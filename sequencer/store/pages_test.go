// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"
	"pgregory.net/rapid"
)

// change is one step in the life of a file.
type change struct {
	bucket, key byte
	size        int // of the value; less than zero deletes
}

func drawChange(t *rapid.T) change {
	return change{
		bucket: rapid.ByteRange('a', 'c').Draw(t, "bucket"), key: rapid.Byte().Draw(t, "key"),
		size: rapid.OneOf(rapid.IntRange(-1, 300), rapid.Just(-1), rapid.IntRange(3000, 20_000)).Draw(t, "size"),
	}
}

func (c change) apply(tx *bbolt.Tx) error {
	bucket, err := tx.CreateBucketIfNotExists([]byte{c.bucket})
	if err != nil {
		return err
	}
	key := bytes.Repeat([]byte{c.key}, 1+int(c.key)%40)
	if c.size < 0 {
		return bucket.Delete(key)
	}
	return bucket.Put(key, make([]byte, c.size))
}

// TestSoundFilesPass: whatever bbolt did to a file, after every transaction its pages are sound.
func TestSoundFilesPass(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		path := filepath.Join(folder, "sound.db")
		_ = os.Remove(path)
		db, err := bbolt.Open(path, 0o600, &bbolt.Options{FreelistType: bbolt.FreelistMapType, NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = db.Close() }()
		for range rapid.IntRange(1, 12).Draw(t, "transactions") {
			changes := rapid.SliceOfN(rapid.Custom(drawChange), 0, 60).Draw(t, "changes")
			abandon := rapid.IntRange(0, 5).Draw(t, "abandon") == 0
			err := db.Update(func(tx *bbolt.Tx) error {
				for _, c := range changes {
					if err := c.apply(tx); err != nil {
						return err
					}
				}
				if abandon {
					return errUnchanged
				}
				return nil
			})
			if err != nil && !errors.Is(err, errUnchanged) {
				t.Fatal(err)
			}
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if found, err := checkPages(bytes.NewReader(content), int64(len(content))); err != nil || found.behind {
				t.Fatalf("sound file: behind %v, %v", found.behind, err)
			}
		}
	})
}

// FuzzPages: no file makes the check panic or run on.
func FuzzPages(f *testing.F) {
	path := filepath.Join(f.TempDir(), "seed.db")
	s, err := Open(path)
	if err != nil {
		f.Fatal(err)
	}
	if _, err := s.PutBlob(make([]byte, 9000)); err != nil {
		f.Fatal(err)
	}
	if err := s.Close(); err != nil {
		f.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint32(0), byte(0))
	f.Add(uint32(4096+20), byte(0xff))
	f.Fuzz(func(t *testing.T, at uint32, flip byte) {
		b := bytes.Clone(content)
		b[int(at)%len(b)] ^= flip
		if _, err := checkPages(bytes.NewReader(b), int64(len(b))); err != nil && !errors.Is(err, errDamaged) {
			t.Errorf("%v", err)
		}
	})
}
