// SPDX-License-Identifier: Apache-2.0

package readapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"

	"github.com/go-logr/logr"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// Rollouts of a member.
type Rollouts interface {
	// Rollouts in any order; the server leaves their Members out.
	Rollouts() []Rollout
	// Rollout by name; false where it is not known here.
	Rollout(fleet.RolloutName) (Rollout, bool)
	// Explain a member's place in a rollout that Rollout knows; "" is the member that answers.
	Explain(fleet.RolloutName, fleet.Name) (Explanation, error)
}

// Pasts are what was signed about rollouts, as far back as it is held.
type Pasts interface {
	// Events of a rollout that Rollout knows. The error of a question that makes no sense has [ReasonBadRequest].
	Events(fleet.RolloutName, EventQuery) (Events, error)
	// Releases of a rollout that Rollout knows.
	Releases(fleet.RolloutName) Releases
}

// Cluster of the member that answers.
type Cluster interface {
	// Objects that a rollout has there: all of them, and what is known of their health.
	Objects(context.Context, fleet.RolloutName) (Objects, error)
}

// Members of the fleet, as one of them knows them.
type Members interface{ Members() []FleetMember }

// Changes wake those who watch.
type Changes interface {
	// Subscribe gives a channel that holds one value after any number of changes, and what ends the subscription.
	Subscribe() (changed <-chan struct{}, cancel func())
}

// Access that a request needs, in the words of RBAC; the zero value needs an identity and nothing else.
type Access struct {
	// Verb: get, list or watch. Resource: fleetrollouts or fleetmembers, or what a payload brings.
	Verb, Resource string
	// Group of the resource; "" is fleet.flotilla.dev, and CoreGroup the one of Kubernetes that has no name.
	Group string
	// Namespace and Name; "" is all of them.
	Namespace, Name string
}

// Authorizer says whether whoever sent the request may have the access.
type Authorizer interface {
	// Authorize fails with a [fleet.Error] of reason ReasonUnauthorized or ReasonForbidden, or with a
	// retryable one where it could not find out.
	Authorize(context.Context, *http.Request, Access) error
}

// CoreGroup stands in an Access for the group of Pods, Secrets and the like.
const CoreGroup = "core"

// Reasons of an Authorizer's errors, and of questions that make no sense.
const (
	ReasonUnauthorized = "Unauthorized" // nobody knows who asks
	ReasonForbidden    = "Forbidden"    // it is known, and may not
	ReasonBadRequest   = "BadRequest"   // nobody can answer that
)

// DefaultMaxWatchers is how many may watch at once where the Server does not say.
const DefaultMaxWatchers = 64

// Server is the read endpoint: an http.Handler that knows no network.
type Server struct {
	Rollouts Rollouts
	Members  Members
	Changes  Changes
	Auth     Authorizer
	// Pasts, Cluster and Facts; where one is nil its paths are not there.
	Pasts   Pasts
	Cluster Cluster
	Facts   Facts
	// Version to answer with; its API is filled in.
	Version Version
	// MaxWatchers at once; 0 is DefaultMaxWatchers.
	MaxWatchers int
	// Log of what went wrong here; requests are not logged.
	Log logr.Logger

	once  sync.Once
	mux   *http.ServeMux
	feeds feeds
	// exporting is held by who exports.
	exporting sync.Mutex
}

// ServeHTTP answers GET and nothing else.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.once.Do(s.routes)
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Referrer-Policy", "no-referrer")
	if r.Method != http.MethodGet {
		h.Set("Allow", http.MethodGet)
		s.problem(w, http.StatusMethodNotAllowed, Problem{
			Error: r.Method + " is not answered here: this endpoint only reads",
			Hint:  "writes go through the Kubernetes API of any member",
		})
		return
	}
	s.mux.ServeHTTP(w, r)
}

func (s *Server) routes() {
	s.mux = http.NewServeMux()
	paths := map[string]http.HandlerFunc{
		"/version":                      s.version,
		"/members":                      s.members,
		"/rollouts":                     s.rollouts,
		"/rollouts/{ns}/{name}":         s.rollout,
		"/rollouts/{ns}/{name}/explain": s.explain,
		"/rollouts/{ns}/{name}/watch":   s.watch,
	}
	if s.Pasts != nil {
		paths["/rollouts/{ns}/{name}/events"] = s.events
		paths["/rollouts/{ns}/{name}/releases"] = s.releases
	}
	if s.Cluster != nil {
		paths["/rollouts/{ns}/{name}/objects"] = s.objects
	}
	if s.Facts != nil {
		paths["/facts"] = s.facts
	}
	for path, handle := range paths {
		s.mux.HandleFunc("/"+APIVersion+path, handle)
	}
	s.mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		s.problem(w, http.StatusNotFound, Problem{
			Error: nothingHere,
			Hint:  "this agent answers under /" + APIVersion + "/: version, members, rollouts",
		})
	})
}

