// SPDX-License-Identifier: Apache-2.0

package readapi

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/flotilla-dev/flotilla/api/fleet"
)

// APIVersion is the first part of every path. Within it, fields are only ever added.
const APIVersion = "v1"

// Version of who answers.
type Version struct {
	// API is APIVersion.
	API string `json:"api"`
	// Member that answers.
	Member fleet.Name `json:"member"`
	// Agent's version, and that of the cluster it is in.
	Agent      string `json:"agent"`
	Kubernetes string `json:"kubernetes,omitempty"`
}

// List is what every list endpoint answers.
type List[T any] struct {
	Items []T `json:"items"`
}

// Rollout is all that one member knows of a rollout.
type Rollout struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Origin is the home: the fleet repository's URL, or the member it was written on.
	Origin string `json:"origin,omitempty"`
	// Revision of the payload that goes through the fleet, or went through it last; Subject is the
	// first line of its commit message, where it is known.
	Revision fleet.Revision `json:"revision,omitempty"`
	Subject  string         `json:"subject,omitempty"`
	// Author of the seal: "git", or the member that sealed it.
	Author string `json:"author,omitempty"`
	// Plan and Seal by digest; none where the rollout has no plan yet.
	Plan fleet.Digest `json:"plan,omitzero"`
	Seal fleet.Digest `json:"seal,omitzero"`
	// Number orders the seals of one author.
	Number uint64 `json:"number,omitempty"`
	// SeenFrom is the member that says all this.
	SeenFrom fleet.Name `json:"seenFrom"`
	Stages   []Stage    `json:"stages,omitempty"`
	// Members by stage and rank. Left out in lists.
	Members []Member `json:"members,omitempty"`
	// Stops in force: who paused it, and why.
	Stops      []Stop      `json:"stops,omitempty"`
	Conditions []Condition `json:"conditions,omitempty"`
}

// FullName is where the rollout is found in every member's API.
func (r *Rollout) FullName() fleet.RolloutName {
	return fleet.RolloutName{Namespace: r.Namespace, Name: r.Name}
}

// Condition of a type, or one of status Unknown where there is none.
func (r *Rollout) Condition(kind string) Condition {
	for _, c := range r.Conditions {
		if c.Type == kind {
			return c
		}
	}
	return Condition{Type: kind, Status: string(metav1.ConditionUnknown)}
}

// Stage of the plan, in counts.
type Stage struct {
	Name string `json:"name"`
	// Phase: Pending, Waiting, Progressing, Soaking, Complete or Failed.
	Phase string `json:"phase"`
	// Clusters of the stage; Succeeded includes those that soak or were sick after their success.
	Clusters    int `json:"clusters"`
	Succeeded   int `json:"succeeded"`
	Progressing int `json:"progressing"`
	Failed      int `json:"failed"`
	Degraded    int `json:"degraded"`
	Ineligible  int `json:"ineligible"`
	// MaxConcurrency and MaxUnavailable as numbers of clusters.
	MaxConcurrency int `json:"maxConcurrency"`
	MaxUnavailable int `json:"maxUnavailable"`
	// SoakSeconds that its clusters stay healthy before the next stage begins.
	SoakSeconds float64 `json:"soakSeconds"`
	// Because is the decision's sentence, while it waits or has failed.
	Because string `json:"because,omitempty"`
	// Names of at most 5 clusters that failed or that it waits for.
	Names []fleet.Name `json:"names,omitempty"`
}

