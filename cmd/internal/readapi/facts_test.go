// SPDX-License-Identifier: Apache-2.0

package readapi

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-dev/flotilla/api/fleet"
	"github.com/flotilla-dev/flotilla/cmd/internal/readapi/readapitest"
	"github.com/flotilla-dev/flotilla/sequencer/verify"
)

// exporter answers with a world's facts, or with an error, while meanwhile runs.
type exporter struct {
	evidence  verify.Evidence
	err       error
	meanwhile func()
}

func (e *exporter) Facts() (verify.Header, verify.Evidence, error) {
	if e.meanwhile != nil {
		e.meanwhile()
	}
	return verify.Header{By: "c1"}, e.evidence, e.err
}

func newExporter(t *testing.T) *exporter {
	t.Helper()
	w, err := readapitest.New()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Tell("c1 accepted", "c1 started"); err != nil {
		t.Fatal(err)
	}
	e, err := w.Signed()
	if err != nil {
		t.Fatal(err)
	}
	return &exporter{evidence: e}
}

func TestFacts(t *testing.T) {
	e, g := newExporter(t), &gate{}
	s := newServer(newBackend(), g)
	if got := ask(s, http.MethodGet, "/v1/facts"); got.Code != http.StatusNotFound {
		t.Errorf("without facts: %d", got.Code)
	}
	s = newServer(newBackend(), g)
	s.Facts = e
	got := ask(s, http.MethodGet, "/v1/facts")
	if got.Code != http.StatusOK || got.Header().Get("Content-Type") != "application/jsonl" {
		t.Errorf("%d %v", got.Code, got.Header())
	}
	_, read, err := verify.Read(got.Body)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(e.evidence, read); diff != "" {
		t.Error(diff)
	}
	want := []Access{{Verb: "list", Resource: "fleetrollouts"}, {Verb: "list", Resource: "fleetmembers"}}
	if diff := cmp.Diff(want, g.asked); diff != "" {
		t.Errorf("who exports everything must be allowed to list everything: %s", diff)
	}
}

func TestFactsRefused(t *testing.T) {
	e, g := newExporter(t), &gate{}
	s := newServer(newBackend(), g)
	s.Facts = e
	g.now(&fleet.Error{Kind: fleet.Refused, Reason: ReasonForbidden, Err: errors.New("ada may not")})
	if got := ask(s, http.MethodGet, "/v1/facts"); got.Code != http.StatusForbidden || strings.Contains(got.Body.String(), "record") {
		t.Errorf("forbidden: %d %s", got.Code, got.Body)
	}
	g.now(nil)
	var second *httptest.ResponseRecorder
	e.meanwhile = func() { e.meanwhile = nil; second = ask(s, http.MethodGet, "/v1/facts") }
	if got := ask(s, http.MethodGet, "/v1/facts"); got.Code != http.StatusOK || second.Code != http.StatusTooManyRequests {
		t.Errorf("two at a time: %d and %d", got.Code, second.Code)
	}
	if got := ask(s, http.MethodGet, "/v1/facts"); got.Code != http.StatusOK {
		t.Errorf("one after the other: %d", got.Code)
	}
	e.err = errors.New("the disk is gone")
	if got := ask(s, http.MethodGet, "/v1/facts"); got.Code != http.StatusInternalServerError {
		t.Errorf("broken: %d", got.Code)
	}
}
