// SPDX-License-Identifier: Apache-2.0

package readapi

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// How many objects are on a page where nobody says, and at most.
const (
	DefaultObjects = 500
	MaxObjects     = 5000
)

func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	name, ok := s.known(w, r)
	if !ok {
		return
	}
	query, err := eventQueryOf(r.URL.Query())
	if err != nil {
		s.problem(w, http.StatusBadRequest, problemOf(err))
		return
	}
	out, err := s.Pasts.Events(name, query)
	switch {
	case fleet.ReasonOf(err, "") == ReasonBadRequest:
		s.problem(w, http.StatusBadRequest, problemOf(err))
	case err != nil:
		s.problem(w, http.StatusInternalServerError, problemOf(err))
	default:
		s.answer(w, out)
	}
}

func (s *Server) releases(w http.ResponseWriter, r *http.Request) {
	if name, ok := s.known(w, r); ok {
		s.answer(w, s.Pasts.Releases(name))
	}
}

// known rollout that may be seen by whoever asks; otherwise the answer is written.
func (s *Server) known(w http.ResponseWriter, r *http.Request) (fleet.RolloutName, bool) {
	name := nameIn(r)
	if !s.allowed(w, r, accessTo("get", name)) {
		return name, false
	}
	_, ok := s.Rollouts.Rollout(name)
	if !ok {
		s.unknown(w, name)
	}
	return name, ok
}

// objects of a rollout in this cluster. Who may see the rollout sees of them what the API server would
// let them get: the others are counted.
func (s *Server) objects(w http.ResponseWriter, r *http.Request) {
	name, ok := s.known(w, r)
	if !ok {
		return
	}
	limit, err := number(r.URL.Query(), "limit", MaxObjects)
	var from int
	if err == nil {
		from, err = number(r.URL.Query(), "continue", 1<<31)
	}
	if err != nil {
		s.problem(w, http.StatusBadRequest, problemOf(err))
		return
	}
	all, err := s.Cluster.Objects(r.Context(), name)
	if err != nil {
		s.problem(w, http.StatusServiceUnavailable, problemOf(err))
		return
	}
	all.Total = len(all.Items)
	if all.Items, err = s.visible(r, all.Items); err != nil {
		s.refuse(w, err)
		return
	}
	all.Hidden = all.Total - len(all.Items)
	if limit == 0 {
		limit = DefaultObjects
	}
	from = min(from, len(all.Items))
	end := min(from+limit, len(all.Items))
	if end < len(all.Items) {
		all.Continue = strconv.Itoa(end)
	}
	all.Items = orEmpty(all.Items[from:end])
	s.answer(w, all)
}

// visible objects are those of a kind and namespace where whoever asks may get all of them.
func (s *Server) visible(r *http.Request, objects []Object) ([]Object, error) {
	may := map[Access]bool{}
	var out []Object
	for _, o := range objects {
		need := Access{Verb: "get", Group: o.Group, Resource: o.Resource, Namespace: o.Namespace}
		if need.Group == "" {
			need.Group = CoreGroup
		}
		allowed, asked := may[need]
		if !asked && o.Resource != "" { // a kind that is not served has no permissions; it is not shown
			err := s.Auth.Authorize(r.Context(), r, need)
			if err != nil && fleet.ReasonOf(err, "") != ReasonForbidden {
				return nil, err
			}
			allowed = err == nil
			may[need] = allowed
		}
		if allowed {
			out = append(out, o)
		}
	}
	return out, nil
}

func eventQueryOf(values url.Values) (EventQuery, error) {
	q := EventQuery{Member: fleet.Name(values.Get("member")), Continue: values.Get("continue")}
	var err error
	if since := values.Get("since"); since != "" {
		if q.Since, err = time.Parse(time.RFC3339, since); err != nil {
			return q, badRequest("since=%q: a time such as 2026-11-21T09:00:00Z", since)
		}
	}
	for key, into := range map[string]*bool{"commands": &q.Commands, "last": &q.Last} {
		if value := values.Get(key); value != "" {
			if *into, err = strconv.ParseBool(value); err != nil {
				return q, badRequest("%s=%q: true or false", key, value)
			}
		}
	}
	q.Limit, err = number(values, "limit", MaxEvents)
	return q, err
}

// values of the query, as eventQueryOf reads them.
func (q EventQuery) values() url.Values {
	out := url.Values{}
	set := func(key, value string, is bool) {
		if is {
			out.Set(key, value)
		}
	}
	set("member", string(q.Member), q.Member != "")
	set("continue", q.Continue, q.Continue != "")
	set("since", q.Since.UTC().Format(time.RFC3339), !q.Since.IsZero())
	set("commands", "true", q.Commands)
	set("last", "true", q.Last)
	set("limit", strconv.Itoa(q.Limit), q.Limit > 0)
	return out
}

// number in a query: none is 0, and more than most is most.
func number(values url.Values, key string, most int) (int, error) {
	value := values.Get(key)
	if value == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < 0 {
		return 0, badRequest("%s=%q: a number", key, value)
	}
	return min(n, most), nil
}

func badRequest(format string, args ...any) error {
	for i, arg := range args {
		if s, ok := arg.(string); ok {
			args[i] = fleet.Cut(s)
		}
	}
	return &fleet.Error{Kind: fleet.Terminal, Reason: ReasonBadRequest, Err: fmt.Errorf(format, args...)}
}