// Member of a plan, as seen from SeenFrom.
type Member struct {
	Name fleet.Name `json:"name"`
	// Stage and Rank in it; rank 0 may start first.
	Stage string `json:"stage"`
	Rank  int    `json:"rank"`
	// State by the facts held: Pending, Progressing, Soaking, Complete, Failed, Ineligible or Degraded.
	State string `json:"state"`
	// Installed revision runs there, Accepted is the newest one verified there, by its own last word.
	Installed fleet.Revision `json:"installed,omitempty"`
	Accepted  fleet.Revision `json:"accepted,omitempty"`
	// Because is the decision's sentence about this member, from the facts held here.
	Because string `json:"because,omitempty"`
	// Phase and Says are the member's own last word, which may be older or newer than what is held here.
	Phase string `json:"phase,omitempty"`
	Says  string `json:"says,omitempty"`
	// HeardSeconds since its last heartbeat; absent where none was heard since this agent began.
	HeardSeconds *float64 `json:"heardSeconds,omitempty"`
	// Self: the member that answers.
	Self bool `json:"self,omitempty"`
	// Facts it signed about this plan, oldest first.
	Facts []Fact `json:"facts,omitempty"`
}

// Fact is a milestone that a member stated about itself.
type Fact struct {
	Kind string `json:"kind"`
	// Time on the member's own clock, for people.
	Time   time.Time `json:"time,omitzero"`
	Detail string    `json:"detail,omitempty"`
}

// Stop in force.
type Stop struct {
	// By is the member whose operator said it.
	By     fleet.Name `json:"by"`
	Reason string     `json:"reason,omitempty"`
	// Time on that member's clock, for people.
	Time time.Time `json:"time,omitzero"`
	// ID is the digest that a go names to lift it.
	ID fleet.Digest `json:"id,omitzero"`
}

// Condition of the object, as it is on the member that answers.
type Condition struct {
	Type    string `json:"type"`
	Status  string `json:"status"`
	Reason  string `json:"reason,omitempty"`
	Message string `json:"message,omitempty"`
}

// FleetMember is one member as another one knows it.
type FleetMember struct {
	Name   fleet.Name        `json:"name"`
	ID     fleet.MemberID    `json:"id"`
	Zone   string            `json:"zone,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
	// Self: the member that answers.
	Self bool `json:"self,omitempty"`
	// Connected: a connection is open now.
	Connected bool `json:"connected"`
	// HeardSeconds since its last heartbeat; absent where none was heard since this agent began.
	HeardSeconds *float64 `json:"heardSeconds,omitempty"`
	// Duplicate: two agents seem to use its key.
	Duplicate bool `json:"duplicate,omitempty"`
	// SameState: its last heartbeat held the same records as this member does.
	SameState         bool   `json:"sameState"`
	KubernetesVersion string `json:"kubernetesVersion,omitempty"`
	AgentVersion      string `json:"agentVersion,omitempty"`
}

// Explanation says why one member may or may not go now.
type Explanation struct {
	Member    fleet.Name `json:"member"`
	Namespace string     `json:"namespace"`
	Rollout   string     `json:"rollout"`
	// SeenFrom is the member whose facts were read.
	SeenFrom fleet.Name `json:"seenFrom"`
	// Verdict: Wait, Hold, Go, Done or Out; State as in Member.
	Verdict string `json:"verdict"`
	State   string `json:"state,omitempty"`
	// Sentence is the decision's own.
	Sentence string `json:"sentence"`
	// Runs is the revision that is installed and healed there; Revision the one that it is about.
	Runs     fleet.Revision `json:"runs,omitempty"`
	Revision fleet.Revision `json:"revision,omitempty"`
	// Checks in the order they are made.
	Checks []Check `json:"checks"`
	// Helps: what a person can do.
	Helps []string `json:"helps,omitempty"`
}

// Check is one thing that must hold.
type Check struct {
	OK   bool   `json:"ok"`
	Name string `json:"name"`
	Text string `json:"text"`
	// Since when, on the clock of whoever said it; absent where nobody did.
	Since time.Time `json:"since,omitzero"`
}

// Problem is the body of every answer that is not 200.
type Problem struct {
	Error string `json:"error"`
	// Hint says what a person can do; empty where the error says it all.
	Hint string `json:"hint,omitempty"`
}
