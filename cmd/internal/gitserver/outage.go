// SPDX-License-Identifier: Apache-2.0

package gitserver

import (
	"bufio"
	"io"
	"net/http"
	"strings"
	"sync"
)

// outage lets requests through until so many have taken a pack, and then refuses all of them.
type outage struct {
	mu    sync.Mutex
	armed bool
	packs int // that may still be taken
}

// FailAfter so many packs were fetched from now on: later requests are answered 503, as by a server that is down,
// until Recover. FailAfter(0) fails at once.
func (s *Server) FailAfter(packs int) {
	s.outage.mu.Lock()
	defer s.outage.mu.Unlock()
	s.outage.armed, s.outage.packs = true, packs
}

// Recover from a failure.
func (s *Server) Recover() {
	s.outage.mu.Lock()
	defer s.outage.mu.Unlock()
	s.outage.armed = false
}

// Failed says whether the packs that FailAfter allowed were taken, and everyone is refused.
func (s *Server) Failed() bool {
	s.outage.mu.Lock()
	defer s.outage.mu.Unlock()
	return s.outage.armed && s.outage.packs == 0
}

// refuses a request while the server fails.
func (o *outage) refuses(r *http.Request) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.armed {
		return false
	}
	if o.packs == 0 {
		return true
	}
	if takesPack(r) {
		o.packs--
	}
	return false
}

// takesPack: the other request that is posted there asks for references, in version 2 of the protocol.
func takesPack(r *http.Request) bool {
	if r.Method != http.MethodPost || !strings.HasSuffix(r.URL.Path, "/git-upload-pack") {
		return false
	}
	body := bufio.NewReader(r.Body)
	begin, _ := body.Peek(len("0014command=ls-refs")) // what is too short, or compressed, does not begin so
	r.Body = struct {
		io.Reader
		io.Closer
	}{body, r.Body}
	return !strings.HasSuffix(string(begin), "command=ls-refs")
}