// nothingHere is what an agent says of paths that it does not know; a newer client takes it for its age.
const nothingHere = "there is nothing at this path"

func (s *Server) version(w http.ResponseWriter, r *http.Request) {
	if !s.allowed(w, r, Access{}) {
		return
	}
	v := s.Version
	v.API = APIVersion
	s.answer(w, v)
}

func (s *Server) members(w http.ResponseWriter, r *http.Request) {
	if s.allowed(w, r, Access{Verb: "list", Resource: "fleetmembers"}) {
		s.answer(w, List[FleetMember]{Items: orEmpty(s.Members.Members())})
	}
}

func (s *Server) rollouts(w http.ResponseWriter, r *http.Request) {
	namespace := r.URL.Query().Get("namespace")
	if !s.allowed(w, r, Access{Verb: "list", Resource: "fleetrollouts", Namespace: namespace}) {
		return
	}
	out := List[Rollout]{Items: []Rollout{}}
	for _, rollout := range s.Rollouts.Rollouts() {
		if namespace == "" || namespace == rollout.Namespace {
			rollout.Members = nil
			out.Items = append(out.Items, rollout)
		}
	}
	s.answer(w, out)
}

func (s *Server) rollout(w http.ResponseWriter, r *http.Request) {
	name := nameIn(r)
	if !s.allowed(w, r, accessTo("get", name)) {
		return
	}
	rollout, ok := s.Rollouts.Rollout(name)
	if !ok {
		s.unknown(w, name)
		return
	}
	s.answer(w, rollout)
}

func (s *Server) explain(w http.ResponseWriter, r *http.Request) {
	name := nameIn(r)
	if !s.allowed(w, r, accessTo("get", name)) {
		return
	}
	if _, ok := s.Rollouts.Rollout(name); !ok {
		s.unknown(w, name)
		return
	}
	explanation, err := s.Rollouts.Explain(name, fleet.Name(r.URL.Query().Get("member")))
	if err != nil {
		status := http.StatusInternalServerError
		if errors.Is(err, ErrNoSuchMember) {
			status = http.StatusNotFound
		}
		s.problem(w, status, problemOf(err))
		return
	}
	s.answer(w, explanation)
}

func nameIn(r *http.Request) fleet.RolloutName {
	return fleet.RolloutName{Namespace: r.PathValue("ns"), Name: r.PathValue("name")}
}

func accessTo(verb string, name fleet.RolloutName) Access {
	return Access{Verb: verb, Resource: "fleetrollouts", Namespace: name.Namespace, Name: name.Name}
}

// allowed asks the Authorizer before anything is looked up, so that an answer never tells a stranger
// what there is. It writes the refusal.
func (s *Server) allowed(w http.ResponseWriter, r *http.Request, need Access) bool {
	err := s.Auth.Authorize(r.Context(), r, need)
	if err != nil {
		s.refuse(w, err)
	}
	return err == nil
}

// refuse who may not, or of whom nobody can say.
func (s *Server) refuse(w http.ResponseWriter, err error) {
	status := http.StatusServiceUnavailable
	switch fleet.ReasonOf(err, "") {
	case ReasonUnauthorized:
		status = http.StatusUnauthorized
		w.Header().Set("WWW-Authenticate", "Bearer")
	case ReasonForbidden:
		status = http.StatusForbidden
	default:
		s.Log.Error(err, "cannot authorize")
	}
	s.problem(w, status, problemOf(err))
}

func (s *Server) unknown(w http.ResponseWriter, name fleet.RolloutName) {
	s.problem(w, http.StatusNotFound, Problem{
		Error: fmt.Sprintf("rollout %s is not known to member %s", name, s.Version.Member),
		Hint:  "flotilla get rollouts -A lists those that are",
	})
}

// problemOf keeps the hint apart from the sentence.
func problemOf(err error) Problem {
	var known *fleet.Error
	if errors.As(err, &known) {
		return Problem{Error: known.Err.Error(), Hint: known.Hint}
	}
	return Problem{Error: err.Error()}
}

func (s *Server) answer(w http.ResponseWriter, v any) { s.write(w, http.StatusOK, v) }

func (s *Server) problem(w http.ResponseWriter, status int, p Problem) { s.write(w, status, p) }

func (s *Server) write(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		s.Log.Error(err, "cannot encode an answer")
		status, body = http.StatusInternalServerError, []byte(`{"error":"the answer cannot be encoded"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // the client may be gone; there is nobody left to tell
}

func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
