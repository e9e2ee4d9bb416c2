// SPDX-License-Identifier: Apache-2.0

package readapi

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/sequencer/verify"
)

// Facts are all signed records that a member holds, and what they are about.
type Facts interface {
	Facts() (verify.Header, verify.Evidence, error)
}

// factsWrite is how long a reader may take for one piece of an export: who is slower is cut off.
const factsWrite = 30 * time.Second

// factsPiece is how many bytes are written at once.
const factsPiece = 64 << 10

// facts answers with the export of package verify, line by line. It is about every rollout and every member, so whoever
// asks must be allowed to list both. One at a time: it copies the fleet's state.
func (s *Server) facts(w http.ResponseWriter, r *http.Request) {
	if !s.allowed(w, r, Access{Verb: "list", Resource: "fleetrollouts"}) || !s.allowed(w, r, Access{Verb: "list", Resource: "fleetmembers"}) {
		return
	}
	if !s.exporting.TryLock() {
		s.problem(w, http.StatusTooManyRequests, Problem{Error: "somebody else exports from this member now", Hint: "try again in a moment"})
		return
	}
	defer s.exporting.Unlock()
	header, evidence, err := s.Facts.Facts()
	if err != nil {
		s.Log.Error(err, "cannot export")
		s.problem(w, http.StatusInternalServerError, problemOf(err))
		return
	}
	w.Header().Set("Content-Type", "application/jsonl")
	out := bufio.NewWriterSize(&patientWriter{w: w, rc: http.NewResponseController(w)}, factsPiece)
	err = verify.Write(out, header, &evidence)
	if err == nil {
		err = out.Flush()
	}
	if err != nil {
		s.Log.V(1).Info("an export ended early", "why", err.Error()) // the last line is not there: whoever reads it sees that
	}
}

// patientWriter gives each piece its own time, where the server's is for a whole answer.
type patientWriter struct {
	w  http.ResponseWriter
	rc *http.ResponseController
}

func (p *patientWriter) Write(b []byte) (int, error) {
	if err := p.rc.SetWriteDeadline(time.Now().Add(factsWrite)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return 0, err
	}
	return p.w.Write(b)
}

// Facts that the agent holds, read to their end, and written to copied as they came unless that is nil.
func (c *Client) Facts(ctx context.Context, copied io.Writer) (verify.Header, verify.Evidence, error) {
	response, err := c.send(ctx, "/facts", nil)
	if err != nil {
		return verify.Header{}, verify.Evidence{}, err
	}
	defer response.Body.Close()
	var body io.Reader = response.Body
	if copied != nil {
		body = io.TeeReader(body, copied)
	}
	h, e, err := verify.Read(body)
	if err != nil {
		kind := fleet.Refused
		if ctx.Err() != nil {
			kind = fleet.Retryable
		}
		return h, e, &fleet.Error{Kind: kind, Err: fmt.Errorf("agent at %s: facts: %w", response.Request.URL.Host, err)}
	}
	return h, e, nil
}
