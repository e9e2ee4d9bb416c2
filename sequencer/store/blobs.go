// SPDX-License-Identifier: Apache-2.0

package store

import (
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// MaxBlob is the most bytes in a blob.
const MaxBlob = 1 << 20

// PutBlob keeps a blob of at most MaxBlob bytes and gives its name.
func (s *Store) PutBlob(content []byte) (fleet.Digest, error) {
	digest := fleet.BlobDigest(content)
	if len(content) > MaxBlob {
		return digest, &fleet.Error{Kind: fleet.Terminal, Err: fmt.Errorf(
			"blob %s of %d bytes: %w: at most %d", digest.Short(), len(content), fleet.ErrTooLarge, MaxBlob)}
	}
	return digest, s.update("blob "+digest.Short(), func(tx *bbolt.Tx) error {
		bucket := tx.Bucket(bucketBlobs)
		if held := bucket.Get(digest[:]); held != nil && fleet.BlobDigest(held) == digest {
			return errUnchanged
		}
		return bucket.Put(digest[:], content)
	})
}

// Blob is the content under a digest; false where there is none. What no longer has its digest is as
// good as absent: it can be had from another member.
func (s *Store) Blob(digest fleet.Digest) (content []byte, ok bool, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		if held := tx.Bucket(bucketBlobs).Get(digest[:]); held != nil && fleet.BlobDigest(held) == digest {
			content, ok = append([]byte{}, held...), true
		}
		return nil
	})
	if err != nil {
		return nil, false, fmt.Errorf("reading blob %s: %w", digest.Short(), err)
	}
	return content, ok, nil
}

// Blobs names what is kept, in order; whether each still has its digest, Blob says.
func (s *Store) Blobs() (all []fleet.Digest, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketBlobs).ForEach(func(key, _ []byte) error {
			if len(key) == len(fleet.Digest{}) {
				all = append(all, fleet.Digest(key))
			}
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("reading the names of blobs: %w", err)
	}
	return all, nil
}

// DropBlobs takes blobs out, all or none; one that is not there is no error.
func (s *Store) DropBlobs(digests ...fleet.Digest) error {
	if len(digests) == 0 {
		return nil
	}
	return s.update(fmt.Sprintf("%d blobs dropped", len(digests)), func(tx *bbolt.Tx) error {
		bucket, changed := tx.Bucket(bucketBlobs), false
		for i := range digests {
			if bucket.Get(digests[i][:]) == nil {
				continue
			}
			if err := bucket.Delete(digests[i][:]); err != nil {
				return err
			}
			changed = true
		}
		return unlessChanged(changed)
	})
}
