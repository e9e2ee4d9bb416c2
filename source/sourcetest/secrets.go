// SPDX-License-Identifier: Apache-2.0

package sourcetest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/api/v1alpha1"
	"github.com/flotilla-dev/flotilla/source"
)

// Secrets is a source.Secrets in memory. The zero value has none. It is safe for concurrent use.
type Secrets struct {
	mu     sync.Mutex
	data   map[string]map[string][]byte
	denied []source.Reader
	reads  int
}

var _ source.Secrets = (*Secrets)(nil)

// Put a Secret, whole; nil takes it away.
func (s *Secrets) Put(namespace, name string, data map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.data == nil {
		s.data = map[string]map[string][]byte{}
	}
	delete(s.data, namespace+"/"+name)
	if data == nil {
		return
	}
	raw := map[string][]byte{}
	for key, value := range data {
		raw[key] = []byte(value)
	}
	s.data[namespace+"/"+name] = raw
}

// Deny a reader every Secret.
func (s *Secrets) Deny(who source.Reader) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.denied = append(s.denied, who)
}

// Reads so far.
func (s *Secrets) Reads() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reads
}

// Secret gives the data of one.
func (s *Secrets) Secret(_ context.Context, as source.Reader, name string) (map[string][]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads++
	missing := func(format string, args ...any) error {
		return &fleet.Error{Kind: fleet.Refused, Reason: v1alpha1.ReasonCredentialsMissing, Err: fmt.Errorf(format, args...)}
	}
	if slices.Contains(s.denied, as) {
		return nil, missing("the service account %s/%s may not read it", as.Namespace, as.ServiceAccount)
	}
	data, ok := s.data[as.Namespace+"/"+name]
	if !ok {
		return nil, missing("it is not there")
	}
	return maps.Clone(data), nil
}
